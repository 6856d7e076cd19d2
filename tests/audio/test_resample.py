"""Resampling: the exact length, no delay, no drift, and the error in the pass band."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from ortsep.audio.resample import resample, resampled_length

PAIRS = [(48000, 44100), (44100, 48000), (96000, 44100), (44100, 96000), (22050, 44100), (44100, 16000), (8000, 44100)]


def cut(x: Any, size: int) -> Iterator[Any]:
    return (x[:, i : i + size] for i in range(0, x.shape[1], size))


def changed(x: Any, a: int, b: int, samples: int | None = None, size: int = 4801) -> Any:
    want = resampled_length(x.shape[1], a, b) if samples is None else samples
    blocks = list(resample(cut(x.astype(np.float32), size), len(x), a, b, want))
    assert all(block.dtype == np.float32 and block.flags.c_contiguous and block.shape[1] for block in blocks)
    y = np.concatenate([np.zeros((len(x), 0), np.float32), *blocks], axis=1)
    assert y.shape == (len(x), want)
    return y


def tones(frequencies: Any, rate: int, samples: int) -> Any:
    t = np.arange(samples) / rate
    phases = np.arange(len(frequencies)) * 1.7
    sides = [
        [np.sin(2 * np.pi * f * t + p + side) for f, p in zip(frequencies, phases, strict=True)] for side in (0, 1)
    ]
    return 0.2 * np.array([sum(side) for side in sides])


def in_the_middle(y: Any, rate: int) -> Any:
    return y[..., rate // 2 : -rate // 2]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_sines_stay_where_they_are(a: int, b: int, snr: Callable[[Any, Any], float]) -> None:
    frequencies = [share * min(a, b) for share in (0.003, 0.06, 0.13, 0.19)]
    y = changed(tones(frequencies, a, 3 * a), a, b)
    expected = tones(frequencies, b, y.shape[1])
    assert snr(in_the_middle(expected, b), in_the_middle(y, b)) > 115


@pytest.mark.parametrize(("a", "b"), [(48000, 44100), (44100, 48000), (96000, 44100), (8000, 44100)])
def test_below_a_fifth_of_the_lower_rate_only_float32_is_left(a: int, b: int, snr: Callable[[Any, Any], float]) -> None:
    """soxr's VHQ: 149 dB and more, where HQ leaves 130 to 134."""
    frequencies = [share * min(a, b) for share in (0.003, 0.06, 0.13, 0.19)]
    y = changed(tones(frequencies, a, 3 * a), a, b)
    assert snr(in_the_middle(tones(frequencies, b, y.shape[1]), b), in_the_middle(y, b)) > 142


@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("share", [0.4, 0.456])
def test_the_edge_of_the_pass_band_keeps_phase_and_level(a: int, b: int, share: float) -> None:
    frequency = share * min(a, b)
    y = changed(tones([frequency], a, 3 * a), a, b)
    n = np.arange(y.shape[1])
    wave = np.exp(-2j * np.pi * frequency * n / b)
    ratio = np.vdot(in_the_middle(np.conj(wave), b), in_the_middle(y[0].astype(np.float64), b)) / np.vdot(
        in_the_middle(np.conj(wave), b), in_the_middle(tones([frequency], b, y.shape[1])[0], b)
    )
    assert abs(np.angle(ratio)) < 1e-6 and -0.01 < 20 * np.log10(abs(ratio)) < 0.001


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_an_impulse_stays_where_it_is(a: int, b: int) -> None:
    at = a // 2  # a time that both rates have a sample at
    x = np.zeros((1, a), np.float32)
    x[0, at] = 1
    y = changed(x, a, b)[0]
    peak = b // 2
    assert np.argmax(np.abs(y)) == peak
    reach = 200
    before, after = y[peak - reach : peak], y[peak + reach : peak : -1]
    assert np.abs(before - after).max() < 1e-6


@pytest.mark.parametrize(("a", "b"), [(48000, 44100), (96000, 44100), (44100, 48000)])
def test_there_and_back_on_noise(a: int, b: int, snr: Callable[[Any, Any], float]) -> None:
    rng = np.random.default_rng(1)
    band = signal.firwin(801, 0.4 * min(a, b) / a)
    x = signal.fftconvolve(rng.standard_normal((2, 4 * a)), band[None], mode="same")
    x[:, :2000] = x[:, -2000:] = 0
    x = signal.fftconvolve(x, band[None], mode="same")
    assert snr(x, changed(changed(x, a, b), b, a, x.shape[1])) > 115


@pytest.mark.parametrize(("a", "b", "db"), [(44100, 48000, 125), (48000, 44100, 125), (44100, 47999, 60)])
def test_no_drift(a: int, b: int, db: float, snr: Callable[[Any, Any], float]) -> None:
    """After five minutes; a thousandth of a sample leaves 63 dB."""
    seconds = 300
    want = resampled_length(a * seconds, a, b)

    def blocks() -> Iterator[Any]:
        for s in range(seconds):
            t = np.arange(s * a, (s + 1) * a) / a
            yield np.sin(2 * np.pi * 5000 * t)[None].astype(np.float32)

    end = np.concatenate(list(resample(blocks(), 1, a, b, want))[-3:], axis=1)[0]
    index = np.arange(want - len(end), want)
    middle = slice(0, len(end) - 2000)
    assert len(end) > 4000
    assert snr(np.sin(2 * np.pi * 5000 * index / b)[middle], end[middle]) > db


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 3000),
    a=st.sampled_from([8000, 22050, 44100, 47999, 192000]),
    b=st.sampled_from([8000, 16000, 44100, 48000]),
    size=st.integers(1, 500),
    extra=st.integers(-5, 5),
)
def test_exactly_the_wanted_length_whatever_the_blocks(samples: int, a: int, b: int, size: int, extra: int) -> None:
    rng = np.random.default_rng(samples)
    x = rng.standard_normal((2, samples)).astype(np.float32)
    want = max(0, resampled_length(samples, a, b) + extra)
    y = changed(x, a, b, want, size)
    assert np.array_equal(y, changed(x, a, b, want, 10**6))
    assert np.isfinite(y).all()


def test_equal_rates_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((2, 100_000)).astype(np.float32)
    assert np.array_equal(changed(x, 44100, 44100), x)


def test_the_length_covers_the_song() -> None:
    assert resampled_length(0, 44100, 48000) == 0
    assert resampled_length(1, 48000, 44100) == 1
    assert resampled_length(44100, 44100, 48000) == 48000
    assert resampled_length(44101, 44100, 48000) == 48002
    for n in range(1, 500):
        assert resampled_length(resampled_length(n, 44100, 48000), 48000, 44100) >= n
