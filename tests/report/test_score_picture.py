"""The picture that ``ortsep score --picture`` draws."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.report.scores import draw_scores

pytest.importorskip("matplotlib")
FIGURES = {"sdr": 3.0, "frames_sdr": None, "bleedless": 40.0, "fullness": 20.0}


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_every_kind_is_drawn_and_shows_stems_and_models(kind: str, magic: bytes) -> None:
    stems = {stem: dict.fromkeys(("mixture", "ours", "ideal mask"), FIGURES) for stem in ("vocals", "drums")}
    document = {"models": ["ours"], "median": stems, "songs": [{"stems": stems}, {"stems": {}}]}
    data = draw_scores(document, kind)
    assert data.startswith(magic)
    if kind == "svg":
        assert all(f"<!-- {word} -->".encode() in data for word in ("vocals", "drums", "ours", "ideal mask"))


def test_the_command_draws_it_or_says_what_it_does_not_draw(tmp_path: Path) -> None:
    for name in ("mixture", "drums", "vocals"):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).uniform(-0.1, 0.1, (9000, 2)), 8000)
    command = [sys.executable, "-m", "ortsep.cli", "score", str(GRAPHS / "waves"), "--stems", str(tmp_path), "-q"]
    for name, status in (("scores.png", 0), ("scores.gif", 2)):
        done = subprocess.run(
            [*command, "--picture", str(tmp_path / name)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status and (tmp_path / name).exists() == (status == 0), done.stderr
    assert done.stdout == "" and "end its name with .png, .svg, .pdf" in done.stderr
