"""Moises-Light: graph and runtime against the package, and for the older generation against its stored answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from moises_package import (
    LENGTHS,
    STORED,
    compare,
    export_state,
    kept,
    listen,
    package_network,
    seeded_clip,
    separated,
)

from ortsep import Separator
from ortsep.engine.level import spectrum_level
from ortsep.export.exporter import write_export
from ortsep.export.families.moises_light.architecture import (
    ACTIVATIONS,
    Architecture,
    of_card,
    parameter_count,
    presets,
    random_state,
)
from ortsep.export.families.moises_light.graph import build_graph
from ortsep.export.families.moises_light.network import build_network, load_network, masks
from ortsep.export.families.moises_light.original import MoisesLight, load
from ortsep.export.family import Choice
from ortsep.models.spec import Normalization

pytestmark = pytest.mark.usefixtures("one_thread")

Snr = Callable[[Any, Any], float]
GATE = 110.0
PRESETS = sorted(presets())
TINY = Architecture(
    n_fft=256, hop_size=64, freq_dim=96, n_bands=3, G=6, n_enc=2, n_dec=1, n_split_enc=2, n_rope=2, dim_head=8, heads=2
)


def _session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _compare(arch: Architecture, snr: Snr, frames: list[int], batch: int = 1, portable: bool = False) -> None:
    state = random_state(arch, 0)
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
@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
def test_one_graph_takes_any_length_and_batch(portable: bool, legacy: bool, snr: Snr) -> None:
    arch = replace(TINY, new=False, edge_kernel_size=1) if legacy else TINY
    _compare(arch, snr, [4, 64, 264], 2, portable)


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


@pytest.fixture(scope="module")
def stored() -> Any:
    """Stems [S, C, KEPT] that package 0.1.3 gave: see moises_package.py."""
    return np.load(STORED)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("small")])
def test_legacy_network_equals_what_the_older_package_answered(name: str, stored: Any, snr: Snr) -> None:
    arch, samples = of_card(presets()[name], new=False), LENGTHS[1]
    network = load_network(arch, random_state(arch, 0)).double()
    stems = listen(network, seeded_clip(samples)).stems
    assert snr(stored[f"{name.partition(':')[2]}_{samples}"], stems[..., kept(samples)]) >= 130.0


@pytest.mark.parametrize("name", PRESETS)
def test_legacy_runtime_equals_what_the_older_package_answered(
    name: str, stored: Any, snr: Snr, tmp_path: Path
) -> None:
    model = export_state(name, random_state(of_card(presets()[name], new=False), 0), tmp_path)
    separator = Separator(model, provider="cpu", threads=1)
    for samples in LENGTHS:
        stems = separated(separator, seeded_clip(samples))
        assert snr(stored[f"{name.partition(':')[2]}_{samples}"], stems[..., kept(samples)]) >= 100.0


@pytest.mark.parametrize("name", PRESETS)
def test_runtime_equals_package(name: str, tmp_path: Path) -> None:
    arch = of_card(presets()[name])
    state = random_state(arch, 0)
    network, model = package_network(arch, state), export_state(name, state, tmp_path)
    rows = [compare(model, network, seeded_clip(samples)) for samples in LENGTHS]
    assert [row.frames for row in rows] == [8, 16, 24]
    assert min(row.graph for row in rows) >= GATE
    assert min(row.stems for row in rows) >= 100.0
    assert min(row.stems_float32 for row in rows) >= 100.0


def _together(original: MoisesLight, clip: Any) -> Any:
    """z-score, graph, mask and inverse, put together as the runtime does."""
    (_, model), *_ = original.graphs()
    spectrum = original.transform(clip)
    (out,) = _session(model).run(None, original.example(0, clip))
    out = out[0].reshape(-1, 2, 2, *spectrum.shape[1:])
    made = spectrum.real * out[:, :, 0] + 1j * spectrum.imag * out[:, :, 1]
    return np.stack([original.inverse(stem, clip.shape[1]) for stem in made])


@pytest.fixture(scope="module")
def random_small() -> MoisesLight:
    return load(presets()["moises_light:paper_small"], Choice(seed=1))


@pytest.mark.parametrize("samples", [1, 1024, 20_000])
def test_parts_make_the_whole(samples: int, random_small: MoisesLight, snr: Snr) -> None:
    clip = seeded_clip(samples)
    assert random_small.transform(clip).shape == (2, 2048, 8 * (1 + samples // 8192))
    assert snr(random_small.separate(clip), _together(random_small, clip)) >= 105.0


def test_random_weights_hide_nothing(random_small: MoisesLight, snr: Snr) -> None:
    inputs = random_small.example(0, seeded_clip(3000))
    (out,) = _session(next(random_small.graphs())[1]).run(None, inputs)
    reference = random_small.network(0, inputs)["masks"]
    assert snr(reference, out) >= GATE
    assert 0.1 < reference.std() < 10.0
    for branch in (
        "to_out",
        "net.4",
        "tdf.fc2",
        "dec_heavy_blocks",
        "rope_blocks.5.time_transformer.layers.0.0.to_out",
    ):
        assert any(branch in name for name in random_small.state)
        state = {k: v * 0 if branch in k and "running" not in k else v for k, v in random_small.state.items()}
        without = replace(random_small, state=state).network(0, inputs)["masks"]
        assert snr(reference, without) < 40.0, f"{branch} hides"


def test_some_stems_only(random_small: MoisesLight, snr: Snr) -> None:
    some = load(presets()["moises_light:paper_small"], Choice(seed=1, stems=("other", "vocals")))
    assert some.spec.stems == ("vocals", "other")
    clip = seeded_clip(3000)
    whole = random_small.separate(clip)[[0, 3]]
    assert snr(whole, some.separate(clip)) >= 105.0
    assert snr(whole, _together(some, clip)) >= 105.0


def test_export_is_repeatable(random_small: MoisesLight) -> None:
    first, again = (next(random_small.graphs())[1].SerializeToString(deterministic=True) for _ in range(2))
    assert first == again


def test_chunks_come_close_to_the_song_in_one_piece(
    random_small: MoisesLight, snr: Snr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights contract little: what is left is context, not where the grid of frames or the level lies."""
    write_export(random_small, tmp_path / "model")
    separator = Separator(tmp_path / "model", provider="cpu", threads=1)
    clip = seeded_clip(70_000)
    clip[:, 35_000:] *= 0.3
    whole = separated(separator, clip)

    def chunked() -> float:
        return snr(whole, np.stack(list(separator.separate(clip, chunk=0.8).values())))

    close = chunked()
    monkeypatch.setattr("ortsep.separator.spectrum_level", lambda *_: None)
    own = chunked()
    assert close >= 12.0 and close >= own + 3.0


def test_statistics_of_a_song_are_those_of_its_spectrum(random_small: MoisesLight) -> None:
    transform = random_small.spec.stft
    assert transform is not None
    clip = seeded_clip(50_001)
    spectrum = random_small.transform(clip)
    parts = np.stack([spectrum.real, spectrum.imag]).astype(np.float64)
    blocks = (clip[:, at : at + 3333] for at in range(0, 50_001, 3333))
    level = spectrum_level(transform, 2, blocks, Normalization("spectrum", 1e-5))
    mean, deviation = level.mean, level.deviation
    assert deviation == pytest.approx(parts.std(ddof=1) + 1e-5, rel=1e-6)
    assert mean == pytest.approx(parts.mean(), abs=1e-6 * deviation)
