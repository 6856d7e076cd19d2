"""The count of a graph's floating-point operations, against what each operator's definition gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortsep.graphs.session import Session
from ortsep.measure import gauge
from ortsep.measure.gauge import GraphTime, Operations, operations

onnx = pytest.importorskip("onnx")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper
RNG = np.random.default_rng(0)


def graph(path: Path, op: str, shapes: list[tuple[int, ...]], given: int, domain: str = "", **attributes: Any) -> Path:
    """One node whose first ``given`` inputs are fed and whose others are weights."""
    names = [f"i{k}" for k in range(len(shapes))]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    weights = [
        numpy_helper.from_array(RNG.standard_normal(s).astype(np.float32), n)
        for n, s in list(zip(names, shapes, strict=True))[given:]
    ]
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(helper.make_graph([node], "g", values[:given], [y], weights), opset_imports=imports)
    made.ir_version = 9
    path.write_bytes(made.SerializeToString())
    return path


def counted(path: Path, folder: Path) -> float:
    record = Operations(folder)
    session = Session(path, provider="cpu", observer=record)
    session.run({t.name: RNG.standard_normal(t.shape).astype(np.float32) for t in session.inputs})
    return record.count()


@pytest.mark.parametrize(
    ("op", "shapes", "given", "attributes", "expected"),
    [
        ("MatMul", [(3, 4, 5), (5, 6)], 1, {}, 3 * 4 * 5 * 6),
        ("MatMul", [(3, 4, 5), (3, 5, 6)], 2, {}, 3 * 4 * 5 * 6),
        ("Gemm", [(5, 4), (6, 5)], 1, {"transA": 1, "transB": 1}, 4 * 5 * 6),
        ("FusedMatMul", [(2, 5, 4), (2, 5, 6)], 2, {"domain": "com.microsoft", "transA": 1}, 2 * 4 * 5 * 6),
        ("Conv", [(2, 16, 9, 7), (32, 16, 3, 3)], 1, {"pads": [1, 1, 1, 1]}, 2 * 32 * 9 * 7 * 16 * 9),
        ("Conv", [(2, 8, 9), (12, 4, 3)], 1, {"group": 2}, 2 * 12 * 7 * 4 * 3),
        ("ConvTranspose", [(2, 6, 5), (6, 4, 8)], 1, {"strides": [4]}, 2 * 6 * 5 * 4 * 8),
        ("LSTM", [(7, 2, 5), (1, 12, 5), (1, 12, 3)], 1, {"hidden_size": 3}, 7 * 2 * 12 * (5 + 3)),
        (
            "MultiHeadAttention",
            [(2, 6, 8), (2, 9, 8), (2, 9, 8)],
            3,
            {"domain": "com.microsoft", "num_heads": 2},
            2 * (2 * 6 * 9 * 8),
        ),
    ],
)
def test_two_operations_a_multiply_add(
    tmp_path: Path, op: str, shapes: list[tuple[int, ...]], given: int, attributes: dict[str, Any], expected: int
) -> None:
    assert counted(graph(tmp_path / "g.onnx", op, shapes, given, **attributes), tmp_path) == 2 * expected


def test_every_run_of_every_session_counts(tmp_path: Path) -> None:
    paths = [graph(tmp_path / f"{k}.onnx", "MatMul", [(k, 5), (5, 6)], 1) for k in (2, 3)]
    record = Operations(tmp_path)
    for path in paths:
        session = Session(path, provider="cpu", observer=record)
        for _ in range(4):
            session.run({"i0": np.ones(session.inputs[0].shape, np.float32)})  # type: ignore[arg-type]
    Session(paths[0], provider="cpu").run({"i0": np.ones((2, 5), np.float32)})
    assert record.count() == 4 * 2 * (2 + 3) * 5 * 6, "only those that it was given to"


def test_a_full_record_is_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "MOST_EVENTS", 2)
    assert np.isnan(counted(graph(tmp_path / "g.onnx", "MatMul", [(3, 5), (5, 6)], 1), tmp_path))


def test_a_record_of_today_reads_as_one_of_tomorrow(tmp_path: Path) -> None:
    """Events of other kinds, and operators that are not counted, stand in between."""
    event = {"cat": "Node", "args": {"op_name": "Sigmoid", "input_type_shape": [], "output_type_shape": []}}
    lines = ["[", json.dumps({"cat": "Session", "name": "model_loading"}) + ",", json.dumps(event), "]"]
    (tmp_path / "record.json").write_text("\n".join(lines))
    assert operations(tmp_path / "record.json") == 0


def test_time_of_graphs_side_by_side_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, others = 0.0, [1]

    def plain(self: Session, *_: Any) -> list[Any]:
        """A second of work, with another run beginning and ending in the midst of the first."""
        nonlocal now
        now += 0.5
        if others:
            others.pop()
            self.run({})
        now += 0.5
        return []

    monkeypatch.setattr(Session, "_run", plain)
    monkeypatch.setattr(gauge.time, "perf_counter", lambda: now)
    time = GraphTime()
    session = Session(graph(tmp_path / "g.onnx", "MatMul", [(2, 5), (5, 6)], 1), provider="cpu", observer=time)
    session.run({})
    assert time.seconds == 2.0
    now += 7.0
    session.run({})
    assert time.seconds == 3.0
