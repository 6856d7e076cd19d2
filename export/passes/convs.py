"""Convolutions: affine parts folded in, GLU without the split, transposed convolutions without the overlap-add."""

import math

import numpy as np
import onnx

from ortsep.base.arrays import Array
from ortsep.export.graph.algebra import affine_of_batch_norm, phase_kernel
from ortsep.export.passes.editor import Editor, attribute

_OUT_AXIS = {"Conv": 0, "ConvTranspose": 1}


def fold_affine(ed: Editor) -> int:
    """BatchNormalization, and products and sums with constants, into the weights of the layer in front.

    (W x + b) s + t = (s W) x + (s b + t), per output channel, in float64 and rounded once. Also LayerScale behind a
    gated unit: s (a sigmoid(g)) = (s a) sigmoid(g).
    """
    count = 0
    for kind in ("BatchNormalization", "Mul", "Add"):
        for node in ed.find(kind):
            count += _folded(ed, node)
    return count


def _folded(ed: Editor, node: onnx.NodeProto) -> int:
    x = node.input[0] if node.op_type == "BatchNormalization" else ed.other(node)
    layer = ed.producer(x, "Conv", "ConvTranspose", "Gemm", "MatMul")
    gate = None
    if layer is None and node.op_type == "Mul" and (gate := ed.producer(x, "Mul")) is not None:
        operands = [(ed.producer(n, "Conv"), ed.producer(m, "Sigmoid")) for n, m in (gate.input, gate.input[::-1])]
        layer = next((conv for conv, sigmoid in operands if conv is not None and sigmoid is not None), None)
    if layer is None or ed.only_user(x) is None or ed.only_user(layer.output[0]) is None:
        return 0
    weight = ed.constant(layer.input[1])
    bias = ed.constant(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    if weight is None or (len(layer.input) > 2 and layer.input[2] and bias is None) or weight.dtype != np.float32:
        return 0
    if layer.op_type == "MatMul" and (node.op_type != "Mul" or weight.ndim != 2):
        return 0  # its bias is the Add: ONNX Runtime and the next fold know that form
    axis, channels = _outputs(layer, weight)
    found = _affine(ed, node, layer.op_type, channels, ed.shape(x))
    if axis is None or found is None:
        return 0
    scale, offset = found
    along = [1] * weight.ndim
    if layer.op_type == "ConvTranspose" and attribute(layer, "group", 1) > 1:
        return 0
    along[axis] = channels
    new_bias = (0 if bias is None else bias.astype(np.float64)) * scale + offset
    inputs = [layer.input[0], ed.const(weight * scale.reshape(along))]
    if bias is not None or node.op_type != "Mul":
        inputs.append(ed.const(np.broadcast_to(new_bias, (channels,))))
    new = ed.copy(layer, *inputs)
    if gate is not None:
        new = ed.copy(gate, *(new if name == layer.output[0] else name for name in gate.input))
    if (shape := ed.shape(x)) is not None:
        ed.record(new, shape)
    ed.replace(node.output[0], new)
    return 1


def _outputs(layer: onnx.NodeProto, weight: Array) -> tuple[int | None, int]:
    """The axis of the weights along which output channels lie, and their number."""
    if layer.op_type == "Gemm":
        plain = attribute(layer, "alpha", 1.0) == 1.0 and attribute(layer, "beta", 1.0) == 1.0
        axis = 0 if attribute(layer, "transB", 0) else 1
        return (axis if plain else None), weight.shape[axis]
    axis = weight.ndim - 1 if layer.op_type == "MatMul" else _OUT_AXIS[layer.op_type]
    return axis, weight.shape[axis]


def _affine(
    ed: Editor, node: onnx.NodeProto, layer: str, channels: int, shape: tuple[int | None, ...] | None
) -> tuple[Array, Array] | None:
    """Scale and offset [channels] of the node, in float64; None where it isn't one value per output channel."""
    if node.op_type == "BatchNormalization":
        values = [ed.constant(name) for name in node.input[1:]]
        if any(v is None for v in values) or attribute(node, "training_mode", 0):
            return None
        gamma, beta, mean, variance = (np.asarray(v) for v in values)
        return affine_of_batch_norm(gamma, beta, mean, variance, attribute(node, "epsilon", 1e-5))
    value = ed.float_input(node)
    if value is None or shape is None or value.ndim > len(shape):
        return None
    axis = 1 if layer in _OUT_AXIS else len(shape) - 1
    full = (1,) * (len(shape) - value.ndim) + value.shape
    if full[axis] not in (1, channels) or any(d != 1 for i, d in enumerate(full) if i != axis):
        return None
    spread = np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float64)
    return (spread, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), spread)


