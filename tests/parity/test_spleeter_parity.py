"""Spleeter's graphs against independent float64 networks, TensorFlow, and spleeter 2.4.2's own separation.

data/spleeter_reference.npz comes from make_spleeter_reference.py; weights and signal are made again here.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from spleeter_inputs import MODELS, STARTS, excerpts, music, seeded

from ortsep.export.families.spleeter import reference
from ortsep.export.families.spleeter import tensorflow_route as spleeter_tf
from ortsep.export.families.spleeter.graph import spleeter_graph
from ortsep.export.families.spleeter.original import Spleeter
from ortsep.export.families.spleeter.weights import Architecture, expected_shapes, networks
from ortsep.export.family import Choice, load_original
from ortsep.models.catalogue import find_card

Snr = Callable[[Any, Any], float]
DATA = Path(__file__).parent / "data" / "spleeter_reference.npz"
needs_tensorflow = pytest.mark.skipif(not spleeter_tf.available(), reason="TensorFlow is not installed")


@cache
def variables(stems: int) -> dict[str, np.ndarray]:
    return {name: seeded(name, shape) for name, shape in expected_shapes(stems).items()}


def architecture(model: str) -> Architecture:
    return Architecture(**find_card(f"spleeter:{model}").arguments)


@cache
def session(model: str) -> onnxruntime.InferenceSession:
    graph = spleeter_graph(model, networks(variables(MODELS[model]), MODELS[model]), architecture(model))
    return onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])


def run(model: str, magnitude: np.ndarray) -> np.ndarray:
    return session(model).run(None, {"magnitude": magnitude.astype(np.float32)})[0]


@cache
def magnitudes(bins: int) -> np.ndarray:
    """Two blocks of the signal, the second mostly padding: [2, 2, bins, 512]."""
    return reference.blocks(reference.stft(music()[:, : 520 * 1024])[:, :bins], 512).astype(np.float32)


@cache
def expected(model: str) -> np.ndarray:
    """The float64 network's stem magnitudes of the first block."""
    nets = networks(variables(MODELS[model]), MODELS[model])
    return reference.network(magnitudes(architecture(model).bins)[:1], nets, architecture(model))


@pytest.mark.parametrize("model", ["2stems", "4stems", "5stems"])
def test_graph_equals_the_float64_network(model: str, snr: Snr) -> None:
    assert snr(expected(model), run(model, magnitudes(architecture(model).bins)[:1])) >= 100


@pytest.mark.parametrize("how", ["LeakyReLU ReLU", "ELU ELU", "ELU ELU softmax"])
def test_the_float64_network_is_torchs(how: str, snr: Snr) -> None:
    """The reference is numpy; torch's convolutions have the same padding worked out for them."""
    torch = pytest.importorskip("torch")
    from spleeter_torch import unet_logits

    down, up, *softmax = how.split()
    settings = Architecture(128, down, up, bool(softmax))
    nets = networks(variables(2), 2)
    magnitude = np.abs(np.random.default_rng(3).standard_normal((2, 2, 128, 64))) * 20
    x = torch.from_numpy(magnitude.swapaxes(2, 3).copy())
    logits = torch.stack([unet_logits(x, net, settings) for net in nets], 1)
    masks = torch.softmax(logits, 1) if softmax else torch.sigmoid(logits)
    theirs = (masks * x[:, None]).numpy().swapaxes(3, 4)
    assert snr(theirs, reference.network(magnitude, nets, settings)) > 250


def test_blocks_of_a_batch_do_not_mix(snr: Snr) -> None:
    both = magnitudes(1024)
    together = run("2stems", both)
    assert together.shape == (2, 2, 2, 1024, 512)
    for k in range(2):
        assert snr(run("2stems", both[k : k + 1])[0], together[k]) >= 120


@needs_tensorflow
@pytest.mark.parametrize("model", ["2stems", "4stems", "5stems"])
def test_graph_equals_tensorflow(model: str, snr: Snr, tmp_path: Path) -> None:
    stems, block = MODELS[model], magnitudes(1024)[:1]
    spleeter_tf.write_checkpoint(variables(stems), tmp_path / "model")
    theirs = spleeter_tf.network(block, stems, architecture(model), tmp_path / "model")
    assert snr(theirs, run(model, block)) >= 100
    assert snr(theirs, expected(model)) >= 150
    original = load_original(find_card(f"spleeter:{model}"), Choice(path=tmp_path))
    assert snr(theirs, original.network(0, {"magnitude": block})["stem_magnitudes"]) >= 150


@needs_tensorflow
@pytest.mark.skipif(not spleeter_tf.available("tf2onnx"), reason="tf2onnx is not installed")
def test_tf2onnx_route_gives_the_same_graph(snr: Snr, tmp_path: Path) -> None:
    spleeter_tf.write_checkpoint(variables(2), tmp_path / "model")
    model = spleeter_tf.convert(tmp_path / "model", ("vocals", "accompaniment"), architecture("2stems"))
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    block = magnitudes(1024)[:1]
    (stems,) = theirs.run(["stem_magnitudes"], {"magnitude": block})
    assert snr(expected("2stems"), stems) >= 100
    assert snr(stems, run("2stems", block)) >= 100


