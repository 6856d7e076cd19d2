"""ConvTDFNet as an ONNX graph: ``spectrum`` [B, 4, F, T] to ``stem_spectra`` [B, 1, 4, F, T].

Activations are [B, C, T, F], so that the linear layers over frequency are plain products; the transposes stand outside
the first and the last convolution, which see single bins, where there are 4 channels and not 48. BatchNorm behind a
convolution is folded in float64. Behind a product over frequency it is a scale and a shift per channel, which the
product's weights can't hold; the scale of a block's second one stands in front of the product, where there are an
eighth as many bins.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from ortsep.base.arrays import F64
from ortsep.export.families.mdx_net.network import CHANNELS, ConvTDFNet
from ortsep.export.graph.builder import Graph


def build_graph(network: ConvTDFNet, frames: int, name: str) -> onnx.ModelProto:
    """The graph for spectra of ``frames`` frames; B is free. Has operators of the ONNX standard only."""
    bins = network.shape.dim_f
    g = Graph(name)
    x = g.input("spectrum", ("B", CHANNELS, bins, frames))
    x = g.transpose(x, 0, 1, 3, 2)
    x = _layer(g.scope("first"), x, network.first_conv)
    skips = []
    for level, (block, down) in enumerate(zip(network.encoding_blocks, network.ds, strict=True)):
        skips.append(_block(g.scope(f"encoder{level}"), x, block))
        x = _layer(g.scope(f"down{level}"), skips[-1], down)
    x = _block(g.scope("bottleneck"), x, network.bottleneck_block)
    for level, (block, up) in enumerate(zip(network.decoding_blocks, network.us, strict=True)):
        x = g.mul(_layer(g.scope(f"up{level}"), x, up), skips.pop())
        x = _block(g.scope(f"decoder{level}"), x, block)
    x = _conv(g.scope("last"), x, network.final_conv[0], None)
    x = g.op("Unsqueeze", g.transpose(x, 0, 1, 3, 2), g.ints(1))
    g.output(x, "stem_spectra", ("B", 1, CHANNELS, bins, frames))
    return g.model()


def _array(tensor: Any) -> F64:
    values: F64 = tensor.detach().double().numpy()
    return values


def _affine(norm: nn.BatchNorm2d) -> tuple[F64, F64]:
    """A batch norm in evaluation as scale and shift."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - scale * _array(norm.running_mean)


def _layer(g: Graph, x: str, layer: Any) -> str:
    """Convolution, normalisation, ReLU."""
    return g.op("Relu", _conv(g, x, layer[0], layer[1]))


def _conv(g: Graph, x: str, conv: Any, norm: nn.Module | None) -> str:
    """A convolution [B, C, T, F] with its normalisation, folded into it where that is a BatchNorm.

    Kernels lie [frequency, time] where the network's first and last convolutions have [1, 1], and [time, frequency]
    elsewhere: as the activations do.
    """
    weight = _array(conv.weight)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    bias = _array(conv.bias) if conv.bias is not None else np.zeros(conv.out_channels)
    if isinstance(norm, nn.BatchNorm2d):
        scale, shift = _affine(norm)
        weight = weight * (scale[:, None, None] if transposed else scale[:, None, None, None])
        bias = scale * bias + shift
    stride = tuple(conv.stride)
    if transposed:
        y = g.conv_transpose(x, weight, bias, stride=stride)
    else:
        y = g.conv(x, weight, bias, stride=stride, pads=tuple(conv.padding) * 2)
    return _group_norm(g, y, norm) if isinstance(norm, nn.GroupNorm) else y


def _group_norm(g: Graph, x: str, norm: nn.GroupNorm) -> str:
    """GroupNorm of [B, C, T, F], its sums taken axis by axis."""
    channels, groups = norm.num_channels, norm.num_groups
    size = channels // groups
    weight, bias = (_array(v).reshape(1, channels, 1, 1) for v in (norm.weight, norm.bias))
    last = g.op("Shape", x, start=2)
    apart = g.op("Reshape", x, g.op("Concat", g.ints(0, groups, size), last, axis=0))
    centred = g.sub(apart, g.mean(apart, 2, 3, 4))
    variance = g.mean(g.mul(centred, centred), 2, 3, 4)
    y = g.div(centred, g.op("Sqrt", g.add(variance, g.const(np.float32(norm.eps)))))
    y = g.op("Reshape", y, g.op("Concat", g.ints(0, channels), last, axis=0))
    return g.add(g.mul(y, g.const(weight)), g.const(bias))


def _block(g: Graph, x: str, block: Any) -> str:
    for layer in block.tfc.H:
        x = _layer(g, x, layer)
    if block.tdf is None:
        return x
    y = x
    linears = [(block.tdf[k], block.tdf[k + 1]) for k in range(0, len(block.tdf), 3)]
    for linear, norm in linears:
        y = _over_frequency(g, y, linear, norm, narrow=linear.in_features < linear.out_features)
    return g.add(x, y)


def _over_frequency(g: Graph, x: str, linear: nn.Linear, norm: nn.Module, *, narrow: bool) -> str:
    """A linear layer over the last axis, its normalisation, ReLU."""
    weight = _array(linear.weight).T
    bias = _array(linear.bias) if linear.bias is not None else np.zeros(linear.out_features)
    if isinstance(norm, nn.GroupNorm):
        y = g.op("MatMul", x, g.const(weight))
        y = g.add(y, g.const(bias)) if linear.bias is not None else y
        return g.op("Relu", _group_norm(g, y, norm))
    assert isinstance(norm, nn.BatchNorm2d)
    scale, shift = (v.reshape(1, -1, 1, 1) for v in _affine(norm))
    if linear.bias is not None:
        shift = scale * bias + shift
    if narrow:
        y = g.op("MatMul", g.mul(x, g.const(scale)), g.const(weight))
    else:
        y = g.mul(g.op("MatMul", x, g.const(weight)), g.const(scale))
    return g.op("Relu", g.add(y, g.const(shift)))


def as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
