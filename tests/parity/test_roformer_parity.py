"""RoFormers: the network against MSST's stored answers, the graph against the network, the bands against librosa."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import librosa
import numpy as np
import onnxruntime
import pytest
import torch
from roformer_cases import BS, CASES, MEL, SAMPLES, STORED, noise

from ortsep.export.families.roformer.architecture import (
    BS_BANDS,
    Architecture,
    adjoining,
    mel_bands,
    parameter_count,
    parameters,
    random_state,
)
from ortsep.export.families.roformer.graph import build_graph
from ortsep.export.families.roformer.network import Network, run
from ortsep.export.families.roformer.recognise import arguments_of
from ortsep.export.graph.builder import foreign_domains
from ortsep.models.catalogue import catalogue

pytestmark = pytest.mark.usefixtures("one_thread")

Snr = Callable[[Any, Any], float]
GATE = 110.0
CARDS = sorted(name for name, card in catalogue().items() if card.family == "roformer")


def _session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _spectrum(arch: Architecture, frames: int, batch: int = 1) -> dict[str, Any]:
    shape = (batch, 2 * arch.channels, arch.bins, frames)
    return {"spectrum": np.random.default_rng(frames).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("name", CASES)
def test_the_network_is_msst_s(name: str, snr: Snr) -> None:
    arch = CASES[name]
    window: dict[str, Any] = {
        "n_fft": arch.n_fft,
        "hop_length": arch.hop,
        "window": torch.hann_window(arch.n_fft, dtype=torch.float64),
        "normalized": arch.normalized,
    }
    spectrum = torch.stft(torch.from_numpy(noise(arch.channels)).double(), **window, return_complex=True)
    stems = Network(arch, random_state(arch, 0)).masked(spectrum[None])[0]
    waves = torch.istft(stems.flatten(0, 1), **window, length=SAMPLES).view(arch.stems, arch.channels, SAMPLES)
    assert snr(np.load(STORED)[name], waves.numpy()) >= 130.0


@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
@pytest.mark.parametrize("name", CASES)
def test_one_graph_takes_any_length_and_batch(name: str, portable: bool, snr: Snr) -> None:
    arch = CASES[name]
    state = random_state(arch, 0)
    model = build_graph(arch, state, portable=portable)
    assert foreign_domains(model.graph.node) == (set() if portable else {"com.microsoft"})
    session = _session(model)
    for frames, batch in ((4, 1), (21, 2), (101, 1)):
        inputs = _spectrum(arch, frames, batch)
        reference = run(arch, state, inputs)
        (out,) = session.run(None, inputs)
        assert 0.05 < reference.std() < 20.0
        assert snr(reference, out) >= GATE
        if arch.zero_dc:
            assert not out[..., 0, :].any()


@pytest.mark.parametrize("arch", [BS, MEL], ids=["bs", "mel"])
@pytest.mark.parametrize("level", [1.0, 1e-3, 1e-6, 1e-14, 0.0])
def test_levels_and_silence(arch: Architecture, level: float, snr: Snr) -> None:
    """Each band is brought to unit length, but for what is shorter than 1e-12: there quieter is quieter."""
    state = random_state(arch, 0)
    inputs = {"spectrum": _spectrum(arch, 9)["spectrum"] * np.float32(level)}
    reference = run(arch, state, inputs)
    (out,) = _session(build_graph(arch, state)).run(None, inputs)
    assert np.isfinite(out).all()
    if level:
        assert snr(reference, out) >= GATE
    else:
        assert not out.any() and not reference.any()


@pytest.mark.parametrize("arch", [BS, MEL], ids=["bs", "mel"])
def test_some_stems_only(arch: Architecture, snr: Snr) -> None:
    arch = replace(arch, stems=3)
    state, inputs = random_state(arch, 0), _spectrum(arch, 9)
    (out,) = _session(build_graph(arch, state, [0, 2])).run(None, inputs)
    assert snr(run(arch, state, inputs)[:, [0, 2]], out) >= GATE


@pytest.mark.parametrize("arch", [BS, MEL], ids=["bs", "mel"])
def test_weights_stored_as_float16(arch: Architecture, snr: Snr) -> None:
    state, inputs = random_state(arch, 0), _spectrum(arch, 21)
    whole, half = build_graph(arch, state), build_graph(arch, state, half=True)
    assert half.ByteSize() < 0.9 * whole.ByteSize()
    (out,) = _session(half).run(None, inputs)
    assert 50.0 < snr(run(arch, state, inputs), out) < 90.0


@pytest.mark.parametrize("arch", [CASES["bs_skip"], CASES["mel"]], ids=["bs", "mel"])
@pytest.mark.parametrize("branch", ["to_out", "to_gates", "net.4", "layers.1.1", "to_freqs", "gamma"])
def test_random_weights_hide_nothing(arch: Architecture, branch: str, snr: Snr) -> None:
    state, inputs = random_state(arch, 0), _spectrum(arch, 9)
    without = {name: value * 0 if branch in name and name[-5:] != "freqs" else value for name, value in state.items()}
    assert snr(run(arch, state, inputs), run(arch, without, inputs)) < 40.0


@pytest.mark.parametrize(("count", "n_fft", "rate"), [(60, 2048, 44100), (64, 2048, 48000), (12, 512, 44100)])
def test_mel_bands_are_librosa_s(count: int, n_fft: int, rate: int) -> None:
    bank = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=count) > 0
    bank[0, 0] = bank[-1, -1] = True
    found = [np.flatnonzero(row) for row in bank]
    assert mel_bands(count, n_fft, rate) == tuple((int(bins[0]), int(bins[-1]) + 1) for bins in found)
    assert all(len(bins) == bins[-1] + 1 - bins[0] for bins in found)


@pytest.mark.parametrize("name", CARDS)
def test_parameters_are_as_many_as_the_published_files_hold(name: str) -> None:
    """A checkpoint's file is its parameters and 0.2 to 0.5 MB of their names."""
    card = catalogue()[name]
    arch = arguments_of(card.arguments["config"]["model"], card.sample_rate)
    assert parameter_count(arch) == card.parameters
    assert card.arguments["config"]["audio"]["chunk_size"] % arch.hop == 0
    for source in card.sources:
        assert not source.size or 0.1e6 < source.size - 4 * card.parameters < 0.6e6
    assert len(card.stems) in (arch.stems, arch.stems + (arch.stems == 1))


def test_sizes_of_the_known_networks() -> None:
    kim = Architecture("mel", 384, 6, mel_bands(60, 2048, 44100), mask_layers=2)
    large = Architecture("bs", 512, 12, adjoining(BS_BANDS))
    assert (parameter_count(kim), parameter_count(large)) == (228_202_788, 159_758_028)
    assert sum(BS_BANDS) == large.bins and len(parameters(large)) == 699


def test_export_is_repeatable() -> None:
    first, again = (build_graph(MEL, random_state(MEL, 0)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == again
