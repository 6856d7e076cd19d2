"""The graph of Hybrid Demucs (version 3, without a transformer), for any number of samples; the STFT stays outside.

This file is the network's own ``forward`` (package ``demucs`` 4.1, ``HDemucs``, ``HEncLayer``, ``HDecLayer``; Défossez
2021). ``demucs_layers`` has the outer layers, ``demucs_inner`` the recurrent ones.
Values of the frequency branch are [1, C, F, T]; those of the time branch, and those behind the layer that takes the
frequencies down to one row, where the branches meet, are [1, C, T].
"""

import math
from typing import Any, NamedTuple

import onnx
from demucs.hdemucs import HDemucs
from torch import nn

from ortsep.export.families.demucs.inner import glu, group_norm, residual
from ortsep.export.families.demucs.layers import Free, dconv, glu_conv, numpy64, require, standardise, upsample
from ortsep.export.graph.builder import Graph


class Value(NamedTuple):
    """A value on its way: ``height`` is F, or 0 for [1, C, T]; ``length`` is T."""

    name: str
    height: int
    length: Free


def check(model: HDemucs) -> None:
    """Raises WeightsError for hyper-parameters that the graph does not cover."""
    require(model.hybrid, "no waveform branch (hybrid=False)")
    require(model.cac or (model.wiener_iters == 0 and not model.wiener_residual), "Wiener filtering (wiener_iters)")
    merging = len(model.tencoder) == len(model.tdecoder) and model.tencoder[-1].empty and model.tdecoder[0].empty
    require(merging, "branches that never meet (depth)")
    strides = [layer.stride for layer in model.tencoder]
    require(model.hop_length == math.prod(strides), "strides that don't make up the hop")
    for layer in model.modules():
        if type(layer).__name__ in ("HEncLayer", "HDecLayer") and not layer.freq:
            require(layer.kernel_size == 2 * layer.stride, "kernels other than twice the stride")


def hdemucs_graph(model: HDemucs, *, samples: int, portable: bool = False) -> onnx.ModelProto:
    """The graph: ``mix`` [1, C, N] and ``spectrum`` [1, 2C, F, T] to ``stems`` [1, S, C, N] and ``stem_spectra``
    [1, S, 2C, F, T]; a stem is the inverse STFT of its spectrum plus its wave.

    N is free and T = ceil(N / hop); ``samples`` is the N to expect. With ``hybrid_old`` the stem spectra have two zero
    frames more at each end. The graph is ``portable`` in any case. Raises WeightsError for hyper-parameters that it
    does not cover.
    """
    check(model)
    channels, stems, bins = model.audio_channels, len(model.sources), model.nfft // 2
    graph = Graph("hdemucs")
    mix = graph.input("mix", [1, channels, "samples"])
    spectrum = graph.input("spectrum", [1, 2 * channels, bins, "frames"])

    graph.scope("standardise")
    length = Free.of(graph, mix, samples)
    frames = Free.of(graph, spectrum, math.ceil(samples / model.hop_length))
    xt, mean_t, std_t = standardise(graph, mix, [channels], length)
    heard = spectrum if model.cac else magnitude(graph, spectrum, channels, bins)
    x, mean, std = standardise(graph, heard, [2 * channels if model.cac else channels, bins], frames)

    skips, waves = _encoded(graph, model, Value(x, bins, frames), Value(xt, 0, length))
    value, wave = skips[-1], waves[-1]
    x, xt = "", ""
    for index, layer in enumerate(model.decoder):
        graph.scope(f"decoder/{index}")
        value, target = skips.pop(), skips[-1]
        if x:  # the original begins with zeros
            value = value._replace(name=graph.add(x, value.name))
        if split(layer):
            x = decode_bands(graph, value, layer)
        else:
            value = refine(graph, value, layer)
            x = grow(graph, value, layer, target)
        offset = index - len(model.decoder) + len(model.tdecoder)
        if offset >= 0:
            graph.scope(f"tdecoder/{offset}")
            tlayer, wave, target = model.tdecoder[offset], waves.pop(), waves[-1]
            wave = value if tlayer.empty else refine(graph, wave._replace(name=graph.add(xt, wave.name)), tlayer)
            xt = grow(graph, wave, tlayer, target)

    graph.scope("restore")
    wide = 2 * channels if model.cac else channels
    spectra = graph.add(graph.mul(graph.reshape(x, 0, stems, wide, bins, -1), std), mean)
    if not model.cac:
        spectra = with_phase(graph, spectra, spectrum, heard, (stems, channels, bins))
    if model.hybrid_old:
        spectra = graph.op("Pad", spectra, graph.ints(*[0] * 4, 2, *[0] * 4, 2))
    outcome = graph.add(graph.mul(graph.reshape(xt, 0, stems, channels, -1), std_t), mean_t)
    graph.output(outcome, "stems", [1, stems, channels, "samples"])
    given = "stem_frames" if model.hybrid_old else "frames"
    graph.output(spectra, "stem_spectra", [1, stems, 2 * channels, bins, given])
    return graph.model()


