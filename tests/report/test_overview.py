"""What pictures show is what is in the samples, whatever the blocks they come in, in memory that doesn't grow."""

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ortsep.report.overview import BANDS, COLUMNS, Gatherer, Overview

Snr = Callable[[Any, Any], float]


def noise(samples: int, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(samples)
    swell = 0.1 + np.abs(np.sin(np.arange(samples) / 700))
    return (0.3 * swell * rng.standard_normal((channels, samples))).astype(np.float32)


def overview(x: np.ndarray, rate: int = 8000, sizes: tuple[int, ...] = (65536,), expected: int = 0) -> Overview:
    gatherer = Gatherer(expected or x.shape[1], rate, len(x))
    at = k = 0
    while at < x.shape[1]:
        size = sizes[k % len(sizes)]
        gatherer.push(x[:, at : at + size])
        at, k = at + size, k + 1
    return gatherer.finish()


@pytest.mark.parametrize("samples", [1, 2, 999, 1000, 1001, 4567, 100_003])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_outline_and_levels(samples: int, channels: int) -> None:
    x = noise(samples, channels)
    found = overview(x, sizes=(1, 777, 4096, 3))
    columns = min(COLUMNS, samples)
    assert found.low.shape == found.high.shape == found.rms_line.shape == (columns,)
    column = np.arange(samples) * columns // samples
    exact = x.astype(np.float64)
    for c in {0, columns // 3, columns - 1}:
        part = x[:, column == c]
        assert (found.low[c], found.high[c]) == (min(part.min(), 0), max(part.max(), 0))
        assert found.rms_line[c] == pytest.approx(np.sqrt(np.mean(exact[:, column == c] ** 2)), rel=1e-9)
    assert found.peak == np.abs(x).max()
    assert found.energy == pytest.approx(np.sum(exact**2), rel=1e-9)
    assert found.rms == pytest.approx(np.sqrt(np.mean(exact**2)), rel=1e-9)
    assert found.seconds == samples / 8000


@pytest.mark.parametrize(("samples", "rate"), [(70_000, 8000), (5000, 8000), (90_000, 44100), (3000, 1000), (1, 48000)])
def test_the_spectrogram_is_the_mean_power_of_frames(samples: int, rate: int, snr: Snr) -> None:
    x = noise(samples).astype(np.float64)
    found = overview(x.astype(np.float32), rate, sizes=(5000, 1, 900))
    n_fft = 2 ** round(math.log2(0.09 * rate))
    hop = min(max(samples // 1000, n_fft // 16), n_fft // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(x, ((0, 0), (n_fft // 2, n_fft)))
    columns = min(1000, max(1, samples // hop))
    sums, counts = np.zeros((columns, n_fft // 2 + 1)), np.zeros(columns)
    for k in range(samples // hop + 1):
        spectrum = np.fft.rfft(padded[:, k * hop : k * hop + n_fft] * window)
        c = min(columns - 1, k * hop * columns // samples)
        sums[c] += np.mean(np.abs(spectrum) ** 2, axis=0) / (window.sum() / 2) ** 2
        counts[c] += 1
    assert counts.min() >= 1, "a column without a frame would be a black line"
    frequencies = np.exp(np.linspace(np.log(30.0), np.log(rate / 2), BANDS))
    expected = np.zeros((BANDS, columns))
    for b, centre in enumerate(frequencies):
        near = [frequencies[max(0, b - 1)], frequencies[min(BANDS - 1, b + 1)]]
        reach = max((near[1] - near[0]) / (2 if 0 < b < BANDS - 1 else 1), rate / n_fft)
        weights = np.maximum(0, 1 - np.abs(np.arange(n_fft // 2 + 1) * rate / n_fft - centre) / reach)
        expected[b] = (sums / counts[:, None]) @ (weights / min(weights.sum(), 1.5))
    np.testing.assert_allclose(found.frequencies, frequencies, rtol=1e-9)
    assert snr(expected, found.power) > 100


@pytest.mark.parametrize("bin_", [8, 40, 300, 1700])
def test_a_sine_of_full_scale_is_0_db(bin_: int) -> None:
    frequency = bin_ * 44100 / 4096
    found = overview(np.sin(2 * np.pi * frequency * np.arange(88_200) / 44100).astype(np.float32)[None], 44100)
    spectrum = found.power[:, found.power.shape[1] // 2]
    loudest = int(spectrum.argmax())
    assert abs(np.searchsorted(found.frequencies, frequency) - loudest) <= 1
    assert -3.1 < 10 * math.log10(spectrum[loudest]) < 0.1  # half way between two bands both have half of it


def test_silence_and_other_lengths_than_said() -> None:
    still = overview(np.zeros((2, 5000), np.float32))
    assert still.peak == still.energy == still.rms == 0.0 and not still.power.any()
    x = noise(5000)
    short, long = overview(x, expected=6000), overview(x, expected=4000)
    assert short.energy == pytest.approx(long.energy) == pytest.approx(overview(x).energy)
    assert not short.high[-100:].any() and short.peak == long.peak
    nothing = Gatherer(100, 8000, 2).finish()
    assert nothing.peak == 0.0 and not nothing.power.any()


def test_memory_does_not_grow_with_the_song() -> None:
    block = noise(65_536)

    def peak(blocks: int) -> int:
        tracemalloc.start()
        gatherer = Gatherer(blocks * block.shape[1], 8000, 2)
        for _ in range(blocks):
            gatherer.push(block)
        gatherer.finish()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    short, long = peak(10), peak(60)
    assert long < 1.05 * short
