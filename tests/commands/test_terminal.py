"""Commands typed into a terminal: what is drawn there is seen by nobody whose standard error is a file."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS
from terminal import typed

ORTSEP = [sys.executable, "-m", "ortsep.cli"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    noise = 0.1 * np.random.default_rng(0).standard_normal((16000, 2)).astype(np.float32)
    for name in ("song.wav", "[brackets] and spaces.wav"):
        soundfile.write(tmp_path / name, noise, 8000, subtype="FLOAT")
    shutil.copytree(GRAPHS, tmp_path / "models" / "exported")
    return tmp_path


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_run_draws_and_separates(place: Path, columns: int, term: str) -> None:
    songs = ["song.wav", "[brackets] and spaces.wav"]
    done = typed([*ORTSEP, "run", "waves", *songs], cwd=place, columns=columns, env={"TERM": term})
    assert done.status == 0, done.text
    assert "unexpected" not in done.text
    for song in songs:
        assert f"{song}: drums, vocals ->" in done.text
        assert (place / "separated" / "waves" / Path(song).stem / "drums.wav").exists()
