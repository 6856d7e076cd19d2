"""Half-float weights and 8-bit products: what changes, what must not, and that nothing is done unasked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner

from ortsep.base.decibels import snr
from ortsep.base.errors import ModelError, UsageError
from ortsep.cli import app
from ortsep.export.exporter import write_export
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.precision import GATES, PRECISIONS, RUNS, measure_time, open_graph, run_graph, with_precision
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, Chunks, ModelSpec, from_json


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    g = Graph("network")
    x = g.conv(g.input("x", [1, 8, 64]), rng.standard_normal((64, 8, 3)) / 5, rng.standard_normal(64), pads=[1, 1])
    y = g.transpose(g.gelu(x), 0, 2, 1)
    y = g.gelu(g.linear(y, rng.standard_normal((128, 64)) / 8, rng.standard_normal(128)))
    y = g.mul(g.linear(y, rng.standard_normal((64, 128)) / 11), g.const(rng.uniform(0.3, 0.7, 64)))
    tiny = g.const(rng.standard_normal((64, 64)) * 1e-8)
    y = g.add(y, g.op("MatMul", y, tiny))
    g.output(y, "y", [1, 64, 64])
    model = g.model()
    model.metadata_props.add(key="owner", value="kept")
    return model


INPUTS = {"x": np.random.default_rng(1).standard_normal((1, 8, 64)).astype(np.float32)}


@pytest.mark.parametrize("precision", ["fp16-weights", "int8"])
def test_a_precision_keeps_its_gate_and_its_metadata(precision: str) -> None:
    model = network()
    before = model.SerializeToString(deterministic=True)
    made = with_precision(model, precision)
    assert model.SerializeToString(deterministic=True) == before
    db = snr(run_graph(model, INPUTS)["y"], run_graph(made, INPUTS)["y"])
    assert GATES[precision] <= db < 90
    assert [(p.key, p.value) for p in made.metadata_props] == [("owner", "kept")]
    assert made.ByteSize() < 0.8 * model.ByteSize()
    assert list(made.graph.output) == list(model.graph.output)


def convolutions() -> onnx.ModelProto:
    rng = np.random.default_rng(2)
    g = Graph("convolutions")
    x = g.conv(g.input("x", [1, 8, 64]), rng.standard_normal((64, 8, 3)) / 5, rng.standard_normal(64), pads=[1, 1])
    g.output(g.gelu(x), "y", [1, 64, 64])
    return g.model()


def test_a_precision_that_changes_nothing_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"nothing that int8 could change, since only its products .* take fp32"):
        with_precision(convolutions(), "int8")
    g = Graph("small")
    g.output(g.op("MatMul", g.input("x", [1, 4]), g.const(np.eye(4))), "y", [1, 4])
    with pytest.raises(UsageError, match="nothing that fp16-weights could change"):
        with_precision(g.model(), "fp16-weights")


def test_a_precision_that_changes_little_says_how_much() -> None:
    said: list[str] = []
    g = Graph("mostly convolutions")
    rng = np.random.default_rng(2)
    x = g.conv(g.input("x", [1, 8, 64]), rng.standard_normal((512, 8, 3)) / 5, pads=[1, 1])
    y = g.linear(g.transpose(x, 0, 2, 1), rng.standard_normal((2, 512)) / 23)
    g.output(y, "y", [1, 64, 2])
    with_precision(g.model(), "int8", said.append)
    assert len(said) == 1 and "mostly convolutions: int8 changes 1,0" in said[0] and "(7." in said[0], said
    said.clear()
    with_precision(network(), "int8", said.append)
    assert not said


def test_half_floats_are_stored_only_where_they_hold_the_values() -> None:
    made = with_precision(network(), "fp16-weights")
    halves = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer if t.data_type == TensorProto.FLOAT16}
    assert len(halves) == 3  # the convolution's and two products' weights; not those of 1e-8, nor any bias
    assert all(np.abs(value).max() > 1e-3 and value.ndim >= 2 for value in halves.values())


def test_the_products_are_8_bit_integers() -> None:
    made = with_precision(network(), "int8")
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("MatMulInteger") == 3 and "MatMul" not in kinds and "Conv" in kinds


def test_nothing_happens_unasked() -> None:
    model = network()
    assert with_precision(model, "fp32") is model
    assert set(GATES) == set(PRECISIONS)
    with pytest.raises(UsageError, match="int8"):
        with_precision(model, "fp8")


def test_time_is_the_median_of_ratios_of_neighbours() -> None:
    """On a machine that becomes ten times slower on the way the ratio stays."""
    now, load = 0.0, iter(np.repeat([1.0, 1.0, 10.0, 10.0, 10.0], 2))
    runs = []

    def graph(seconds: float, name: str):  # type: ignore[no-untyped-def]
        def run(_: object) -> dict[str, object]:
            nonlocal now
            now += seconds * next(load)
            runs.append(name)
            return {}

        return run

    timing = measure_time("x", graph(4.0, "exact"), graph(3.0, "other"), {}, clock=lambda: now)
    assert runs == ["exact", "other"] * RUNS
    assert (timing.ratio, timing.seconds) == (0.75, 30.0)
    assert "onnxruntime" in timing.machine


@pytest.mark.parametrize(("precision", "least"), [("fp16-weights", 50.0), ("int8", 25.0)])
def test_a_precision_that_loses_too_much_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, least: float
) -> None:
    """What the docs promise of a precision: a file that keeps 3 dB less is refused, one with 3 dB more is written."""
    spec = ModelSpec("n", "f", ("a",), 8000, 1, "waveform", "stems", chunks=Chunks(64))
    original: Any = SimpleNamespace(
        spec=spec, graphs=lambda portable: iter([("n.onnx", network())]), example=lambda member, mix: INPUTS
    )
    exact = open_graph(network())(INPUTS)
    for db in (least - 3, least + 3):
        rng = np.random.default_rng(0)
        noise = {name: rng.standard_normal(value.shape) * value.std() for name, value in exact.items()}
        power = {name: np.mean(value**2) / np.mean(noise[name] ** 2) for name, value in exact.items()}
        worse = {name: v + noise[name] * np.sqrt(power[name]) * 10 ** (-db / 20) for name, v in exact.items()}
        results = iter([lambda _: exact, lambda _, worse=worse: worse])
        monkeypatch.setattr("ortsep.export.exporter.open_graph", lambda _, results=results: next(results))
        monkeypatch.setattr("ortsep.export.exporter.with_precision", lambda *_: network())
        if db < least:
            with pytest.raises(ModelError, match=f"in {precision}, below {least:g}"):
                write_export(original, tmp_path / "n", precision=precision)
            assert not (tmp_path / "n").exists()
        else:
            write_export(original, tmp_path / "n", precision=precision)


def test_time_of_a_graph() -> None:
    run = open_graph(network())
    assert measure_time("x", run, run, INPUTS).seconds > 0


def test_an_export_says_what_its_precision_costs_and_gains(tmp_path: Path) -> None:
    spec = ModelSpec("n", "f", ("a",), 8000, 1, "waveform", "stems", chunks=Chunks(64))
    original: Any = SimpleNamespace(
        spec=spec, graphs=lambda portable: iter([("n.onnx", network())]), example=lambda member, mix: INPUTS
    )
    said: list[str] = []
    write_export(original, tmp_path / "n", precision="int8", say=said.append)
    made = from_json(read_metadata(tmp_path / "n" / "n.onnx")[METADATA_KEY])
    (figure,), (timing,) = made.validation, made.timing
    assert made.precision == "int8" and GATES["int8"] <= figure.db < 90 and "int8" in figure.stage
    assert timing.ratio > 0 and timing.seconds > 0 and "int8" in timing.stage
    assert any("of the time of fp32" in line for line in said)
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "n")]).stdout
    assert f"ratio {timing.ratio}" in shown and f"db {figure.db}" in shown


def looped(shape: tuple[int, ...]) -> onnx.ModelProto:
    """A product in a loop over the first axis, or with several matrices at once."""
    g = Graph("loop")
    x, weight = g.input("x", ["N", 4, 64]), np.random.default_rng(0).standard_normal(shape)
    once = g.op("MatMul", x, g.const(np.random.default_rng(1).standard_normal((64, 64))))
    if len(shape) > 2:
        g.output(g.op("MatMul", once, g.const(weight)), "y", ["N", 4, 64])
    else:
        g.output(g.scan(once, lambda each: g.op("MatMul", each, g.const(weight))), "y", ["N", 4, 64])
    return g.model()


def test_int8_says_that_it_does_not_go_into_loops() -> None:
    with pytest.raises(UsageError, match="int8 can't go into the loops of loop; export it with --portable"):
        with_precision(looped((64, 64)), "int8")


def test_int8_leaves_products_with_several_matrices() -> None:
    """ONNX Runtime refuses them, and only when they run."""
    model, x = looped((3, 64, 64)), np.random.default_rng(2).standard_normal((3, 4, 64)).astype(np.float32)
    made = with_precision(model, "int8")
    assert [node.op_type for node in made.graph.node].count("MatMul") == 1
    assert snr(run_graph(model, {"x": x})["y"], run_graph(made, {"x": x})["y"]) > 20


@pytest.mark.parametrize("count", [1, 5])
def test_halves_reach_into_loops(count: int) -> None:
    model, x = looped((64, 64)), np.random.default_rng(2).standard_normal((count, 4, 64)).astype(np.float32)
    made = with_precision(model, "fp16-weights")
    assert {t.data_type for t in made.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert 50 < snr(run_graph(model, {"x": x})["y"], run_graph(made, {"x": x})["y"]) < 80
