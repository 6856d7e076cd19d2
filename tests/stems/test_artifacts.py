"""The streamed post-processing against UVR's ``merge_artifacts``, written out for a whole mask."""

from typing import Any

import numpy as np
import pytest

from ortsep.stems.artifacts import Artifacts


def whole(least: Any, threshold: float) -> Any:
    """The weights [T] from each frame's least mask value."""
    weight = np.zeros(len(least))
    loud = np.where(least > threshold)[0]
    if not len(loud):
        return weight
    gaps = np.where(np.diff(loud) != 1)[0]
    starts, ends = np.insert(loud[gaps + 1], 0, loud[0]), np.append(loud[gaps], loud[-1])
    former = None
    for start, end in zip(starts, ends, strict=True):
        if end - start <= 64:
            continue
        begin = former - 64 if former is not None and start - former < 32 else start
        if begin:
            weight[begin : begin + 32] = np.linspace(0, 1, 32)
        weight[end - 32 : end] = np.linspace(1, 0, 32)
        weight[begin + 32 if begin else 0 : end - 32] = 1
        former = end
    return weight


def streamed(least: Any, threshold: float, size: int) -> Any:
    artifacts, out = Artifacts(threshold), []
    mask = np.stack([np.stack([least, least + 0.1]), np.stack([least + 0.2, least])]).astype(np.float32)
    for at in range(0, len(least), size):
        out.append(artifacts.push(mask[..., at : at + size]))
        assert sum(map(len, out)) >= at + min(size, len(least) - at) - 256, "it holds more frames than it needs"
    return np.concatenate([*out, artifacts.finish()])


@pytest.mark.parametrize("size", [1, 7, 256])
@pytest.mark.parametrize("seed", range(12))
def test_equals_the_whole_mask_s(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    loud, parts = bool(seed % 2), []
    while sum(map(len, parts)) < 1500:  # long runs, short ones, and gaps on both sides of 32 frames
        length = int(rng.choice([1, 5, 31, 32, 33, 64, 65, 66, 90, 200]))
        parts.append(rng.uniform(0.3, 0.8, length) if loud else rng.uniform(0.0, 0.19, length))
        loud = not loud
    least = np.concatenate(parts).astype(np.float32)
    assert np.allclose(whole(least, 0.2), streamed(least, 0.2, size), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("frames", [1, 64, 65, 66, 500])
def test_all_loud_and_all_soft(value: float, frames: int) -> None:
    least = np.full(frames, value, np.float32)
    assert np.allclose(whole(least, 0.2), streamed(least, 0.2, 100))
