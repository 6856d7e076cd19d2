"""VR networks: the graph against torch in float64, and the runtime end to end against UVR's formula in float64."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soxr
import torch
from vr_cases import song, tiny

from ortsep.export.exporter import write_export
from ortsep.export.families.vr.reference import Formula
from ortsep.models.contracts.vr import LAYOUTS
from ortsep.separator import Separator

pytestmark = pytest.mark.usefixtures("one_thread")
Snr = Callable[[Any, Any], float]
SMALL = "1band_sr44100_hl256"
NETWORKS: dict[str, dict[str, Any]] = {
    "old": {"edition": "5"},
    "old, six branches, five levels": {"edition": "5", "branches": 6, "levels": 5},
    "old, seven branches": {"edition": "5", "branches": 7},
    "5.1": {"edition": "5.1"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_equals_torch_in_float64(name: str, snr: Snr) -> None:
    original = tiny(SMALL, primary="Vocals", **NETWORKS[name])
    ((_, graph),) = original.graphs()
    used = {used for node in graph.graph.node for used in node.input} | {"masks"}
    assert all(set(node.output) & used for node in graph.graph.node), "a node whose result nobody takes"
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    for frames in (288, 320):
        heard = np.random.default_rng(0).uniform(0, 1, (1, 2, LAYOUTS[SMALL].bins, frames)).astype(np.float32) ** 4
        exact = original.network(0, {"magnitude": heard})["masks"]
        assert np.ptp(exact) > 0.3, "the masks of random weights hide nothing"
        (masks,) = session.run(None, {"magnitude": heard})
        assert snr(exact, masks) >= 120.0


@pytest.mark.parametrize(
    ("layout", "edition", "primary", "window", "seconds"),
    [(SMALL, "5", "Instrumental", 320, 0.5), ("4band_v3", "5.1", "No Echo", 160, 0.5)],
)
def test_end_to_end_equals_the_formula(
    layout: str, edition: Any, primary: str, window: int, seconds: float, snr: Snr, tmp_path: Path
) -> None:
    """Windows as short as networks take them, so that a short song has two."""
    original = tiny(layout, edition, primary, window=window)
    write_export(original, tmp_path / "model")
    separator, mix = Separator(tmp_path / "model"), song(44100, seconds)
    assert separator.stems == original.spec.stems
    stems = separator.separate(mix)
    assert snr(original.separate(mix), np.stack(list(stems.values()))) >= 110.0
    second = separator.separate(mix, stems=(separator.stems[1],), residual=True)
    assert snr(stems[separator.stems[1]], second[separator.stems[1]]) >= 120.0
    assert snr(mix, second[separator.stems[1]] + second["residual"]) >= 120.0
    mono = np.repeat(mix[:1, :12000], 2, axis=0)
    heard = np.stack(list(separator.separate(mono).values()))
    assert snr(original.separate(mono), heard) >= 110.0
    narrow = np.stack(list(separator.separate(mono[:1]).values()))
    assert snr(heard.mean(axis=1, keepdims=True), narrow) >= 110.0
    for samples in (3, 700):
        short = mix[:, :samples]
        assert snr(original.separate(short), np.stack(list(separator.separate(short).values()))) >= 90.0
    silence = separator.separate(np.zeros((2, 3000), np.float32))
    assert all(not wave.any() for wave in silence.values())


def test_windows_and_moved_windows(snr: Snr, tmp_path: Path) -> None:
    original = tiny("4band_v3", "5.1", "No Echo")
    write_export(original, tmp_path / "model")
    separator, mix = Separator(tmp_path / "model"), song(44100, 0.75)
    bands = replace(original.spec.bands, window=192, aggression=0)  # type: ignore[type-var]
    formula, network = Formula(bands), original._double()
    with torch.inference_mode():
        stacked = formula.spectrum(torch.from_numpy(mix))
        plain = formula.masks(stacked, network)
        moved = formula.masks(torch.nn.functional.pad(stacked, (32, 0)), network)[..., 32:]
        exact = [formula.wave(mask * stacked).numpy() for mask in (plain, (plain + moved) / 2)]
    for tta, wave in zip((False, True), exact, strict=True):
        ours = separator.separate(mix, window=192, aggression=0, tta=tta)["no_echo"]
        assert snr(wave, ours[:, : wave.shape[1]]) >= 110.0


def test_a_layout_of_32_khz_and_songs_of_two_rates(snr: Snr, tmp_path: Path) -> None:
    """10_SP's: a song at another rate is resampled before all and after all, and its length and rate stay."""
    original = tiny("2band_32000", "5", "Instrumental", window=320)
    write_export(original, tmp_path / "model")
    separator, mix = Separator(tmp_path / "model"), song(32000, 0.6)
    mix = mix * np.minimum(1, np.hanning(mix.shape[1]) * 20).astype(np.float32)  # streams have other ends than arrays
    exact = original.separate(mix)
    assert snr(exact, np.stack(list(separator.separate(mix, 32000).values()))) >= 110.0
    resampled = np.ascontiguousarray(soxr.resample(mix.T, 32000, 44100, "VHQ").T)
    stems = separator.separate(resampled, 44100, residual=True)
    assert all(wave.shape == resampled.shape for wave in stems.values())
    assert snr(resampled, sum(stems.values())) >= 120.0
    heard = original.separate(np.ascontiguousarray(soxr.resample(resampled.T, 44100, 32000, "VHQ").T))
    theirs = soxr.resample(heard.transpose(2, 0, 1).reshape(-1, 4), 32000, 44100, "VHQ").T.reshape(2, 2, -1)
    inside = slice(500, resampled.shape[-1] - 2500)  # and what is heard of the song ends before it
    for stem, wave in zip(separator.stems, theirs, strict=True):
        assert snr(wave[:, inside], stems[stem][:, inside]) >= 90.0
