"""Small graphs as torch's exporter writes them, and how two graphs are compared, for the tests of the passes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ortsep.base.decibels import snr
from ortsep.export.graph.builder import Graph

RNG = np.random.default_rng(0)


def random(*shape: int, low: float | None = None) -> np.ndarray[Any, Any]:
    values = RNG.standard_normal(shape) if low is None else RNG.uniform(low, low + 0.4, shape)
    return values.astype(np.float32)


def run(model: onnx.ModelProto, seed: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    shapes = {v.name: [d if isinstance(d, int) else 1 for d in v.shape] for v in session.get_inputs()}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def equal(before: onnx.ModelProto, after: onnx.ModelProto, gate: float = 115.0) -> None:
    onnx.checker.check_model(after)
    old, new = run(before), run(after)
    assert old.keys() == new.keys()
    for name, value in old.items():
        assert snr(value, new[name]) > gate, name


def finished(g: Graph, value: str, shape: list[int | str]) -> onnx.ModelProto:
    g.output(value, "y", shape)
    return g.model()


def group_norm(g: Graph, x: str, c: int, shape: list[int], groups: int = 1) -> str:
    """As torch's exporter writes it: an instance norm between two Reshapes, then the affine part."""
    y = g.reshape(x, 0, groups, -1)
    y = g.op("InstanceNormalization", y, g.const(np.ones(groups)), g.const(np.zeros(groups)), epsilon=1e-5)
    y = g.mul(g.reshape(y, *shape), g.const(random(c, *[1] * (len(shape) - 2), low=0.3)))
    return g.add(y, g.const(random(c, *[1] * (len(shape) - 2))))


def glu(g: Graph, x: str) -> str:
    a, b = g.ops("Split", x, outputs=2, axis=1, num_outputs=2)
    return g.mul(a, g.op("Sigmoid", b))


def dconv(g: Graph, x: str, c: int, shape: list[int]) -> str:
    """A layer of Demucs's DConv on [N, c, T]."""
    n, _, t = shape
    h = c // 4
    y = g.conv(x, random(h, c, 3) / 4, random(h), pads=[2, 2], dilation=[2])
    y = g.gelu(group_norm(g, y, h, [n, h, t]))
    y = group_norm(g, g.conv(y, random(2 * c, h, 1) / 2, random(2 * c)), 2 * c, [n, 2 * c, t])
    return g.add(x, g.mul(g.const(random(c, 1, low=0.3)), glu(g, y)))


def attention(g: Graph, x: str, length: int, e: int, heads: int) -> str:
    """As torch's exporter writes nn.MultiheadAttention: a joint projection on [L, 1, E], taken apart by moves."""
    d, scale = e // heads, g.const(np.array([(e // heads) ** -0.25]))
    y = g.linear(g.transpose(x, 1, 0, 2), random(3 * e, e) / 4, random(3 * e))
    y = g.op("Unsqueeze", g.reshape(y, length, 1, 3, e), g.ints(0))
    y = g.op("Squeeze", g.transpose(y, 3, 1, 2, 0, 4), g.ints(-2))
    parts = [g.op("Gather", y, g.const(i, np.int64), axis=0) for i in range(3)]
    q, k, v = (g.transpose(g.reshape(p, length, heads, d), 1, 0, 2) for p in parts)
    k = g.reshape(g.transpose(k, 0, 2, 1), 1, heads, d, length)
    q, v = (g.reshape(p, 1, heads, length, d) for p in (q, v))
    weights = g.op("Softmax", g.op("MatMul", g.mul(q, scale), g.mul(k, scale)), axis=-1)
    out = g.reshape(g.transpose(g.op("MatMul", weights, v), 2, 0, 1, 3), length, e)
    out = g.op("Gemm", out, g.const(random(e, e) / 4), g.const(random(e)), transB=1)
    return g.transpose(g.reshape(out, length, 1, e), 1, 0, 2)
