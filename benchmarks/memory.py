"""Peak memory by length of song: `python benchmarks/memory.py [MODEL...] [--minutes 3 30 180]`.

Each run is a process of its own that tells its peak. Without MODEL the small graphs of the tests
are taken, one of each domain: their networks are nothing, so that what grows would be ours. Songs are seeded noise at
the model's rate, made on the fly and deleted. Exits with 1 where a peak grows by more than 5% and 30 MB.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from ortsep.base.apart import command
from ortsep.graphs.model import load_model
from ortsep.measure.bench import run_worker

GRAPHS = Path(__file__).parents[1] / "tests" / "data" / "graphs"
SMALL = [str(GRAPHS / name) for name in ("waves", "hybrid", "complex", "ratio", "masks", "wiener", "bag")]


def make_song(path: Path, minutes: float, rate: int) -> None:
    """Noise whose level wanders, 16 bits, stereo; RF64 beyond 4 GiB."""
    rng, left = np.random.default_rng(0), round(minutes * 60 * rate)
    with soundfile.SoundFile(path, "w", rate, 2, format="RF64", subtype="PCM_16") as file:
        while left > 0:
            block = rng.integers(-(1 << 14), 1 << 14, (min(left, 60 * rate), 2), dtype=np.int16)
            file.write(block >> np.int16(rng.integers(0, 6)))
            left -= len(block)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=SMALL)
    parser.add_argument("--minutes", nargs="+", type=float, default=[3, 30, 180])
    parser.add_argument("--options", default="{}", help="keyword arguments of Separator, as JSON")
    parser.add_argument("--folder", help="for songs and stems; the system's temporary folder by default")
    arguments = parser.parse_args()
    worst = 0
    print(f"{'model':<12} {'domain':<10}" + "".join(f"{m:>10g} min" for m in arguments.minutes) + "   growth")
    for reference in arguments.models:
        spec = load_model(reference).spec
        peaks: list[float] = []
        print(f"{spec.name:<12} {spec.domain:<10}", end="", flush=True)
        for minutes in arguments.minutes:
            folder = Path(tempfile.mkdtemp(prefix="ortsep-memory-", dir=arguments.folder))
            try:
                make_song(folder / "song.wav", minutes, spec.sample_rate)
                worker = ("ortsep.measure.bench", reference, folder / "song.wav", folder / "out", arguments.options)
                peaks.append(run_worker(spec.name, command(*worker)).peak_mb)
                print(f"{peaks[-1]:>11.1f} MB", end="", flush=True)
            finally:
                shutil.rmtree(folder)
        growth = max(peaks) - peaks[0]
        bad = growth > max(30.0, 0.05 * peaks[0])
        worst |= bad
        print(f"   {growth:+.1f} MB{'  GROWS' if bad else ''}", flush=True)
    print(json.dumps({"flat": not worst}))
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
