"""Masks and the one door to every filter, against their definitions written as loops in float64."""

import numpy as np
import pytest

from ortsep.models.spec import Filter
from ortsep.stems.masks import alpha_wiener, apply_filter, mask_filter, ratio_masks
from ortsep.stems.wiener import wiener

STEMS, CHANNELS, BINS, SEEN, FRAMES = 3, 2, 9, 6, 11


@pytest.fixture
def window():
    rng = np.random.default_rng(0)
    shape = (CHANNELS, BINS, FRAMES)
    mixture = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    return mixture, rng.random((STEMS, CHANNELS, SEEN, FRAMES)).astype(np.float32)


def each_cell(values, function):
    """``function`` of the S values of every cell, in float64."""
    result = np.zeros(values.shape)
    for cell in np.ndindex(values.shape[1:]):
        result[(slice(None), *cell)] = function([float(v) for v in values[(slice(None), *cell)]])
    return result


@pytest.mark.parametrize(("exponent", "eps"), [(2.0, 1e-10), (1.3, 1e-2)])
def test_ratio_masks(snr, window, exponent, eps):
    masks = ratio_masks(window[1], exponent, eps)
    expected = each_cell(
        window[1], lambda v: [(x**exponent + eps / STEMS) / (sum(y**exponent for y in v) + eps) for x in v]
    )
    assert masks.dtype == np.float32
    assert snr(expected, masks) > 130
    np.testing.assert_allclose(masks.sum(0), 1, rtol=1e-5)


def test_ratio_masks_of_silence_are_even():
    np.testing.assert_allclose(ratio_masks(np.zeros((4, 1, 2, 3), np.float32)), 0.25)


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_alpha_wiener(snr, window, alpha):
    expected = each_cell(window[1], lambda v: [x**alpha / (sum(y**alpha for y in v) + 1e-7) for x in v])
    masks = alpha_wiener(window[1], alpha)
    assert masks.dtype == np.float32
    assert snr(expected, masks) > 130
    assert not alpha_wiener(np.zeros_like(window[1]), alpha).any()


@pytest.mark.parametrize("above", ["zeros", "average"])
def test_mask_filter_above_the_graphs_bins(snr, window, above):
    mixture, masks = window
    expected = np.zeros((STEMS, *mixture.shape), np.complex128)
    for s, c, f, t in np.ndindex(expected.shape):
        mean = np.mean(masks[s, c, :, t].astype(np.float64)) if above == "average" else 0.0
        expected[s, c, f, t] = complex(mixture[c, f, t]) * float(masks[s, c, f, t] if f < SEEN else mean)
    stems = mask_filter(mixture, masks, above)
    assert stems.dtype == np.complex64
    assert snr(expected, stems) > 135


CASES = {
    "mask": (Filter(), "masks"),
    "mask of magnitudes": (Filter(), "stem_magnitudes"),
    "alpha": (Filter(alpha=1.5), "masks"),
    "ratio": (Filter("ratio", above="average"), "stem_magnitudes"),
    "wiener": (Filter("wiener", iterations=2, window=4, softmask=True, alpha=2.0), "stem_magnitudes"),
    "wiener of masks": (Filter("wiener", iterations=1, window=4), "masks"),
}


def straight(name, mixture, estimates, residual):
    """What each case stands for, by the functions it is made of."""
    magnitudes = estimates * np.abs(mixture[:, :SEEN])
    if name.startswith("wiener"):
        softmask, alpha, count = (False, 1.0, 1) if "masks" in name else (True, 2.0, 2)
        v = magnitudes if "masks" in name else estimates
        return wiener(mixture, v, count, softmask=softmask, alpha=alpha, residual=residual, window=4)
    if name == "mask of magnitudes":
        stems = np.zeros((STEMS, *mixture.shape), np.complex64)
        stems[:, :, :SEEN] = estimates * np.exp(1j * np.angle(mixture[:, :SEEN]))
    elif name == "ratio":
        stems = mask_filter(mixture, ratio_masks(estimates), "average")
    else:
        stems = mask_filter(mixture, alpha_wiener(magnitudes, 1.5) if name == "alpha" else estimates)
    return np.concatenate([stems, (mixture - stems.sum(0))[None]]) if residual else stems


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_apply_filter(snr, window, name, residual):
    options, output = CASES[name]
    stems = apply_filter(options, *window, output=output, residual=residual)
    assert stems.shape == (STEMS + residual, CHANNELS, BINS, FRAMES)
    assert snr(straight(name, *window, residual), stems) > 120
    out = np.empty_like(stems)
    assert apply_filter(options, *window, output=output, residual=residual, out=out) is out
    np.testing.assert_array_equal(out, stems)


@pytest.mark.parametrize("name", CASES)
def test_silence_stays_silent(window, name):
    options, output = CASES[name]
    silence = np.zeros_like(window[0])
    assert not apply_filter(options, silence, window[1], output=output, residual=True).any()


def test_an_incomplete_set_of_stems_leaves_room_for_the_rest(window):
    options = Filter("wiener", iterations=1)
    partial = apply_filter(options, *window, complete=False)
    np.testing.assert_array_equal(partial, apply_filter(options, *window, residual=True)[:STEMS])
    assert not np.array_equal(partial, apply_filter(options, *window))
