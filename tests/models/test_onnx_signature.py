"""Tensors read from the bytes equal what ONNX Runtime says of the same file; damage is told."""

from pathlib import Path

import pytest
from places import GRAPHS

from ortsep.base.errors import ModelError
from ortsep.models.axes import measure, well_formed
from ortsep.models.onnx_signature import Shaped, read_signature


@pytest.mark.parametrize("path", sorted(GRAPHS.glob("*/*.onnx")), ids=lambda path: path.name)
def test_as_onnx_runtime_reads_them(path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    found = read_signature(path)
    for ours, theirs in ((found.inputs, session.get_inputs()), (found.outputs, session.get_outputs())):
        assert [(t.name, list(t.shape)) for t in ours] == [(t.name, t.shape) for t in theirs]
    assert found.opset >= 13


def test_weights_among_the_inputs_and_half_precision(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info
    half = onnx.TensorProto.FLOAT16
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [info("x", half, ["N", None]), info("w", half, [1, 1])],
        [info("y", half, None)],
        [onnx.helper.make_tensor("w", half, [1, 1], [1.0])],
    )
    path = tmp_path / "half.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), str(path))
    found = read_signature(path)
    assert str(found) == "x [N, ?] float16 -> y [] float16"


def test_every_truncation_is_told(tmp_path: Path) -> None:
    whole = (GRAPHS / "hybrid" / "hybrid.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for size in range(1, len(whole) - 1, 11):
        path.write_bytes(whole[:size])
        try:
            read_signature(path)
        except ModelError as error:
            assert str(path) in str(error)


def test_the_notation_of_axes() -> None:
    assert well_formed("b fc t r") and not well_formed("b b") and not well_formed("x") and not well_formed("")
    assert measure("b scr f t", [1, 16, 2048, None], {"c": 2, "r": 2}) == {"c": 2, "r": 2, "b": 1, "s": 4, "f": 2048}
    assert measure("b c n", [1, 3, 5], {"c": 2}) is None
    assert measure("b fc", [1, 3], {"c": 2}) is None
    assert measure("b n", [1], {}) is None


def test_names_of_strangers_are_shown_on_one_line_and_not_whole() -> None:
    shown = str(Shaped("mix\n\x1b[31m" + "x" * 500, ("ba\ttch", 2, None)))
    assert shown == f"mix\\n\\x1b[31m{'x' * 47}... [ba\\ttch, 2, ?]"
