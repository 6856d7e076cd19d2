"""What ``--contract waveform`` costs: a chunk with the STFT inside the graph beside the same chunk with it outside.

    $ python benchmarks/waveform.py drums_mini htdemucs [--runs 3] [--threads 2]

Random weights. A chunk of noise, in a process of its own a run, both sides in turn: ortsep's Separator on the usual
graphs, and the one graph in a session. CPU seconds and peak memory with medians of the ratios of neighbouring runs;
the sizes of the files; dB of the one against the other, which ``export`` measured.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ortsep.base import memory

SIDES = ("outside", "inside")
Figures = dict[str, float]


def make(name: str, folder: Path) -> Figures:
    from ortsep.export.family import Choice, load_original
    from ortsep.export.waveform import chunk_of_noise, parts_of, save_outside, write_waveform
    from ortsep.models.catalogue import find_card

    original = load_original(find_card(name), Choice(seed=0))
    save_outside(original.spec, *parts_of(original), folder / "outside")
    np.save(folder / "chunk.npy", chunk_of_noise(original.spec))
    _, made = write_waveform(original, folder / "inside")
    sizes = {side: sum(f.stat().st_size for f in (folder / side).glob("*.onnx")) / 1e6 for side in SIDES}
    return {**sizes, "db": made.validation[0].db}


def run(side: str, folder: Path, threads: int) -> Figures:
    chunk = np.load(folder / "chunk.npy")
    if side == "inside":
        from ortsep.graphs.session import Session

        session = Session(folder / side / "demucs.onnx", provider="cpu", threads=threads)
        began = time.process_time()
        session.run({"mix": chunk[None]})
    else:
        from ortsep.separator import Separator

        separator = Separator(folder / side, provider="cpu", threads=threads)
        assert separator.provider == "cpu"  # loads the graphs
        began = time.process_time()
        separator.separate(chunk, separator.spec.sample_rate)
    return {"seconds": time.process_time() - began, "peak": memory.peak() / 1e6}


def worker(*words: object) -> Figures:
    done = subprocess.run([sys.executable, __file__, *map(str, words)], check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(name: str, runs: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        common = ("--folder", folder, "--threads", threads, name)
        made = worker("--worker", "make", *common)
        both = [{side: worker("--worker", side, *common) for side in SIDES} for _ in range(runs)]
    for side in SIDES:
        seconds, peak = (statistics.median(run[side][key] for run in both) for key in ("seconds", "peak"))
        print(f"{name:<22} {side:<8} {seconds:7.2f} s {peak:6.0f} MB, file {made[side]:7.1f} MB")
    ratios = [statistics.median(r["inside"][key] / r["outside"][key] for r in both) for key in ("seconds", "peak")]
    print(
        f"{'':<22} inside takes {ratios[0]:.2f} of the time, {ratios[1]:.2f} of the peak; {made['db']:.1f} dB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=("make", *SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker == "make":
        print(json.dumps(make(given.models[0], given.folder)))
    elif given.worker:
        print(json.dumps(run(given.worker, given.folder, given.threads)))
    else:
        for name in given.models:
            compare(name, given.runs, given.threads)


if __name__ == "__main__":
    main()
