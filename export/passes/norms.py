"""Normalisation: accurate sums, and group norms that never see the tensor that they normalise.

ONNX Runtime's CPU kernels of InstanceNormalization, GroupNormalization and ReduceMean sum flat in float32. Over eight
million elements that leaves 72 dB of a network that has 120 dB in torch; summed in steps, one axis after the other, the
same float32 gives what torch gives.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from ortsep.base.arrays import Array
from ortsep.export.graph.algebra import expansion_factors, two_step
from ortsep.export.passes.editor import Editor, attribute

_MANY = 4096
"""Elements from which the order of a sum matters."""
_ONES = 1 << 20
"""Elements of the broadcast ones that ``expansion_norm`` may store."""


@dataclass(frozen=True)
class Norm:
    """A group norm found in the graph: y = (x - mean) / sqrt(var + eps) * gamma + beta, statistics per group."""

    x: str
    y: str
    groups: int
    gamma: Array
    beta: Array
    eps: float
    shape: tuple[int | None, ...]
    """[N, C, *spatial]; C and the spatial sizes are numbers."""

    @property
    def channels(self) -> int:
        return len(self.gamma)

    @property
    def spatial(self) -> tuple[int, ...]:
        return tuple(d for d in self.shape[2:] if d is not None)


def expansion_norm(ed: Editor) -> int:
    """GroupNorm(1) behind a pointwise convolution that widens H channels to 2C, from the H channels alone.

    With m = mean_t g, g' = g - m and y = W g + b: mean(y) = Wbar m + bbar, and since g' has no mean,
    var(y) = sum_t(g' . (W^T W) g') / (C T) + mean_c(d^2) with d = W m + b - mean(y). The normalised y is a convolution
    of [g rs, rs, mean(y) rs] with [gamma W, gamma b, -gamma] and bias beta (rs = 1 / sqrt(var + eps)). All centred, so
    nothing cancels; H is 4 to 16 times smaller than 2C, and a GLU behind it can be two convolutions. Zero channels fill
    the input up to a multiple of 4, which the blocked convolution kernel asks for.
    """
    count = 0
    for norm in _norms(ed):
        conv = ed.producer(norm.x, "Conv")
        if conv is None or norm.groups != 1 or not _pointwise(ed, conv) or len(ed.users(norm.x)) != 1:
            continue
        weight = ed.constant(conv.input[1])
        if weight is None or weight.shape[0] < 2 * weight.shape[1] or math.prod(norm.spatial) > _ONES:
            continue
        bias = ed.constant(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(weight))
        if bias is None:
            continue
        ed.replace(norm.y, _expanded(ed, norm, conv.input[0], weight.astype(np.float64), bias.astype(np.float64)))
        count += 1
    return count


def _expanded(ed: Editor, norm: Norm, g: str, weight: Array, bias: Array) -> str:
    spatial = norm.spatial
    ones = [1] * len(spatial)
    w = weight.reshape(weight.shape[:2])
    out, hidden = len(w), w.size // len(w)
    gamma, beta = norm.gamma.astype(np.float64), norm.beta.astype(np.float64)

    def conv(x: str, matrix: Array, offset: Array) -> str:
        shaped = matrix.reshape(*matrix.shape, *ones)
        return ed.op("Conv", x, ed.const(shaped), ed.const(offset), kernel_shape=ones)

    m = _spatial_mean(ed, g, spatial)
    centred = ed.op("Sub", g, m)
    energy = ed.op("Mul", centred, conv(centred, w.T @ w, np.zeros(hidden)))
    within = ed.op("Mul", ed.mean(_spatial_mean(ed, energy, spatial), 1), ed.const(hidden / out))
    factors = expansion_factors(w, bias, gamma)
    mu = conv(m, factors.mean[None, :-1], factors.mean[-1:])
    d = conv(m, factors.centred[:, :-1], factors.centred[:, -1])
    var = ed.op("Add", within, ed.mean(ed.op("Mul", d, d), 1))
    rs = _reciprocal_root(ed, var, norm.eps)
    filler = ed.const(np.zeros((1, -(hidden + 2) % 4, *ones)))
    beside = [rs, ed.op("Mul", mu, rs)] + ([filler] if (hidden + 2) % 4 else [])
    if (hidden + 2) % 4 and norm.shape[0] != 1:
        beside[2:] = [ed.op("Mul", rs, filler)]
    aside = ed.op("Mul", ed.op("Concat", *beside, axis=1), ed.const(np.ones((1, 1, *spatial))))
    widened = ed.op("Concat", ed.op("Mul", g, rs), aside, axis=1)
    return conv(widened, np.pad(factors.matrix, [(0, 0), (0, -(hidden + 2) % 4)]), beta)


def step_norm(ed: Editor) -> int:
    """Every other group or instance norm as centred two-step reductions, its affine part folded in.

    mean over the spatial axes, then over the channels of the group; variance from the centred values; one product and
    one sum put scale, gamma and beta on.
    """
    count = 0
    for norm in _norms(ed):
        x, spatial, rank = norm.x, norm.spatial, len(norm.shape)
        split = 1 < norm.groups < norm.channels
        if split:
            x = ed.reshape(x, [0, norm.groups, norm.channels // norm.groups, *spatial])
        axes = () if norm.groups == norm.channels else (2 if split else 1,)

        def mean(
            value: str, spatial: tuple[int, ...] = spatial, axes: tuple[int, ...] = axes, first: int = 2 + split
        ) -> str:
            return ed.mean(_spatial_mean(ed, value, spatial, first), *axes)

        centred = ed.op("Sub", x, mean(x))
        rs = _reciprocal_root(ed, mean(ed.op("Mul", centred, centred)), norm.eps)
        affine = (norm.groups, -1) if split else (norm.channels,)
        gamma, beta = (p.reshape(1, *affine, *[1] * (rank - 2)).astype(np.float64) for p in (norm.gamma, norm.beta))
        y = ed.op("Add", ed.op("Mul", centred, ed.op("Mul", rs, ed.const(gamma))), ed.const(beta))
        ed.replace(norm.y, ed.reshape(y, [0, norm.channels, *spatial]) if split else y)
        count += 1
    return count


def step_means(ed: Editor) -> int:
    """ReduceMean over several axes, or a long one, as one small sum after another."""
    count = 0
    for node in ed.find("ReduceMean"):
        shape = ed.static(node.input[0])
        axes = ed.ints(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
        if shape is None or not axes or not ed.is_float(node.input[0]):
            continue
        axes = sorted(a % len(shape) for a in axes)
        trailing = axes == list(range(len(shape) - len(axes), len(shape)))
        single = len(axes) == 1 and not (trailing and two_step(shape[-1]) is not None)
        if single or math.prod(shape[a] for a in axes) < _MANY:
            continue
        x = node.input[0]
        x = _spatial_mean(ed, x, shape[axes[0] :], axes[0]) if trailing else ed.mean(x, *axes)
        if not attribute(node, "keepdims", 1):
            x = ed.reshape(x, [d for a, d in enumerate(shape) if a not in axes])
        ed.replace(node.output[0], x)
        count += 1
    return count


def _spatial_mean(ed: Editor, x: str, spatial: tuple[int, ...], first: int = 2) -> str:
    """The mean over the last axes, from ``first`` on, of these sizes; kept as ones."""
    steps = two_step(spatial[-1])
    if steps is not None:
        lead = [0] * (first + len(spatial) - 1)
        split = ed.mean(ed.reshape(x, [*lead, *steps]), first + len(spatial) - 1, first + len(spatial))
        x = ed.reshape(split, [*lead, 1])
        return ed.mean(x, *range(first, first + len(spatial) - 1))
    return ed.mean(x, *range(first, first + len(spatial)))


def _reciprocal_root(ed: Editor, var: str, eps: float) -> str:
    return ed.op("Reciprocal", ed.op("Sqrt", ed.op("Add", var, ed.const(eps))))


def _pointwise(ed: Editor, conv: onnx.NodeProto) -> bool:
    weight = ed.shape(conv.input[1])
    plain = not any(attribute(conv, "pads", [])) and set(attribute(conv, "strides", [1])) == {1}
    automatic = attribute(conv, "auto_pad", b"NOTSET") == b"NOTSET"
    return bool(weight and set(weight[2:]) == {1} and plain and automatic and attribute(conv, "group", 1) == 1)


def _norms(ed: Editor) -> Iterator[Norm]:
    for node in ed.find("InstanceNormalization", "GroupNormalization"):
        scale, bias = ed.constant(node.input[1]), ed.constant(node.input[2])
        if scale is None or bias is None or not ed.is_float(node.input[0]):
            continue
        eps, x, y = float(attribute(node, "epsilon", 1e-5)), node.input[0], node.output[0]
        groups = len(scale)
        if node.op_type == "GroupNormalization":
            groups = int(attribute(node, "num_groups"))
        else:
            x, y = _unflattened(ed, x, y)
        shape = ed.shape(x)
        if shape is None or len(shape) < 3 or None in shape[1:]:
            continue
        channels = shape[1] or 0
        if not channels or channels % groups or len(scale) not in (groups, channels):
            continue
        gamma, beta = (np.repeat(p, channels // len(p)).astype(np.float64) for p in (scale, bias))
        for kind in ("Mul", "Add"):
            user = ed.only_user(y, kind)
            more = _per_channel(ed, user, channels, len(shape)) if user is not None else None
            if user is not None and more is not None:
                gamma, beta = (gamma * more, beta * more) if kind == "Mul" else (gamma, beta + more)
                y = user.output[0]
        yield Norm(x, y, groups, gamma, beta, eps, shape)


def _unflattened(ed: Editor, x: str, y: str) -> tuple[str, str]:
    """Through the Reshapes with which an exporter makes a group norm of an instance norm: [N, C, ...] to [N, G, -1]."""
    before, after = ed.producer(x, "Reshape"), ed.only_user(y, "Reshape")
    if before is None or after is None:
        return x, y
    outside, inside = ed.shape(before.input[0]), ed.shape(x)
    if outside is None or inside is None or len(inside) != 3 or len(outside) < 3:
        return x, y
    same = ed.shape(after.output[0]) == outside and None not in outside[1:] and outside[0] == inside[0]
    return (before.input[0], after.output[0]) if same else (x, y)


def _per_channel(ed: Editor, node: onnx.NodeProto, channels: int, rank: int) -> Array | None:
    """The constant of a Mul or Add as one value per channel of [N, C, ...]."""
    value = ed.float_input(node, rank)
    if value is None:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    if shape[1] not in (1, channels) or any(d != 1 for i, d in enumerate(shape) if i != 1):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float64)
