"""``ortsep models``: short, whole, for one purpose, and all of one model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import GRAPHS

from ortsep.commands.flags import Use
from ortsep.commands.models import _OF_TASK, FIRST, PURPOSES, purpose
from ortsep.models.catalogue import TASKS, catalogue


def models(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "ORTSEP_MODELS"} | {"XDG_DATA_HOME": str(cwd / "home")}
    command = [sys.executable, "-m", "ortsep.cli", "models", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def test_every_model_has_a_purpose_and_the_short_list_names_only_models() -> None:
    assert set(Use) == set(PURPOSES) and set(_OF_TASK) == set(TASKS)
    for card in catalogue().values():
        assert purpose(card) in PURPOSES
    for key, names in FIRST.items():
        assert names and all(purpose(catalogue()[name]) == key for name in names)


def test_what_models_are_for() -> None:
    found = {name: purpose(card) for name, card in catalogue().items()}
    assert found["htdemucs"] == found["spleeter:4stems"] == "song"
    assert found["spleeter:2stems"] == found["Kim_Vocal_2"] == found["mel_roformer_kim"] == "vocals"
    assert found["larsnet"] == found["drums_mini"] == "drums" and found["umxse"] == "speech"
    assert found["mel_roformer_dereverb"] == found["UVR-MDX-NET_Crowd_HQ_1"] == "cleaning"
    assert found["kuielab_a_bass"] == "parts"


def test_lists_fit_80_columns_and_say_what_is_ready(tmp_path: Path) -> None:
    shutil.copytree(GRAPHS / "waves", tmp_path / "models" / "exported" / "umxhq")
    shutil.copytree(GRAPHS / "waves", tmp_path / "home" / "ortsep" / "models" / "my own")
    short, whole = models(tmp_path), models(tmp_path, "--all")
    for done in (short, whole, models(tmp_path, "--for", "vocals")):
        assert done.returncode == 0, done.stderr
        assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80
    rows = {line[2:].split()[0]: line for line in short.stdout.splitlines() if line[2:].split()}
    assert rows["umxhq"].startswith("* umxhq") and rows["umxhq"].endswith("ready")
    assert rows["drums_mini"].startswith("* drums_mini") and rows["drums_mini"].endswith("bundled")
    assert rows["htdemucs"].startswith("  htdemucs") and rows["htdemucs"].endswith("fetch")
    assert rows["larsnet"].endswith("by hand")
    assert "* my own" in short.stdout
    assert len(short.stdout.splitlines()) < 50 < len(whole.stdout.splitlines())
    for name in catalogue():
        assert name in whole.stdout or "…" in whole.stdout
    drums = models(tmp_path, "--for", "drums")
    assert "larsnet" in drums.stdout and "htdemucs" not in drums.stdout
    assert models(tmp_path, "--for", "nonsense").returncode == 2


def test_all_about_one(tmp_path: Path) -> None:
    done = models(tmp_path, "lars")
    assert done.returncode == 0 and done.stdout.startswith("larsnet\n")
    flat = " ".join(done.stdout.split())
    card = catalogue()["larsnet"]
    assert card.licence in flat and card.advice in flat and card.arguments["download"] in flat
    missing = models(tmp_path, "htdemcs")
    assert missing.returncode == 1 and "did you mean htdemucs" in missing.stderr


@pytest.mark.parametrize("arguments", [("--json",), ("--json", "--for", "drums"), ("--json", "htdemucs")], ids=str)
def test_for_programs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    document = json.loads(models(tmp_path, *arguments).stdout)
    rows = [document] if "htdemucs" in arguments else document["models"]
    states = {row["name"]: row["state"] for row in rows}
    if "--for" in arguments:
        assert {row["for"] for row in rows} == {"drums"} and states["drums_mini"] == "bundled"
    assert document["version"]
