"""The EM Wiener filter against a slow loop in float64, and its limits: silence, lone sources, layouts."""

import numpy as np
import pytest

from ortsep.stems.wiener import wiener


def random_window(channels, bins, frames, sources, seed=0, spread=1.0):
    """A mixture and stem magnitudes; a small ``spread`` makes the channels nearly equal."""
    rng = np.random.default_rng(seed)

    def noise(count):
        return rng.standard_normal((count, bins, frames)) + 1j * rng.standard_normal((count, bins, frames))

    mixture = 20 * (noise(1) + spread * noise(channels))
    return mixture, rng.random((sources, channels, bins, frames)) * np.abs(mixture)


def definition(mixture, magnitudes, iterations, softmask=False, alpha=1.0, residual=False, eps=1e-10):
    """The filter of one window as the papers write it: one bin, one frame, one matrix at a time."""
    channels, bins, frames = mixture.shape
    if softmask:
        y = mixture * magnitudes**alpha / (eps + (magnitudes**alpha).sum(0))
    else:
        y = magnitudes * np.exp(1j * np.angle(mixture))
    if residual:
        y = np.concatenate([y, (mixture - y.sum(0))[None]])
    if iterations == 0:
        return y
    scale = max(1.0, np.abs(mixture).max() / 10)
    mixture, y = mixture / scale, y / scale
    for _ in range(iterations):
        new = np.zeros_like(y)
        for f in range(bins):
            power = [[np.mean(np.abs(s[:, f, t]) ** 2) for t in range(frames)] for s in y]
            cov = [
                sum(np.outer(s[:, f, t], s[:, f, t].conj()) for t in range(frames)) / (eps + sum(p))
                for s, p in zip(y, power, strict=True)
            ]
            for t in range(frames):
                total = sum(p[t] * r for p, r in zip(power, cov, strict=True)) + np.sqrt(eps) * np.eye(channels)
                inverse = np.linalg.inv(total)
                for s in range(len(y)):
                    new[s, :, f, t] = power[s][t] * cov[s] @ inverse @ mixture[:, f, t]
        y = new
    return y * scale


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize(("softmask", "alpha", "residual"), [(False, 1, False), (False, 1, True), (True, 1.7, True)])
def test_equals_the_definition(snr, channels, iterations, softmask, alpha, residual):
    mixture, magnitudes = random_window(channels, 7, 13, 3)
    options = {"softmask": softmask, "alpha": alpha, "residual": residual}
    expected = definition(mixture, magnitudes, iterations, **options)
    assert snr(expected, wiener(mixture, magnitudes, iterations, **options)) > 200
    single = mixture.astype(np.complex64), magnitudes.astype(np.float32)
    expected = definition(single[0].astype(np.complex128), single[1].astype(np.float64), iterations, **options)
    result = wiener(*single, iterations, **options)
    assert result.dtype == np.complex64
    assert snr(expected, result) > 125


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 0.0])
def test_nearly_mono_mixtures_lose_nothing(snr, spread):
    mixture, magnitudes = random_window(2, 5, 60, 4, spread=spread)
    mixture, magnitudes = mixture.astype(np.complex64), magnitudes.astype(np.float32)
    expected = definition(mixture.astype(np.complex128), magnitudes.astype(np.float64), 2)
    assert snr(expected, wiener(mixture, magnitudes, 2)) > 140


def test_windows_are_independent():
    mixture, magnitudes = random_window(2, 6, 25, 2)
    mixture[:, :, 12] *= 1e3
    whole = wiener(mixture, magnitudes, 2, window=10)
    for start in range(0, 25, 10):
        part = np.s_[..., start : start + 10]
        np.testing.assert_array_equal(whole[part], wiener(mixture[part], magnitudes[part], 2, window=0))


def test_tiles_and_threads_change_nothing(monkeypatch):
    mixture, magnitudes = random_window(2, 33, 20, 3)
    expected = wiener(mixture, magnitudes, 2, threads=1)
    monkeypatch.setattr("ortsep.stems.wiener.TILE", 100)
    np.testing.assert_allclose(wiener(mixture, magnitudes, 2, threads=3), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("softmask", [False, True])
def test_digital_silence_stays_silent(iterations, softmask):
    mixture, magnitudes = random_window(2, 8, 40, 3)
    mixture[:, :, 10:20] = 0
    for silent in (mixture, np.zeros_like(mixture)):
        stems = wiener(silent, magnitudes, iterations, softmask=softmask, residual=True, window=10)
        assert np.isfinite(stems).all()
        assert not stems[..., 10:20].any()
    assert not stems.any()


def test_one_silent_channel_stays_silent():
    mixture, magnitudes = random_window(2, 8, 40, 3)
    mixture[1] = 0
    stems = wiener(mixture, magnitudes, 2)
    assert not stems[:, 1].any()
    assert stems[:, 0].any()


def test_a_lone_source_is_filtered_against_the_rest(snr):
    mixture, magnitudes = random_window(2, 8, 40, 1)
    with_rest = wiener(mixture, magnitudes, 2, residual=True)
    alone = wiener(mixture, magnitudes, 2)
    assert alone.shape == (1, *mixture.shape)
    np.testing.assert_array_equal(alone, with_rest[:1])
    assert snr(mixture, alone[0]) < 20, "not the whole mixture"


def test_sources_and_residual_add_up_to_the_mixture(snr):
    mixture, magnitudes = random_window(2, 8, 40, 3)
    for iterations in (0, 1):
        assert snr(mixture, wiener(mixture, magnitudes, iterations, residual=True).sum(0)) > 70


def test_mono_magnitudes_serve_all_channels():
    mixture, magnitudes = random_window(2, 8, 40, 3)
    both = np.repeat(magnitudes[:, :1], 2, axis=1)
    np.testing.assert_array_equal(wiener(mixture, magnitudes[:, :1], 1), wiener(mixture, both, 1))


def test_bins_without_magnitudes_are_zero_or_residual():
    mixture, magnitudes = random_window(2, 8, 40, 3)
    stems = wiener(mixture, magnitudes[:, :, :5], 1, residual=True)
    assert not stems[:3, :, 5:].any()
    np.testing.assert_array_equal(stems[3, :, 5:], mixture[:, 5:])


def test_any_memory_layout_in_and_out():
    mixture, magnitudes = random_window(2, 9, 31, 3)
    expected = wiener(mixture, magnitudes, 1)
    out = np.empty((3, 2, 31, 9), np.complex128).swapaxes(2, 3)
    turned = np.ascontiguousarray(mixture.swapaxes(1, 2)).swapaxes(1, 2)
    before = turned.copy()
    assert wiener(turned, magnitudes, 1, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(turned, before)


def test_no_frames():
    assert wiener(np.zeros((2, 8, 0), np.complex64), np.zeros((3, 2, 8, 0), np.float32), 1).shape == (3, 2, 8, 0)
