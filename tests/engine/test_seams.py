"""Where chunks join: neighbours that disagree must not click.

The network here is the worst case for a join: it gives the mixture back, off by an offset of alternating sign from
chunk to chunk. Concatenated, the stems would jump by twice the offset at every seam.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from mutations import budget

from ortsep.engine.by_chunk import separate_chunks
from ortsep.engine.chunks import Chunk, Span, make_plan
from ortsep.engine.level import Level
from ortsep.engine.plan import PLAIN, ChunkRun
from ortsep.models.spec import Chunks

OFFSET = 0.1


class Disagreeing:
    """A network of one stem whose every other chunk lies 2 * OFFSET higher."""

    def __init__(self, channels: int, offset: float) -> None:
        self.spec, self.wanted = SimpleNamespace(channels=channels), (0,)
        self._offset = offset

    def reading(self, chunk: Chunk, segment: int) -> Span:
        return Span(chunk.start, chunk.stop - chunk.start)

    def prepare(self, mix: np.ndarray, *_: Any) -> np.ndarray:
        return mix

    def infer(self, work: np.ndarray, cancel: Any) -> np.ndarray:
        self._offset = -self._offset
        return work + np.float32(self._offset)

    def finish(self, work: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return outputs[None]


def separated(x: np.ndarray, length: int, overlap: float, shifts: int = 0, offset: float = OFFSET) -> np.ndarray:
    chunks = Chunks(length=length, overlap=overlap, max_shift=length // 2)
    plan = make_plan(x.shape[1], chunks, shifts=shifts)
    run = ChunkRun(x.shape[1], 44100, (0,), chunks, plan, (PLAIN,), "none")
    network: Any = Disagreeing(len(x), offset)
    blocks = (x[:, at : at + 777] for at in range(0, x.shape[1], 777))
    return np.concatenate(list(separate_chunks(network, run, blocks, Level())), axis=-1)[0]


@budget(60)
@given(st.integers(1, 9000), st.integers(2, 3000), st.floats(0, 0.9), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_an_identity_returns_its_input(samples: int, length: int, overlap: float, shifts: int, seed: int) -> None:
    if samples / max(1, int((1 - overlap) * length)) > 3000:
        length = max(length, samples // 100)
    x = np.random.default_rng(seed).uniform(-1, 1, (2, samples)).astype(np.float32)
    y = separated(x, length, overlap, shifts, offset=0.0)
    assert y.shape == x.shape
    assert np.abs(y - x).max() <= 1e-6


def largest_step(x: np.ndarray, y: np.ndarray) -> float:
    """The largest step from sample to sample in what the joins added."""
    return float(np.abs(np.diff(y.astype(np.float64) - x)).max())


@budget(40)
@given(st.integers(64, 2000), st.floats(0.1, 0.5), st.integers(2, 12))
def test_chunks_that_disagree_fade_into_each_other(length: int, overlap: float, chunks: int) -> None:
    stride = int((1 - overlap) * length)
    x = np.random.default_rng(length).uniform(-1, 1, (2, stride * chunks)).astype(np.float32)
    # Triangles rise by 1 in half a chunk; the share of a join changes by no more than 4 / overlap a sample.
    assert largest_step(x, separated(x, length, overlap)) <= 2 * OFFSET * 4 / max(1, length - stride) + 1e-6


def test_without_overlap_there_are_clicks() -> None:
    """The measure above sees what it is there to see."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5000)).astype(np.float32)
    assert largest_step(x, separated(x, 1000, 0.0)) == pytest.approx(2 * OFFSET, rel=1e-3)


def test_no_click_on_a_real_song(shared_audio: Path, snr: Callable[[Any, Any], float]) -> None:
    songs = sorted(p for p in (shared_audio / "songs").rglob("*") if p.suffix in (".wav", ".flac", ".ogg", ".mp3"))
    if not songs:
        pytest.skip("no songs in ../shared/audio")
    data, rate = soundfile.read(songs[0], frames=44100 * 30, dtype="float32", always_2d=True)
    x, length = np.ascontiguousarray(data.T), rate * 5
    y = separated(x, length, 0.25, offset=0.01)
    plan = make_plan(x.shape[1], Chunks(length=length, overlap=0.25))
    steps = np.abs(np.diff(y.astype(np.float64), axis=-1)).max(axis=0)
    seams = np.zeros(len(steps), bool)
    for chunk in plan.chunks():
        for at in (chunk.start, chunk.stop):
            seams[max(0, at - 4) : at + 4] = True
    assert steps[seams].max() <= steps[~seams].max()
    assert largest_step(x, y) < 1e-5
