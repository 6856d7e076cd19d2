"""``python benchmarks/scheduling.py NAME [NAME ...] [--rounds 5]``: how chunks are best laid on the cores.

Each model is exported with random weights and its first graph given the same chunks in three ways: one at a time on
all cores; two as one batch on all cores, where the graph takes any batch; two in flight, each on half of the cores. A
way is a fresh process, the ways take turns in every round. Seconds are per chunk; medians of ratios to one at a time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ortsep.base import memory
from ortsep.base.arrays import F32
from ortsep.engine.network import Graphs, Network
from ortsep.graphs.model import load_model
from ortsep.graphs.session import Session

WAYS = ("one at a time", "batch of two", "two in flight")
CHUNKS = 6


def example(folder: Path) -> tuple[Path, dict[str, F32]]:
    """The first graph's file and noise for one chunk or block of it."""
    model = load_model(folder)
    spec, rng = model.spec, np.random.default_rng(0)
    if spec.domain == "magnitude":
        assert spec.stft is not None and spec.blocks is not None
        shape = (1, spec.channels, spec.stft.bins, spec.blocks.frames)
        return model.file(model.members[0]), {"magnitude": rng.random(shape, np.float32)}
    assert spec.chunks is not None
    mix = rng.standard_normal((spec.channels, spec.chunks.length), np.float32) * np.float32(0.3)
    return model.file(model.members[0]), Network(Graphs(model, threads=1), range(len(spec.stems))).example(mix)


def work(path: Path, feeds: Mapping[str, F32], way: str) -> dict[str, float]:
    """Seconds a chunk and peak memory of one way, after a chunk to warm up."""
    cores = len(os.sched_getaffinity(0))
    in_flight = way == "two in flight"
    session = Session(path, provider="cpu", threads=max(1, cores // 2) if in_flight else cores)
    if way == "batch of two":
        feeds = {name: np.concatenate([value, value]) for name, value in feeds.items()}
    session.run(feeds)
    calls = CHUNKS // 2 if way == "batch of two" else CHUNKS
    with ThreadPoolExecutor(2 if in_flight else 1) as pool:
        began = time.perf_counter()
        for done in [pool.submit(session.run, feeds) for _ in range(calls)]:
            done.result()
        took = time.perf_counter() - began
    return {"seconds": took / CHUNKS, "peak": memory.peak() / 1e6}


def possible(path: Path) -> list[str]:
    """The ways that a graph allows: some are made for one chunk at a time."""
    batch = Session(path, provider="cpu").inputs[0].shape[0]
    return [way for way in WAYS if way != "batch of two" or not isinstance(batch, int)]


def measure(name: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ortsep-bench-") as place:
        folder = Path(place) / "model"
        export = [sys.executable, "-m", "ortsep.cli", "export", name, "--weights", "random", "-o", str(folder)]
        subprocess.run(export, check=True, capture_output=True)
        path, feeds = example(folder)
        np.savez(Path(place) / "feeds.npz", **feeds)  # type: ignore[arg-type]
        made: dict[str, list[dict[str, float]]] = {way: [] for way in possible(path)}
        for _ in range(rounds):
            for way in made:
                command = [sys.executable, __file__, "--worker", str(path), str(Path(place) / "feeds.npz"), way]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                made[way].append(json.loads(done.stdout.splitlines()[-1]))
    first = made[WAYS[0]]
    for way, runs in made.items():
        seconds, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "peak"))
        ratio = statistics.median(r["seconds"] / f["seconds"] for r, f in zip(runs, first, strict=True))
        print(f"{name:<28} {way:<15} {seconds:>8.3f} {ratio:>6.2f} {peak:>8.0f}", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        path, stored, way = sys.argv[2:]
        print(json.dumps(work(Path(path), dict(np.load(stored)), way)))
        return
    parser = argparse.ArgumentParser(description="How chunks are best laid on the cores.")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'model':<28} {'way':<15} {'s/chunk':>8} {'ratio':>6} {'peak MB':>8}")
    for name in arguments.names:
        measure(name, arguments.rounds)


if __name__ == "__main__":
    main()
