"""The runtime's own path on real audio: Open-Unmix beside its package, LarsNet's plumbing with ideal masks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from larsnet_oracle import BINS, blocks, ideal_masks, sdr, separated

from ortsep.engine.network import Network
from ortsep.export.exporter import choose_weights, export_model
from ortsep.export.family import Choice, load_original
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.files import attach_spec, save_model
from ortsep.models.catalogue import find_card
from ortsep.separator import Separator

Snr = Callable[[Any, Any], float]


THREE = ("vocals", "drums", "bass")


@pytest.fixture(scope="module")
def umxhq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("umxhq") / "umxhq"
    return export_model("umxhq", choose_weights("random:3", stems=THREE), folder).folder


def openunmix(stems: tuple[str, ...], mix: np.ndarray, iterations: int, residual: bool) -> np.ndarray:
    """What the package gives for these targets, with the same weights."""
    torch = pytest.importorskip("torch")
    original = load_original(find_card("umxhq"), Choice(seed=3, stems=THREE))
    _, _ = original.baseline()  # answers openunmix's import of torchaudio
    from openunmix import model

    networks = dict(zip(original.spec.stems, original.networks, strict=True))  # type: ignore[attr-defined]
    targets = {}
    for stem in stems:
        targets[stem] = model.OpenUnmix(nb_bins=2049, nb_channels=2, hidden_size=512, max_bin=1487)
        targets[stem].load_state_dict(networks[stem].state_dict())
    package = model.Separator(targets, niter=iterations, residual=residual, sample_rate=44100.0).eval()
    package.freeze()
    with torch.inference_mode():
        return np.asarray(package(torch.from_numpy(mix)[None])[0])


@pytest.fixture(scope="module")
def music(shared_audio: Path) -> np.ndarray:
    mix, rate = soundfile.read(shared_audio / "songs" / "slow_motion_dream.mp3", dtype="float32", always_2d=True)
    return mix.T[:, rate : 8 * rate].copy()


@pytest.mark.parametrize(("iterations", "residual", "gate"), [(0, False, 110), (1, False, 95), (1, True, 90)])
@pytest.mark.parametrize("stems", [THREE, ("vocals", "drums"), ("bass", "vocals")])
def test_open_unmix_on_music_equals_its_package(
    umxhq: Path, music: np.ndarray, snr: Snr, stems: tuple[str, ...], iterations: int, residual: bool, gate: float
) -> None:
    """Also where fewer stems are asked for than there are: its EM is then over these alone."""
    expected = openunmix(stems, music, iterations, residual)
    found = Separator(umxhq).separate(music, 44100, stems=stems, niter=iterations, residual=residual)
    for name, theirs in zip(stems, expected, strict=False):
        assert snr(theirs, found[name]) >= gate, name


@pytest.mark.parametrize("stems", [("vocals",), ("vocals", "drums")])
def test_a_source_for_the_rest_is_the_packages_residual(
    umxhq: Path, music: np.ndarray, snr: Snr, stems: tuple[str, ...]
) -> None:
    """A lone stem has one anyway: the package refuses an EM over one source."""
    expected = openunmix(stems, music, 1, residual=True)
    found = Separator(umxhq).separate(music, 44100, stems=stems, rest=len(stems) > 1)
    for name, theirs in zip(stems, expected, strict=False):
        assert snr(theirs, found[name]) >= 90, name


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_ideal_masks_reach_their_sdr_through_the_runtime(
    alpha: float, shared_audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snr: Snr
) -> None:
    """LarsNet's spec with the ideal ratio masks of true stems in place of the network: the plumbing on real drums."""
    folder = shared_audio / "multitrack" / "drums5"
    names = ("kick", "snare", "toms", "hihat", "cymbals")
    drums = np.stack([soundfile.read(folder / f"{name}.flac", always_2d=True)[0].T for name in names])
    mix = drums.sum(axis=0)
    spec = load_original(find_card("larsnet"), Choice(seed=0, stems=("kick",))).spec
    g = Graph("ideal")
    x = g.input("magnitude", ["batch", 2, BINS, 512])
    g.output(g.op("Concat", *[g.op("Unsqueeze", x, g.ints(1))] * 5, axis=1), "masks", ["batch", 5, 2, BINS, 512])
    save_model(attach_spec(g.model(), replace(spec, stems=names, bag=())), tmp_path / "ideal" / "ideal.onnx")
    masks = ideal_masks(drums)
    waiting = iter(np.concatenate([blocks(m) for m in masks], axis=1))  # [blocks][5, 2, F, 512]
    monkeypatch.setattr(
        Network, "estimate", lambda self, magnitude, cancel: np.stack([next(waiting) for _ in range(len(magnitude))])
    )
    options = {"wiener": True, "alpha": alpha} if alpha else {}
    # one thread: two blocks at a time would take the masks in any order
    stems = np.stack(list(Separator(tmp_path / "ideal", threads=1).separate(mix, 44100, **options).values()))
    expected = separated(mix, masks, alpha)
    np.testing.assert_allclose(sdr(drums, stems), sdr(drums, expected), atol=0.01)
    assert sdr(drums, expected).min() > 4
    assert snr(expected, stems) > 110
