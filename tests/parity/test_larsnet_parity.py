"""LarsNet: the graph against the network in float64, and the reference pipeline against another one on real drums."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import soundfile
import torch
from larsnet_oracle import analyse, blocks, ideal_masks, sdr, separated

from ortsep.base.errors import AudioError
from ortsep.export.families.larsnet.graph import UNet, build_graph
from ortsep.export.families.larsnet.original import separate

Snr = Callable[[Any, Any], float]
STEMS = ("kick", "snare", "toms", "hihat", "cymbals")


def network(bins: int, seed: int) -> UNet:
    """Random, every parameter sizeable, batch-norm statistics and negative scales included; masks over all of 0..1."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    def sign(like: torch.Tensor) -> torch.Tensor:
        return 2.0 * torch.randint(0, 2, like.shape, generator=generator) - 1

    net = UNet(bins)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.ndim == 4:
                fan_in = 6.25 * len(value) if "conv_trans" in name else value[0].numel()
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5)
            elif name.endswith("running_var"):
                value.copy_(uniform(value, 0.3, 0.7))
            elif value.is_floating_point():
                value.copy_(uniform(value, 0.3, 0.7) * sign(value))
    return net.eval()


def double(net: UNet, magnitude: Any) -> Any:
    other = UNet(len(net.input_norm.weight))
    other.load_state_dict(net.state_dict())
    with torch.inference_mode():
        return other.double().eval()(torch.from_numpy(magnitude).double()).numpy()


def masks_of(net: UNet, frames: int, magnitude: Any) -> Any:
    session = ort.InferenceSession(
        build_graph(net, frames, "larsnet:test").SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["masks"], {"magnitude": magnitude})[0]


@pytest.mark.parametrize(("bins", "frames", "batch"), [(64, 64, 1), (64, 128, 3), (192, 64, 2), (2048, 512, 1)])
def test_masks_equal_the_network_in_float64(bins: int, frames: int, batch: int, snr: Snr) -> None:
    net = network(bins, seed=bins + frames)
    magnitude = np.random.default_rng(0).gamma(0.5, 10.0, (batch, 2, bins, frames)).astype(np.float32)
    expected = double(net, magnitude)
    assert 0.1 < expected.std() < 0.5
    got = masks_of(net, frames, magnitude)
    assert got.shape == (batch, 1, 2, bins, frames)
    assert snr(expected, got[:, 0]) >= 120.0
    edge = np.s_[:, :, [0, 1, 2, -3, -2, -1]]
    assert snr(expected[edge], got[:, 0][edge]) >= 115.0
    assert snr(expected[..., [0, 1, 2, -3, -2, -1]], got[:, 0][..., [0, 1, 2, -3, -2, -1]]) >= 115.0


def test_masks_of_silence_are_those_of_the_network(snr: Snr) -> None:
    net, silence = network(64, 5), np.zeros((1, 2, 64, 64), np.float32)
    assert snr(double(net, silence), masks_of(net, 64, silence)[:, 0]) >= 120.0


@pytest.fixture(scope="module")
def drums(shared_audio: Path) -> np.ndarray[Any, Any]:
    """The true stems [5, 2, N]."""
    folder = shared_audio / "multitrack" / "drums5"
    return np.stack([soundfile.read(folder / f"{stem}.flac", always_2d=True)[0].T for stem in STEMS])


def fake(masks: Any, frames: int) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """Networks that give a stem's ideal masks, block after block."""

    def network_of(stem: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        waiting = iter(torch.from_numpy(blocks(stem, frames)).double())
        return lambda _: next(waiting)

    return [network_of(stem) for stem in masks]


@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.5])
def test_ideal_masks_reach_their_sdr_through_the_pipeline(drums: Any, exponent: float, alpha: float, snr: Snr) -> None:
    mix = drums.sum(axis=0)
    masks = ideal_masks(drums, exponent)
    expected = separated(mix, masks, alpha)
    got = separate(mix, fake(masks, 512), 2048, 512, alpha)
    reached = sdr(drums, expected)
    assert reached.min() > 4.0, "the masks are no ideal ones"
    np.testing.assert_allclose(sdr(drums, got), reached, atol=1e-3)
    assert snr(expected, got) >= 120.0


@pytest.fixture(scope="module")
def quiet_masks(drums: Any) -> tuple[list[Any], list[Any]]:
    """Two networks' masks of real drums, [2, F, T] each, mostly far below 1: in float64, and as graphs give them."""
    mix = drums.sum(axis=0)[:, : 500 * 1024]
    magnitude = np.zeros((1, 2, 2048, 512), np.float32)
    spectrum = np.abs(analyse(mix))[:, :2048, :512]
    magnitude[0, ..., : spectrum.shape[-1]] = spectrum
    exact, got = [], []
    for seed, lower in ((11, 12.0), (12, 6.0)):
        net = network(2048, seed)
        with torch.no_grad():
            net.mask_layer[0].bias -= lower
        exact.append(double(net, magnitude)[0])
        got.append(masks_of(net, 512, magnitude)[0, 0])
    assert np.quantile(exact[0], 0.1) < 1e-6
    return exact, got


def test_small_masks_are_right_for_their_size(quiet_masks: tuple[list[Any], list[Any]]) -> None:
    """ONNX Runtime's Sigmoid is zero where a mask is 1e-8; powers and ratios of masks show it."""
    for exact, got in zip(*quiet_masks, strict=True):
        heard = exact > 1e-30
        assert np.abs(got[heard] / exact[heard] - 1).max() < 1e-3


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_wiener_filter_over_a_graphs_masks(
    drums: Any, quiet_masks: tuple[list[Any], list[Any]], alpha: float, channels: int, snr: Snr
) -> None:
    mix = drums.sum(axis=0)[:, : 500 * 1024]
    mix = mix if channels == 2 else np.repeat(mix.mean(axis=0, keepdims=True), 2, axis=0)
    frames = analyse(mix).shape[-1]
    exact, got = (np.stack(masks)[..., :frames] for masks in quiet_masks)
    assert snr(separated(mix, exact, alpha), separated(mix, got.astype(np.float64), alpha)) >= 110.0


@pytest.mark.parametrize("samples", [2049, 4096, 65 * 1024, 64 * 1024 - 1, 200_001])
@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_the_pipeline_at_any_length(samples: int, alpha: float, snr: Snr) -> None:
    stems = np.random.default_rng(samples).standard_normal((3, 2, samples))
    mix, masks = stems.sum(axis=0), ideal_masks(stems)
    assert snr(separated(mix, masks, alpha), separate(mix, fake(masks, 64), 2048, 64, alpha)) >= 120.0


def test_the_pipeline_keeps_silence_and_names_what_is_too_short() -> None:
    ones = [torch.ones_like] * 2
    assert not separate(np.zeros((2, 5000)), ones, 2048, 64, alpha=1.0).any()
    with pytest.raises(AudioError, match="2048 samples"):
        separate(np.ones((2, 2048)), ones, 2048, 64)