def split_glu(ed: Editor) -> int:
    """GLU(conv(x)) = a(x) * sigmoid(b(x)) with the two halves of the weights as convolutions of their own.

    The same arithmetic, but no copy of both halves, and a Sigmoid directly behind its convolution is computed inside
    it (Dauphin et al. 2017 for the unit).
    """
    count = 0
    for split in ed.find("Split"):
        conv = ed.producer(split.input[0], "Conv")
        if conv is None or ed.only_user(split.input[0]) is None or len(split.output) != 2:
            continue
        sigmoid = ed.only_user(split.output[1], "Sigmoid")
        product = ed.only_user(sigmoid.output[0], "Mul") if sigmoid is not None else None
        weight = ed.constant(conv.input[1])
        bias = ed.constant(conv.input[2]) if len(conv.input) > 2 else None
        if sigmoid is None or product is None or split.output[0] not in product.input or weight is None:
            continue
        axis, half = attribute(split, "axis", 0) % weight.ndim, weight.shape[0] // 2
        sizes = ed.ints(split.input[1]) if len(split.input) > 1 else attribute(split, "split", [half, half])
        if (
            axis != 1
            or sizes != [half, half]
            or attribute(conv, "group", 1) != 1
            or (len(conv.input) > 2) != (bias is not None)
        ):
            continue
        halves = []
        for part in (slice(half), slice(half, None)):
            more = [] if bias is None else [ed.const(bias[part])]
            halves.append(ed.copy(conv, conv.input[0], ed.const(weight[part]), *more))
        ed.replace(product.output[0], ed.op("Mul", halves[0], ed.op("Sigmoid", halves[1])))
        count += 1
    return count


def crop_transposed(ed: Editor) -> int:
    """A Slice behind a ConvTranspose as its pads: what is cut off need not be computed."""
    count = 0
    for node in ed.find("Slice"):
        conv = ed.producer(node.input[0], "ConvTranspose")
        shape = ed.static(node.input[0])
        if conv is None or shape is None or ed.only_user(node.input[0]) is None or len(node.input) < 4:
            continue
        starts, stops, axes = (ed.ints(name) for name in node.input[1:4])
        steps = ed.ints(node.input[4]) if len(node.input) > 4 else [1] * len(starts or ())
        known = starts is not None and stops is not None and axes is not None and steps is not None
        if not known or attribute(conv, "auto_pad", b"NOTSET") != b"NOTSET" or attribute(conv, "output_shape"):
            continue
        rank = len(shape) - 2
        pads = list(attribute(conv, "pads", [0] * 2 * rank))
        if any(attribute(conv, "output_padding", [0])) or any(s != 1 for s in steps or ()):
            continue
        if any(a % len(shape) < 2 for a in axes or ()):
            continue
        for start, stop, axis in zip(starts or (), stops or (), axes or (), strict=True):
            axis, size = axis % len(shape), shape[axis % len(shape)]
            first, last, _ = slice(start, stop).indices(size)
            pads[axis - 2] += first
            pads[axis - 2 + rank] += size - last
        ed.replace(node.output[0], ed.copy(conv, *conv.input, pads=pads))
        count += 1
    return count


def shuffle_transposed(ed: Editor) -> int:
    """A ConvTranspose of kernel 2s and stride s, cropped by s/2, as two convolutions of two taps and a transposition.

    Output row s j + p hears two input rows: j - 1 and j for p < s/2, j and j + 1 for the others. Channels hold the s/2
    phases of each half; interleaving them is one transposition. No overlap-add in memory, and the convolutions are the
    blocked ones (Shi et al. 2016: sub-pixel convolution).
    """
    count = 0
    for node in ed.find("ConvTranspose"):
        weight, shape, made = ed.constant(node.input[1]), ed.static(node.input[0]), ed.static(node.output[0])
        if weight is None or shape is None or made is None or not _doubled(node, weight):
            continue
        bias = ed.constant(node.input[2]) if len(node.input) > 2 else np.zeros(weight.shape[1], np.float32)
        stride, rows, tail = attribute(node, "strides")[0], shape[2], shape[3:]
        if bias is None or made[2] > rows * stride:
            continue
        ed.replace(node.output[0], _shuffled(ed, node.input[0], weight, bias, stride, rows, tail, made[2]))
        count += 1
    return count


def _doubled(node: onnx.NodeProto, weight: Array) -> bool:
    rank = weight.ndim - 2
    strides = attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * 2 * rank)
    stride = strides[0]
    along = weight.shape[2] == 2 * stride and stride % 2 == 0 and pads[0] == stride // 2
    plain = attribute(node, "group", 1) == 1 and set(attribute(node, "dilations", [1])) == {1}
    others = math.prod(weight.shape[3:]) == math.prod(strides[1:]) == 1 and not any(pads[1:rank] + pads[rank + 1 :])
    fixed = attribute(node, "auto_pad", b"NOTSET") == b"NOTSET" and not any(attribute(node, "output_padding", [0]))
    return bool(along and plain and others and fixed)


def _shuffled(
    ed: Editor, x: str, weight: Array, bias: Array, stride: int, rows: int, tail: tuple[int, ...], wanted: int
) -> str:
    half, ones, outputs = stride // 2, [0] * len(tail), weight.shape[1]
    parts = []
    for first in (0, half):
        taps, ((above, below),) = phase_kernel(weight, stride, half, [range(first, first + half)])
        y = ed.op(
            "Conv", x, ed.const(taps), ed.const(np.repeat(bias, half)),
            kernel_shape=list(taps.shape[2:]), pads=[-above, *ones, below, *ones],
        )  # fmt: skip
        parts.append(ed.reshape(y, [0, outputs, half, rows, *tail]))
    joined = ed.op("Transpose", ed.op("Concat", *parts, axis=2), perm=[0, 1, 3, 2, *range(4, 4 + len(tail))])
    y = ed.reshape(joined, [0, outputs, rows * stride, *tail])
    if wanted < rows * stride:
        y = ed.op("Slice", y, *(ed.const([v], np.int64) for v in (0, wanted, 2)))
    return y
