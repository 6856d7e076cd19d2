"""Songs of all kinds through a small VR model, in the lean environment: rates, lengths, channels, silence, options.

The graph gives the mask 0.25 everywhere, so that the second stem is three times the first.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from places import GRAPHS

from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs import Files, separate_file

Snr = Callable[[Any, Any], float]
F32 = npt.NDArray[np.float32]
WINDOW, HOP, COUNTED = 64, 64, 32
"""Of the graph: frames, samples a frame, frames of a window that count."""


@pytest.fixture(scope="module")
def model() -> Iterator[Separator]:
    with Separator(GRAPHS / "bands", provider="cpu") as separator:
        yield separator


def noise(samples: int, channels: int = 2) -> F32:
    return (0.1 * np.random.default_rng(samples).standard_normal((channels, samples))).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 44100, 6000])
def test_a_song_of_any_rate_comes_back_at_its_own(rate: int, model: Separator, snr: Snr) -> None:
    mix = noise(rate)
    stems = model.separate(mix, rate, residual=True)
    assert all(wave.shape == mix.shape for wave in stems.values())
    assert snr(stems["vocals"], 3 * stems["drums"]) >= 120.0
    assert snr(mix, sum(stems.values())) >= 120.0
    assert np.abs(stems["residual"]).max() > 1e-3  # the bands leave something out


@pytest.mark.parametrize("samples", [3, HOP - 1, HOP, HOP + 1, COUNTED * HOP - 1, COUNTED * HOP, WINDOW * HOP + 1])
def test_a_song_of_any_length(samples: int, model: Separator, snr: Snr) -> None:
    mix = noise(samples)
    stems = model.separate(mix, 8000, residual=True)
    assert all(wave.shape == mix.shape and np.isfinite(wave).all() for wave in stems.values())
    assert snr(mix, sum(stems.values())) >= 120.0
    if samples > COUNTED * HOP:
        assert snr(stems["vocals"], 3 * stems["drums"]) >= 120.0 and stems["drums"].any()


def test_mono_is_heard_on_both_sides_and_stays_mono(model: Separator, snr: Snr) -> None:
    mono = noise(5000, 1)
    alone, both = model.separate(mono, 8000), model.separate(np.repeat(mono, 2, 0), 8000)
    for name, wave in alone.items():
        assert wave.shape == mono.shape and snr(both[name][:1], wave) >= 120.0


def test_silence_is_silent_and_says_nothing_of_its_maximum(model: Separator) -> None:
    with np.errstate(all="raise"):
        for samples in (3, 20_000):
            stems = model.separate(np.zeros((2, samples), np.float32), 8000, residual=True)
            assert all(not wave.any() for wave in stems.values())


@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_of_one_sample(channels: int, model: Separator, tmp_path: Path, snr: Snr) -> None:
    """An array of one sample and two channels would be mono: the longer axis is time."""
    mix = noise(1, channels)
    soundfile.write(tmp_path / "song.wav", mix.T, 8000, subtype="FLOAT")
    files, options = Files(output=str(tmp_path / "out")), Options(residual=True)
    report = separate_file(model, tmp_path / "song.wav", files, options)
    waves = [soundfile.read(path, dtype="float32", always_2d=True)[0] for path in report.stems.values()]
    assert all(wave.shape == (1, channels) for wave in waves) and snr(mix, sum(waves).T) >= 100.0


def test_a_file_of_a_rate_that_is_not_the_model_s(model: Separator, tmp_path: Path, snr: Snr) -> None:
    mix = noise(30_000)
    soundfile.write(tmp_path / "song.wav", mix.T, 44100, subtype="FLOAT")
    files, options = Files(output=str(tmp_path / "out")), Options(residual=True)
    report = separate_file(model, tmp_path / "song.wav", files, options)
    waves = [soundfile.read(path, dtype="float32") for path in report.stems.values()]
    assert [rate for _, rate in waves] == [44100] * 3
    assert snr(mix, sum(wave.T for wave, _ in waves)) >= 100.0


def test_masks_are_raised_and_windows_moved(model: Separator, snr: Snr) -> None:
    mix = noise(9000)
    plain = model.separate(mix, 8000)["drums"]
    for options in ({"window": 128}, {"tta": True}, {"window": 40, "tta": True}):
        assert snr(plain, model.separate(mix, 8000, **options)["drums"]) >= 120.0  # type: ignore[arg-type]
    low = np.sin(2 * np.pi * 200 * np.arange(9000) / 8000).astype(np.float32) * np.ones((2, 1), np.float32)
    high = np.sin(2 * np.pi * 2500 * np.arange(9000) / 8000).astype(np.float32) * np.ones((2, 1), np.float32)
    for tone, power in ((low, 1 + 0.4 / 3), (high, 1 + 0.4)):
        softer = model.separate(tone, 8000, aggression=20)["drums"][:, 2000:7000]
        assert snr(0.25**power * tone[:, 2000:7000], softer) >= 40.0
