"""Exports of one's own weights under a name, and the export that comes before the first run."""

from pathlib import Path

import pytest

from ortsep.base.errors import OutputError
from ortsep.commands import make
from ortsep.commands.make import ExportSettings, export_command, export_first
from ortsep.graphs.model import load_model
from ortsep.models.catalogue import BUNDLED

CHECKPOINT = BUNDLED / "drums_mini" / "drums_mini.safetensors"
QUIET = ExportSettings(quiet=True)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ORTSEP_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home" / "ortsep" / "models"


def test_own_weights_have_a_name_and_a_folder_of_their_own(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(CHECKPOINT.read_bytes())
    export_command("drums_mini", "mine.safetensors", None, None, (), ExportSettings(quiet=True, name="mine"))
    spec = load_model("mine").spec
    assert (spec.name, spec.entry) == ("mine", "drums_mini")
    assert (place / "mine" / "stems.txt").exists() and not (place / "drums_mini").exists()


def test_the_model_of_other_weights_is_not_written_over(place: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(CHECKPOINT.read_bytes())
    export_command("drums_mini", "one.safetensors", None, None, (), QUIET)
    before = (place / "drums_mini" / "drums_mini.onnx").read_bytes()
    with pytest.raises(OutputError, match=r"one\.safetensors.*--name"):
        export_command("drums_mini", "two.safetensors", None, None, (), QUIET)
    assert (place / "drums_mini" / "drums_mini.onnx").read_bytes() == before
    export_command("drums_mini", "one.safetensors", None, None, (), QUIET)  # the same again may replace it


def test_a_model_is_exported_before_its_first_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_first("drums_mini", "bar", True)
    assert not place.exists(), "it is bundled, so nothing is to be done"
    monkeypatch.setattr(make, "is_ready", lambda reference: False)
    export_first("mini@drums", "bar", True)
    assert load_model(place / "drums_mini").spec.name == "drums_mini"
    export_first("no-model", "bar", True)  # left to whoever loads it
