"""What exports were made from: found again by name, stems and hash, as long as it is there."""

from dataclasses import replace
from pathlib import Path

import pytest

from ortsep.export.family import Choice, load_original
from ortsep.export.weights.remembered import FILE, Made, recall, remember
from ortsep.models.catalogue import find_card
from ortsep.models.spec import ModelSpec, Weights


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelSpec:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    made = load_original(find_card("umxse"), Choice(seed=0)).spec
    return replace(made, weights=Weights("mine.pth", "ab" * 32))


def test_a_checkpoint_is_found_again(spec: ModelSpec, tmp_path: Path) -> None:
    mine, config = tmp_path / "mine", tmp_path / "c.yaml"
    mine.mkdir()
    config.touch()
    made = Made("umxse", str(mine), config, ("noise",))
    assert recall(spec) is None
    remember(spec, made)
    assert recall(spec) == made
    assert recall(replace(spec, weights=Weights("mine.pth", "cd" * 32))) is None
    mine.rmdir()
    assert recall(spec) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "[" * 100000])
def test_a_damaged_note_is_no_note(spec: ModelSpec, tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE).write_text(text)
    assert recall(spec) is None
    remember(spec, Made("umxse"))
    assert recall(spec) == Made("umxse")
