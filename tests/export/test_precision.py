"""Half-float weights and 8-bit products: what changes, what must not, and that nothing is done unasked."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ortsep.export.graph import Graph
from ortsep.export.measure import snr
from ortsep.export.precision import GATES, PRECISIONS, run_graph, with_precision
from ortsep.models.errors import UsageError


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
