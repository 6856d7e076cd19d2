import runpy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from places import DATA

from ortsep.base.errors import OutputError
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.files import attach_spec, save_model
from ortsep.export.graph.precision import run_graph
from ortsep.measure.doctor import PROBE
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, from_json


def test_the_stored_graphs_are_what_their_script_makes(tmp_path: Path) -> None:
    made = runpy.run_path(str(DATA / "make_graphs.py"))["all_graphs"]()
    for name, model in made.items():
        save_model(model, tmp_path / "again.onnx")
        stored, again = DATA / "graphs" / name, tmp_path / "again.onnx"
        assert _without_spec(stored) == _without_spec(again), name
        said, now = (read_metadata(path).get(METADATA_KEY) for path in (stored, again))
        assert (said is None) == (now is None)
        assert said is None or from_json(said) == from_json(now or ""), name


def test_the_doctors_probe_is_what_its_script_makes() -> None:
    made = runpy.run_path(str(DATA / "make_probe.py"))["probe"]()
    assert onnx.load(PROBE) == made


def _without_spec(path: Path) -> bytes:
    """The stored graphs keep the specs of format 1 that they were made with: those have to stay readable."""
    model = onnx.load(path)
    del model.metadata_props[:]
    return model.SerializeToString(deterministic=True)


def test_equal_constants_are_stored_once_and_unused_ones_not_at_all() -> None:
    g = Graph("twice")
    x = g.input("x", [2])
    g.const([5.0, 6.0])
    y = g.add(g.mul(x, g.const([1.0, 2.0])), g.const([1.0, 2.0]))
    g.output(y, "y", [2])
    model = g.model()
    assert len(model.graph.initializer) == 1
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (result,) = session.run(None, {"x": np.array([3, 4], np.float32)})
    np.testing.assert_array_equal(result, [4, 10])


def test_the_mean_holds_where_a_flat_sum_does_not(snr) -> None:  # type: ignore[no-untyped-def]
    x = np.random.default_rng(0).standard_normal((1, 4, 512, 256)).astype(np.float32) + 3
    g = Graph("mean")
    g.output(g.mean(g.input("x", list(x.shape)), 1, 2, 3), "y", [1, 1, 1, 1])
    session = onnxruntime.InferenceSession(g.model().SerializeToString())
    assert snr(x.astype(np.float64).mean(axis=(1, 2, 3), keepdims=True), session.run(None, {"x": x})[0]) > 120


def test_the_spec_travels_in_the_file(tmp_path: Path) -> None:
    stored = DATA / "graphs" / "hybrid" / "hybrid.onnx"
    spec = from_json(read_metadata(stored)[METADATA_KEY])
    model = onnx.load(str(stored))
    model.metadata_props.add(key="other", value="kept")
    size = save_model(attach_spec(attach_spec(model, spec), spec), tmp_path / "sub" / "copy.onnx")
    metadata = read_metadata(tmp_path / "sub" / "copy.onnx")
    assert from_json(metadata[METADATA_KEY]) == spec
    assert metadata["other"] == "kept"
    assert size == (tmp_path / "sub" / "copy.onnx").stat().st_size
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["copy.onnx"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"can't be written"):
        save_model(onnx.load(str(DATA / "graphs" / "waves" / "waves.onnx")), tmp_path / "file" / "x.onnx")


def test_a_value_that_is_renamed_is_renamed_in_loops_too() -> None:
    g = Graph("loop")
    x = g.input("x", ["N", 4])
    once = g.add(x, g.const(1.0))
    factor = g.op("ReduceMax", once, keepdims=0)
    g.output(g.scan(once, lambda each: g.mul(each, factor)), "y", ["N", 4])
    g.output(factor, "most", [])
    found = run_graph(g.model(), {"x": np.arange(8, dtype=np.float32).reshape(2, 4)})
    np.testing.assert_array_equal(found["y"], 8 * np.arange(1, 9, dtype=np.float32).reshape(2, 4))
