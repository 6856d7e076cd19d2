"""The whole graph of HTDemucs against the original network in float64, on the same tensors."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from demucs.htdemucs import HTDemucs

from ortsep.base.errors import WeightsError
from ortsep.export.families.demucs.htdemucs import Sizes, htdemucs_graph
from ortsep.export.families.demucs.rows import Rows
from ortsep.export.graph.builder import MICROSOFT
from ortsep.export.targets import as_loaded, fit
from ortsep.export.weights.random_weights import randomise

GATE = 105.0
STEMS = ["drums", "bass", "other", "vocals"]
SMALL = {
    "sources": STEMS,
    "channels": 8,
    "dconv_mode": 3,
    "t_layers": 3,
    "t_heads": 4,
    "bottom_channels": 32,
    "segment": 1,
}


def network(**arguments: Any) -> HTDemucs:
    model = HTDemucs(**{**SMALL, **arguments})
    randomise(model, seed=1)
    return model.eval()


def mixture(samples: int, amplitude: float = 1.0) -> torch.Tensor:
    """Decaying partials and noise, two different channels: [1, 2, samples]."""
    t = np.arange(samples) / 44100
    beat = np.exp(-4 * (3 * t % 1))
    tone = sum(np.sin(2 * np.pi * f * t) for f in (110, 220.5, 1330, 5000)) * beat * 0.15
    noise = np.random.default_rng(0).standard_normal((2, samples)) * 0.05
    mix = np.stack([tone, 0.7 * np.roll(tone, 200)]) + noise
    return torch.from_numpy((amplitude * mix).astype(np.float32))[None]


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = options.enable_mem_reuse = False
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def inputs(model: HTDemucs, amplitude: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    mix = mixture(int(model.segment * model.samplerate), amplitude)
    with torch.no_grad():
        return mix, model._magnitude(model._spec(mix))


def htdemucs_network(model: HTDemucs, mix: torch.Tensor, spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The original network on the graph's inputs: its ``forward`` with the STFT taken from ``spectrum`` and the
    inverse left out. Returns stems and stem spectra in the model's precision.
    """
    kept: list[torch.Tensor] = []
    replaced = {
        "_spec": lambda x: x,
        "_magnitude": lambda z: spectrum,
        "_mask": lambda z, spectra: kept.append(spectra),
        "_ispec": lambda z, length: 0.0,
    }
    try:
        for name, function in replaced.items():
            setattr(model, name, function)
        with torch.inference_mode():
            stems = model.eval()(mix)
    finally:
        for name in replaced:
            delattr(model, name)
    return stems, kept[0]


def compare(
    model: HTDemucs, runner: onnxruntime.InferenceSession, snr: Callable[[Any, Any], float], amplitude: float = 1.0
) -> None:
    mix, spectrum = inputs(model.float(), amplitude)
    got = runner.run(["stems", "stem_spectra"], {"mix": mix.numpy(), "spectrum": spectrum.numpy()})
    want = htdemucs_network(model.double(), mix.double(), spectrum.double())
    for name, reference, value in zip(("stems", "stem_spectra"), want, got, strict=True):
        assert np.isfinite(value).all(), name
        assert snr(reference.numpy(), value) > GATE, name


@pytest.fixture(scope="module")
def small() -> tuple[HTDemucs, onnxruntime.InferenceSession]:
    model = network()
    return model, session(htdemucs_graph(model))


@pytest.mark.parametrize("amplitude", [1.0, 1e-2, 1e-4])
def test_small(
    amplitude: float, small: tuple[HTDemucs, onnxruntime.InferenceSession], snr: Callable[[Any, Any], float]
) -> None:
    compare(*small, snr, amplitude)


def test_silence(small: tuple[HTDemucs, onnxruntime.InferenceSession]) -> None:
    model, runner = small
    mix, spectrum = inputs(model.float(), 0.0)
    stems, spectra = runner.run(["stems", "stem_spectra"], {"mix": mix.numpy(), "spectrum": spectrum.numpy()})
    assert not stems.any() and not spectra.any()


@pytest.mark.parametrize(
    "arguments",
    [
        {"sources": [*STEMS, "guitar", "piano"], "bottom_channels": 0, "t_layers": 5},
        {"t_layers": 4, "t_cross_first": True, "channels_time": None, "segment": Fraction(3, 2)},
        {"depth": 3, "norm_starts": 3, "nfft": 2048, "t_layer_scale": False, "t_norm_out": False},
        {"dconv_mode": 1, "freq_emb": 0, "t_weight_pos_embed": 0.5, "t_hidden_scale": 2.0},
    ],
    ids=["six stems", "cross first", "shallow", "encoder branches only"],
)
def test_variants(arguments: dict[str, Any], snr: Callable[[Any, Any], float]) -> None:
    model = network(**arguments)
    compare(model, session(htdemucs_graph(model)), snr)


