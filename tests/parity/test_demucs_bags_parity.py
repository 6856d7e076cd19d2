"""Bags of small Demucs v3 networks, exported and run, against ``apply_model`` of the package, at many lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import GRAPHS

from ortsep.base.errors import UsageError
from ortsep.engine.stft import istft, stft
from ortsep.export.exporter import write_export
from ortsep.export.families.demucs.bag import DemucsOriginal
from ortsep.export.families.demucs.original import load
from ortsep.export.family import Choice
from ortsep.export.validate import snr as decibel
from ortsep.models.catalogue import Card, Source
from ortsep.separator import Separator

pytestmark = pytest.mark.usefixtures("one_thread")

STEMS = ("drums", "bass", "vocals")
RATE = 44100
HYBRID = {"channels": 8, "nfft": 1024, "depth": 5, "norm_starts": 3, "dconv_attn": 3, "dconv_lstm": 3}
TIME = {"channels": 8, "depth": 4, "norm_starts": 3, "dconv_attn": 3, "dconv_lstm": 3, "rewrite": False}


def bag(name: str, members: list[tuple[str, dict[str, Any], list[int]]], segment: float = 0.9) -> DemucsOriginal:
    sources = tuple(Source(f"https://example.org/sig{k}-00000000.th", "0" * 8) for k in range(len(members)))
    arguments = {
        "networks": [network for network, _, _ in members],
        "configs": [config for _, config, _ in members],
        "weights": [weights for _, _, weights in members],
        "segment": segment,
    }
    card = Card(name, "demucs", "", STEMS, RATE, 2, "", None, 0, 0, "", sources=sources, arguments=arguments)
    return load(card, Choice(seed=3))


def song(samples: int, silence: bool = False) -> np.ndarray:
    """Music-like noise, with a quiet or a silent part.

    On silence a network of amplitudes (``cac=False``) takes its phase from rounding errors: with random weights the
    original then is 16 dB from itself in float64, so that nothing can be compared.
    """
    rng = np.random.default_rng(samples)
    mix = np.cumsum(rng.standard_normal((2, samples)), axis=-1)
    mix += 20 * rng.standard_normal((2, samples)) - mix.mean(-1, keepdims=True)
    mix /= np.abs(mix).max()
    mix[:, samples // 2 : samples // 2 + samples // 8] *= 0 if silence else 1e-3
    return mix.astype(np.float32)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemucsOriginal, Path]:
    """As mdx is: two in the time domain and two hybrids, of different stems; every kind of hybrid there is."""
    original = bag(
        "mixed",
        [
            ("Demucs", TIME, [1, 1, 0]),
            ("Demucs", {**TIME, "depth": 3, "resample": False}, [0, 1, 0]),
            ("HDemucs", {**HYBRID, "cac": False, "hybrid_old": True}, [1, 0, 1]),
            ("HDemucs", {**HYBRID, "multi_freqs": [0.25, 0.5]}, [3, 0, 1]),
        ],
    )
    folder = tmp_path_factory.mktemp("bags") / "mixed"
    write_export(original, folder)
    return original, folder


SECOND_CHUNK = int(0.75 * 0.9 * RATE)


@pytest.mark.parametrize("samples", [2, 700, 20_000, SECOND_CHUNK + 5, SECOND_CHUNK + 1300, 90_001])
def test_a_bag_of_all_kinds_equals_apply_model(samples: int, mixed: tuple[DemucsOriginal, Path], snr: Any) -> None:
    """Shorter than a chunk, a chunk, a last chunk of 5 samples (less than a hop, than any padding), and several."""
    original, folder = mixed
    mix = song(samples)
    theirs = original.separate(mix)
    ours = Separator(folder, provider="cpu", threads=1).separate(mix)
    for k, stem in enumerate(STEMS):
        assert snr(theirs[k], ours[stem]) > 90, stem


def test_each_file_says_how_it_hears(mixed: tuple[DemucsOriginal, Path], snr: Any) -> None:
    _, folder = mixed
    separator = Separator(folder, provider="cpu", threads=1)
    mix = song(50_000)
    everything = separator.separate(mix)
    for wanted in (("vocals",), ("bass",), ("vocals", "drums", "bass")):
        some = separator.separate(mix, stems=wanted)
        assert tuple(some) == wanted
        for stem in wanted:
            assert snr(everything[stem], some[stem]) > 120


def test_shorter_chunks_are_those_of_the_original(mixed: tuple[DemucsOriginal, Path], snr: Any) -> None:
    from demucs.apply import BagOfModels, apply_model

    original, folder = mixed
    mix = song(50_000)
    models = BagOfModels([original._full(k) for k in range(4)], [list(p.weights) for p in original._parts])
    tensor = torch.from_numpy(mix)
    mean, deviation = tensor.mean(0).mean(), tensor.mean(0).std() + 1e-8
    with torch.no_grad():
        theirs = apply_model(models, ((tensor - mean) / deviation)[None], shifts=0, segment=0.6)[0] * deviation + mean
    ours = Separator(folder, provider="cpu", threads=1).separate(mix, chunk=0.6)
    assert snr(theirs.numpy(), np.stack(list(ours.values()))) > 90


def test_shifts_are_those_of_the_original(tmp_path: Path, snr: Any) -> None:
    import random

    from demucs.apply import apply_model

    original = bag("single", [("HDemucs", HYBRID, [1, 1, 1])])
    write_export(original, tmp_path / "single")
    mix = song(60_000, silence=True)
    tensor = torch.from_numpy(mix)
    mean, deviation = tensor.mean(0).mean(), tensor.mean(0).std() + 1e-8
    random.seed(5)
    with torch.no_grad():
        theirs = apply_model(original._full(0), ((tensor - mean) / deviation)[None], shifts=2)[0] * deviation + mean
    separator = Separator(tmp_path / "single", provider="cpu", threads=1)
    ours = separator.separate(mix, shifts=2, seed=5)
    assert snr(theirs.numpy(), np.stack(list(ours.values()))) > 90


def test_stages_of_every_member(mixed: tuple[DemucsOriginal, Path]) -> None:
    """What ``ortsep validate`` compares: each member's transforms and graph."""
    from ortsep.export.validate import _graph, _transform
    from ortsep.graphs.model import load_model

    original, folder = mixed
    model = load_model(folder)
    signals = [("song", song(40_000))]
    figures = [*_transform(model, original, signals), *_graph(model, original, signals)]
    assert len(figures) == 2 * 2 + 2 * 1 + 2 * 2
    for figure in figures:
        assert figure.db >= figure.gate, figure


def test_the_transforms_of_hybrid_old(mixed: tuple[DemucsOriginal, Path]) -> None:
    """Against the package's own ``_spec`` and ``_ispec``, with the frames of zeros that the graph gives."""
    original, _ = mixed
    spec = original._spec_of(original._parts[2])
    assert spec.stft is not None and spec.inverse is not None
    for samples in (500, 12_345, 1024 * 9):
        mix = song(samples)
        z = original.transform(mix, 2)
        assert z is not None
        assert decibel(z, stft(spec.stft, mix)[:, : spec.stft.bins]) > 120
        back = original._parts[2].shape._ispec(torch.from_numpy(z)[None], samples)[0].numpy()
        padded = np.pad(z, [(0, 0), (0, 0), (2, 2)]).astype(np.complex64)
        assert decibel(back, istft(spec.inverse, padded, samples)) > 120


def test_a_graph_of_fixed_chunks_still_refuses_others(shared_graphs: Path) -> None:
    with pytest.raises(UsageError, match="takes chunks of"):
        Separator(shared_graphs / "hybrid", provider="cpu", threads=1).separate(song(9000), chunk=0.2)


@pytest.fixture
def shared_graphs() -> Path:
    return GRAPHS
