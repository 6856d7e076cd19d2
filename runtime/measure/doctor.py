"""Does an execution provider work: loads, runs, equals the CPU, is faster? Measured on a golden input, not believed.

A provider is examined in a process of its own (``ortsep.base.apart``): one that crashes or hangs is a finding.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.apart import NoAnswer, ask
from ortsep.base.arrays import F32
from ortsep.base.decibels import PERFECT, snr
from ortsep.base.whole import scratch
from ortsep.engine.chunks import make_plan
from ortsep.engine.network import Graphs, Network
from ortsep.graphs.model import Model
from ortsep.graphs.providers import LOWER, PROVIDERS, WHOLE, Verdict, provider_options
from ortsep.graphs.session import FIXED, fix_batch
from ortsep.graphs.tuned import EXACT

Feeds = Mapping[str, npt.NDArray[Any]]
Counts = tuple[int | None, int | None, int | None]
Open = Callable[[Path, str, Mapping[str, str], Path | None], Any]
"""Opens a graph on a provider (both by ONNX Runtime's names) with its options; profiles into a file of that prefix."""

PROBE = Path(__file__).with_name("probe.onnx")
"""A small graph for when no model is named: convolutions and a SiLU on [1, 4, 64, 64] (tests/data/make_probe.py)."""
GATE = 60.0
"""dB against the CPU below which a provider counts as wrong, unless ``LOWER`` has another."""
PATIENCE = 900.0
"""Seconds until a provider counts as hanging: CoreML compiles a large graph for minutes."""


def short_name(provider: str) -> str:
    """ortsep's name of a provider, which is given by that or by ONNX Runtime's name."""
    if provider in PROVIDERS:
        return provider
    known = {full: name for name, full in PROVIDERS.items() if name not in LOWER}
    return known.get(provider) or provider.removesuffix("ExecutionProvider").lower()


def golden_feeds(model: Model) -> tuple[Path, dict[str, npt.NDArray[Any]]]:
    """The first graph of a model and a seeded input for it: one chunk of noise, or one block of magnitudes.

    By the graph's own names, axes and types, whosever it is.
    """
    graphs = Graphs(model, provider="cpu")
    ours = _our_feeds(model, Network(graphs, model.spec.given))
    first = model.members[0]
    return model.file(first), graphs.session(first).given(ours)


def _our_feeds(model: Model, network: Network) -> dict[str, F32]:
    spec, noise = model.spec, np.random.default_rng(0)
    if spec.blocks is not None and spec.domain == "magnitude":
        assert spec.stft is not None
        shape = (1, spec.channels, spec.stft.bins, spec.blocks.frames)
        return {"magnitude": np.abs(noise.standard_normal(shape)).astype(np.float32)}
    if spec.bands is not None:
        shape = (1, 2, spec.bands.bins, spec.bands.window)
        return {"magnitude": noise.uniform(0, 1, shape).astype(np.float32)}
    assert spec.chunks is not None
    plan = make_plan(spec.chunks.length, spec.chunks)
    length = network.reading(next(plan.chunks()), plan.segment).length
    mix = noise.standard_normal((spec.channels, length)).astype(np.float32) * np.float32(0.1)
    return network.example(mix)


def open_session(
    graph: Path, provider: str, options: Mapping[str, str], profile: Path | None, feeds: Feeds | None = None
) -> Any:
    """An ONNX Runtime session on ``provider``, with the CPU behind it; for ``feeds`` where it needs to know sizes."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile)
    names: list[Any] = [(provider, dict(options))]
    if provider != PROVIDERS["cpu"]:
        names.append(PROVIDERS["cpu"])
    if provider in {PROVIDERS[name] for name in WHOLE}:
        fixed = provider in {PROVIDERS[name] for name in FIXED}
        sizes = {name: dict(enumerate(value.shape)) for name, value in (feeds or {}).items()} if fixed else {}
        fix_batch(settings, graph, sizes)
    return ort.InferenceSession(str(graph), settings, names)


def examine(
    graph: Path,
    provider: str,
    feeds: Feeds,
    *,
    judge_speed: bool = True,
    runs: int = 3,
    opener: Open | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Verdict:
    """Try ``provider`` (ortsep's name or ONNX Runtime's) on ``graph`` against the CPU. What goes wrong is the reason.

    One that computes in float32 is usable from ``EXACT`` dB on. ``judge_speed``: a provider slower than the CPU is not.
    """
    opener = opener or partial(open_session, feeds=feeds)
    name = short_name(provider)
    provider, gate = PROVIDERS.get(name, provider), LOWER.get(name, GATE)
    verdict = Verdict(name, installed=True)
    cpu = opener(graph, PROVIDERS["cpu"], {}, None)
    expected = cpu.run(None, dict(feeds))
    options = provider_options(name, graph)
    try:
        device = opener(graph, provider, options, None)
    except Exception as error:
        return replace(verdict, loads=False, reason=f"does not load ({_line(error)})")
    if provider not in device.get_providers():
        return replace(verdict, loads=False, reason="does not load: its libraries or its device are missing")
    device.disable_fallback()
    try:
        given = device.run(None, dict(feeds))
    except Exception as error:
        return replace(verdict, loads=True, runs=False, reason=f"does not run ({_line(error)})")
    decibels = min(_agreement(e, g) for e, g in zip(expected, given, strict=True))
    verdict = replace(verdict, loads=True, runs=True, correct=decibels >= gate, snr_db=round(decibels, 1))
    times: dict[str, list[float]] = {"cpu": [], "device": []}
    for _ in range(runs):
        for side, session in (("cpu", cpu), ("device", device)):
            began = clock()
            session.run(None, dict(feeds))
            times[side].append(clock() - began)
    seconds, cpu_seconds = statistics.median(times["device"]), statistics.median(times["cpu"])
    verdict = replace(verdict, seconds=round(seconds, 6), cpu_seconds=round(cpu_seconds, 6))
    nodes, of_nodes, partitions = _partitions(graph, provider, options, feeds, opener)
    verdict = replace(verdict, nodes=nodes, of_nodes=of_nodes, partitions=partitions)
    if not verdict.correct:
        return replace(verdict, reason=f"computes wrongly ({decibels:.0f} dB against the CPU, {gate:.0f} are needed)")
    if name not in LOWER and decibels < EXACT:
        return replace(verdict, reason=f"is less exact than float32 ({decibels:.0f} dB of the CPU, not {EXACT:.0f})")
    if verdict.nodes == 0:
        return replace(verdict, reason="takes no node of the graph")
    if judge_speed and name != "cpu" and seconds >= cpu_seconds:
        return replace(verdict, reason=f"is slower ({seconds:.3f} s a run against {cpu_seconds:.3f} s on the CPU)")
    return replace(verdict, usable=True)


def _agreement(expected: npt.NDArray[Any], given: npt.NDArray[Any]) -> float:
    return snr(expected, given) if expected.shape == given.shape else -PERFECT


def _partitions(graph: Path, provider: str, options: Mapping[str, str], feeds: Feeds, opener: Open) -> Counts:
    """``count_nodes`` of a profiled run; nothing where there is no profile."""
    try:
        with scratch("ortsep") as folder:
            session = opener(graph, provider, options, folder / "profile")
            session.run(None, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            return count_nodes(events, provider)
    except Exception:
        return None, None, None


def count_nodes(events: Sequence[Mapping[str, Any]], provider: str) -> Counts:
    """Nodes that the provider ran, of how many, in how many pieces, from the events of ONNX Runtime's profile."""
    order: dict[str, str] = {}
    for event in sorted(events, key=lambda e: e.get("ts", 0)):
        owner = event.get("args", {}).get("provider")
        if event.get("cat") == "Node" and owner and str(event.get("name", "")).endswith("_kernel_time"):
            order.setdefault(event["name"], owner)
    if not order:
        return None, None, None
    mine = [owner == provider for owner in order.values()]
    starts = sum(here and not before for before, here in zip([False, *mine], mine, strict=False))
    return sum(mine), len(mine), starts


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def examine_apart(
    graph: Path, provider: str, feeds: Feeds, *, judge_speed: bool, runs: int = 3, patience: float = PATIENCE
) -> Verdict:
    """``examine`` in a process of its own."""
    verdict = Verdict(short_name(provider), installed=True)
    with scratch("ortsep") as folder:
        golden = folder / "golden.npz"
        arrays: dict[str, Any] = dict(feeds)
        np.savez(golden, **arrays)
        try:
            found = ask(__name__, graph, provider, golden, int(judge_speed), runs, patience=patience)
        except NoAnswer as error:
            what = {"hung": "hangs", "crashed": "crashes", "failed": "can't be examined"}[error.how]
            return replace(verdict, reason=f"{what} ({error})")
    return Verdict(**found)


def answer(graph: str, provider: str, golden: str, judge_speed: str, runs: str) -> dict[str, Any]:
    """``examine`` with the feeds in a file, for ``examine_apart``."""
    with np.load(golden) as feeds:
        return asdict(examine(Path(graph), provider, dict(feeds), judge_speed=judge_speed == "1", runs=int(runs)))


def probe_feeds() -> dict[str, F32]:
    """The golden input of ``PROBE``."""
    return {"x": np.random.default_rng(1).standard_normal((1, 4, 64, 64)).astype(np.float32)}
