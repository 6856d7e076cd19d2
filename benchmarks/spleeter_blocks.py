"""``python benchmarks/spleeter_blocks.py spleeter:2stems [--rounds 5]``: blocks a run and threads that are fastest.

The graph of random weights, each combination in a fresh process, all one after the other in every round: the median
time and CPU time of a block, their ratio to one block a run on all cores, and the process's own peak memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def worker(path: Path, blocks: int, threads: int) -> None:
    from ortsep.base import memory
    from ortsep.export.optimize import seeded_inputs
    from ortsep.graphs.session import Session

    (shape,) = (value.shape for value in seeded_inputs(path, {}).values())
    inputs = seeded_inputs(path, {"magnitude": (blocks, *shape[1:])})
    session = Session(path, provider="cpu", threads=threads)
    took, busy = [], []
    for _ in range(max(3, 12 // blocks)):
        began, used = time.perf_counter(), time.process_time()
        session.run(inputs)
        took.append((time.perf_counter() - began) / blocks)
        busy.append((time.process_time() - used) / blocks)
    print(
        json.dumps(
            {"wall": statistics.median(took[1:]), "cpu": statistics.median(busy[1:]), "peak": memory.peak() / 1e6}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="blocks a run and threads of Spleeter's graph")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    settings = [(blocks, threads) for threads in sorted({cores, 1}, reverse=True) for blocks in (1, 2, 4)]
    results: dict[tuple[int, int], list[dict[str, float]]] = {setting: [] for setting in settings}
    with tempfile.TemporaryDirectory() as folder:
        export = [
            sys.executable,
            "-m",
            "ortsep.cli",
            "export",
            arguments.model,
            "--weights",
            "random",
            "-q",
            "-o",
            folder,
        ]
        subprocess.run(export, check=True)
        (graph,) = Path(folder).glob("*.onnx")
        for _ in range(arguments.rounds):
            for setting in settings:
                command = [sys.executable, __file__, "--worker", str(graph), *map(str, setting)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results[setting].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'blocks':>6} {'threads':>7} {'ms a block':>10} {'ratio':>6} {'CPU ms':>7} {'peak MB':>8}")
    first = results[settings[0]]
    for (blocks, threads), made in results.items():
        wall, cpu, peak = (statistics.median(m[key] for m in made) for key in ("wall", "cpu", "peak"))
        ratio = statistics.median(m["wall"] / f["wall"] for m, f in zip(made, first, strict=True))
        print(f"{blocks:>6} {threads:>7} {wall * 1e3:>10.1f} {ratio:>6.2f} {cpu * 1e3:>7.1f} {peak:>8.0f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--worker", path, blocks, threads]:
            worker(Path(path), int(blocks), int(threads))
        case _:
            main()
