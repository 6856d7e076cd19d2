"""Measuring speed and memory: each run in a process of its own, sides interleaved, medians of ratios.

A worker (``ortsep.base.apart``) loads a model, separates one file to files, and answers what that took, its own peak
memory too. A machine that drifts makes single times worthless; ratios of neighbouring runs hold.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.base import memory
from ortsep.base.apart import NoAnswer, answer_of
from ortsep.base.errors import OrtsepError

Say = Callable[[str], None]
RATIOS = {"time": "seconds", "peak": "peak_mb", "cold_start": "cold_start", "first_stems": "first_stems"}
"""What is compared, and which of a run's figures it is."""


@dataclass(frozen=True)
class Run:
    """One worker's run.

    Seconds from the start of the process until the model is ready, and until the first samples of stems are written;
    from file to files; of these the seconds in which a graph ran (None for other frameworks); peak memory in MB;
    provider or framework.
    """

    side: str
    cold_start: float
    first_stems: float
    seconds: float
    graphs: float | None
    peak_mb: float
    backend: str


@dataclass(frozen=True)
class Summary:
    """Medians of one side, as Run has them; and of real time, the share that files to files and the graphs take."""

    side: str
    backend: str
    cold_start: float
    first_stems: float
    seconds: float
    graphs: float | None
    peak_mb: float
    real_time_factor: float
    graphs_real_time_factor: float | None


def run_worker(side: str, command: Sequence[str]) -> Run:
    """Run a worker to its end. Raises OrtsepError with the worker's last words where it fails."""
    began = time.time()
    said = _answer(side, command)
    ready, first, seconds = (said[key] - start for key, start in (("ready", began), ("first", began), ("seconds", 0.0)))
    return Run(side, ready, first, seconds, said.get("graphs"), said["peak_mb"], said["backend"])


def _answer(side: str, command: Sequence[str]) -> dict[str, Any]:
    try:
        said: dict[str, Any] = answer_of(command)
    except NoAnswer as error:
        raise OrtsepError(f"the benchmark of {side} failed: {error}") from error
    return said


def measure(
    ours: Sequence[str], others: Mapping[str, Sequence[str]], runs: int, seconds: float, say: Say
) -> dict[str, Any]:
    """``compare`` for ortsep's worker and others, how soon a stream gives stems (``stream``, of
    ``ortsep.measure.latency``), and how much of the cores' matrix products the graphs reach.

    ``gflop`` are the operations of the graphs for this song on the CPU, ``ceiling`` the GFLOP/s of float32 products
    between the runs, ``shares`` what is reached of it in the time of the graphs and from file to files; None where the
    provider is another, or the song too long to count.
    """
    from ortsep.measure.gauge import ceiling

    rates = [ceiling()]
    result = compare({"ortsep": ours, **others}, runs, seconds, say)
    rates.append(ceiling())
    median, mine = statistics.median(rates), result["medians"]["ortsep"]
    stream = _answer("ortsep", [*ours, "stream"])
    counted: dict[str, Any] = {"gflop": None, "ceiling": median, "shares": None}
    if mine["backend"] == "cpu":
        gflop = _answer("ortsep", [*ours, "count"])["operations"] / 1e9
        if np.isfinite(gflop):
            shares = {"graphs": gflop / mine["graphs"] / median, "end_to_end": gflop / mine["seconds"] / median}
            counted |= {"gflop": gflop, "shares": shares}
    return {**result, "stream": stream, **counted}


def compare(commands: Mapping[str, Sequence[str]], runs: int, seconds: float, say: Say) -> dict[str, Any]:
    """Run all sides ``runs`` times, interleaved; the first is what the others are compared with.

    Gives medians by side, and for each further side the median ratio of first to it, run by run (below 1: the first is
    faster, or smaller).
    """
    made: dict[str, list[Run]] = {side: [] for side in commands}
    for number in range(runs):
        for side, command in commands.items():
            run = run_worker(side, command)
            made[side].append(run)
            figures = f"{run.seconds:.2f} s, peak {run.peak_mb:.0f} MB, cold start {run.cold_start:.2f} s"
            say(f"run {number + 1}/{runs} {side}: {figures}")
    first, *others = commands
    medians = {side: _median(side, r, seconds) for side, r in made.items()}
    ratios = {
        other: {
            name: statistics.median(
                getattr(a, key) / getattr(b, key) for a, b in zip(made[first], made[other], strict=True)
            )
            for name, key in RATIOS.items()
        }
        for other in others
    }
    return {"medians": {s: vars(m) for s, m in medians.items()}, "ratios": ratios, "runs": runs, "seconds": seconds}


def _median(side: str, runs: Sequence[Run], seconds: float) -> Summary:
    def middle(values: Sequence[float]) -> float:
        return float(statistics.median(values))

    keys = ("seconds", "cold_start", "first_stems", "peak_mb")
    took, cold, first, peak = (middle([getattr(r, key) for r in runs]) for key in keys)
    known = [r.graphs for r in runs if r.graphs is not None]
    graphs = middle(known) if known else None
    factor = None if graphs is None else graphs / seconds
    return Summary(side, runs[0].backend, cold, first, took, graphs, peak, took / seconds, factor)


def noise_song(path: Path, seconds: float, rate: int = 44100, channels: int = 2) -> None:
    """A seeded noise file, for want of a song: what is in a song does not change how long it takes."""
    import soundfile

    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, channels, subtype="FLOAT") as file:
        left = round(seconds * rate)
        while left > 0:
            block = rng.standard_normal((min(left, rate), channels)) * 0.1
            file.write(block.astype(np.float32))
            left -= len(block)


def answer(model: str, song: str, output: str, options: str = "{}", what: str = "time") -> dict[str, Any]:
    """Separate one file with ortsep: what it took (time) or, on the CPU, the floating-point operations of the graphs
    (count); or how soon its stream gives stems (stream).

    ``options``: arguments of Separator in JSON.
    """
    works = {"time": _timed, "count": _counted, "stream": _streamed}
    return works[what](model, song, Path(output), json.loads(options))


def _timed(model: str, song: str, output: Path, options: dict[str, Any]) -> dict[str, Any]:
    from ortsep.base import heap
    from ortsep.measure.gauge import GraphTime
    from ortsep.options import Options
    from ortsep.separator import Separator
    from ortsep.songs import Files, separate_file

    heap.give_back()
    graphs = GraphTime()
    separator = Separator(model, **options, observer=graphs)
    provider = separator.provider
    ready, began = time.time(), time.perf_counter()
    report = separate_file(separator, song, Files(output=output), Options())
    took, peak = time.perf_counter() - began, memory.peak() / 1e6
    first = ready + report.first_stems
    return {
        "ready": ready,
        "first": first,
        "seconds": took,
        "graphs": graphs.seconds,
        "backend": provider,
        "peak_mb": peak,
    }


def _counted(model: str, song: str, output: Path, options: dict[str, Any]) -> dict[str, Any]:
    from ortsep.base.whole import scratch
    from ortsep.measure.gauge import Operations
    from ortsep.options import Options
    from ortsep.separator import Separator
    from ortsep.songs import Files, separate_file

    with scratch("ortsep-count") as folder:
        record = Operations(folder)
        separate_file(Separator(model, **options, observer=record), song, Files(output=output), Options())
        return {"operations": record.count()}


def _streamed(model: str, song: str, output: Path, options: dict[str, Any]) -> dict[str, Any]:
    from ortsep.measure.latency import Heed, latency
    from ortsep.separator import Separator
    from ortsep.songs.mixture import counted

    heed = Heed()
    return latency(Separator(model, **options, observer=heed), counted(song), heed)
