"""Graphs of MDX23C and SCNet at their published sizes beside torch: CPU seconds and peak of a chunk, and what is exact.

    $ python benchmarks/msst_graphs.py mdx23c:drumsep scnet:small [--runs 3] [--threads 2] [--exact]

One process a run, both sides in turn; the ratios are medians over neighbouring runs. CPU seconds, since another
program's load would spoil the clock. ``--exact`` runs the network in float64 too (twice the memory) and holds the graph
to 1.5 dB below torch's float32 (MDX23C) or to 110 dB (SCNet); the exit status says whether all held.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.base import memory
from ortsep.base.decibels import snr

MOST_BELOW, GATE = 1.5, 110.0


def original(name: str) -> Any:
    """The model with random weights; torch comes with it, which ortsep's own worker must not pay for."""
    from ortsep.export.family import Choice, load_original
    from ortsep.export.msst import SpectralNetwork
    from ortsep.models.catalogue import find_card

    loaded = load_original(find_card(name), Choice(seed=0))
    assert isinstance(loaded, SpectralNetwork), f"{name} is neither MDX23C nor SCNet"
    return loaded


def chunk(model: Any) -> dict[str, Any]:
    """A graph's inputs for a chunk of noise."""
    noise = np.random.default_rng(0).standard_normal((2, model.settings.chunk)).astype(np.float32)
    inputs: dict[str, Any] = model.example(0, noise * np.float32(0.1))
    return inputs


def work(side: str, name: str, threads: int, folder: Path) -> None:
    """One side's run, in a process of its own; prints its figures. The side ``make`` makes what the others take."""
    if side == "make":
        from ortsep.export.graph.files import save_model

        model = original(name)
        save_model(next(iter(model.graphs()))[1], folder / "graph.onnx")
        np.savez(folder / "inputs.npz", **chunk(model))
        print(json.dumps([0.0, 0.0]))
        return
    inputs = dict(np.load(folder / "inputs.npz"))
    if side == "ortsep":
        from ortsep.base import heap
        from ortsep.graphs.session import Session

        heap.give_back()  # as the commands do

        session = Session(folder / "graph.onnx", provider="cpu", threads=threads)
        began = time.process_time()
        out = session.run(inputs)[0]
    else:
        import torch

        torch.set_num_threads(threads)
        network = original(name).forward(torch.float64 if side == "exact" else torch.float32)
        x = torch.from_numpy(inputs["spectrum"])
        x = x.double() if side == "exact" else x
        began = time.process_time()
        with torch.inference_mode():
            out = network(x).numpy()
    took = time.process_time() - began
    np.save(folder / f"{side}.npy", out)
    print(json.dumps([took, memory.peak() / 1e6]))


def run(side: str, name: str, threads: int, folder: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, "--worker", side, "--threads", str(threads), "--folder", str(folder), name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def compare(name: str, runs: int, threads: int, exact: bool) -> bool:
    """Measure one model and print its lines. What is printed comes from workers alone: a process begins with the peak
    of the one that started it, so this one stays small."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run("make", name, threads, folder)
        pairs = [(run("ortsep", name, threads, folder), run("torch", name, threads, folder)) for _ in range(runs)]
        time_, peak = (statistics.median(a[k] / b[k] for a, b in pairs) for k in (0, 1))
        mine, theirs = (tuple(statistics.median(p[s][k] for p in pairs) for k in (0, 1)) for s in (0, 1))
        print(f"{name:<24} ortsep {mine[0]:6.2f} s {mine[1]:5.0f} MB   torch {theirs[0]:6.2f} s {theirs[1]:5.0f} MB")
        print(f"{'':<24} ratio of time {time_:.2f}, of peak {peak:.2f}", flush=True)
        if not exact:
            return True
        run("exact", name, threads, folder)
        reference = np.load(folder / "exact.npy", mmap_mode="r")
        graph, single = (snr(reference, np.load(folder / f"{side}.npy")) for side in ("ortsep", "torch"))
        print(f"{'':<24} against float64: graph {graph:.1f} dB, torch float32 {single:.1f} dB", flush=True)
        return graph >= (GATE if name.startswith("scnet") else single - MOST_BELOW)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.models[0], given.threads, given.folder)
        return 0
    held = [compare(name, given.runs, given.threads, given.exact) for name in given.models]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
