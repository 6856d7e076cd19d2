"""Each rewriting of the Demucs layers against the torch module in float64: at least 110 dB."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from demucs.demucs import DConv
from demucs.hdemucs import HDecLayer, HEncLayer
from demucs.transformer import CrossTransformerEncoder, MyGroupNorm
from torch import nn

from ortsep.base.errors import WeightsError
from ortsep.export.families.demucs.cross_transformer import Tokens, cross_transformer, token_norm
from ortsep.export.families.demucs.layers import (
    dconv,
    decoder_layer,
    encoder_layer,
    glu_conv,
    numpy64,
    padded,
    standardise,
    time_mean,
    upsample,
)
from ortsep.export.graph.builder import Graph
from ortsep.export.weights.random_weights import randomise

GATE = 110.0
Build = Callable[..., str | tuple[str, ...]]


def run(build: Build, *arrays: Any) -> list[Any]:
    """Build a graph of inputs x0, x1, ... with ``build(graph, *names)`` and run it on float32 copies of ``arrays``."""
    graph = Graph("test")
    names = [graph.input(f"x{i}", a.shape) for i, a in enumerate(arrays)]
    made = build(graph, *names)
    values = (made,) if isinstance(made, str) else made
    for i, value in enumerate(values):
        graph.output(value, f"y{i}", [])
    model = graph.model()
    for out in model.graph.output:
        out.type.tensor_type.ClearField("shape")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {n: np.asarray(a, np.float32) for n, a in zip(names, arrays, strict=True)}))


def signal(*shape: int, seed: int = 0, offset: float = 0.3) -> torch.Tensor:
    """float64 noise that float32 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) + offset).double()


def sized(module: nn.Module, seed: int = 0) -> nn.Module:
    randomise(module, seed)
    return module.double().eval()


@pytest.mark.parametrize("length", [60, 85995, 21499, 343980])
def test_time_mean(length: int, snr: Callable[[Any, Any], float]) -> None:
    x = signal(1, 2, length)
    assert snr(x.mean(-1, keepdim=True), run(lambda g, n: time_mean(g, n, length), x)[0]) > GATE


@pytest.mark.parametrize("shape", [(2, 85995), (4, 64, 50)])
@pytest.mark.parametrize("amplitude", [1.0, 1e-4])
def test_standardise(shape: tuple[int, ...], amplitude: float, snr: Callable[[Any, Any], float]) -> None:
    x = (signal(2, *shape) * amplitude).float().double()
    axes = tuple(range(1, len(shape) + 1))
    mean, std = x.mean(axes, keepdim=True), x.std(axes, keepdim=True)
    got = run(lambda g, n: standardise(g, n, shape[:-1], shape[-1]), x)
    for reference, value in zip(((x - mean) / (1e-5 + std), mean, std), got, strict=True):
        assert snr(reference.reshape(value.shape), value) > GATE


def test_standardise_silence() -> None:
    values, mean, std = run(lambda g, n: standardise(g, n, (2,), 600), np.zeros((1, 2, 600)))
    assert not values.any() and not mean.any() and not std.any()


@pytest.mark.parametrize("rank", [3, 4])
def test_glu_conv(rank: int, snr: Callable[[Any, Any], float]) -> None:
    conv = sized(nn.Conv1d(6, 16, 3, padding=1) if rank == 3 else nn.Conv2d(6, 16, 3, padding=1))
    x = signal(2, 6, 40) if rank == 3 else signal(2, 6, 10, 12)
    reference = nn.functional.glu(conv(x), dim=1).detach()
    pads = [1, 1] * (rank - 2)
    assert snr(reference, run(lambda g, n: glu_conv(g, n, numpy64(conv.weight), numpy64(conv.bias), pads), x)[0]) > GATE


@pytest.mark.parametrize("channels, compress", [(12, 2), (16, 8), (48, 8), (20, 4)])
@pytest.mark.parametrize("offset", [0.3, 30.0])
@pytest.mark.parametrize("rank", [3, 4])
def test_dconv(channels: int, compress: int, offset: float, rank: int, snr: Callable[[Any, Any], float]) -> None:
    """Hidden channels that need padding and not; a mean far from zero, where uncentred variances would cancel."""
    module = sized(DConv(channels, compress, depth=2, init=1e-3))
    with torch.no_grad():
        for layer in module.layers:
            layer[3].bias += offset
    rows = [signal(2, channels, 60, seed=i) for i in range(1 if rank == 3 else 5)]
    reference = torch.stack([module(row) for row in rows], 2).detach()
    x = torch.stack(rows, 2)
    if rank == 3:
        x, reference = x[:, :, 0], reference[:, :, 0]
    got = run(lambda g, n: dconv(g, n, module, rank=rank, frames=60), x)[0]
    assert snr(reference, got) > (GATE if offset < 1 else 100)  # the mean costs float32 digits in any algorithm


def test_dconv_of_constant_input_is_finite() -> None:
    module = sized(DConv(8, 4, depth=2))
    got = run(lambda g, n: dconv(g, n, module, rank=3, frames=32), np.zeros((1, 8, 32)))[0]
    assert np.allclose(got, module(torch.zeros(1, 8, 32).double()).detach(), atol=1e-5)


def test_dconv_refuses_attention() -> None:
    with pytest.raises(WeightsError, match="LocalState"):
        dconv(Graph("test"), "x", DConv(16, 4, attn=True), rank=3, frames=8)


