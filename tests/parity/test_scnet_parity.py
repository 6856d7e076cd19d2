"""SCNet: the graph against the network in float64, and the network against MSST's."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from msst_oracle import msst_module

from ortsep.export.families.scnet.architecture import Architecture, parameter_count, parameters, random_state
from ortsep.export.families.scnet.graph import build_graph
from ortsep.export.families.scnet.network import Network

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:A window was not provided"),
]

Snr = Callable[[Any, Any], float]
GATE = 110.0
TINY = Architecture(sources=2, dims=(4, 8, 16, 24), num_dplayer=2, nfft=512, hop_size=128, chunk=128 * 20)
LONG = Architecture(sources=1, dims=(4, 8, 8), num_dplayer=2, nfft=4096, hop_size=1024, chunk=1024 * 255)
"""Few channels on long axes: what flat sums can't do."""
CHOICES: dict[str, dict[str, Any]] = {
    "plain": {},
    "wide": {"expand": 2, "compress": 2},
    "bands": {"band_SR": (0.3, 0.3, 0.4), "num_dplayer": 4, "conv_depths": (1, 0, 2)},
    "kernels": {"band_kernel": (5, 3, 16), "conv_kernel": 5, "dims": (4, 8)},
    "strides": {"band_stride": (2, 4, 8), "band_kernel": (2, 4, 8)},
    "shallow": {"dims": (4, 16), "sources": 4, "num_dplayer": 2},
}
SIZES = {
    "small": (Architecture(), 42_434_986),
    "large": (Architecture(dims=(4, 64, 128, 256), band_SR=(0.225, 0.372, 0.403)), 168_868_194),
}
"""Bytes of the published files."""


def arch_of(changes: dict[str, Any]) -> Architecture:
    return Architecture(**{**vars(TINY), **changes})


def noise(arch: Architecture) -> Any:
    return np.random.default_rng(0).standard_normal((1, arch.dims[0], arch.bins, arch.frames)).astype(np.float32)


def graph_snr(arch: Architecture, x: Any, snr: Snr) -> float:
    """What the graph has of the network in float64, in dB."""
    state = random_state(arch, 0)
    session = onnxruntime.InferenceSession(build_graph(arch, state).SerializeToString())
    (out,) = session.run(None, {"spectrum": x})
    with torch.inference_mode():
        exact = Network(arch, state, torch.float64)(torch.from_numpy(x).double()).numpy()
    return snr(exact, out)


@pytest.mark.parametrize("name", CHOICES)
def test_graph_equals_network(name: str, snr: Snr) -> None:
    arch = arch_of(CHOICES[name])
    assert graph_snr(arch, noise(arch), snr) >= GATE


def test_graph_equals_network_on_long_axes(snr: Snr) -> None:
    assert graph_snr(LONG, noise(LONG), snr) >= GATE


def test_silence_and_an_offset(snr: Snr) -> None:
    for x in (np.zeros_like(noise(TINY)), noise(TINY) * 1e-3 + 50):
        assert graph_snr(TINY, x.astype(np.float32), snr) >= GATE


@pytest.mark.parametrize("name", SIZES)
def test_the_published_sizes(name: str) -> None:
    arch, size = SIZES[name]
    assert 119_000 < size - 4 * parameter_count(arch) < 144_000  # the names


@pytest.mark.parametrize("samples", [485100, 1024 * 9, 1024 * 10, 1023, 1])
def test_zeros_that_make_an_even_number_of_frames(samples: int) -> None:
    padded = Architecture().padded(samples)
    assert padded > samples and padded - samples <= 2048 and (padded // 1024 + 1) % 2 == 0 and padded % 1024 == 0


@pytest.mark.parametrize("name", CHOICES)
def test_network_equals_that_of_msst(name: str, snr: Snr, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("scnet")
    monkeypatch.setitem(sys.modules, "scnet", package)
    monkeypatch.setitem(sys.modules, "scnet.separation", msst_module("models/scnet/separation.py", "scnet.separation"))
    module = msst_module("models/scnet/scnet.py", "scnet.scnet")
    arch = arch_of(CHOICES[name])
    names = ("dims", "nfft", "hop_size", "normalized", "band_SR", "band_stride", "band_kernel", "conv_depths")
    more = ("compress", "conv_kernel", "num_dplayer", "expand")
    arguments = {n: getattr(arch, n) for n in (*names, *more)}
    theirs = module.SCNet(sources=list(range(arch.sources)), win_size=arch.nfft, **arguments).double().eval()
    state = random_state(arch, 1)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    assert set(parameters(arch)) == set(state)
    mix = np.random.default_rng(0).standard_normal((2, arch.chunk))
    padded = torch.zeros(2, arch.padded(arch.chunk), dtype=torch.float64)
    padded[:, : arch.chunk] = torch.from_numpy(mix)
    how = {
        "n_fft": arch.nfft,
        "hop_length": arch.hop_size,
        "normalized": True,
        "window": torch.ones(arch.nfft).double(),
    }
    spectrum = torch.view_as_real(torch.stft(padded, **how, return_complex=True))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # FeatureConversion goes down to float32
    with torch.inference_mode():
        stems = theirs(torch.from_numpy(mix)[None])[0]
        out = Network(arch, state, torch.float64)(spectrum.permute(0, 3, 1, 2).reshape(1, 4, *spectrum.shape[1:3]))
        pairs = out[0].reshape(arch.sources, 2, 2, *out.shape[3:]).movedim(2, -1).contiguous()
        ours = torch.istft(torch.view_as_complex(pairs).flatten(0, 1), **how)[:, : arch.chunk]
    assert snr(stems.flatten(0, 1), ours) >= 200.0
