"""Streamed resampling against ``scipy.signal.resample_poly``."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ortsep.engine.polyphase import Polyphase

Snr = Callable[[Any, Any], float]
PAIRS = [(44100, 14700), (14700, 7350), (7350, 14700), (14700, 44100), (32000, 6000), (6000, 32000), (48000, 6000)]


def streamed(x: Any, rate: int, new: int, sizes: Any) -> Any:
    resampler, out, at = Polyphase(rate, new, len(x)), [], 0
    while at < x.shape[1]:
        size = int(next(sizes))
        out.append(resampler.push(x[:, at : at + size]))
        at += size
    return np.concatenate([*out, resampler.finish()], -1)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("samples", [1, 2, 19, 20011])
def test_equals_scipy_whatever_the_blocks(pair: tuple[int, int], samples: int, snr: Snr) -> None:
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(samples)
    x = rng.standard_normal((2, samples)).astype(np.float32)
    common = math.gcd(*pair)
    exact = signal.resample_poly(x.astype(np.float64), pair[1] // common, pair[0] // common, axis=-1)
    assert snr(exact, streamed(x, *pair, iter(lambda: rng.integers(0, 3000), None))) >= 130.0
    assert snr(exact, streamed(x, *pair, iter(lambda: samples, None))) >= 130.0


def test_nothing_gives_nothing() -> None:
    resampler = Polyphase(44100, 14700, 2)
    assert resampler.push(np.zeros((2, 0), np.float32)).shape == (2, 0)
    assert resampler.finish().shape == (2, 0)