def _encoded(graph: Graph, model: HDemucs, value: Value, wave: Value) -> tuple[list[Value], list[Value]]:
    """Both branches before and behind each of their layers, down to where they meet in the first."""
    skips, waves = [value], [wave]
    for index, layer in enumerate(model.encoder):
        inject = ""
        if index < len(model.tencoder):
            tlayer = model.tencoder[index]
            waves.append(encode(graph.scope(f"tencoder/{index}"), waves[-1], tlayer))
            inject = waves[-1].name if tlayer.empty else ""
        graph.scope(f"encoder/{index}")
        value = encode_bands(graph, value, layer) if split(layer) else encode(graph, value, layer, inject)
        if index == 0 and model.freq_emb is not None:
            table = model.freq_emb_scale * numpy64(model.freq_emb.weight)
            value = value._replace(name=graph.add(value.name, graph.const(table.T[None, :, :, None])))
        skips.append(value)
    return skips, waves


# -- amplitudes in place of complex channels -----------------------------------------------------------------------


def magnitude(graph: Graph, spectrum: str, channels: int, bins: int) -> str:
    """|z| [1, C, F, T] of the real and imaginary channels [1, 2C, F, T] (``cac=False``)."""
    squares = graph.reshape(graph.mul(spectrum, spectrum), 0, channels, 2, bins, -1)
    return graph.op("Sqrt", graph.op("ReduceSum", squares, graph.ints(2), keepdims=0))


def with_phase(graph: Graph, amplitudes: str, spectrum: str, size: str, shape: tuple[int, int, int]) -> str:
    """Amplitudes [1, S, C, F, T] with the mixture's phase, which is 0 where the mixture is: [1, S, 2C, F, T].

    What ``HDemucs._wiener`` comes to without iterations (Open-Unmix's ``wiener``), without its atan2, cos and sin.
    """
    stems, channels, bins = shape
    wide = graph.reshape(size, 0, channels, 1, bins, -1)
    turned = graph.div(graph.reshape(spectrum, 0, channels, 2, bins, -1), wide)
    still = graph.const([[[[[1.0]], [[0.0]]]]])
    phase = graph.op("Where", graph.op("Equal", wide, graph.const(0.0)), still, turned)
    spectra = graph.mul(graph.reshape(amplitudes, 0, stems, channels, 1, bins, -1), phase)
    return graph.reshape(spectra, 0, stems, 2 * channels, bins, -1)


# -- layers --------------------------------------------------------------------------------------------------------