@pytest.mark.parametrize("freq, width", [(True, 32), (False, 64), (False, 61)])
def test_encoder_layer(freq: bool, width: int, snr: Callable[[Any, Any], float]) -> None:
    layer = sized(HEncLayer(4, 16, freq=freq, norm=False, dconv_kw={"compress": 4}))
    x = signal(2, 4, width, 24) if freq else signal(2, 4, width)
    reference = layer(x).detach()
    got = run(lambda g, n: encoder_layer(g, n, layer, width, frames=reference.shape[-1]), x)[0]
    assert snr(reference, got) > GATE


def test_encoder_layer_injects(snr: Callable[[Any, Any], float]) -> None:
    layer, empty = sized(HEncLayer(4, 16, freq=False, norm=False)), sized(HEncLayer(4, 16, freq=False, empty=True))
    x, inject = signal(1, 4, 64), signal(1, 16, 16, seed=1)
    got = run(lambda g, a, b: encoder_layer(g, a, layer, 64, frames=16, inject=b), x, inject)[0]
    assert snr(layer(x, inject).detach(), got) > GATE
    empty.norm = False
    assert snr(empty(x).detach(), run(lambda g, n: encoder_layer(g, n, empty, 64, frames=16), x)[0]) > GATE


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("sizes", [(7,), (7, 9)])
@pytest.mark.parametrize("gelu", [True, False])
def test_upsample(stride: int, sizes: tuple[int, ...], gelu: bool, snr: Callable[[Any, Any], float]) -> None:
    tail = [1] * (len(sizes) - 1)
    kind = nn.ConvTranspose1d if len(sizes) == 1 else nn.ConvTranspose2d
    conv = sized(kind(8, 6, [2 * stride, *tail], [stride, *tail]))
    x = signal(2, 8, *sizes)
    reference = conv(x)[:, :, stride // 2 : -(stride // 2)].detach()
    reference = nn.functional.gelu(reference) if gelu else reference
    assert snr(reference, run(lambda g, n: upsample(g, n, conv, sizes, gelu=gelu), x)[0]) > GATE


@pytest.mark.parametrize("freq, sizes, length", [(True, (8, 24), 0), (False, (16,), 64), (False, (16,), 61)])
@pytest.mark.parametrize("last", [True, False])
def test_decoder_layer(
    freq: bool, sizes: Sequence[int], length: int, last: bool, snr: Callable[[Any, Any], float]
) -> None:
    layer = sized(HDecLayer(16, 6, last=last, freq=freq, norm=False, dconv_kw={"compress": 4}))
    x, skip = signal(2, 16, *sizes), signal(2, 16, *sizes, seed=1)
    reference = layer(x, skip, length)
    got = run(lambda g, a, b: decoder_layer(g, a, b, layer, sizes, length), x, skip)
    for want, value in zip(reference, got, strict=True):
        assert snr(want.detach(), value) > GATE


def test_layers_refuse_norms() -> None:
    for layer in (HEncLayer(4, 8), HDecLayer(8, 4)):
        with pytest.raises(WeightsError, match="normalised"):
            if isinstance(layer, HEncLayer):
                encoder_layer(Graph("test"), "x", layer, 8, frames=8)
            else:
                decoder_layer(Graph("test"), "x", "y", layer, [8, 8], 0)


def test_token_norm(snr: Callable[[Any, Any], float]) -> None:
    norm = sized(MyGroupNorm(1, 32))
    x = signal(2, 700, 32)
    got = run(lambda g, n: token_norm(g, Tokens(n, 700, 32), norm).value, x.reshape(-1, 32))[0]
    assert snr(norm(x).detach().reshape(-1, 32), got) > GATE


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("layers, cross_first, bottlenecks", [(3, False, True), (2, True, False)])
def test_cross_transformer(
    portable: bool, layers: int, cross_first: bool, bottlenecks: bool, snr: Callable[[Any, Any], float]
) -> None:
    module = sized(
        CrossTransformerEncoder(
            32, num_layers=layers, cross_first=cross_first, norm_first=True, norm_out=True, layer_scale=True
        )
    )
    outer = 24 if bottlenecks else 32
    pairs = [(outer, 32), (outer, 32), (32, outer), (32, outer)]
    convs = [sized(nn.Conv1d(a, b, 1), seed=i) if bottlenecks else None for i, (a, b) in enumerate(pairs)]
    x, xt = signal(2, outer, 4, 10), signal(2, outer, 21, seed=1)

    def through(conv: nn.Module | None, value: torch.Tensor) -> torch.Tensor:
        if conv is None:
            return value
        flat = value.flatten(2)
        return conv(flat).reshape(len(value), -1, *value.shape[2:])

    with torch.no_grad():
        y, yt = module(through(convs[0], x), through(convs[1], xt))
        references = through(convs[2], y).flatten(2), through(convs[3], yt)
    got = run(
        lambda g, a, b: cross_transformer(g, a, b, module, (4, 10), 21, tuple(convs), portable=portable),
        x.flatten(2),
        xt,
    )
    for want, value in zip(references, got, strict=True):
        assert snr(want, value) > GATE


def test_padded() -> None:
    assert [padded(n) for n in (1, 4, 5, 26)] == [4, 4, 8, 28]


def test_randomise_is_seeded_and_leaves_torch_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (sized(DConv(8, 4), seed) for seed in (1, 1, 2))
    fresh = DConv(8, 4).state_dict()  # its initialisation does draw from torch's generator
    torch.random.set_rng_state(state)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        assert not torch.equal(value, other.state_dict()[key])
        assert not torch.equal(value, fresh[key].double())
    before = torch.random.get_rng_state()
    randomise(first, 3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(float(p.detach().abs().max()) > 0.01 for p in first.parameters())
