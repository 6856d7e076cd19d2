"""The layers that the Demucs family shares, as ONNX: equal to ``demucs.hdemucs`` and ``demucs.demucs``, but cheaper.

Every function takes the graph, the name of a value and a torch module, and returns the name of the result. Values of
the frequency branch are [B, C, F, T] (``HEncLayer.freq``), of the time branch [B, C, T]; T always comes last. The time
branch stays 3-D, since a blocked 2-D convolution of one row has nothing to share among threads. Weights are folded in
float64 and rounded once.

Source of the layers: Défossez, "Hybrid Spectrogram and Waveform Source Separation" (2021), package ``demucs`` 4.1,
``HEncLayer``, ``HDecLayer`` and ``DConv``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ortsep.base.arrays import F64
from ortsep.base.errors import WeightsError
from ortsep.export.families.demucs.rows import Rows, fold, neighbours, rows_mean, unfold
from ortsep.export.graph.algebra import LONG, expansion_factors, phase_kernel, two_step
from ortsep.export.graph.builder import Graph

GELU_ONE = 1.1444507183528787
"""GELU(GELU_ONE) = 1: a channel that holds this before the GELU holds a one behind it."""


def numpy64(tensor: Any) -> F64:
    """A torch parameter in float64, detached."""
    array: F64 = tensor.detach().cpu().double().numpy()
    return array


def require(ok: bool, what: str) -> None:
    """Refuse a network that the graph does not cover. Raises WeightsError."""
    if not ok:
        raise WeightsError(
            f"this Demucs network has {what}, which the exporter doesn't cover; export another checkpoint"
        )


def padded(channels: int) -> int:
    """``channels`` rounded up to a multiple of 4, which ONNX Runtime's blocked convolution asks of its input."""
    return -4 * (-channels // 4)


def grown(array: F64, axis: int, size: int, value: float = 0.0) -> F64:
    """``array`` filled up along ``axis`` to ``size``."""
    widths = [(0, size - n if i == axis else 0) for i, n in enumerate(array.shape)]
    return np.pad(array, widths, constant_values=value)


# -- statistics ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Free:
    """The length T of a last axis that is known only when the graph runs; ``usual`` is a length to expect."""

    usual: int
    samples: str
    """T as an int64 value [1]."""

    @classmethod
    def of(cls, graph: Graph, x: str, usual: int) -> "Free":
        return cls(usual, graph.op("Shape", x, start=-1))

    def count(self, graph: Graph) -> str:
        """T as a float32 value [1]."""
        return graph.op("Cast", self.samples, to=1)


Length = int | Free | Rows
STEP = 1024
"""Samples summed at a time where the length is free."""


def time_mean(graph: Graph, x: str, length: Length) -> str:
    """The mean over the last axis, of ``length``, kept as a one; a long 3-D value is summed in two steps.

    A free length is filled up with zeros to a multiple of ``STEP`` for it.
    """
    if isinstance(length, Rows):
        return rows_mean(graph, x, length)
    if isinstance(length, Free):
        if length.usual < LONG:
            return graph.mean(x, -1)
        more = graph.op("Mod", graph.op("Neg", length.samples), graph.ints(STEP))
        filled = graph.op("Pad", x, graph.concat([graph.ints(0, 0, 0, 0, 0), more], 0))
        sums = graph.op("ReduceSum", graph.reshape(filled, 0, 0, -1, STEP), graph.ints(3), keepdims=0)
        return graph.div(graph.op("ReduceSum", sums, graph.ints(2), keepdims=1), length.count(graph))
    steps = two_step(length)
    if steps is None:
        return graph.mean(x, -1)
    return graph.reshape(graph.mean(graph.reshape(x, 0, 0, *steps), -1, -2), 0, 0, 1)


def standardise(graph: Graph, x: str, shape: Sequence[int], length: Length) -> tuple[str, str, str]:
    """(x - mean) / (1e-5 + std) over all axes but the batch; ``shape`` and ``length`` are x's without it.

    Returns the result, the mean and the unbiased standard deviation (both with ones for axes), all sums in steps.
    """
    axes = range(1, len(shape) + 1)
    size = length.samples if isinstance(length, Rows) else length

    def mean(value: str) -> str:
        if isinstance(length, Rows):
            return graph.mean(rows_mean(graph, value, length), 1)
        return graph.mean(time_mean(graph, value, length) if len(shape) == 1 else graph.mean(value, -1), *axes)

    mu = mean(x)
    centred = graph.sub(x, mu)
    if isinstance(size, Free):
        n = graph.mul(size.count(graph), graph.const([math.prod(shape)]))
        unbiased = graph.div(n, graph.sub(n, graph.const([1.0])))
    else:
        unbiased = graph.const(math.prod(shape) * size / (math.prod(shape) * size - 1))
    std = graph.op("Sqrt", graph.mul(mean(graph.mul(centred, centred)), unbiased))
    return graph.div(centred, graph.add(std, graph.const(1e-5))), mu, std


def norm_scale(graph: Graph, variance: str, eps: float) -> str:
    """1 / sqrt(variance + eps)."""
    return graph.op("Reciprocal", graph.op("Sqrt", graph.add(variance, graph.const(eps))))


# -- gated linear units --------------------------------------------------------------------------------------------


def glu_conv(graph: Graph, x: str, weight: F64, bias: F64, pads: Sequence[int] | None = None) -> str:
    """GLU(conv(x)) as two convolutions, a * sigmoid(b): ``weight`` [2C, in, ...], ``bias`` [2C], halves a and b.

    The split of a GLU costs a copy of the whole tensor, and a Sigmoid directly behind its convolution is computed
    inside it: 1.61 s became 1.40 s.
    """
    half = len(weight) // 2
    a = graph.conv(x, weight[:half], bias[:half], pads=pads)
    b = graph.conv(x, weight[half:], bias[half:], pads=pads)
    return graph.mul(a, graph.op("Sigmoid", b))


def rewrite_glu(graph: Graph, x: str, conv: nn.Module, length: Length) -> str:
    """GLU(rewrite(x)) for a ``Conv1d`` or ``Conv2d`` of stride 1 that keeps the size."""
    weight, bias, pads = numpy64(conv.weight), numpy64(conv.bias), [*conv.padding, *conv.padding]
    if isinstance(length, Rows):
        x = neighbours(graph, x, length, conv.in_channels, *pads) if pads[0] else x
        return glu_conv(graph, x, kernel(weight, 4), bias)
    return glu_conv(graph, x, weight, bias, pads)


# -- the residual branch -------------------------------------------------------------------------------------------


def per_row(array: F64, rank: int) -> F64:
    """Per-channel values [C] shaped to broadcast over a value of ``rank`` dimensions."""
    return array.reshape(1, -1, *[1] * (rank - 2))


def qr_factor(matrix: F64) -> F64:
    """The small R with |R x| = |matrix x| for every x."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def kernel(weight: F64, rank: int) -> F64:
    """A Conv1d weight [out, in, k] for a value of ``rank`` dimensions: along T, one row high."""
    return weight if rank == 3 else weight[:, :, None, :]


def compress(graph: Graph, x: str, conv: nn.Module, norm: nn.Module, *, rank: int, frames: Length) -> str:
    """GELU(GroupNorm(conv(x))) for DConv's dilated convolution C -> H, with further channels of ones up to
    ``padded(H + 2)`` (at least two).

    The statistics are per batch and row, over (H, T): demucs moves the rows of the frequency branch to the batch and
    back; here a convolution one row high does the same without a copy of the tensor. With the mean m of each channel
    over T and mu over channels, the variance is mean_c(mean_t((h - m)^2) + (m - mu)^2): two steps, nothing cancels.
    The extra channels are zero before the norm, whose affine part gives them the value where GELU is one; ``expand``
    uses them in place of a concatenation.
    """
    weight = kernel(numpy64(conv.weight), rank)
    hidden, size = len(weight), padded(len(weight) + 2)
    dilation, pad = conv.dilation[0], conv.padding[0]
    wide = [1] if rank == 3 else [1, 1]
    wide[-1] = dilation
    pads = [0, pad, 0, pad] if rank == 4 else [pad, pad]
    if isinstance(frames, Rows):
        x, pads = neighbours(graph, x, frames, conv.in_channels, pad, pad), [0, 0, 0, 0]
    h = graph.conv(x, grown(weight, 0, size), grown(numpy64(conv.bias), 0, size), pads=pads, dilation=wide)

    real = per_row(grown(np.full(hidden, size / hidden), 0, size), rank)  # turns a mean over `size` into one over H
    m = time_mean(graph, h, frames)
    centred = graph.sub(h, m)
    mu = graph.mul(graph.mean(m, 1), graph.const(size / hidden))
    off = graph.sub(m, mu)
    spread = graph.add(time_mean(graph, graph.mul(centred, centred), frames), graph.mul(off, off))
    scale = norm_scale(graph, graph.mean(graph.mul(spread, graph.const(real)), 1), norm.eps)

    gamma = per_row(grown(numpy64(norm.weight), 0, size), rank)
    beta = per_row(grown(numpy64(norm.bias), 0, size, GELU_ONE), rank)
    scale = graph.mul(scale, graph.const(gamma))
    shift = graph.add(graph.mul(off, scale), graph.const(beta))
    return graph.gelu(graph.add(graph.mul(centred, scale), shift))


def expand(
    graph: Graph, g: str, conv: nn.Module, norm: nn.Module, layer_scale: F64, *, rank: int, frames: Length
) -> str:
    """layer_scale * GLU(GroupNorm(conv(g))) for DConv's pointwise convolution H -> 2C, never holding its 2C channels
    before they are normalised; ``g`` as ``compress`` returns it.

    With W, b the convolution, m the mean of g over T, and y = W g + b: the mean of y is mu = Wbar m + bbar, and its
    variance mean_t |R (g - m)|^2 + mean_c(((W - Wbar) m + b - bbar)^2), where R (H x H) is the QR factor of W/sqrt(2C);
    the second term is |Q [m, 1]|^2 with Q the QR factor of [W - Wbar, b - bbar]/sqrt(2C). All centred, so nothing
    cancels. With s = 1/sqrt(var + eps) the norm then is one convolution of [g s, s, mu s] with
    [gamma W, gamma b, -gamma] and bias beta, where the ones of ``compress`` carry s and mu s; layer_scale folds into
    the linear half of the GLU. 1.87 s became 1.40 s, 3.2 GB 1.7 GB.
    """
    weight, bias = numpy64(conv.weight)[:, :, 0], numpy64(conv.bias)
    gamma, beta = numpy64(norm.weight), numpy64(norm.bias)
    outs, hidden = weight.shape
    size = padded(hidden + 2)
    tail = [1] * (rank - 2)

    def point(matrix: F64) -> F64:
        return grown(matrix, 1, size).reshape(len(matrix), size, *tail)

    m = time_mean(graph, g, frames)
    r = qr_factor(weight / math.sqrt(outs))
    moved = graph.conv(graph.sub(g, m), point(r))
    inner = time_mean(graph, graph.mul(moved, moved), frames)
    factors = expansion_factors(weight, bias, gamma)
    q = qr_factor(factors.centred / math.sqrt(outs))
    outer = graph.conv(m, point(q))
    variance = graph.add(
        graph.op("ReduceSum", inner, graph.ints(1), keepdims=1),
        graph.op("ReduceSum", graph.mul(outer, outer), graph.ints(1), keepdims=1),
    )
    s = norm_scale(graph, variance, norm.eps)
    mu = graph.conv(m, point(factors.mean[None]))

    is_mu = np.zeros(size)
    is_mu[hidden + 1] = 1.0
    carried = graph.add(graph.mul(mu, graph.const(per_row(is_mu, rank))), graph.const(per_row(1.0 - is_mu, rank)))
    scaled = graph.mul(g, graph.mul(s, carried))

    fold = np.concatenate([layer_scale, np.ones(outs // 2)])
    fold[outs // 2 :] = 1.0
    return glu_conv(graph, scaled, point(fold[:, None] * factors.matrix), fold * beta)


def dconv(graph: Graph, x: str, module: nn.Module, *, rank: int, frames: Length) -> str:
    """``demucs.demucs.DConv`` on [B, C, F, T] (``rank`` 4, rows apart) or [B, C, T] (``rank`` 3); ``frames`` is T.

    Raises WeightsError for branches with LSTM or attention.
    """
    for layer in module.layers:
        kinds = [type(part).__name__ for part in layer]
        plain = ["Conv1d", "GroupNorm", "GELU", "Conv1d", "GroupNorm", "GLU", "LayerScale"]
        require(kinds == plain, f"a residual branch of {', '.join(kinds)}")
        conv1, norm1, _, conv2, norm2, _, scale = layer
        require(norm1.num_groups == norm2.num_groups == 1, "residual branches normalised in groups")
        g = compress(graph, x, conv1, norm1, rank=rank, frames=frames)
        x = graph.add(x, expand(graph, g, conv2, norm2, numpy64(scale.scale), rank=rank, frames=frames))
    return x


# -- encoder and decoder layers ------------------------------------------------------------------------------------


def encoder_layer(
    graph: Graph, x: str, layer: nn.Module, width: int | Rows, *, frames: int | Rows, inject: str = ""
) -> str:
    """``demucs.hdemucs.HEncLayer``: strided convolution, GELU, DConv, 1x1 rewrite, GLU.

    ``width`` is the size of the axis it strides along (F in the frequency branch, T in the time branch), ``frames``
    the T of the result, ``inject`` a value added before the GELU. Where demucs pads the time branch to a multiple of
    the stride, the convolution pads more on the right.
    """
    require(type(layer).__name__ == "HEncLayer" and not layer.norm, "normalised or split encoder layers")
    rank = 4 if layer.freq or isinstance(frames, Rows) else 3
    stride, pad, weight, bias = layer.stride, layer.pad, numpy64(layer.conv.weight), numpy64(layer.conv.bias)
    if isinstance(width, Rows):
        heard = neighbours(graph, x, width, layer.conv.in_channels, pad, pad)
        y = graph.conv(heard, kernel(weight, 4), bias, stride=[1, stride])
        if not isinstance(frames, Rows):
            y = unfold(graph, y, Rows(width.count, width.width // stride, frames))
    else:
        more = 0 if layer.freq else -width % stride
        pads, strides = ([pad, 0, pad, 0], [stride, 1]) if layer.freq else ([pad, pad + more], [stride])
        y = graph.conv(x, weight, bias, stride=strides, pads=pads)
    if layer.empty:
        return y
    y = graph.gelu(graph.add(y, inject) if inject else y)
    if layer.dconv is not None:
        y = dconv(graph, y, layer.dconv, rank=rank, frames=frames)
    return y if layer.rewrite is None else rewrite_glu(graph, y, layer.rewrite, frames)


def upsample(graph: Graph, x: str, conv: nn.Module, sizes: Sequence[int] | Rows, *, gelu: bool) -> str:
    """A ``ConvTranspose1d/2d`` of kernel 2s and stride s, cropped by s/2 at both ends, then GELU: s times the size.

    Output row s*j + p hears two input rows: j - 1 and j for p < s/2, j and j + 1 for the others. So it is two
    convolutions of two taps whose channels hold s/2 phases each, and one transposition that interleaves the phases;
    no overlap-add, no crop. ``sizes`` are the spatial sizes of ``x``; the first one grows. One of them may be -1: free.
    """
    weight, bias = numpy64(conv.weight), numpy64(conv.bias)
    stride = conv.stride[0]
    half = stride // 2
    rows, tail = (0, ()) if isinstance(sizes, Rows) else (sizes[0], sizes[1:])
    require(
        weight.shape[2] == 2 * stride and stride % 2 == 0, "transposed convolutions of another kernel than 2x stride"
    )
    parts = []
    for first in (0, half):
        taps, ((above, below),) = phase_kernel(weight, stride, half, [range(first, first + half)])
        if isinstance(sizes, Rows):
            heard = neighbours(graph, x, sizes, conv.in_channels, -above, below)
            y = graph.conv(heard, kernel(taps, 4), np.repeat(bias, half))
        else:
            pads = [-above, *[0] * len(tail), below, *[0] * len(tail)]
            y = graph.conv(x, taps, np.repeat(bias, half), pads=pads)
        y = graph.gelu(y) if gelu else y
        parts.append(y if isinstance(sizes, Rows) else graph.reshape(y, 0, len(bias), half, rows, *tail))
    if isinstance(sizes, Rows):
        return _interleaved(graph, parts, len(bias), stride, sizes)
    y = graph.transpose(graph.concat(parts, 2), 0, 1, 3, 2, *range(4, 4 + len(tail)))
    return graph.reshape(y, 0, len(bias), max(-1, rows * stride), *tail)


def _interleaved(graph: Graph, parts: Sequence[str], channels: int, stride: int, rows: Rows) -> str:
    """The phases of a folded axis, two values [B, C stride / 2, R, W], as [B, C, R, stride W]."""
    half, size = stride // 2, (rows.count, rows.width)
    apart = [graph.reshape(y, channels, half, *size) for y in parts]
    y = graph.transpose(graph.concat(apart, 1), 0, 2, 3, 1)
    return graph.reshape(y, 1, channels, rows.count, stride * rows.width)


def decoder_layer(
    graph: Graph, x: str, skip: str, layer: nn.Module, sizes: Sequence[int] | Rows, length: int | Rows
) -> tuple[str, str]:
    """``demucs.hdemucs.HDecLayer``: skip connection, rewrite, GLU, DConv, transposed convolution, GELU.

    ``sizes`` are the spatial sizes of ``x``, (F, T) or (T,); ``length`` is that of a time branch's result. ``skip`` is
    "" for an empty layer. Returns the result and, as demucs does, the value before the transposed convolution.
    """
    require(type(layer).__name__ == "HDecLayer" and not layer.norm, "normalised or split decoder layers")
    frames, rank = (sizes, 4) if isinstance(sizes, Rows) else (sizes[-1], 2 + len(sizes))
    y = x
    if not layer.empty:
        y = graph.add(x, skip)
        if layer.rewrite is not None:
            y = rewrite_glu(graph, y, layer.rewrite, frames)
        if layer.dconv is not None:
            y = dconv(graph, y, layer.dconv, rank=rank, frames=frames)
    if isinstance(length, Rows):
        if not isinstance(sizes, Rows):
            sizes = Rows(length.count, length.width // layer.stride, sizes[0])
            return upsample(
                graph, fold(graph, y, sizes, layer.conv_tr.in_channels), layer.conv_tr, sizes, gelu=not layer.last
            ), y
        return upsample(graph, y, layer.conv_tr, sizes, gelu=not layer.last), y
    assert not isinstance(sizes, Rows)
    z = upsample(graph, y, layer.conv_tr, sizes, gelu=not layer.last)
    if not layer.freq and sizes[0] * layer.stride != length:
        z = graph.slice(z, 2, 0, length)
    return z, y