def encode(graph: Graph, value: Value, layer: nn.Module, inject: str = "") -> Value:
    """``HEncLayer``; ``inject`` is added before the GELU. A layer that ends in one row ends in [1, C, T].

    Where demucs pads a wave to a multiple of the stride, the convolution always pads stride - 1 more on the right:
    what is too much never fills a step.
    """
    weight, bias = numpy64(layer.conv.weight), numpy64(layer.conv.bias)
    if layer.freq:
        height = (value.height + 2 * layer.pad - weight.shape[2]) // layer.stride + 1
        pads, stride = [layer.pad, 0, layer.pad, 0], [layer.stride, 1]
        y, length = graph.conv(value.name, weight, bias, stride=stride, pads=pads), value.length
        if height == 1:
            y, height = graph.reshape(y, 0, len(bias), -1), 0
    else:
        pads, stride, height = [layer.pad, layer.pad + layer.stride - 1], [layer.stride], 0
        y = graph.conv(value.name, weight, bias, stride=stride, pads=pads)
        length = Free.of(graph, y, -(-value.length.usual // layer.stride))
    if inject:
        y = graph.add(y, inject)
    return Value(y, height, length) if layer.empty else encoded(graph, Value(y, height, length), layer)


def encoded(graph: Graph, value: Value, layer: nn.Module) -> Value:
    """What follows the convolution of a ``HEncLayer``: norm, GELU, DConv, rewrite, norm, GLU."""
    y = normed(graph, value, layer.norm1)
    y = branch(graph, value._replace(name=graph.gelu(y)), layer)
    return value._replace(name=rewritten(graph, value._replace(name=y), layer, layer.norm2 if layer.rewrite else None))


def refine(graph: Graph, value: Value, layer: nn.Module) -> Value:
    """What comes before the transposed convolution of a ``HDecLayer``: rewrite, norm, GLU, DConv."""
    y = rewritten(graph, value, layer, layer.norm1 if layer.rewrite else None)
    return value._replace(name=branch(graph, value._replace(name=y), layer))


def grow(graph: Graph, value: Value, layer: nn.Module, target: Value) -> str:
    """The transposed convolution of a ``HDecLayer``, norm, crop to the size of ``target``, GELU."""
    conv, plain, length = layer.conv_tr, isinstance(layer.norm2, nn.Identity), value.length
    weight, bias = numpy64(conv.weight), numpy64(conv.bias)
    if layer.freq and not value.height:
        # one row becomes all of the kernel's
        rows = weight.shape[2]
        point = weight[..., 0].reshape(len(weight), -1).T[:, :, None]
        z = graph.conv(value.name, point, bias.repeat(rows))
        z = normed(graph, Value(graph.reshape(z, 0, len(bias), rows, -1), rows, length), layer.norm2)
    elif plain:
        z = upsample(graph, value.name, conv, [value.height, -1] if layer.freq else [-1], gelu=not layer.last)
        return z if layer.freq else graph.op("Slice", z, graph.ints(0), target.length.samples, graph.ints(2))
    else:
        z = graph.conv_transpose(value.name, weight, bias, stride=[layer.stride, 1] if layer.freq else [layer.stride])
        height = (value.height - 1) * layer.stride + weight.shape[2] if layer.freq else 0
        longer = length if layer.freq else Free.of(graph, z, length.usual * layer.stride)
        z = normed(graph, Value(z, height, longer), layer.norm2)
        end = graph.ints(height - layer.pad) if layer.freq else graph.add(target.length.samples, graph.ints(layer.pad))
        z = graph.op("Slice", z, graph.ints(layer.pad), end, graph.ints(2))
    return z if layer.last else graph.gelu(z)


def normed(graph: Graph, value: Value, norm: nn.Module) -> str:
    """A layer's GroupNorm, or nothing where it has none."""
    if isinstance(norm, nn.Identity):
        return value.name
    y = group_norm(graph, value.name, norm, value.length, value.height or 1)
    return graph.reshape(y, 1, norm.num_channels, value.height, -1) if value.height else y


def branch(graph: Graph, value: Value, layer: nn.Module) -> str:
    """A layer's DConv, along T for each row; with LSTM or attention on several rows they become the batch."""
    if layer.dconv is None:
        return value.name
    inner = any(type(part).__name__ in ("BLSTM", "LocalState") for part in layer.dconv.modules())
    if not value.height:
        return residual(graph, value.name, layer.dconv, value.length)
    if not inner:
        return dconv(graph, value.name, layer.dconv, rank=4, frames=value.length)
    rows = graph.reshape(graph.transpose(value.name, 0, 2, 1, 3), value.height, layer.dconv.channels, -1)
    rows = residual(graph, rows, layer.dconv, value.length)
    return graph.transpose(graph.reshape(rows, 1, value.height, layer.dconv.channels, -1), 0, 2, 1, 3)


def rewritten(graph: Graph, value: Value, layer: nn.Module, norm: nn.Module | None) -> str:
    """A layer's rewrite, its norm and GLU; a kernel of several rows on one row is its middle row."""
    if norm is None:
        return value.name
    weight, bias, pads = numpy64(layer.rewrite.weight), numpy64(layer.rewrite.bias), [*layer.rewrite.padding]
    if not value.height and weight.ndim == 4:
        weight, pads = weight[:, :, pads[0]], pads[1:]
    if isinstance(norm, nn.Identity):
        return glu_conv(graph, value.name, weight, bias, [*pads, *pads])
    y = graph.conv(value.name, weight, bias, pads=[*pads, *pads])
    return glu(graph, normed(graph, value._replace(name=y), norm))


# -- bands of frequencies with layers of their own -----------------------------------------------------------------


def split(layer: nn.Module) -> bool:
    """Whether this is a ``MultiWrap``: copies of a layer, each for a band of frequencies."""
    return hasattr(layer, "split_ratios")


def encode_bands(graph: Graph, value: Value, wrap: Any) -> Value:
    """``MultiWrap`` of encoder layers: bands that overlap as the kernels ask, padding at the outer ends only."""
    outs, start, height = [], 0, 0
    for ratio, layer in zip([*wrap.split_ratios, 1], wrap.layers, strict=True):
        kernel, stride, pad = layer.kernel_size, layer.stride, layer.kernel_size // 4
        before, after = (pad if start == 0 else 0), (pad if ratio == 1 else 0)
        stop = value.height
        if ratio != 1:
            rows = round((round(value.height * ratio) - start + before - kernel) / stride + 1)
            stop = start + (rows - 1) * stride + kernel - before
        band = graph.slice(value.name, 2, start, stop)
        rows = (stop - start + before + after - kernel) // stride + 1
        y = graph.conv(
            band, numpy64(layer.conv.weight), numpy64(layer.conv.bias), stride=[stride, 1], pads=[before, 0, after, 0]
        )
        outs.append(encoded(graph, Value(y, rows, value.length), layer).name)
        start, height = stop - kernel + stride, height + rows
    return Value(graph.concat(outs, 2), height, value.length)


def decode_bands(graph: Graph, value: Value, wrap: Any) -> str:
    """``MultiWrap`` of decoder layers: neighbours add up where their transposed convolutions overlap."""
    parts: list[str] = []
    start, overlap = 0, ""
    for ratio, layer in zip([*wrap.split_ratios, 1], wrap.layers, strict=True):
        last, stride, bias = ratio == 1, layer.stride, numpy64(layer.conv_tr.bias)
        stop = value.height if last else round(value.height * ratio)
        band = Value(graph.slice(value.name, 2, start, stop), stop - start, value.length)
        band = refine(graph, band, layer)
        z = graph.conv_transpose(band.name, numpy64(layer.conv_tr.weight), bias, stride=[stride, 1])
        rows = (stop - start - 1) * stride + layer.kernel_size
        if overlap:
            entering = graph.sub(graph.slice(z, 2, 0, stride), graph.const(bias.reshape(1, -1, 1, 1)))
            parts.append(graph.add(overlap, entering))
        begin = stride if overlap else stride // 2
        parts.append(graph.slice(z, 2, begin, rows - (stride // 2 if last else stride)))
        overlap = "" if last else graph.slice(z, 2, rows - stride, rows)
        start = stop
    z = graph.concat(parts, 2)
    return z if wrap.layers[0].last else graph.gelu(z)
