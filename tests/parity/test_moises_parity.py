"""Moises-Light: the graph against the package's network in float64, and the older generation against stored answers."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from ortsep.export.family import Choice
from ortsep.export.moises_architecture import ACTIVATIONS, Architecture, of_card, parameter_count, parameters, presets
from ortsep.export.moises_graph import build_graph
from ortsep.export.moises_light import MoisesLight, load
from ortsep.export.moises_network import build_network, load_network, masks

sys.path.insert(0, str(Path(__file__).parent))
from moises_inputs import seeded_clip, seeded_state

Snr = Callable[[Any, Any], float]
GATE = 110.0
PRESETS = sorted(presets())
TINY = Architecture(
    n_fft=256, hop_size=64, freq_dim=96, n_bands=3, G=6, n_enc=2, n_dec=1, n_split_enc=2, n_rope=2, dim_head=8, heads=2
)


def _state(arch: Architecture) -> dict[str, Any]:
    return seeded_state(parameters(arch), growth=1.0 if arch.new else 4.0)


def _session(model: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _compare(arch: Architecture, snr: Snr, frames: list[int], batch: int = 1, portable: bool = False) -> None:
    state = _state(arch)
    session = _session(build_graph(arch, state, portable=portable))
    double = load_network(arch, state).double()
    for t in frames:
        shape = (batch, 2 * arch.audio_channels, arch.freq_dim, t)
        x = np.random.default_rng(t).standard_normal(shape).astype(np.float32)
        with torch.inference_mode():
            reference = masks(double, torch.from_numpy(x).double()).numpy()
        (out,) = session.run(None, {"spectrum": x})
        assert out.shape == (batch, len(arch.sources), *shape[1:])
        assert snr(reference, out) >= GATE


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
@pytest.mark.parametrize("name", PRESETS)
def test_preset_graph_equals_network(name: str, legacy: bool, snr: Snr) -> None:
    _compare(of_card(presets()[name], not legacy), snr, [8])


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
def test_one_graph_takes_any_length_and_batch(portable: bool, legacy: bool, snr: Snr) -> None:
    arch = replace(TINY, new=False, edge_kernel_size=1) if legacy else TINY
    _compare(arch, snr, [4, 64, 264], 2, portable)


def test_preset_at_another_length(snr: Snr) -> None:
    _compare(of_card(presets()["moises_light:paper_small"]), snr, [40])


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations(act: str, snr: Snr) -> None:
    _compare(replace(TINY, act_name=act), snr, [4, 20])


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ("vocals",)},
        {"sources": ("a", "b")},
        {"audio_channels": 1},
        {"n_dec": 0},
        {"n_dec": 2, "n_split_dec": 2, "edge_kernel_size": 5},
        {"G": 48, "n_enc": 1, "ff_mult": 3, "bn_factor": 4},
    ],
    ids=str,
)
def test_architectures_that_are_no_presets(changes: dict[str, Any], legacy: bool, snr: Snr) -> None:
    old = {"new": False, "edge_kernel_size": 1} if legacy else {}
    _compare(replace(TINY, **{**changes, **old}), snr, [4, 12], 2)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_documented(name: str) -> None:
    card = presets()[name]
    assert parameter_count(of_card(card)) == card.parameters
    assert parameter_count(of_card(card, new=False)) == card.arguments["legacy_parameters"]
    for new in (True, False):
        arch = of_card(card, new)
        network = build_network(arch)
        assert sum(p.numel() for p in network.parameters()) == parameter_count(arch)


@pytest.mark.parametrize("name", PRESETS)
def test_legacy_network_equals_what_the_older_package_answered(name: str, snr: Snr) -> None:
    stored = np.load(Path(__file__).parent / "data" / "moises_legacy.npz")[name.partition(":")[2]]
    arch = of_card(presets()[name], new=False)
    clip = torch.from_numpy(seeded_clip(stored.shape[-1])).double()[None]
    with torch.inference_mode():
        out = load_network(arch, _state(arch)).double()(clip)[0].numpy()
    assert snr(stored, out) >= 130.0


@pytest.fixture(scope="module")
def random_small() -> MoisesLight:
    return load(presets()["moises_light:paper_small"], Choice(seed=1))


@pytest.mark.parametrize("samples", [1, 8192])
def test_parts_make_the_whole(samples: int, random_small: MoisesLight, snr: Snr) -> None:
    """z-score, graph, mask and inverse, put together as the runtime does, against the package's own forward."""
    clip = seeded_clip(samples)
    (_, model), *_ = random_small.graphs()
    spectrum = random_small.transform(clip)
    assert spectrum.shape[-1] % 8 == 0 and len(spectrum) == 2
    inputs = random_small.example(0, clip)
    (out,) = _session(model).run(None, inputs)
    assert snr(random_small.network(0, inputs)["masks"], out) >= GATE
    out = out[0].reshape(4, 2, 2, *spectrum.shape[1:])
    made = spectrum.real * out[:, :, 0] + 1j * spectrum.imag * out[:, :, 1]
    stems = np.stack([random_small.inverse(stem, samples) for stem in made])
    assert snr(random_small.separate(clip), stems) >= 100.0


def test_some_stems_only(random_small: MoisesLight, snr: Snr) -> None:
    some = load(presets()["moises_light:paper_small"], Choice(seed=1, stems=("other", "vocals")))
    assert some.spec.stems == ("vocals", "other")
    clip = seeded_clip(3000)
    assert snr(random_small.separate(clip)[[0, 3]], some.separate(clip)) >= 120.0
    inputs = some.example(0, clip)
    (_, model), *_ = some.graphs()
    (out,) = _session(model).run(None, inputs)
    assert snr(random_small.network(0, inputs)["masks"][:, [0, 3]], out) >= GATE


def test_export_is_repeatable(random_small: MoisesLight) -> None:
    first, again = (next(random_small.graphs())[1].SerializeToString(deterministic=True) for _ in range(2))
    assert first == again
