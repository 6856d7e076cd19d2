"""The command line of drum services: one JSON document whatever happens, and no silent stand-in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.models.catalogue import BUNDLED
from ortsep.songs.drums import drum_models

STEMS = ["kick", "snare", "toms", "hihat", "cymbals"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTSEP_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    x = np.random.default_rng(0).uniform(-0.3, 0.3, (22050, 2)).astype(np.float32)
    soundfile.write(tmp_path / "drums.wav", x, 44100, subtype="FLOAT")
    return tmp_path


def lars(home: Path, *arguments: str) -> tuple[int, Any, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ortsep", "lars", *arguments],
        cwd=home,
        env={**os.environ, "ORTSEP_MODELS": str(home / "models")},
        capture_output=True,
        text=True,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def song_model(home: Path, name: str) -> None:
    """Something that is called so and has a stem of drums."""
    shutil.copytree(GRAPHS / "waves", home / "models" / name)


def test_the_answer_says_what_stood_in_for_larsnet(home: Path) -> None:
    status, answer, told = lars(
        home, "separate", "--input", "drums.wav", "--output-dir", "out", "--stems", "kick,snare", "--device", "cpu",
        "--format", "flac", "--sample-rate", "48000",
    )  # fmt: skip
    assert status == 0 and told == ""
    assert list(answer["stems"]) == ["kick", "snare"] and answer["model"] == "drums_mini"
    assert answer["backend"] == "cpu" and answer["wiener_filter"] is False and answer["processing_time"] > 0
    assert answer["fallback"]["used"] == ["drums_mini"] and answer["fallback"]["order"].startswith("larsnet; else")
    assert "larsnet is not exported here" in answer["fallback"]["reason"]
    with soundfile.SoundFile(home / "out" / "kick.flac") as file:
        assert (file.samplerate, file.frames) == (48000, 24000)


def test_the_drums_of_a_song_model_come_before_drums_mini_alone(home: Path) -> None:
    song_model(home, "htdemucs")
    status, answer, told = lars(
        home, "separate", "--input", "drums.wav", "--output-dir", "out", "--wiener-filter", "--verbose"
    )
    assert status == 0 and list(answer["stems"]) == STEMS and answer["wiener_filter"] is True
    assert answer["fallback"]["used"] == ["htdemucs", "drums_mini"] and answer["model"] == "waves+drums_mini"
    assert "separating drums.wav with htdemucs and drums_mini" in told
    assert {path.name for path in (home / "out").glob("*.wav")} == {f"{stem}.wav" for stem in STEMS}


def test_larsnet_comes_first_and_needs_no_reason(home: Path) -> None:
    song_model(home, "htdemucs")
    shutil.copytree(BUNDLED / "drums_mini", home / "models" / "larsnet")
    found = drum_models()
    assert found.models == ("larsnet",) and found.reason == ""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["separate", "--input", "none.wav", "--output-dir", "o"], 1, "none.wav"),
        (["separate", "--input", "drums.wav", "--output-dir", "o", "--stems", "vocals"], 2, "no stem 'vocals'; it has"),
        (["join", "--input", "drums.wav", "--output-dir", "o"], 2, "does nothing called 'join'"),
        (["separate", "--input", "drums.wav", "--output-dir", "o", "--format", "stem.mp4"], 2, "a file for each stem"),
        (["separate", "--output-dir", "o"], 2, "--input"),
    ],
)
def test_an_error_is_a_document_too(home: Path, arguments: list[str], status: int, words: str) -> None:
    got, answer, told = lars(home, *arguments)
    assert got == status == answer["status"] and words in answer["error"] and len(told.splitlines()) == 1
    assert not (home / "o").exists()
