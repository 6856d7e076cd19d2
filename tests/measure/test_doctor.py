"""The doctor with providers that fail, fall back, compute wrongly or slowly, and what becomes of its verdicts."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from places import GRAPHS

from ortsep.commands.doctor import _examined, advice
from ortsep.graphs.model import load_model
from ortsep.graphs.providers import Verdict, choose_provider, provider_options, read_verdict, write_verdict
from ortsep.graphs.session import Session
from ortsep.measure.doctor import (
    PROBE,
    count_nodes,
    examine,
    examine_apart,
    golden_feeds,
    open_session,
    probe_feeds,
)
from ortsep.separator import Separator
from ortsep.songs import Files, separate_file

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
FEEDS = {"mix": np.random.default_rng(0).standard_normal((1, 2, 4000)).astype(np.float32)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Device:
    """A session on a device that isn't here: the CPU's answers, put through ``change``."""

    def __init__(self, graph: Path, change: Callable[[Any], Any], owner: str, profile: Path | None) -> None:
        self._cpu = open_session(graph, CPU, {}, None)
        self._change, self._owner, self._profile = change, owner, profile

    def get_providers(self) -> list[str]:
        return [self._owner, CPU] if self._owner != CPU else [CPU]

    def disable_fallback(self) -> None:
        pass

    def run(self, outputs: None, feeds: Any) -> list[Any]:
        return [self._change(y) for y in self._cpu.run(outputs, feeds)]

    def end_profiling(self) -> str:
        assert self._profile is not None
        owners = [CPU, self._owner, self._owner, CPU, self._owner]
        events = [
            {"cat": "Node", "name": f"n{k}_kernel_time", "ts": k, "args": {"provider": owner}}
            for k, owner in enumerate(owners)
        ]
        self._profile.write_text(json.dumps(events))
        return str(self._profile)


def opener(change: Callable[[Any], Any], owner: str = CUDA) -> Any:
    def open_(graph: Path, provider: str, options: Mapping[str, str], profile: Path | None) -> Any:
        if provider == CPU:
            return open_session(graph, CPU, {}, None)
        return Device(graph, change, owner, profile)

    return open_


def clock(device: float) -> Callable[[], float]:
    """The CPU takes 1 s a run, the device ``device`` s."""

    def ticks() -> Iterator[float]:
        now = 0.0
        while True:
            for took in (1.0, device):
                yield now
                now += took
                yield now

    return ticks().__next__


def verdict(change: Callable[[Any], Any] = lambda y: y, took: float = 0.5, owner: str = CUDA) -> Verdict:
    return examine(GRAPHS / "waves" / "waves.onnx", CUDA, FEEDS, opener=opener(change, owner), clock=clock(took))


def fail(y: Any) -> Any:
    raise RuntimeError("out of memory\nand more")


def test_a_good_provider() -> None:
    found = verdict()
    assert found.usable and found.loads and found.runs and found.correct and found.reason == ""
    assert (found.snr_db, found.seconds, found.cpu_seconds) == (999.0, 0.5, 1.0)
    assert (found.nodes, found.of_nodes, found.partitions) == (3, 5, 2)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (lambda: verdict(lambda y: y * 1.01), "wrongly (40 dB"),
        (lambda: verdict(lambda y: y * np.nan), "wrongly (-999 dB"),
        (lambda: verdict(lambda y: y[..., :-1]), "wrongly"),
        (lambda: verdict(took=1.5), "is slower (1.500 s a run against 1.000 s"),
        (lambda: verdict(fail), "does not run (out of memory)"),
        (lambda: verdict(owner=CPU), "does not load: its libraries"),
    ],
)
def test_a_provider_that_is_not_usable(found: Callable[[], Verdict], reason: str) -> None:
    made = found()
    assert not made.usable and reason in made.reason
    assert verdict(lambda y: y * np.float32(1 + 1e-6)).usable


def test_what_is_right_but_no_float32_is_not_for_auto() -> None:
    close = verdict(lambda y: y * (1 + 1e-4))
    assert close.correct and not close.usable and close.snr_db == pytest.approx(80, abs=0.2)
    assert close.reason == "is less exact than float32 (80 dB of the CPU, not 100)"


def test_a_provider_of_lower_precision_is_held_to_what_it_can_keep() -> None:
    graph = GRAPHS / "waves" / "waves.onnx"

    def found(provider: str, error: float) -> Verdict:
        change = opener(lambda y: y * (1 + error), owner=OPENVINO)
        return examine(graph, provider, FEEDS, opener=change, clock=clock(0.5))

    assert found("openvino-bf16", 1e-2).usable and found("openvino-bf16", 1e-2).provider == "openvino-bf16"
    assert "wrongly (20 dB against the CPU, 25 are needed)" in found("openvino-bf16", 0.1).reason
    assert "wrongly (40 dB against the CPU, 60 are needed)" in found("openvino", 1e-2).reason
    assert "wrongly (40 dB" in found(OPENVINO, 1e-2).reason and found(OPENVINO, 0).provider == "openvino"


def test_a_provider_that_does_not_load() -> None:
    def open_(graph: Path, provider: str, options: Any, profile: Path | None) -> Any:
        if provider == CPU:
            return open_session(graph, CPU, {}, None)
        raise RuntimeError("no libcudnn.so.9")

    found = examine(GRAPHS / "waves" / "waves.onnx", CUDA, FEEDS, opener=open_)
    assert found.loads is False and "libcudnn" in found.reason


def test_nodes_are_unknown_without_a_profile() -> None:
    assert count_nodes([], CUDA) == (None, None, None)
    found = count_nodes([{"cat": "Session"}, {"cat": "Node", "name": "a_fence", "args": {"provider": CUDA}}], CUDA)
    assert found == (None, None, None)


@pytest.mark.parametrize("name", ["waves", "hybrid", "complex", "wiener", "masks", "plain", "bag"])
def test_the_golden_input_fits_every_domain(name: str) -> None:
    graph, feeds = golden_feeds(load_model(GRAPHS / name))
    found = examine(graph, CPU, feeds, runs=1)
    assert found.usable and found.nodes == found.of_nodes and found.partitions == 1


def test_a_process_that_crashes_or_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert examine_apart(PROBE, CPU, probe_feeds(), judge_speed=False, runs=1).usable
    assert "hangs" in examine_apart(PROBE, CPU, probe_feeds(), judge_speed=False, patience=0.05).reason
    (tmp_path / "crash").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "crash").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "crash"))
    assert "crashes (signal 11)" in examine_apart(PROBE, CPU, probe_feeds(), judge_speed=False).reason


def test_auto_follows_the_verdicts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = tmp_path / "g.onnx"
    shutil.copy(GRAPHS / "waves" / "waves.onnx", graph)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CoreMLExecutionProvider", CPU])
    assert choose_provider("auto", graph)[:2] == ("cpu", "")
    write_verdict(graph, Verdict("coreml", installed=True, usable=True, snr_db=108.0))
    assert choose_provider("auto", graph)[:2] == ("coreml", "")
    write_verdict(graph, Verdict("coreml", installed=True, usable=True, snr_db=80.0))  # as was kept before
    assert choose_provider("auto", graph).provider == "cpu"
    assert "keeps 80 dB of the CPU, and 100 are needed" in choose_provider("auto", graph).reason
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    assert choose_provider("auto", graph)[:2] == ("cuda", "")
    write_verdict(graph, Verdict("cuda", installed=True, reason="computes wrongly"))
    assert choose_provider("auto", graph).provider == "cpu"
    assert "computes wrongly" in choose_provider("auto", graph).reason
    assert choose_provider("cuda", graph).provider == "cuda" and "wrongly" in choose_provider("cuda", graph).reason
    graph.write_bytes(graph.read_bytes() + b"\x12\x01x")
    assert choose_provider("auto", graph).provider == "cuda", "a verdict is of one graph only"


def test_less_than_float32_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = tmp_path / "g.onnx"
    shutil.copy(GRAPHS / "waves" / "waves.onnx", graph)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    assert choose_provider("auto", graph)[:2] == ("cpu", "")
    write_verdict(graph, Verdict("openvino-bf16", installed=True, usable=True, snr_db=108.0))
    assert choose_provider("auto", graph)[:2] == ("cpu", "")
    assert choose_provider("openvino-bf16", graph)[:2] == ("openvino-bf16", "")
    write_verdict(graph, Verdict("openvino", installed=True, usable=True, snr_db=108.0))
    assert choose_provider("auto", graph)[:2] == ("openvino", "")


def test_a_session_goes_by_the_name_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, real, asked = GRAPHS / "waves" / "waves.onnx", onnxruntime.InferenceSession, []

    def open_(path: str, options: Any, providers: list[Any]) -> Any:
        asked.append(providers[0])
        session = real(path, options, [CPU])
        session.get_providers = lambda: [OPENVINO, CPU]
        return session

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    for name, hint in {"openvino": "f32", "openvino-bf16": "bf16"}.items():
        assert Session(graph, provider=name, threads=3).provider == name
        full, options = asked.pop()
        assert full == OPENVINO and options["num_of_threads"] == "3" and options["device_type"] == "CPU"
        assert json.loads(options["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": hint}}


@pytest.mark.skipif(OPENVINO not in onnxruntime.get_available_providers(), reason="no OpenVINO in this onnxruntime")
def test_openvino_itself() -> None:
    for provider, least in {"openvino": 100, "openvino-bf16": 25}.items():
        found = examine(PROBE, provider, probe_feeds(), judge_speed=False)
        assert found.usable, found.reason
        assert found.snr_db is not None and found.snr_db >= least


def test_a_verdict_that_was_damaged_is_none(cache: Path) -> None:
    graph = GRAPHS / "waves" / "waves.onnx"
    write_verdict(graph, Verdict("cuda", usable=True))
    assert read_verdict(graph, "cuda") == Verdict("cuda", usable=True)
    (path,) = (cache / "doctor").iterdir()
    for text in ("", "[]", "{}", '{"provider": "cuda", "usable": 3}', '{"provider": "cpu"}', "[" * 10**5):
        path.write_text(text)
        assert read_verdict(graph, "cuda") is None


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_report_says_why_a_provider_was_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "song.wav", np.zeros((800, 2)), 8000)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    separator = Separator(GRAPHS / "waves")  # CUDA is said to be there and is not: ONNX Runtime falls back silently
    report = separate_file(separator, tmp_path / "song.wav", Files(tmp_path / "out"))
    assert report.provider == "cpu"
    assert any("cuda was not taken" in warning for warning in report.warnings)
    real = onnxruntime.InferenceSession

    def refuse(path: str, options: Any, providers: list[Any]) -> Any:
        if len(providers) > 1:
            raise RuntimeError("CUDA failure 35: driver too old")
        return real(path, options, providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    session = Session(GRAPHS / "waves" / "waves.onnx")
    assert session.provider == "cpu" and "driver too old" in session.reason


def test_options_that_matter(cache: Path) -> None:
    graph = GRAPHS / "waves" / "waves.onnx"
    coreml = provider_options("coreml", graph)
    assert coreml["ModelFormat"] == "MLProgram" and coreml["RequireStaticInputShapes"] == "1"
    assert Path(coreml["ModelCacheDirectory"]).parent == cache / "coreml"
    other = provider_options("coreml", GRAPHS / "plain" / "plain.onnx")
    assert coreml["ModelCacheDirectory"] != other["ModelCacheDirectory"]
    assert provider_options("cuda", graph)["use_tf32"] == "0"
    assert provider_options("cpu", graph, threads=2) == {}
    assert "num_of_threads" not in provider_options("openvino", graph)


def test_a_graph_in_pieces_is_better_exported_without_operators_of_its_own() -> None:
    model = load_model(str(GRAPHS / "hybrid"))
    own = replace(model, spec=replace(model.spec, portable=False))
    cut = Verdict("openvino", runs=True, partitions=11, usable=True)
    said = advice(own, [Verdict("cpu", runs=True, partitions=2), Verdict("cuda", runs=True, partitions=3), cut])
    assert said is not None and "openvino in 11 pieces" in said and "ortsep export hybrid --portable" in said
    assert advice(own, [replace(cut, partitions=1)]) is None
    assert advice(own, [replace(cut, partitions=None)]) is None
    assert advice(model, [cut]) is None
    assert advice(replace(own, described=False), [cut]) is None


def test_the_command(cache: Path) -> None:
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
    command = [sys.executable, "-m", "ortsep.cli", "doctor", "hybrid", "--json", "--runs", "1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = {p["provider"]: p for p in document["providers"]}
    assert found["cpu"]["usable"] and found["cpu"]["snr_db"] == 999.0
    assert set(found) >= {"cpu", "cuda", "coreml", "openvino", "openvino-bf16"} and document["auto"] == "cpu"
    assert "WAV" in document["decoders"]["libsndfile"] and document["packages"]
    assert read_verdict(GRAPHS / "hybrid" / "hybrid.onnx", "cpu") is not None


def test_a_provider_of_whole_graphs_is_not_tried_on_one_that_runs_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole it may be faster, which says nothing of how the model runs."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    monkeypatch.setattr("ortsep.measure.doctor.examine_apart", lambda *_, **__: pytest.fail("it was examined"))
    found = _examined("openvino", GRAPHS / "wiener" / "wiener.onnx", {}, True, 1, parts=True)
    assert not found.usable and found.reason == "takes nothing of a graph that runs in parts"
