"""Attention written out as MatMul, Softmax, MatMul, found whatever moves of data an exporter put around it.

Exporters split a joint q/k/v projection by chains of Reshape, Transpose, Squeeze and Gather that differ from version to
version. Instead of matching the chain, it is run on the numbers 0, 1, 2, ...: the result says which column of the
projection each element comes from.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ortsep.base.arrays import Array
from ortsep.export.passes.contract import contract
from ortsep.export.passes.editor import Editor, attribute

_MICROSOFT = "com.microsoft"
_TRACED = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Slice", "Split")
_LARGEST = 1 << 25
"""Elements of the largest value whose moves are traced."""


@dataclass(frozen=True)
class Operand:
    """q, k or v [B, H, L, D]: columns ``first``.. of a projection x @ weight + bias, times ``scale``."""

    x: str
    weight: Array
    bias: Array | None
    first: int
    scale: float
    shape: tuple[int, int, int, int]


@contract(without=("no operator from outside the standard that was not there",))
def fuse_attention(ed: Editor) -> int:
    """softmax(q k^T) v as com.microsoft.MultiHeadAttention, with separate projections.

    The scores, [B, H, L, L] and the largest tensor of a transformer, are never whole in memory (Dao et al. 2022 for the
    idea), and q, k and v come from products of their own, so that nothing is cut apart afterwards.
    """
    return _attention(ed, fused=True)


def split_projections(ed: Editor) -> int:
    """The same with operators of the standard only: separate projections, one transposition an operand."""
    return _attention(ed, fused=False)


def _attention(ed: Editor, *, fused: bool) -> int:
    count = 0
    for softmax in ed.find("Softmax"):
        scores = ed.producer(softmax.input[0], "MatMul")
        shape = ed.static(softmax.output[0])
        out = ed.only_user(softmax.output[0], "MatMul")
        if scores is None or out is None or shape is None or len(shape) != 4 or ed.only_user(softmax.input[0]) is None:
            continue
        if attribute(softmax, "axis", -1) not in (-1, 3) or out.input[0] != softmax.output[0]:
            continue
        operands = [_operand(ed, scores.input[0], False), _operand(ed, scores.input[1], True)]
        operands.append(_operand(ed, out.input[1], False))
        end = _joined(ed, out)
        if any(o is None for o in operands) or end is None:
            continue
        q, k, v = (o for o in operands if o is not None)
        if v.scale != 1.0 or k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
            continue
        y = _fused(ed, q, k, v) if fused else _standard(ed, q, k, v)
        made = ed.static(end)
        ed.replace(end, ed.reshape(y, made))
        count += 1
    return count


def _fused(ed: Editor, q: Operand, k: Operand, v: Operand) -> str:
    inputs = [_projected(ed, o, 1.0) for o in (q, k, v)]
    return ed.op("MultiHeadAttention", *inputs, domain=_MICROSOFT, num_heads=q.shape[1], scale=float(q.scale * k.scale))


def _standard(ed: Editor, q: Operand, k: Operand, v: Operand) -> str:
    scale = q.scale * k.scale
    parts = []
    for operand, perm, factor in ((q, (0, 2, 1, 3), scale), (k, (0, 2, 3, 1), 1.0), (v, (0, 2, 1, 3), 1.0)):
        b, h, length, d = operand.shape
        split = ed.reshape(_projected(ed, operand, factor), [b, length, h, d])
        parts.append(ed.op("Transpose", split, perm=list(perm)))
    scores = ed.op("Softmax", ed.op("MatMul", parts[0], parts[1]), axis=-1)
    b, h, length, d = q.shape
    out = ed.op("Transpose", ed.op("MatMul", scores, parts[2]), perm=[0, 2, 1, 3])
    return ed.reshape(out, [b, length, h * d])


def _projected(ed: Editor, operand: Operand, factor: float) -> str:
    """[B, L, E]: the columns of the projection that this operand is made of."""
    b, h, length, d = operand.shape
    columns = slice(operand.first, operand.first + h * d)
    weight = operand.weight[:, columns].astype(np.float64) * factor
    y = ed.op("MatMul", ed.reshape(operand.x, [b, length, len(weight)]), ed.const(weight))
    if operand.bias is None:
        return y
    return ed.op("Add", y, ed.const(operand.bias[columns].astype(np.float64) * factor))


def _operand(ed: Editor, value: str, transposed: bool) -> Operand | None:
    """Trace a MatMul operand back to a projection of [B, L, ...]; ``transposed`` for k, which comes as [B, H, D, L]."""
    scale, chain = 1.0, []
    while True:
        node = ed.producer(value, *_TRACED, "Mul", "Div")
        if node is None:
            break
        if node.op_type in ("Mul", "Div"):
            factor = ed.float_input(node)
            if factor is None or factor.size != 1 or (node.op_type == "Div" and ed.constant(node.input[1]) is None):
                break
            scale *= float(factor.item()) if node.op_type == "Mul" else 1 / float(factor.item())
            value = ed.other(node)
            continue
        if any(ed.constant(name) is None for name in node.input[1:] if name) or ed.constant(node.input[0]) is not None:
            return None
        chain.append((node, list(node.output).index(value)))
        value = node.input[0]
    source = ed.static(value)
    linear = _linear(ed, value)
    if source is None or linear is None or math.prod(source) > _LARGEST:
        return None
    index: Array = np.arange(math.prod(source), dtype=np.int32).reshape(source)
    for node, output in reversed(chain):
        moved = _move(ed, node, output, index)
        if moved is None:
            return None
        index = moved
    if transposed:
        index = index.swapaxes(-1, -2)
    if index.ndim != 4:
        return None
    b, h, length, d = index.shape
    width, first = source[-1], int(index.flat[0])
    if first >= width or b * length * width != math.prod(source):
        return None
    rows = (np.arange(b)[:, None, None, None] * length + np.arange(length)[:, None]) * width
    columns = first + np.arange(h)[:, None, None] * d + np.arange(d)
    if not np.array_equal(index, rows + columns):
        return None
    x, weight, bias = linear
    return Operand(x, weight, bias, first, scale, (b, h, length, d))


def _linear(ed: Editor, value: str) -> tuple[str, Array, Array | None] | None:
    """x, weight [in, out] and bias [out] of the MatMul, MatMul and Add, or Gemm that makes ``value``."""
    node, bias = ed.producer(value, "Add", "MatMul", "Gemm"), None
    if node is not None and node.op_type == "Add":
        bias, node = ed.float_input(node), ed.producer(ed.other(node), "MatMul")
        if bias is None or bias.ndim != 1:
            return None
    if node is None or (weight := ed.constant(node.input[1])) is None or weight.ndim != 2:
        return None
    if node.op_type == "Gemm":
        plain = all(attribute(node, key, 1.0) == 1.0 for key in ("alpha", "beta")) and not attribute(node, "transA", 0)
        bias = ed.constant(node.input[2]) if len(node.input) > 2 else None
        if not plain or (len(node.input) > 2 and (bias is None or bias.ndim != 1)):
            return None
        weight = weight.T if attribute(node, "transB", 0) else weight
    return node.input[0], weight, None if bias is None else np.broadcast_to(bias, weight.shape[1:])


def _move(ed: Editor, node: onnx.NodeProto, output: int, index: Array) -> Array | None:
    """The node's effect on an array of indices."""
    made = ed.static(node.output[output])
    if node.op_type == "Transpose":
        return index.transpose(tuple(attribute(node, "perm", range(index.ndim)[::-1])))
    if node.op_type in ("Reshape", "Squeeze", "Unsqueeze"):
        return None if made is None else index.reshape(made)
    if node.op_type == "Gather":
        chosen = ed.constant(node.input[1])
        taken: Array | None = None if chosen is None else index.take(chosen, axis=int(attribute(node, "axis", 0)))
        return taken
    if node.op_type == "Split":
        axis = attribute(node, "axis", 0) % index.ndim
        sizes = [ed.static(name) for name in node.output]
        if any(s is None for s in sizes):
            return None
        ends = np.cumsum([s[axis] for s in sizes if s is not None])
        parts: list[Array] = np.split(index, ends[:-1], axis=axis)
        return parts[output]
    starts, stops, axes, steps = (ed.ints(n) for n in [*node.input[1:], *[""] * 4][:4])
    if starts is None or stops is None:
        return None
    where: list[Any] = [slice(None)] * index.ndim
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        where[axis] = slice(start, stop if stop > -(1 << 31) else None, step)
    cut: Array = index[tuple(where)]
    return cut


def _joined(ed: Editor, out: onnx.NodeProto) -> str | None:
    """The value behind the product with v in which heads stand beside each other again: [B L, E] in any grouping."""
    value, shape = out.output[0], ed.static(out.output[0])
    if shape is None or math.prod(shape) > _LARGEST:
        return None
    heads, width = shape[1], shape[3]
    index: Array = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    wanted = index.transpose(0, 2, 1, 3).reshape(-1)
    while (node := ed.only_user(value, "Transpose", "Reshape", "Squeeze", "Unsqueeze")) is not None:
        moved = _move(ed, node, 0, index)
        if moved is None or any(ed.constant(name) is None for name in node.input[1:] if name):
            return None
        index, value = moved, node.output[0]
        if index.shape[-1] == heads * width and np.array_equal(index.reshape(-1), wanted):
            return str(value)
    return None
