"""Measuring speed and memory: each run in a process of its own, sides interleaved, medians of ratios.

A worker loads a model, separates one file to files, and prints one JSON line; its peak memory is what the kernel
counted (``ru_maxrss``). A machine that drifts makes single times worthless; ratios of neighbouring runs hold.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.models.errors import OrtsepError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One worker's run: seconds to load, seconds from file to files, peak memory in MB, provider or framework."""

    side: str
    load: float
    seconds: float
    peak_mb: float
    backend: str


@dataclass(frozen=True)
class Summary:
    """Medians of one side."""

    side: str
    backend: str
    load: float
    seconds: float
    peak_mb: float
    real_time_factor: float


def run_worker(side: str, command: Sequence[str]) -> Run:
    """Run a worker to its end. Raises OrtsepError with the worker's last words where it fails."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            words = errors.read().strip().splitlines() or ["no message"]
            raise OrtsepError(f"the benchmark of {side} failed: {words[-1]}")
        result = json.loads(out.read().strip().splitlines()[-1])
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kB on Linux
    return Run(side, result["load"], result["seconds"], usage.ru_maxrss / scale, result["backend"])


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
            say(
                f"run {number + 1}/{runs} {side}: {run.seconds:.2f} s, peak {run.peak_mb:.0f} MB, load {run.load:.2f} s"
            )
    first, *others = commands
    medians = {side: _median(side, r, seconds) for side, r in made.items()}
    ratios = {
        other: {
            "time": statistics.median(a.seconds / b.seconds for a, b in zip(made[first], made[other], strict=True)),
            "peak": statistics.median(a.peak_mb / b.peak_mb for a, b in zip(made[first], made[other], strict=True)),
            "load": statistics.median(a.load / b.load for a, b in zip(made[first], made[other], strict=True)),
        }
        for other in others
    }
    return {"medians": {s: vars(m) for s, m in medians.items()}, "ratios": ratios, "runs": runs, "seconds": seconds}


def _median(side: str, runs: Sequence[Run], seconds: float) -> Summary:
    def middle(values: Sequence[float]) -> float:
        return float(statistics.median(values))

    took = middle([r.seconds for r in runs])
    load, peak = middle([r.load for r in runs]), middle([r.peak_mb for r in runs])
    return Summary(side, runs[0].backend, load, took, peak, took / seconds)


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


def worker(model: str, song: str, output: str, options: dict[str, Any]) -> None:
    """Separate one file with ortsep and print what it took."""
    began = time.perf_counter()
    from ortsep.options import Options
    from ortsep.separator import Separator
    from ortsep.songs import Files, separate_file

    separator = Separator(model, **options)
    provider = separator.provider
    loaded = time.perf_counter()
    separate_file(separator, song, Files(output=Path(output)), Options())
    done = time.perf_counter()
    print(json.dumps({"load": loaded - began, "seconds": done - loaded, "backend": provider}))


if __name__ == "__main__":
    worker(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
