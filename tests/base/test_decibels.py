"""Decibels of what is known: powers of ten, nothing at all, and what is not finite."""

import math

import numpy as np
import pytest

from ortsep.base.decibels import PERFECT, in_words, level, levels, ratio, snr
from ortsep.base.errors import ModelError


def test_ratios_and_levels() -> None:
    assert ratio(1.0, 1e-6) == pytest.approx(60) and ratio(1e-6, 1.0) == pytest.approx(-60)
    assert (ratio(1.0, 0.0), ratio(0.0, 1.0), ratio(0.0, 0.0)) == (PERFECT, -PERFECT, PERFECT)
    assert (ratio(1.0, 1e-50, 300), ratio(1e-50, 1.0, 300), ratio(1, 0, 300)) == (300, -300, 300)
    assert ratio(5e-324, 1e308, 1e5) == pytest.approx(-6313.1, abs=0.1), "no quotient of them is a number"
    assert level(0.5) == pytest.approx(-6.0206, abs=1e-4) and level(0.0) == -math.inf
    np.testing.assert_allclose(levels(np.array([1.0, 1e-3, 0.0]), 1e-9), [0, -30, -90])


def test_snr_is_of_the_noise_in_the_estimate() -> None:
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    assert snr(x, x * np.float32(1.001)) == pytest.approx(60, abs=0.01)
    assert snr(1j * x, 1j * x * 1.1) == pytest.approx(20, abs=1e-3)
    assert snr(x, x) == PERFECT and snr(0 * x, x) == -PERFECT and snr(0 * x, 0 * x) == PERFECT
    assert snr(x, np.where(x > 0, x, np.nan)) == snr(x, np.where(x > 0, x, np.inf)) == -PERFECT
    large = np.full(4, 1e30, np.float32)  # whose squares float32 can't hold
    assert snr(large, 0.99 * large) == pytest.approx(40, abs=0.01)
    with pytest.raises(ModelError, match="export it again"):
        snr(x, x[1:])


def test_what_is_no_number_of_decibels_is_not_told_as_one() -> None:
    assert [in_words(db) for db in (PERFECT, -PERFECT, 118.24)] == ["no difference", "not finite", "118.2 dB"]
    assert in_words(118.24, 0) == "118 dB"
