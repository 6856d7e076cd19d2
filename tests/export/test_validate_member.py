"""``ortsep validate`` of one file of a bag: its own stems against the original's, or the folder is named."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch")

from ortsep.base.errors import UsageError
from ortsep.export.exporter import export_model
from ortsep.export.family import Choice
from ortsep.export.graph.files import attach_spec, attached_spec, save_model
from ortsep.export.validate import find_stems, validate_model
from ortsep.graphs.model import load_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_file_of_a_bag(tmp_path: Path) -> None:
    folder = export_model("umxse", Choice(seed=1), tmp_path / "umxse").folder
    report = validate_model(folder / "noise.onnx", seconds=1.0)
    assert report.ok and {figure.stage.partition(":")[0] for figure in report.figures} >= {"graph", "end to end"}
    held = [attached_spec(onnx.load(str(folder / f"{name}.onnx"))) for name in ("speech", "noise")]
    assert [bool(spec and spec.validation) for spec in held] == [False, True], "the other file was not looked at"
    assert held[1] is not None and held[1].stems == ("speech", "noise"), "and the file says still what it is part of"

    bag = tuple(replace(member, weights=(1.0, 1.0), rows=(0, 1)) for member in held[1].bag)
    for name in ("speech", "noise"):
        save_model(
            attach_spec(onnx.load(str(folder / f"{name}.onnx")), replace(held[1], bag=bag)), folder / f"{name}.onnx"
        )
    with pytest.raises(
        UsageError, match=r"together with other graphs of umxse; validate them all: ortsep validate .*umxse"
    ):
        find_stems(load_model(folder / "noise.onnx"))
    assert find_stems(load_model(folder)) == ("speech", "noise")
