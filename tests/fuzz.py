"""Damaged files for every reader, by the hundred thousand: `python tests/fuzz.py [--inputs 1000000]`, or `make fuzz`.

Each number makes one input, of the reader whose turn it is, and always the same: a sound file with up to six changes.
An OrtsepError of one short line, or anything sound, is right. Whatever else comes, an input that takes longer than 20 s
or whose process grows beyond its bound, is told with its number, and the input is kept.

With --state FILE a run goes on where the last one ended, also after a crash: the input at which the process died is a
finding, and the next run begins behind it. --seconds bounds a run, --only names readers.
"""

import argparse
import faulthandler
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from fuzz_reader import Reader
from fuzz_readers import READERS

from ortsep.base.errors import OrtsepError

PATIENCE = 20
"""Seconds for an input."""
MOST = 8 << 30
"""Bytes of address space: ONNX Runtime's and torch's threads and arenas reserve some of it."""
GROWTH = 300
"""MB that an input may add to the process's peak."""
MEMORY = Path("/dev/shm")


def damage(rng: random.Random, original: bytes, words: tuple[bytes, ...]) -> bytes:
    """Up to six changes of bits, bytes, numbers, pieces and words, half of them near the beginning."""
    data = bytearray(original)
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 400))
        match rng.randrange(9):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                data[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
            case 3:
                del data[at : at + rng.randint(1, 64)]
            case 4:
                data[at:at] = rng.randbytes(rng.randint(1, 16))
            case 5:
                piece = data[at : at + rng.randint(1, 400)]
                data[at:at] = piece * rng.choice((1, 1, 2, 30))
            case 6:
                other = rng.randrange(len(data))
                length = rng.randint(1, 32)
                data[at : at + length] = data[other : other + length]
            case 7:
                data[at : at + rng.choice((0, 0, 1, 4))] = rng.choice(words)
            case _:
                if rng.random() < 0.3:
                    del data[at:]
    return bytes(data)


class Place:
    """Where the next run begins, and whose input this one is at: one line of one length, which a kill can't halve."""

    def __init__(self, state: Path | None) -> None:
        self._file = None if state is None else os.open(state, os.O_WRONLY | os.O_CREAT, 0o644)

    def tell(self, number: int, reader: str) -> None:
        if self._file is not None:
            os.pwrite(self._file, f"{number} {reader}".ljust(79).encode() + b"\n", 0)


def turns(readers: list[Reader]) -> list[Reader]:
    """Each reader as often as its weight says, spread evenly."""
    places = [((k + 0.5) / reader.weight, reader) for reader in readers for k in range(reader.weight)]
    return [reader for _, reader in sorted(places, key=lambda place: place[0])]


def one(reader: Reader, number: int, folder: Path) -> tuple[bytes, str]:
    """An input, and what is wrong with what came of it (nothing: "")."""
    rng = random.Random(f"{reader.name} {number}")
    data = damage(rng, rng.choice(reader.originals), reader.words)
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    wrong = ""
    ignored: list[str] = []  # what a callback of C raises is printed and goes on
    sys.unraisablehook = lambda raised: ignored.append(f"{raised.err_msg}: {raised.exc_value!r}")
    try:
        reader.read(folder, data)
    except OrtsepError as error:
        text = str(error)
        if len(text) > 1500 or "\n" in text:
            wrong = f"says {text[:300]!r}"
    except Exception as error:  # a finding, whatever it is
        wrong = f"{type(error).__name__}: {error}"
    wrong = wrong or "; ".join(ignored[:1])
    took, grown = time.monotonic() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1e3
    if not wrong and took > PATIENCE:
        wrong = f"took {took:.0f} s"
    if not wrong and grown > GROWTH:
        wrong = f"took {grown:.0f} MB"
    return data, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--state", type=Path)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "ortsep-fuzz")
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    readers = [reader for reader in READERS() if not given.only or reader.name in given.only]
    order, first, findings = turns(readers), given.first, 0
    if given.state is not None and given.state.is_file():
        before, at = given.state.read_text().split(maxsplit=1)
        first = int(before)
        if at.strip() != "-":
            print(f"FINDING {first} {at.strip()}: the process died", flush=True)
            first, findings = first + 1, 1
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))
    counts: Counter[str] = Counter()
    end, number = time.monotonic() + given.seconds, first
    place = Place(given.state)
    faulthandler.register(signal.SIGALRM, chain=True)  # a hang shows where it hangs, and ends the process
    # In memory where that is to be had: on a disk nine tenths of the time are the disk's.
    with tempfile.TemporaryDirectory(prefix="ortsep-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        tempfile.tempdir = name
        while number < given.inputs and time.monotonic() < end:
            reader = order[number % len(order)]
            place.tell(number, reader.name)
            signal.setitimer(signal.ITIMER_REAL, 3 * PATIENCE)
            data, wrong = one(reader, number, Path(name))
            signal.setitimer(signal.ITIMER_REAL, 0)
            counts[reader.name] += 1
            if wrong:
                findings += 1
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{reader.name}-{number}").write_bytes(data)
                print(f"FINDING {number} {reader.name}: {wrong[:600]}", flush=True)
            number += 1
            place.tell(number, "-")
    told = ", ".join(f"{reader} {count}" for reader, count in sorted(counts.items()))
    print(f"{number - first} inputs from {first}, {findings} findings: {told}", flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
