"""MDX23C: the graph against the network in float64, and both against torch's own float32.

With random weights a hundred norms in a row amplify rounding, so that torch's own float32 has no more than 93 to 102 dB
of the published sizes. The gate is therefore torch's figure: the graph may be 1.5 dB below it.
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from msst_oracle import msst_module

from ortsep.export.families.mdx23c.architecture import (
    Architecture,
    State,
    parameter_count,
    parameters,
    random_state,
)
from ortsep.export.families.mdx23c.graph import build_graph
from ortsep.export.families.mdx23c.network import Network

pytestmark = pytest.mark.usefixtures("one_thread")

Snr = Callable[[Any, Any], float]
MOST_BELOW = 1.5
"""dB that the graph may be below torch's float32."""
TINY = Architecture(
    outputs=2,
    num_channels=12,
    growth=12,
    num_subbands=2,
    num_scales=2,
    n_fft=256,
    hop=64,
    dim_f=128,
    frames=16,
)
LONG = Architecture(
    outputs=1, num_channels=4, growth=2, num_scales=2, n_fft=4096, hop=512, dim_f=2048, frames=256, num_subbands=2
)
"""Few channels of a quarter of a million values each, as the published models have: what flat sums can't do."""


def graph_and_torch(arch: Architecture, state: State, x: Any, snr: Snr) -> tuple[float, float]:
    """What the graph and what torch's float32 have of the network in float64, in dB."""
    session = onnxruntime.InferenceSession(build_graph(arch, state).SerializeToString())
    (out,) = session.run(None, {"spectrum": x})
    with torch.inference_mode():
        exact = Network(arch, state, torch.float64)(torch.from_numpy(x).double()).numpy()
        single = Network(arch, state)(torch.from_numpy(x)).numpy()
    return snr(exact, out), snr(exact, single)


def noise(arch: Architecture, seed: int = 0) -> Any:
    shape = (1, 2 * arch.audio_channels, arch.dim_f, arch.frames)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CHOICES: dict[str, dict[str, Any]] = {
    "instance": {},
    "batch, relu": {"norm": "BatchNorm", "act": "relu"},
    "groups, elu": {"norm": "GroupNorm2", "act": "elu1.0"},
    "one group": {"norm": "GroupNorm1"},
    "groups over both halves": {"norm": "GroupNorm3", "act": "elu0.25"},
    "no norm": {"norm": "none", "act": "relu"},
    "scale": {"scale": (1, 2), "num_blocks_per_scale": 1},
    "bottleneck": {"bottleneck_factor": 2, "num_subbands": 4, "growth": 6},
}


def arch_of(changes: dict[str, Any]) -> Architecture:
    return Architecture(**{**vars(TINY), **changes})


@pytest.mark.parametrize("name", CHOICES)
def test_every_norm_activation_and_scale(name: str, snr: Snr) -> None:
    arch = arch_of(CHOICES[name])
    graph, single = graph_and_torch(arch, random_state(arch, 0), noise(arch), snr)
    assert graph >= max(110.0, single - MOST_BELOW)


def test_graph_is_as_exact_as_torch_where_channels_are_long(snr: Snr) -> None:
    graph, single = graph_and_torch(LONG, random_state(LONG, 0), noise(LONG), snr)
    assert graph >= single - MOST_BELOW


def test_silence_and_an_offset(snr: Snr) -> None:
    state = random_state(TINY, 0)
    for x in (np.zeros_like(noise(TINY)), noise(TINY) * 1e-3 + 50):
        graph, single = graph_and_torch(TINY, state, x.astype(np.float32), snr)
        assert graph >= single - MOST_BELOW


SIZES = {
    "InstVoc HQ": (Architecture(outputs=2), 448_101_203),
    "MUSDB18": (Architecture(outputs=4), 448_119_834),
    "DrumSep": (Architecture(outputs=6, n_fft=2048, hop=512, dim_f=1024), 437_652_699),
    "Phantom Centre": (Architecture(outputs=1, n_fft=2048, hop=512, dim_f=1024), 437_613_512),
}
"""Bytes of the published files."""


@pytest.mark.parametrize("name", SIZES)
def test_the_published_sizes(name: str) -> None:
    arch, size = SIZES[name]
    assert 138_000 < size - 4 * parameter_count(arch) < 143_000  # the names


@pytest.mark.parametrize("name", CHOICES)
def test_network_equals_that_of_msst(name: str, snr: Snr, monkeypatch: pytest.MonkeyPatch) -> None:
    instruments = SimpleNamespace(prefer_target_instrument=lambda config: config.training.instruments)
    monkeypatch.setitem(sys.modules, "utils.model_utils", instruments)
    module = msst_module("models/mdx23c_tfc_tdf_v3.py", "mdx23c_of_msst")
    arch = arch_of(CHOICES[name])
    model = {n: getattr(arch, n) for n in ("norm", "act", "num_subbands", "num_scales", "scale", "num_channels")}
    model |= {n: getattr(arch, n) for n in ("growth", "num_blocks_per_scale", "bottleneck_factor")}
    audio = {"n_fft": arch.n_fft, "hop_length": arch.hop, "dim_f": arch.dim_f, "num_channels": 2}
    training = SimpleNamespace(instruments=list(range(arch.outputs)))
    config = SimpleNamespace(model=SimpleNamespace(**model), audio=SimpleNamespace(**audio), training=training)
    theirs, state = module.TFC_TDF_net(config).double().eval(), random_state(arch, 1)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    lacking, surplus = theirs.load_state_dict(tensors, strict=False)
    assert not surplus and all(key.endswith("num_batches_tracked") for key in lacking)
    assert set(parameters(arch)) == set(state)
    mix = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, arch.chunk)))
    theirs.stft.window = theirs.stft.window.double()
    with torch.inference_mode():
        stems = theirs(mix)
        spectra = Network(arch, state, torch.float64)(theirs.stft(mix))
        assert snr(stems, theirs.stft.inverse(spectra)) >= 200.0
