"""Seconds from SIGINT or SIGTERM to the end: `python benchmarks/interruptions.py [--model M] [--export NAME]`.

A command is interrupted at random moments of its life, ``--count`` times in each of these states: `run` (loading,
decoding, running, writing), `jobs` (a batch in processes), `stdin` (waiting for a song that does not come), `stdout`
(a reader that does not read), and with ``--export`` also `export` and `validate` of that model with random weights.
The process must end with status 130 (or, while it imports, by the signal itself), without a traceback, and leave no
temporary file, no incomplete stem, and no process. Exits with 1 where one does not, or takes 2 s or more. The signal
comes no earlier than 0.1 s: before, it is Python that starts, not ortsep.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

GRAPHS = Path(__file__).parents[1] / "tests" / "data" / "graphs"
LIMIT = 2.0


@dataclass(frozen=True)
class State:
    """A command and what it is connected to; ``within``: the seconds in which the signal comes."""

    name: str
    arguments: list[str]
    within: float
    pipes: bool = False
    before: list[str] = field(default_factory=list)


def states(model: str, export: str | None, threads: str, within: float) -> list[State]:
    run = ["run", model, "--threads", threads, "-q"]
    found = [
        State("run", [*run, "song.wav", "-o", "out"], within),
        State("jobs", [*run, "song.wav", "again.wav", "--jobs", "2", "-o", "out"], within),
        State("stdin", [*run, "-", "-o", "out"], 1.5, pipes=True),
        State("stdout", [*run, "song.wav", "--stems", "STEM", "-o", "-"], within, pipes=True),
    ]
    if export is not None:
        made = ["export", export, "--weights", "random", "-o", "made", "-q"]
        found.append(State("export", made, within))
        found.append(State("validate", ["validate", "made"], within, before=made))
    return found


def interrupt(state: State, folder: Path, delay: float, number: signal.Signals) -> tuple[float, int, str]:
    """Seconds to the end of the last process, exit status, and stderr."""
    pipe = subprocess.PIPE if state.pipes else subprocess.DEVNULL
    command = [sys.executable, "-m", "ortsep", *state.arguments]
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=words, start_new_session=True)
        time.sleep(delay)
        assert process.poll() is None, f"{state.name} ended before it was interrupted; give a longer song or less time"
        sent = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: to the jobs too
        else:
            process.send_signal(number)
        process.wait()
        while group_lives(process.pid) and time.monotonic() - sent < 30:
            time.sleep(0.01)
        took = time.monotonic() - sent
        for end in (process.stdin, process.stdout):
            if end is not None:
                end.close()
        words.seek(0)
        return took, process.returncode, words.read()


def group_lives(group: int) -> bool:
    """Whether a process runs still of those that the command started."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    lines = (line.split() for line in listed.splitlines())
    return any(int(pgid) == group and not state.startswith("Z") for pgid, state in lines)


def remains(folder: Path) -> list[str]:
    """Temporary files, and stems: none was complete when the signal came."""
    found = [str(p) for p in folder.rglob("*") if p.name.endswith((".partial", ".wav"))]
    songs = {str(folder / "song.wav"), str(folder / "again.wav")}
    return [path for path in found if path not in songs]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--model", default=str(GRAPHS / "hybrid"))
    parser.add_argument("--export", help="a model of the catalogue")
    parser.add_argument("--states", nargs="+", help="only these")
    parser.add_argument("--within", type=float, default=4.0, help="seconds of its life in which a command is hit")
    parser.add_argument("--seconds", type=float, default=6000.0, help="of the song")
    parser.add_argument("--rate", type=int, default=8000)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from ortsep.graphs.model import load_model

    model = str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model
    stem = load_model(model).stems[0]
    rng, well = random.Random(arguments.seed), True
    with tempfile.TemporaryDirectory(prefix="ortsep-interruptions-") as name:
        folder = Path(name)
        os.environ["TMPDIR"] = str(folder)
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (round(arguments.seconds * arguments.rate), 2))
        soundfile.write(folder / "song.wav", noise, arguments.rate)
        (folder / "again.wav").symlink_to("song.wav")
        for state in states(model, arguments.export, arguments.threads, arguments.within):
            if arguments.states and state.name not in arguments.states:
                continue
            if state.before:
                subprocess.run([sys.executable, "-m", "ortsep", *state.before], cwd=folder, check=True)
            chosen = State(state.name, [stem if a == "STEM" else a for a in state.arguments], state.within, state.pipes)
            slowest, clean = 0.0, 0
            for k in range(arguments.count):
                number = (signal.SIGINT, signal.SIGTERM)[k % 2]
                delay = rng.uniform(0.1, state.within)
                took, status, words = interrupt(chosen, folder, delay, number)
                slowest = max(slowest, took)
                left = remains(folder)
                good = status in (130, -number) and not left and "Traceback" not in words
                clean += good
                if not good or took >= LIMIT:
                    told = f"{took:.2f} s, {status}, {left}, {words[-500:]}"
                    print(f"  {state.name}, {number.name} after {delay:.2f} s: {told}")
            row = f"{state.name:<9} {arguments.count} interruptions, {clean} clean, slowest exit {slowest:.2f} s"
            print(row, flush=True)
            well = well and clean == arguments.count and slowest < LIMIT
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
