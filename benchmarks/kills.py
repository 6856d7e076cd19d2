"""Kill runs at random moments and look at what is left: `python benchmarks/kills.py [--kills 210]`.

A run of a small graph is killed with -9 somewhere between its start and its end, again and again in one folder. Every
file under a final name must then hold the stem that an undisturbed run writes, sample for sample. At the end a run with
--skip-existing must complete the folder and leave no temporary file of its dead predecessors. Exits with 1 where
anything of that fails.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

GRAPHS = Path(__file__).parents[1] / "tests" / "data" / "graphs"
FORMATS = (["--format", "wav"], ["--format", "wav", "--subtype", "16"], ["--format", "flac"])


def begin(model: str, song: Path, output: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "ortsep.cli", "run", model, str(song), "-o", str(output), "-q", *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def stems_in(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in folder.rglob("*") if p.suffix in (".wav", ".flac") and not p.name.startswith(".")}


def partials_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))


def incomplete(folder: Path, truth: dict[str, Path]) -> list[str]:
    """The files under final names that are not what they should be."""
    bad = []
    for name, path in stems_in(folder).items():
        try:
            same = np.array_equal(soundfile.read(path)[0], soundfile.read(truth[name])[0])
        except soundfile.LibsndfileError:
            same = False
        if not same:
            bad.append(str(path))
    return bad


def kill_runs(model: str, song: Path, folder: Path, kills: int, rng: random.Random) -> bool:
    """``kills`` kills, divided among the formats. True where all was well."""
    well, survived, with_partials, with_stems = True, 0, 0, 0
    for kind, more in enumerate(FORMATS):
        truth, output = folder / f"truth{kind}", folder / f"killed{kind}"
        began = time.monotonic()
        assert begin(model, song, truth, *more).wait() == 0
        whole = time.monotonic() - began
        for _ in range(len(range(kind, kills, len(FORMATS)))):
            process = begin(model, song, output, *more)
            time.sleep(rng.uniform(0.3, 1.02) * whole)
            process.kill()
            process.communicate()
            bad = incomplete(output, stems_in(truth))
            survived += not bad
            with_partials += bool(partials_in(output))
            with_stems += bool(stems_in(output))
            for path in bad:
                print(f"INCOMPLETE: {path}")
            if rng.random() < 0.5:  # half of the runs begin with nothing under a final name
                for path in stems_in(output).values():
                    path.unlink()
        process = begin(model, song, output, *more, "--skip-existing")
        process.communicate()
        complete = process.returncode == 0 and set(stems_in(output)) == set(stems_in(truth))
        clean = not partials_in(output) and not incomplete(output, stems_in(truth))
        print(f"{' '.join(more)}: the rerun completes: {complete}, is clean: {clean}")
        well = well and complete and clean
    print(
        f"kills survived: {survived} of {kills} ({with_partials} left temporary files, {with_stems} found whole stems)"
    )
    return well and survived == kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=210)
    parser.add_argument("--model", default=str(GRAPHS / "hybrid"))
    parser.add_argument("--rate", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the song that is killed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, noise = random.Random(arguments.seed), np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="ortsep-kills-") as name:
        folder = Path(name)
        song = noise.uniform(-0.5, 0.5, (round(arguments.seconds * arguments.rate), 2))
        soundfile.write(folder / "song.wav", song, arguments.rate)
        os.chdir(folder)
        return 0 if kill_runs(arguments.model, folder / "song.wav", folder, arguments.kills, rng) else 1


if __name__ == "__main__":
    sys.exit(main())
