"""Writing exports: what every file of a bag says, and what goes with an earlier export."""

from pathlib import Path

import pytest

from ortsep.export.exporter import write_export
from ortsep.export.family import Choice, load_original
from ortsep.models.catalogue import find_card
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, from_json

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_file_of_a_bag_has_the_figures_of_all(tmp_path: Path) -> None:
    made = write_export(load_original(find_card("umxse"), Choice(seed=0)), tmp_path / "umxse", precision="fp16-weights")
    for file in ("speech.onnx", "noise.onnx"):
        spec = from_json(read_metadata(tmp_path / "umxse" / file)[METADATA_KEY])
        assert [figure.stage.split()[1] for figure in spec.validation] == ["speech.onnx", "noise.onnx"], file
        assert len(spec.timing) == 2 and spec.validation == made.spec.validation


def test_graphs_of_an_earlier_export_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "umxse"
    write_export(load_original(find_card("umxse"), Choice(seed=0)), folder)
    (folder / "notes.txt").write_text("mine")
    write_export(load_original(find_card("umxse"), Choice(seed=0, stems=("noise",))), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["noise.onnx", "notes.txt", "stems.txt"]
    assert (folder / "stems.txt").read_text().split() == ["noise"]