def test_portable(snr: Callable[[Any, Any], float]) -> None:
    model = network()
    graph = htdemucs_graph(model, portable=True)
    assert all(node.domain == "" for node in graph.graph.node)
    assert any(node.domain == MICROSOFT for node in htdemucs_graph(model).graph.node)
    compare(model, session(graph), snr)


def test_batch(snr: Callable[[Any, Any], float]) -> None:
    """Examples of a batch do not hear each other."""
    model = network()
    runner = session(htdemucs_graph(model, batch="B"))
    pairs = [inputs(model, amplitude) for amplitude in (1.0, 0.1)]
    mix, spectrum = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    mix[1], spectrum[1] = mix[1].flip(0), spectrum[1].roll(2, 0)
    got = runner.run(["stems", "stem_spectra"], {"mix": mix.numpy(), "spectrum": spectrum.numpy()})
    for i in range(2):
        want = htdemucs_network(model.double(), mix[i : i + 1].double(), spectrum[i : i + 1].double())
        for reference, value in zip(want, got, strict=True):
            assert snr(reference[0].numpy(), value[i]) > GATE


def test_same_weights_give_same_bytes() -> None:
    first, second = (htdemucs_graph(network()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"cac": False}, "complex channels"),
        ({"multi_freqs": [0.25, 0.5], "multi_freqs_depth": 2}, "multi_freqs"),
        ({"norm_starts": 2}, "norm_starts"),
        ({"use_train_segment": False}, "segment"),
        ({"t_emb": "cape"}, "sinusoids"),
        ({"t_emb": "scaled"}, "sinusoids"),
        ({"t_sin_random_shift": 5}, "sinusoids"),
        ({"t_layers": 0}, "t_layers"),
        ({"t_gelu": False}, "GELU"),
        ({"t_norm_first": False}, "normalise last"),
        ({"t_norm_in": False}, "LayerNorm"),
        ({"t_group_norm": True}, "group norms"),
        ({"rewrite": False}, "rewrite"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_refuses(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        htdemucs_graph(network(**arguments))


def test_refuses_sparse_attention() -> None:
    model = network()
    model.crosstransformer.layers[0].sparse = True  # its constructor needs a package that demucs does not ask for
    with pytest.raises(WeightsError, match="sparse"):
        htdemucs_graph(model)


def test_full_size(snr: Callable[[Any, Any], float]) -> None:
    """htdemucs as published: 7.8 s, 42 M parameters."""
    model = network(channels=48, t_layers=5, t_heads=8, bottom_channels=512, segment=Fraction(39, 5))
    graph = htdemucs_graph(model)
    runner = session(graph)
    del graph
    compare(model, runner, snr)


@pytest.mark.parametrize(("seconds", "held"), [(1, 1), (4, 2)])
def test_a_folded_time_axis_equals_the_network(
    seconds: int, held: int, tmp_path: Path, snr: Callable[[Any, Any], float]
) -> None:
    """Rows that hear their neighbours, a rest behind the end that nobody hears; one or two layers of them."""
    model = network(sources=["a", "b"], t_layers=1, segment=seconds)
    plain, folded = (htdemucs_graph(model, portable=True, rows=rows) for rows in (False, True))
    lengths = Sizes.of(model, rows=True).lengths
    assert sum(isinstance(length, Rows) for length in lengths) == held
    rng = np.random.default_rng(0)
    frames = math.ceil(44100 * seconds / 1024)
    feeds = {
        "mix": rng.standard_normal((1, 2, 44100 * seconds)).astype(np.float32),
        "spectrum": rng.standard_normal((1, 4, 2048, frames)).astype(np.float32),
    }
    given, found = (
        onnxruntime.InferenceSession(graph.SerializeToString()).run(None, feeds) for graph in (plain, folded)
    )
    assert all(snr(a, b) >= 115 for a, b in zip(given, found, strict=True))
    onnx.save(folded, str(tmp_path / "folded.onnx"))
    told = fit(as_loaded(tmp_path / "folded.onnx", {}), "coreml")
    assert told.pieces == 1 and told.share > 0.99, told.reasons
