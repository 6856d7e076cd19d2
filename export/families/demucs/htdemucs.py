"""The graph of Hybrid Transformer Demucs, built from a loaded network; the STFT stays outside.

Each rewriting that makes it faster than the original stands with its algebra in ``demucs_layers`` and
``cross_transformer``; this file is the network's own ``forward`` (package ``demucs`` 4.1, ``HTDemucs``).
"""

import math
from dataclasses import dataclass

import onnx
from demucs.htdemucs import HTDemucs

from ortsep.export.families.demucs.cross_transformer import cross_transformer
from ortsep.export.families.demucs.layers import decoder_layer, encoder_layer, numpy64, require, standardise
from ortsep.export.families.demucs.rows import Rows, fold, rows_of
from ortsep.export.graph.builder import Dim, Graph


@dataclass(frozen=True)
class Sizes:
    """What follows from the constructor's arguments: lengths along both branches."""

    channels: int
    stems: int
    samples: int
    bins: int
    frames: int
    lengths: tuple[int | Rows, ...]
    """Of the time branch, from the input to the bottom, folded into rows or not."""
    subbands: int
    """Equal parts of the spectrum that are channels of their own; 1 where it is whole."""

    @classmethod
    def of(cls, model: HTDemucs, rows: bool = False) -> "Sizes":
        samples = int(model.segment * model.samplerate)
        lengths = [samples]
        for layer in model.tencoder:
            lengths.append(-(-lengths[-1] // layer.stride))
        held = rows_of(lengths, [layer.stride for layer in model.tencoder]) if rows else lengths
        frames = math.ceil(samples / model.hop_length)
        bins, subbands = model.nfft // 2, getattr(model, "num_subbands", 1)
        return cls(model.audio_channels, len(model.sources), samples, bins, frames, tuple(held), subbands)


def check(model: HTDemucs) -> None:
    """Raises WeightsError for hyper-parameters that the graph does not cover."""
    require(model.cac, "masks in place of complex channels (cac=False)")
    require(model.use_train_segment, "no fixed segment (use_train_segment=False)")
    require(all(not hasattr(layer, "split_ratios") for layer in model.encoder), "split frequency bands (multi_freqs)")
    layers = [*model.encoder, *model.decoder, *model.tencoder, *model.tdecoder]
    require(len(layers) == 4 * model.depth, "layers of the time branch alone")
    require(not any(layer.empty for layer in layers), "branches that merge")
    require(not any(layer.norm for layer in layers), "norms in its layers (norm_starts < depth)")
    bins = model.nfft // 2 // getattr(model, "num_subbands", 1)
    require(bins % model.stride**model.depth == 0, "bins that its strides don't divide")
    require(all(layer.rewrite is not None for layer in layers), "no 1x1 convolutions (rewrite=False)")
    require(model.crosstransformer is not None, "no transformer (t_layers=0)")


def htdemucs_graph(model: HTDemucs, *, portable: bool = False, rows: bool = False, batch: Dim = 1) -> onnx.ModelProto:
    """The graph: ``mix`` [B, C, N] and ``spectrum`` [B, 2C, F, T] to ``stems`` [B, S, C, N] and ``stem_spectra``
    [B, S, 2C, F, T]; a stem is the inverse STFT of its spectrum plus its wave.

    ``portable``: operators of the ONNX standard only. ``rows``: no axis between input and output is longer than 16384,
    for batches of one. ``batch``: B, a number or the name of a free dimension.
    Raises WeightsError for hyper-parameters that the graph does not cover.
    """
    check(model)
    size = Sizes.of(model, rows)
    graph = Graph("htdemucs")
    mix = graph.input("mix", [batch, size.channels, size.samples])
    spectrum = graph.input("spectrum", [batch, 2 * size.channels, size.bins, size.frames])

    graph.scope("standardise")
    first, xt = size.lengths[0], mix
    if isinstance(first, Rows):
        xt = fold(graph, mix, first, size.channels)
    xt, mean_t, std_t = standardise(graph, xt, [size.channels], first)
    bins = size.bins // size.subbands
    folded = [2 * size.channels * size.subbands, bins]
    x = graph.reshape(spectrum, 0, *folded, size.frames) if size.subbands > 1 else spectrum
    x, mean, std = standardise(graph, x, folded, size.frames)

    waves = []
    for index, layer in enumerate(model.tencoder):
        graph.scope(f"tencoder/{index}")
        xt = encoder_layer(graph, xt, layer, size.lengths[index], frames=size.lengths[index + 1])
        waves.append(xt)
    skips = []
    for index, layer in enumerate(model.encoder):
        graph.scope(f"encoder/{index}")
        x = encoder_layer(graph, x, layer, bins, frames=size.frames)
        if index == 0 and model.freq_emb is not None:
            table = model.freq_emb_scale * numpy64(model.freq_emb.weight)
            x = graph.add(x, graph.const(table.T[None, :, : bins // layer.stride, None]))
        bins //= layer.stride
        skips.append(x)

    bottom = size.lengths[-1]
    assert not isinstance(bottom, Rows)
    x, xt = _bottom(graph, x, xt, model, (bins, size.frames), bottom, portable)

    for index, layer in enumerate(model.tdecoder):
        graph.scope(f"tdecoder/{index}")
        here, length = size.lengths[-1 - index], size.lengths[-2 - index]
        sizes = here if isinstance(here, Rows) else [here]
        xt, _ = decoder_layer(graph, xt, waves.pop(), layer, sizes, length)
    for index, layer in enumerate(model.decoder):
        graph.scope(f"decoder/{index}")
        x, _ = decoder_layer(graph, x, skips.pop(), layer, [bins, size.frames], 0)
        bins *= layer.stride

    graph.scope("restore")
    stems = _waves(graph, xt, mean_t, std_t, size)
    spectra = _restore(graph, x, mean, std, [size.stems, 2 * size.channels, size.bins, size.frames])
    graph.output(stems, "stems", [batch, size.stems, size.channels, size.samples])
    graph.output(spectra, "stem_spectra", [batch, size.stems, 2 * size.channels, size.bins, size.frames])
    return graph.model()


def _bottom(
    graph: Graph, x: str, xt: str, model: HTDemucs, sizes: tuple[int, int], samples: int, portable: bool
) -> tuple[str, str]:
    """The transformer between encoders and decoders, with its bottlenecks where the model has them."""
    names = ("channel_upsampler", "channel_upsampler_t", "channel_downsampler", "channel_downsampler_t")
    up, up_t, down, down_t = (getattr(model, name) if model.bottom_channels else None for name in names)
    graph.scope("transformer/in")
    width = model.encoder[-1].conv.out_channels
    x = graph.reshape(x, 0, width, math.prod(sizes))
    x, xt = cross_transformer(
        graph, x, xt, model.crosstransformer, sizes, samples, (up, up_t, down, down_t), portable=portable
    )
    return graph.reshape(x, 0, width, *sizes), xt


def _waves(graph: Graph, x: str, mean: str, std: str, size: Sizes) -> str:
    """The time branch's result as stems [B, S, C, N]."""
    apart, first = [size.stems, size.channels], size.lengths[0]
    if not isinstance(first, Rows):
        return _restore(graph, x, mean, std, [*apart, size.samples])
    x = _restore(graph, x, mean, std, [*apart, first.count, first.width])
    x = graph.reshape(x, 0, *apart, first.count * first.width)
    return graph.slice(x, 3, 0, size.samples) if first.rest else x


def _restore(graph: Graph, x: str, mean: str, std: str, shape: list[int]) -> str:
    """Undo the standardisation, after the last reshape: behind it there would be a copy into the output."""
    x = graph.reshape(x, 0, *shape)
    ones = [1] * (len(shape))
    return graph.add(graph.mul(x, graph.reshape(std, 0, *ones)), graph.reshape(mean, 0, *ones))
