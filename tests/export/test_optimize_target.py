"""``optimize --target``: files as they are found become what an export for the target is."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("torch")
from family_graphs import FAMILIES
from places import GRAPHS

from ortsep.base.decibels import snr
from ortsep.base.errors import ModelError, UsageError
from ortsep.export.graph.files import attached_spec
from ortsep.export.optimize import optimize_file
from ortsep.export.portable import own_operators
from ortsep.graphs.session import Session
from ortsep.models.cuts import Fixed
from ortsep.models.onnx_signature import read_signature
from ortsep.separator import Separator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_file_with_a_spec_gets_its_sizes_and_separates_the_same(tmp_path: Path) -> None:
    made = optimize_file(GRAPHS / "complex" / "complex.onnx", tmp_path / "made" / "m.onnx", target="coreml", runs=1)
    assert made.precision == "fp32" and made.db >= 90
    assert read_signature(made.output).inputs[0].shape[0] == 1
    assert all(isinstance(size, int) for size in read_signature(made.output).inputs[0].shape)
    spec = attached_spec(onnx.load(str(made.output)))
    assert spec is not None and spec.chunks is not None and spec.chunks.takes == Fixed()
    mix = np.random.default_rng(0).uniform(-0.5, 0.5, (9000, 2)).astype(np.float32)
    usual, same = (Separator(f).separate(mix) for f in (GRAPHS / "complex", tmp_path / "made"))
    assert all(snr(wave, same[stem]) >= 100 for stem, wave in usual.items())


def test_a_file_of_which_nothing_is_known_gets_the_sizes_that_are_given(tmp_path: Path) -> None:
    model, feeds = FAMILIES["moises_light"](False)
    assert own_operators(model)
    onnx.save(model, str(tmp_path / "g.onnx"))
    with pytest.raises(UsageError, match="give sizes with --shape spectrum="):
        optimize_file(tmp_path / "g.onnx", tmp_path / "made.onnx", target="web")
    shapes = {name: value.shape for name, value in feeds.items()}
    made = optimize_file(tmp_path / "g.onnx", tmp_path / "made.onnx", target="web", shapes=shapes, runs=1)
    assert made.precision == "fp16-weights" and made.after.file_mb < 0.8 * made.before.file_mb
    assert read_signature(made.output).inputs[0].shape == feeds["spectrum"].shape
    assert own_operators(onnx.load(str(made.output))) == []
    (usual,), (same,) = (Session(f, provider="cpu").run(feeds) for f in (tmp_path / "g.onnx", made.output))
    assert 45 <= snr(usual, same) < 100, "the weights are halves"


def test_an_operator_without_a_standard_form_is_refused(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(tmp_path / "g.onnx"))
    with pytest.raises(ModelError, match=r"com\.microsoft\.QuickGelu is an operator of its own"):
        optimize_file(tmp_path / "g.onnx", tmp_path / "made.onnx", target="coreml", runs=1)
    assert not (tmp_path / "made.onnx").exists()
    with pytest.raises(UsageError, match="there is no target 'phone'"):
        optimize_file(tmp_path / "g.onnx", tmp_path / "made.onnx", target="phone")
