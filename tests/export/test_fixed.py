"""Exports for a target: fixed shapes and what the spec then says; the folded time axis is Demucs's."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from places import GRAPHS
from typer.testing import CliRunner

from ortsep.base.decibels import snr
from ortsep.base.errors import UsageError
from ortsep.cli import app
from ortsep.export.exporter import choose_weights, export_model
from ortsep.export.fixed import with_fixed_shapes
from ortsep.export.graph.files import attach_spec, attached_spec, save_model
from ortsep.export.targets import fits
from ortsep.graphs.model import load_model
from ortsep.graphs.session import Session
from ortsep.models.cuts import Fixed, Free
from ortsep.models.onnx_signature import read_signature
from ortsep.separator import Separator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_free_graph_fixed_separates_the_same(tmp_path: Path) -> None:
    given = onnx.load(str(GRAPHS / "complex" / "complex.onnx"))
    spec = attached_spec(given)
    assert spec is not None and spec.chunks is not None
    spec = replace(spec, chunks=replace(spec.chunks, takes=Free()))
    save_model(attach_spec(given, spec), tmp_path / "free" / "free.onnx")
    made, fixed = with_fixed_shapes(given, spec)
    assert fixed.chunks is not None and fixed.chunks.takes == Fixed()
    save_model(attach_spec(made, fixed), tmp_path / "fixed" / "fixed.onnx")
    shapes = read_signature(tmp_path / "fixed" / "fixed.onnx").inputs[0].shape
    assert all(isinstance(size, int) for size in shapes), shapes
    for folder in ("free", "fixed"):
        (tmp_path / folder / "stems.txt").write_bytes((GRAPHS / "complex" / "stems.txt").read_bytes())
    mix = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * spec.chunks.length + 77, 2)).astype(np.float32)
    free, same = (Separator(tmp_path / folder).separate(mix) for folder in ("free", "fixed"))
    for stem, wave in free.items():
        assert snr(wave, same[stem]) >= 100


def test_a_model_for_the_web(tmp_path: Path) -> None:
    told: list[str] = []
    choice = choose_weights("random:0", stems=("speech",))
    folder = export_model("umxse", choice, tmp_path / "web", target="web", say=told.append).folder
    exact = export_model("umxse", choice, tmp_path / "exact").folder
    model = load_model(folder)
    assert model.spec.precision == "fp16-weights" and model.spec.portable
    assert (folder / "speech.onnx").stat().st_size < 0.55 * (exact / "speech.onnx").stat().st_size
    assert read_signature(folder / "speech.onnx").inputs[0].shape[0] == 1
    assert any("frames stays free" in line for line in told)
    x = np.abs(np.random.default_rng(0).standard_normal((1, 1, 513, 20))).astype(np.float32)
    (given,), (found,) = (Session(f / "speech.onnx").run({"magnitude": x}) for f in (exact, folder))
    assert 50 <= snr(given, found) < 100, "the weights are halves"
    (each,) = fits(model).values()
    assert each[-1].target == "web" and each[-1].share == 1
    assert each[-1].size_mb == round((folder / "speech.onnx").stat().st_size / 1e6, 1)


def test_what_a_target_can_not_be(tmp_path: Path) -> None:
    choice = choose_weights("random:0")
    with pytest.raises(UsageError, match="there is no target 'phone'"):
        export_model("umxse", choice, tmp_path / "m", target="phone")
    with pytest.raises(UsageError, match="leave --target out"):
        export_model("umxse", replace(choice, contract="waveform"), tmp_path / "m", target="web")
    logging.disable(logging.NOTSET)
    done = CliRunner().invoke(app, ["export", "umxse", "--target", "phone"])
    assert done.exit_code == 2


@pytest.mark.long
def test_htdemucs_for_coreml_is_one_piece(tmp_path: Path) -> None:
    folder = export_model("htdemucs", choose_weights("random:0"), tmp_path / "m", target="coreml").folder
    (each,) = fits(load_model(folder)).values()
    assert each[0].pieces == 1 and each[0].share >= 0.99, each[0].reasons
