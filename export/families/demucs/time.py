"""The graph of the time-domain Demucs of version 3, for any valid number of samples.

The network's own ``forward`` (package ``demucs`` 4.1, ``demucs.demucs.Demucs``; Défossez 2021) on lengths that its
``valid_length`` leaves as they are: then nothing is padded or trimmed within. Values are [1, C, T].
"""

from collections.abc import Iterator
from typing import Any

import onnx
from demucs.demucs import Demucs
from julius.resample import ResampleFrac
from torch import nn

from ortsep.export.families.demucs.inner import blstm, convolve, glu, group_norm, residual
from ortsep.export.families.demucs.layers import Free, glu_conv, numpy64, require, time_mean
from ortsep.export.graph.algebra import phase_kernel
from ortsep.export.graph.builder import Graph


def demucs_v3_graph(model: Demucs, *, samples: int, portable: bool = False) -> onnx.ModelProto:
    """The graph: ``mix`` [1, C, N] to ``stems`` [1, S, C, N], N free but valid; ``samples`` is the N to expect.

    The graph is ``portable`` in any case. Raises WeightsError for hyper-parameters that it does not cover.
    """
    channels, stems = model.audio_channels, len(model.sources)
    graph = Graph("demucs")
    mix = graph.input("mix", [1, channels, "samples"])
    length = Free.of(graph, mix, samples)
    x, level = (mix, None) if not model.normalize else standardise_mono(graph.scope("standardise"), mix, length)
    if model.resample:
        x = resample(graph.scope("upsample"), x, channels, 1, 2)
        samples *= 2
    length = Free.of(graph, x, samples)

    skips: list[tuple[str, Free]] = []
    for index, layer in enumerate(model.encoder):
        x, length = _layers(graph.scope(f"encoder/{index}"), x, layer, length)
        skips.append((x, length))
    if model.lstm is not None:
        x = blstm(graph.scope("lstm"), x, model.lstm)
    for index, layer in enumerate(model.decoder):
        skip, length = skips.pop()
        x, _ = _layers(graph.scope(f"decoder/{index}"), graph.add(x, skip), layer, length)

    graph.scope("restore")
    if model.resample:
        x = resample(graph, x, stems * channels, 2, 1)
    x = graph.reshape(x, 0, stems, channels, -1)
    if level is not None:
        x = graph.add(graph.mul(x, level[1]), level[0])
    graph.output(x, "stems", [1, stems, channels, "samples"])
    return graph.model()


def standardise_mono(graph: Graph, x: str, length: Free) -> tuple[str, tuple[str, str]]:
    """(x - mean) / (1e-5 + std) by mean and unbiased deviation of the mono mix; also both of these, [1, 1, 1]."""
    mono = graph.mean(x, 1)
    mean = time_mean(graph, mono, length)
    centred = graph.sub(mono, mean)
    count = length.count(graph)
    unbiased = graph.div(count, graph.sub(count, graph.const([1.0])))
    std = graph.op("Sqrt", graph.mul(time_mean(graph, graph.mul(centred, centred), length), unbiased))
    return graph.div(graph.sub(x, mean), graph.add(std, graph.const(1e-5))), (mean, std)


def resample(graph: Graph, x: str, channels: int, old: int, new: int) -> str:
    """``julius.resample_frac`` of [1, C, T] to [1, C, T new / old], with julius's own windowed sinc kernels."""
    kernel = numpy64(ResampleFrac(old, new).kernel)
    width = (kernel.shape[-1] - old) // 2
    alone = graph.reshape(x, channels, 1, -1)
    filled = graph.op("Pad", alone, graph.ints(0, 0, width, 0, 0, width), mode="edge")
    y = graph.conv(filled, kernel, stride=[old])
    return graph.reshape(graph.transpose(y, 0, 2, 1) if new > 1 else y, 1, channels, -1)


def _layers(graph: Graph, x: str, layers: nn.Module, length: Free) -> tuple[str, Free]:
    """A ``Sequential`` of the network: its result, and the length of what its first convolution gave."""
    parts = _grouped(list(layers.children()))
    for part, norm, act in parts:
        kind = type(part).__name__
        if kind == "Conv1d":
            gated = type(act).__name__ == "GLU"
            if gated and norm is None:
                x = glu_conv(graph, x, numpy64(part.weight), numpy64(part.bias), [part.padding[0]] * 2)
                continue
            x = convolve(graph, x, part, part.stride[0])
            if part.stride[0] > 1:
                length = Free.of(graph, x, length.usual // part.stride[0])
            x = _activated(graph, x if norm is None else group_norm(graph, x, norm, length), act)
        elif kind == "DConv":
            x = residual(graph, x, part, length)
        elif kind == "ConvTranspose1d":
            x = _transposed(graph, x, part, norm, act, length)
        else:
            require(False, f"a layer {kind}")
    return x, length


def _grouped(modules: list[nn.Module]) -> Iterator[tuple[Any, nn.Module | None, nn.Module | None]]:
    """Each convolution or branch with the norm and the activation behind it, where it has them."""
    at = 0
    while at < len(modules):
        part, norm, act = modules[at], None, None
        at += 1
        while at < len(modules) and type(modules[at]).__name__ in ("Identity", "GroupNorm", "GELU", "ReLU", "GLU"):
            if isinstance(modules[at], nn.GroupNorm):
                norm = modules[at]
            elif not isinstance(modules[at], nn.Identity):
                act = modules[at]
            at += 1
        yield part, norm, act


def _activated(graph: Graph, x: str, act: nn.Module | None) -> str:
    if act is None:
        return x
    if isinstance(act, nn.GLU):
        return glu(graph, x)
    return graph.gelu(x) if isinstance(act, nn.GELU) else graph.op("Relu", x)


def _transposed(graph: Graph, x: str, conv: Any, norm: nn.Module | None, act: nn.Module | None, length: Free) -> str:
    """A ``ConvTranspose1d`` of kernel 2s and stride s, its norm and activation.

    Sample s j + p hears step j by tap p and step j - 1 by tap s + p: so it is a convolution of two taps whose channels
    hold the s phases, and a transposition that interleaves them.
    """
    weight, bias, stride = numpy64(conv.weight), numpy64(conv.bias), conv.stride[0]
    require(weight.shape[2] == 2 * stride, "transposed convolutions of another kernel than 2x stride")
    taps, _ = phase_kernel(weight, stride, 0, [range(stride)])
    y = graph.conv(x, taps, bias.repeat(stride), pads=[1, 1])
    y = y if norm is not None else _activated(graph, y, act)
    y = graph.transpose(graph.reshape(y, 0, len(bias), stride, -1), 0, 1, 3, 2)
    y = graph.reshape(y, 0, len(bias), -1)
    if norm is None:
        return y
    return _activated(graph, group_norm(graph, y, norm, Free.of(graph, y, (length.usual + 1) * stride)), act)
