"""Graphs of other float types and of a fixed batch: fed as they are, and what comes out is float32 of any batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from ortsep.base.errors import ModelError  # noqa: E402
from ortsep.graphs.session import Session  # noqa: E402
from ortsep.separator import Separator  # noqa: E402

N = 500


def graph(folder: Path, kind: int, batch: int | str, *, given: int | None = None) -> Path:
    """mix [batch, 2, N] to stems [batch, 2, 2, N], or as many as are ``given``: half and a quarter of it."""
    mix = helper.make_tensor_value_info("mix", kind, [batch, 2, N])
    stems = helper.make_tensor_value_info("stems", kind, [batch, 2, 2, "M" if given else N])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {
        "factors": np.array([0.5, 0.25], dtype).reshape(1, 2, 1, 1),
        "axis": np.array([1], np.int64),
        "begin": np.array([0], np.int64),
        "end": np.array([given or N], np.int64),
        "last": np.array([3], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["mix", "axis"], ["wide"]),
        helper.make_node("Mul", ["wide", "factors"], ["all"]),
        helper.make_node("Slice", ["all", "begin", "end", "last"], ["stems"]),
    ]
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "g", [mix], [stems], initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "g.onnx")
    (folder / "stems.txt").write_text("a\nb\n")
    return folder / "g.onnx"


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_any_float_and_any_batch(tmp_path: Path, kind: int, batch: Any) -> None:
    session = Session(graph(tmp_path, kind, batch), provider="cpu")
    x = np.random.default_rng(0).uniform(-1, 1, (6, 2, N)).astype(np.float32)
    for count in (1, 3, 4, 6):
        (stems,) = session.run({"mix": x[:count]})
        assert stems.dtype == np.float32 and stems.shape == (count, 2, 2, N)
        tolerance = 1e-3 if kind == TensorProto.FLOAT16 else 0
        np.testing.assert_allclose(stems[:, 1], 0.25 * x[:count], atol=tolerance)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_a_separator_runs_them(tmp_path: Path, kind: int) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3000)).astype(np.float32)
    stems = Separator(graph(tmp_path, kind, 4)).separate(x)
    np.testing.assert_allclose(stems["b"], 0.25 * x, atol=1e-3)


def test_a_graph_that_gives_less_than_it_hears(tmp_path: Path) -> None:
    separator = Separator(graph(tmp_path, TensorProto.FLOAT, 1, given=400))
    with pytest.raises(ModelError, match=r"g\.onnx gives stems of \[2, 400\] a stem where its spec says \[2, 500\]"):
        separator.separate(np.zeros((2, 3000), np.float32))


def test_a_graph_of_integers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="where audio is floats"):
        Session(graph(tmp_path, TensorProto.INT64, 1), provider="cpu")
