"""Frames of one continuous STFT in groups: none lost or doubled, and one group at a time in memory."""

import gc
import weakref
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ortsep.engine.by_frame import _crossfaded, regroup, separate_frames
from ortsep.engine.domains import Magnitude
from ortsep.engine.plan import FrameRun
from ortsep.engine.stft import frame_count
from ortsep.models.spec import STFT, Blocks, Filter

TRANSFORM = STFT(256, 64, 129, 128, 128)
CHANNELS = 2


class Identity:
    """Two stems: the mixture and nothing. ``alive`` counts, at each call, the estimates made before that still live."""

    abreast = 1

    def __init__(self, output: str, frames: int | None = None) -> None:
        self.spec = SimpleNamespace(stft=TRANSFORM, inverse=None, channels=CHANNELS, output=output)
        self.domain = Magnitude(self.spec)  # type: ignore[arg-type]
        self.wanted = (0, 1)
        self.alive: list[int] = []
        self._frames, self._made = frames, []

    def estimate(self, magnitude: np.ndarray, cancel: Any) -> np.ndarray:
        assert self._frames in (None, magnitude.shape[-1])
        gc.collect()
        self.alive.append(sum(made() is not None for made in self._made))
        results = np.zeros((len(magnitude), 2, *magnitude.shape[1:]), np.float32)
        results[:, 0] = 1 if self.spec.output == "masks" else magnitude
        self._made.append(weakref.ref(results))
        return results


def separated(network: Any, samples: int, grouping: Blocks, filtering: Filter) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (CHANNELS, samples)).astype(np.float32)
    blocks = (x[:, at : at + 1000] for at in range(0, samples, 1000))
    run = FrameRun(samples, 8000, (0, 1), (0, 1), frame_count(TRANSFORM, samples), grouping, filtering, rest=False)
    parts = list(separate_frames(network, run, blocks))
    return x, np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("overlap", [0, 1, 7])
@pytest.mark.parametrize("sizes", [[1], [3, 20], [100], [16], [15, 1], [9, 0, 7], [5, 40, 2]])
def test_groups_are_the_frames_in_order(sizes: list[int], overlap: int) -> None:
    frames = np.arange(sum(sizes), dtype=np.complex64)
    whole = np.stack([frames, -frames])[:, None]
    parts = np.split(whole, np.cumsum(sizes)[:-1], axis=-1)
    groups = list(regroup(parts, 16, overlap))
    assert all(group.shape[-1] == 16 for group in groups[:-1])
    for former, group in pairwise(groups):
        assert group.shape[-1] > overlap
        np.testing.assert_array_equal(group[..., :overlap], former[..., 16 - overlap :])
    fresh = [groups[0], *(group[..., overlap:] for group in groups[1:])]
    np.testing.assert_array_equal(np.concatenate(fresh, axis=-1), whole)


@pytest.mark.parametrize(
    "filtering", [Filter("wiener", iterations=1, window=10), Filter("mask")], ids=lambda f: f.method
)
@pytest.mark.parametrize("samples", [1, 300, 64 * 31, 64 * 32, 64 * 500 + 17])
@pytest.mark.parametrize("padded", [False, True])
def test_an_identity_comes_back_of_any_length(filtering: Filter, samples: int, padded: bool) -> None:
    """Also a song shorter than the overlap, and graphs of a fixed number of frames."""
    output = "masks" if filtering.method == "mask" else "stem_magnitudes"
    network = Identity(output, 32 if padded else None)
    x, stems = separated(network, samples, Blocks(32, overlap=8, padded=padded), filtering)
    allowed = 1e-3 if filtering.method == "wiener" else 1e-5  # its covariances of few frames are regularised
    np.testing.assert_allclose(stems[0], x, atol=allowed)
    np.testing.assert_allclose(stems[1], 0, atol=allowed)


@pytest.mark.parametrize(
    "filtering", [Filter("wiener", iterations=1, window=10), Filter("mask")], ids=lambda f: f.method
)
def test_a_group_is_gone_before_the_next_is_estimated(filtering: Filter) -> None:
    network = Identity("masks" if filtering.method == "mask" else "stem_magnitudes")
    separated(network, 64 * 500, Blocks(32, overlap=8, padded=False), filtering)
    assert len(network.alive) > 15
    assert set(network.alive) == {0}


@pytest.mark.parametrize("overlap", [1, 4, 7])
def test_neighbours_are_crossfaded_in_equal_steps_that_touch_neither_end(overlap: int) -> None:
    """Shares of the later block: 1/(n+1), 2/(n+1), ... n/(n+1)."""
    groups = list(regroup([np.zeros((1, 3, 40), np.complex64)], 16, overlap))
    values = iter(range(len(groups)))
    made = _crossfaded(groups, lambda group: np.full((1, *group.shape), next(values), np.float32), overlap, 5)
    estimate = np.concatenate([e for _, e in made], axis=-1)[0, 0, 0]
    expected = np.zeros(40)
    for k in range(1, len(groups)):
        start = k * (16 - overlap)
        share = np.arange(1, overlap + 1) / (overlap + 1)
        expected[start : start + overlap] = (k - 1) * (1 - share) + k * share
        expected[start + overlap :] = k
    np.testing.assert_allclose(estimate, expected, atol=1e-6)