def test_graphs_for_sherpa_onnx_are_the_same_networks(snr: Snr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from sherpa_spleeter import sherpa_graph

    block = magnitudes(1024)[:1]
    for stem, net in enumerate(networks(variables(2), 2)):
        theirs = onnxruntime.InferenceSession(sherpa_graph(net).SerializeToString(), providers=["CPUExecutionProvider"])
        (y,) = theirs.run(None, {"x": block.transpose(1, 0, 3, 2)})
        assert snr(expected("2stems")[:, stem], y.transpose(1, 0, 3, 2)) >= 100


def separate(model: str) -> np.ndarray:
    """The graph in a small pipeline of its own: [S, 2, N]."""
    mix, settings = music(), architecture(model)
    spectrum = reference.stft(mix)[:, : settings.bins]
    stems = np.concatenate([run(model, block[None]) for block in reference.blocks(spectrum, 512)])
    masks = reference.ratio_masks(reference.unblock(stems, spectrum.shape[-1]))
    return np.stack([reference.istft(mask * spectrum, mix.shape[1]) for mask in masks])


@pytest.mark.parametrize("model", MODELS)
def test_separation_equals_spleeter_2_4_2(model: str, snr: Snr) -> None:
    theirs = np.load(DATA)[model]
    ours = excerpts(separate(model))
    assert theirs.shape == (MODELS[model], 2, len(STARTS), ours.shape[-1])
    for stem in range(MODELS[model]):
        assert snr(theirs[stem], ours[stem]) >= 85
    swapped = ours[[1, 0, *range(2, MODELS[model])]]
    assert snr(theirs, swapped) < 20, "a wrong stem order would go unnoticed"


def test_original_separates_as_spleeter_2_4_2(snr: Snr) -> None:
    original = load_original(find_card("spleeter:2stems"), Choice(seed=0))
    assert isinstance(original, Spleeter)
    original = replace(original, variables=variables(2))
    assert snr(np.load(DATA)["2stems"], excerpts(original.separate(music()))) >= 85


@needs_tensorflow
@pytest.mark.parametrize("model", ["2stems", "5stems", "2stems-16kHz"])
def test_what_is_timed_as_the_original_is_spleeter_2_4_2(model: str, snr: Snr) -> None:
    original = load_original(find_card(f"spleeter:{model}"), Choice(seed=0))
    assert isinstance(original, Spleeter)
    name, separate = replace(original, variables=variables(MODELS[model])).baseline()
    assert name == "tensorflow"
    assert snr(np.load(DATA)[model], excerpts(separate(music()))) >= 85


@cache
def two_stems(settings: Architecture) -> np.ndarray:
    return reference.network(magnitudes(1024)[:1], networks(variables(2), 2), settings)


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("2stems", {"conv_activation": "ELU"}),
        ("2stems", {"deconv_activation": "ELU"}),
        ("2stems", {"deconv_activation": "LeakyReLU"}),
        ("4stems", {"conv_activation": "LeakyReLU"}),
        ("4stems", {"deconv_activation": "ReLU"}),
        ("5stems", {"softmax": False}),
    ],
)
def test_a_wrong_architecture_is_caught(model: str, change: dict[str, Any], snr: Snr) -> None:
    """With the first two networks of each model, which is quicker and no easier."""
    block, right = magnitudes(1024)[:1], two_stems(architecture(model))
    graph = spleeter_graph(model, networks(variables(2), 2), replace(architecture(model), **change)).model()
    wrong = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (stems,) = wrong.run(None, {"magnitude": block})
    assert snr(right, stems) < 60


def test_a_wrong_stem_order_is_caught(snr: Snr) -> None:
    stems = run("4stems", magnitudes(1024)[:1])
    assert snr(expected("4stems"), stems[:, [0, 2, 1, 3]]) < 40


def test_a_shift_by_one_bin_or_frame_is_caught(snr: Snr) -> None:
    stems = run("2stems", magnitudes(1024)[:1])
    for axis in (3, 4):
        assert snr(expected("2stems"), np.roll(stems, 1, axis)) < 40


def test_masks_of_random_weights_are_sizeable() -> None:
    """Neither constant nor saturated, which would hide faults behind the ratio or make it ill-conditioned."""
    block = magnitudes(1024)[:1]
    for stems in (run("4stems", block), expected("2stems")):
        heard = np.broadcast_to(block[:, None] > 1e-3, stems.shape)
        masks = (stems / np.maximum(block[:, None], 1e-9))[heard]
        assert masks.std() > 0.05
        assert 0.02 < np.quantile(masks, 0.05) < np.quantile(masks, 0.95) < 0.98
