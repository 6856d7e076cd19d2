"""The stacked spectrum of every layout and the way back, against librosa and scipy."""

import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import soxr
from places import ROOT

from ortsep.engine.bands import (
    BandAnalyser,
    BandSynthesiser,
    band_frames,
    band_peak,
    band_spectrum,
    band_wave,
)
from ortsep.models.bands import Band, Bands
from ortsep.models.contracts.vr import LAYOUTS, LOST, Entry, vr_spec

Snr = Callable[[Any, Any], float]
DISTINCT = [
    name for name in LAYOUTS if name not in ("4band_44100_msb", "4band_44100_msb2", "4band_44100_sw", "4band_v2")
]
MIXES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "left_right": lambda a, b: (a, b),
    "mid_side": lambda a, b: ((a + b) / 2, a - b),
    "mid_side_b2": lambda a, b: (b + a * 0.5, a - b * 0.5),
    "stereo_n": lambda a, b: ((a + b * 0.25) / 0.9375, (b + a * 0.25) / 0.9375),
}
"""As UVR's ``wave_to_spectrogram`` and ``convert_channels`` write them."""
UNMIXES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "left_right": lambda a, b: (a, b),
    "mid_side": lambda a, b: (a + b / 2, a - b / 2),
    "mid_side_b2": lambda a, b: (b / 1.25 + 0.4 * a, a / 1.25 - 0.4 * b),
    "stereo_n": lambda a, b: (a - b * 0.25, b - a * 0.25),
}
"""As UVR's ``spectrogram_to_wave``."""


def bands_of(layout: str, edition: Literal["5", "5.1"]) -> Bands:
    bands = vr_spec(Entry("", layout, "Vocals"), edition, "x").bands
    assert bands is not None
    return bands


def noise(bands: Bands, seconds: float = 0.4, seed: int = 0) -> Any:
    """White, and brown, so that all bands have something."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((2, round(seconds * bands.rate) + 7)) * [[0.1], [0.05]]
    return (white + np.cumsum(white, 1) * 0.02).astype(np.float32)


def resampled(x: Any, rate: int, new: int) -> Any:
    signal, common = pytest.importorskip("scipy.signal"), math.gcd(rate, new)
    return x if rate == new else signal.resample_poly(x, new // common, rate // common, axis=-1)


def analysed(bands: Bands, mix: Any, gains: Any) -> Any:
    """UVR's ``loading_mix`` and ``combine_spectrograms`` in float64."""
    librosa = pytest.importorskip("librosa")
    wave, rate, parts = mix.astype(np.float64), bands.rate, []
    for band in reversed(bands.bands):
        wave, rate = resampled(wave, rate, band.rate), band.rate
        heard = np.stack(MIXES[band.channels](*wave))
        parts.insert(0, librosa.stft(heard, n_fft=band.n_fft, hop_length=band.hop)[:, band.start : band.stop])
    frames = min(part.shape[-1] for part in parts)
    stacked = np.concatenate([part[..., :frames] for part in parts], 1)
    return np.pad(stacked, ((0, 0), (0, bands.bins - stacked.shape[1]), (0, 0))) * gains[:, None]


def lowpass(bins: int, first: int, last: int) -> Any:
    """UVR's ``get_lp_filter_mask``; ``fft_lp_filter`` gives the same."""
    return np.concatenate([np.ones(first - 1), np.linspace(1, 0, last - first + 1), np.zeros(bins - last)])


def highpass(bins: int, first: int, last: int) -> Any:
    """UVR's ``get_hp_filter_mask``; ``fft_hp_filter`` gives the same."""
    return np.concatenate([np.zeros(last + 1), np.linspace(0, 1, 1 + first - last), np.ones(bins - first - 2)])


def prefilter(bands: Bands) -> Any:
    if not bands.prefilter:
        return np.ones(bands.bins)
    first, last = bands.prefilter
    if not bands.steep:
        return lowpass(bands.bins + 1, first, last)[: bands.bins]
    gains, former = np.ones(bands.bins + 1), 1.0
    for row in range(first + 1, last):
        former = math.pow(10, -(row - first) * (3.5 - former) / 20.0)
        gains[row] *= former
    return gains[: bands.bins]


def synthesised(bands: Bands, stacked: Any) -> Any:
    """UVR's ``cmb_spectrogram_to_wave`` in float64."""
    librosa = pytest.importorskip("librosa")
    row, wave, rate = 0, 0.0, bands.bands[0].rate
    for band in bands.bands:
        bins = band.n_fft // 2 + 1
        z = np.zeros((2, bins, stacked.shape[-1]), np.complex128)
        z[:, band.start : band.stop] = stacked[:, row : row + band.stop - band.start]
        row += band.stop - band.start
        if band.rise:
            z *= highpass(bins, band.rise[0], band.rise[1] - 1)[:, None]
        if band.fall:
            z *= lowpass(bins, *band.fall)[:, None]
        sound = np.stack(UNMIXES[band.channels](*librosa.istft(z, hop_length=band.hop)))
        wave = (resampled(wave, rate, band.rate) if row > band.stop - band.start else 0.0) + sound
        rate = band.rate
    return wave


