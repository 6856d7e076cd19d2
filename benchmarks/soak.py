"""One process for a long time: `python benchmarks/soak.py [--seconds 3600] [--model MODEL]`, or `make soak`.

Threads share a Separator and do what programs do to it: separate arrays and files, leave streams early, run out of
time, cancel each other's songs, and give it songs that are cut off, not finite, missing or no songs. Once a minute (or
ten times in all) threads, open files and resident memory are counted while everybody rests. Every result that is
complete is compared, bit by bit, with that of a quiet first run.

Exits with 1 where a result differs, where something else than an error in a sentence came out, or where the last third
has more threads or files than the second, or its memory grew by more than 5% and 20 MB. Counts need Linux's /proc.
"""

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from ortsep.base.cancel import Cancelled
from ortsep.base.errors import OrtsepError
from ortsep.base.heap import give_back
from ortsep.separator import Separator
from ortsep.songs.separate import Files, separate_file

MODEL = Path(__file__).parents[1] / "tests" / "data" / "graphs" / "hybrid"
WORKERS = 3


class Count(NamedTuple):
    """What the process holds at a moment of rest; memory in MB."""

    threads: int
    files: int
    memory: float


def count() -> Count:
    """By the kernel's own books."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    own = Path("/proc/self")
    return Count(len(list(own.joinpath("task").iterdir())), len(list(own.joinpath("fd").iterdir())), pages * 4096 / 1e6)


def make_songs(folder: Path, rate: int) -> dict[str, Path]:
    """One sound song and four that must fail."""
    x = np.random.default_rng(0).uniform(-0.3, 0.3, (2 * rate, 2)).astype(np.float32)
    paths = {name: folder / f"{name}.flac" for name in ("sound", "cut", "missing", "text")}
    soundfile.write(paths["sound"], x, rate, subtype="PCM_16")
    paths["cut"].write_bytes(paths["sound"].read_bytes()[:-3000])
    paths["text"].write_text("#EXTM3U\nsound.flac\n")
    x[rate, 1] = np.nan
    paths["not finite"] = folder / "not finite.wav"
    soundfile.write(paths["not finite"], x, rate, subtype="FLOAT")
    return paths


class Soak:
    """The shared Separator and what is done to it; ``done`` counts by kind, ``wrong`` is what must not be."""

    def __init__(self, model: str, folder: Path) -> None:
        self.folder = folder
        self.separator = Separator(model, provider="cpu", threads=1)
        self.rate = self.separator.spec.sample_rate
        self.songs = make_songs(folder, self.rate)
        self.mixture = soundfile.read(self.songs["sound"], dtype="float32")[0].T
        self.right = self.separator.separate(self.mixture, self.rate)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._numbers = itertools.count()

    def acts(self) -> dict[str, Callable[[random.Random], None]]:
        """What a worker chooses from."""
        return {
            "array": self.array,
            "early": self.early,
            "file": self.file,
            "timeout": self.timeout,
            "cancel": lambda _: self.separator.cancel(),
            **{name: self.failing(name) for name in self.songs if name != "sound"},
        }

    def array(self, rng: random.Random) -> None:
        stems = self.separator.separate(self.mixture, self.rate)
        if any(not np.array_equal(stems[name], self.right[name]) for name in self.right):
            self.wrong.append("an array's stems differ from the first run's")

    def early(self, rng: random.Random) -> None:
        blocks = self.separator.stream(self.mixture, sample_rate=self.rate)
        for _ in range(rng.randrange(3)):
            next(blocks)
        blocks.close()  # type: ignore[attr-defined]

    def file(self, rng: random.Random, song: str = "sound", timeout: float | None = None) -> None:
        output = self.folder / f"out{next(self._numbers)}"
        try:
            report = separate_file(self.separator, self.songs[song], Files(output=output), timeout=timeout)
            for name, path in report.stems.items():
                written = soundfile.read(str(path), dtype="float32", always_2d=True)[0].T
                if not np.array_equal(written, self.right[name]):
                    self.wrong.append("a file's stems differ from the first run's")
        finally:
            left = list(output.glob("**/*.partial"))
            if left:
                self.wrong.append(f"{left[0]} was left")
            shutil.rmtree(output, ignore_errors=True)

    def timeout(self, rng: random.Random) -> None:
        self.file(rng, timeout=rng.choice([1e-6, 0.003, 0.02, 0.1]))

    def failing(self, song: str) -> Callable[[random.Random], None]:
        def act(rng: random.Random) -> None:
            try:
                self.file(rng, song)
            except Cancelled:
                raise
            except OrtsepError:
                return
            self.wrong.append(f"the song that is {song} was separated")

        return act


def work(soak: Soak, seed: int, until: float) -> None:
    """A worker's turns between two counts."""
    rng, acts = random.Random(seed), soak.acts()
    while time.monotonic() < until:
        name = rng.choice(list(acts))
        try:
            acts[name](rng)
        except (OrtsepError, Cancelled) as error:
            soak.done[type(error).__name__] += 1
        except BaseException as error:
            soak.wrong.append(f"{name}: {type(error).__name__}: {error}")
        soak.done[name] += 1


def flat(counts: list[Count]) -> list[str]:
    """What grew between the second third and the last; the first one warms up."""
    third = max(1, len(counts) // 3)
    before, after = counts[third : 2 * third], counts[-third:]
    grown = []
    for name, few in (("threads", 0.0), ("files", 0.0), ("memory", 20.0)):
        old, new = (max(getattr(c, name) for c in part) for part in (before, after))
        if new > old + few and (name != "memory" or new > 1.05 * old):
            grown.append(f"{name} grew from {old:g} to {new:g}")
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--model", default=str(MODEL))
    given = parser.parse_args()
    give_back()
    counts: list[Count] = []
    with tempfile.TemporaryDirectory(prefix="ortsep-soak-") as folder:
        soak = Soak(given.model, Path(folder))
        turns = max(9, round(given.seconds / 60))
        for turn in range(turns):
            until = time.monotonic() + given.seconds / turns
            workers = [threading.Thread(target=work, args=(soak, turn * WORKERS + i, until)) for i in range(WORKERS)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            time.sleep(min(1.0, given.seconds / turns / 4))  # what was cancelled last comes to its end
            counts.append(count())
            print(f"{sum(soak.done.values()):8d} done  {counts[-1]}", flush=True)
    wrong: list[Any] = [*soak.wrong, *flat(counts)]
    print(", ".join(f"{name} {number}" for name, number in sorted(soak.done.items())))
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