@pytest.mark.parametrize("edition", ["5", "5.1"])
@pytest.mark.parametrize("layout", DISTINCT)
def test_every_layout_equals_librosa_and_scipy(layout: str, edition: Literal["5", "5.1"], snr: Snr) -> None:
    bands = bands_of(layout, edition)
    mix = noise(bands)
    exact = analysed(bands, mix, prefilter(bands))
    ours = band_spectrum(bands, mix)
    assert ours.shape[-1] == band_frames(bands, mix.shape[1])
    assert snr(exact, ours) >= 120.0
    wave = synthesised(bands, exact)
    assert wave.shape[1] == bands.hop * (ours.shape[-1] - 1)
    assert snr(wave, band_wave(bands, exact.astype(np.complex64)[None])[0]) >= 120.0


@pytest.mark.parametrize("layout", ["4band_v3", "3band_44100_msb2", "1band_sr44100_hl512"])
def test_blocks_of_any_size_give_the_same(layout: str, snr: Snr) -> None:
    bands, rng = bands_of(layout, "5"), np.random.default_rng(1)
    mix = noise(bands, seconds=0.7)
    whole = band_spectrum(bands, mix)
    analyser, parts, at = BandAnalyser(bands), [], 0
    while at < mix.shape[1]:
        size = int(rng.integers(0, 5000))
        parts.append(analyser.push(mix[:, at : at + size]).stacked)
        at += size
    parts.append(analyser.finish().stacked)
    assert snr(whole, np.concatenate(parts, -1)) >= 120.0
    stems = np.stack([whole, 0.5 * whole])
    synthesiser, waves, at = BandSynthesiser(bands, 2, whole.shape[-1]), [], 0
    while at < whole.shape[-1]:
        size = int(rng.integers(0, 30))
        waves.append(synthesiser.push(stems[..., at : at + size]))
        at += size
    waves.append(synthesiser.finish())
    assert snr(band_wave(bands, stems), np.concatenate(waves, -1)) >= 120.0


def test_a_song_shorter_than_a_hop_is_heard_with_zeros_behind_it(snr: Snr) -> None:
    bands = bands_of("4band_v3", "5.1")
    for samples in (1, 200, bands.hop - 1):
        mix = noise(bands)[:, :samples]
        filled = np.pad(mix, ((0, 0), (0, bands.hop - samples)))
        assert snr(band_spectrum(bands, filled), band_spectrum(bands, mix)) >= 120.0


def test_the_peak_is_that_of_the_whole_song_and_one_for_silence() -> None:
    bands = bands_of("4band_v3", "5.1")
    mix = noise(bands)
    peak = band_peak(bands, np.array_split(mix, 5, axis=1))
    assert peak == pytest.approx(float(np.abs(band_spectrum(bands, mix)).max()), rel=1e-6)
    assert band_peak(bands, [np.zeros_like(mix)]) == 1.0


@cache
def pink() -> Any:
    """[2, N] at 44.1 kHz, 4 s: power as 1/f from 20 Hz on, and half of it common to both channels."""
    rng, count = np.random.default_rng(0), 4 * 44100
    at = np.fft.rfftfreq(count, 1 / 44100)
    sizes = np.where(at >= 20, 1 / np.sqrt(np.maximum(at, 20)), 0)
    common, left, right = np.fft.irfft(sizes * np.exp(2j * np.pi * rng.uniform(size=(3, len(at)))), count)
    mix = np.stack((common + left / 2, common + right / 2))
    return (mix / np.abs(mix).max() / 2).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_layout_loses_is_what_the_table_and_the_page_and_the_spec_say(layout: str, snr: Snr) -> None:
    mix = pink()
    for edition, said in zip(("5", "5.1"), LOST[layout], strict=True):
        bands = bands_of(layout, edition)  # type: ignore[arg-type]
        heard = mix if bands.rate == 44100 else soxr.resample(mix.T, 44100, bands.rate).T
        wave = band_wave(bands, band_spectrum(bands, np.ascontiguousarray(heard))[None])[0]
        if bands.rate != 44100:
            wave = soxr.resample(wave.T, bands.rate, 44100).T
        count = min(wave.shape[1], mix.shape[1]) - 2000  # the last samples are lost in another way
        assert snr(mix[:, :count], wave[:, :count]) == pytest.approx(said, abs=0.06)
        (note,) = vr_spec(Entry("", layout, "Vocals"), edition, "x").notes  # type: ignore[arg-type]
        assert f"({said:.1f} dB of pink noise" in note
    page = (ROOT / "docs" / "vr.md").read_text(encoding="utf-8")
    assert re.findall(rf"^\| `{layout}` \| ([\d.]+) \| ([\d.]+) \|$", page, re.M) == [
        tuple(f"{figure:.1f}" for figure in LOST[layout])
    ]


BAND = Band(44100, 512, 1024, 0, 513)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Band(44100, 512, 1024, 5, 5),
        lambda: Band(44100, 512, 1024, 0, 514),
        lambda: Band(44100, 512, 1024, 0, 513, rise=(3, 9)),
        lambda: Band(44100, 512, 1024, 0, 513, fall=(9, 3)),
        lambda: Bands("x", (BAND,), 512),
        lambda: Bands("x", (BAND, BAND), 2048),
        lambda: Bands("x", (BAND,), 513, window=256, context=128),
        lambda: Bands("x", (BAND,), 513, window=500, context=128),
        lambda: Bands("x", (BAND,), 513, prefilter=(10, 3)),
        lambda: Bands("x", (Band(22050, 512, 1024, 0, 100, fall=(1, 2)), Band(44100, 512, 1024, 0, 9, (3, 2))), 513),
    ],
)
def test_bands_that_can_not_be_are_refused(wrong: Callable[[], object]) -> None:
    from ortsep.base.errors import ModelError

    with pytest.raises(ModelError, match="not usable"):
        wrong()
