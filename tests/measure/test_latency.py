"""How soon a stream gives its first stems, and what of the song it has to hear for them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.audio.sources import ArraySource
from ortsep.base.arrays import F32
from ortsep.measure.bench import answer
from ortsep.measure.latency import Heed, latency
from ortsep.separator import Separator


def noise(seconds: float, rate: int) -> ArraySource:
    rng = np.random.default_rng(0)
    data: F32 = rng.standard_normal((2, int(seconds * rate)), dtype=np.float32) * np.float32(0.1)
    return ArraySource(data, rate)


def test_a_chunked_model_hears_one_chunk_for_its_first_stems() -> None:
    heed = Heed()
    separator = Separator(GRAPHS / "waves", observer=heed)
    spec = separator.spec
    assert spec.chunks is not None
    chunk = spec.chunks.length / spec.sample_rate
    found = latency(separator, noise(5, spec.sample_rate), heed)
    assert 0 < found["latency"] < 5
    assert chunk <= found["heard"] <= chunk + 1
    assert not found["whole"]


class Live(ArraySource):
    """A song of which nothing comes behind the first ``until`` samples before ``stems`` have."""

    until = 0
    stems = threading.Event()

    def blocks(self) -> Iterator[F32]:
        for at in range(0, self.samples, 500):
            if at >= self.until:
                assert self.stems.wait(10), f"no stems of {at} samples"
            yield self.data[:, at : at + 500]


@pytest.mark.parametrize(
    ("graph", "heard"),
    [("waves", 4000), ("ratio", 5000)],  # a chunk; two times 32 frames and their transform
)
def test_the_first_stems_wait_for_nothing_behind_what_they_need(graph: str, heard: int) -> None:
    song = noise(5, 8000)
    expected = Separator(GRAPHS / graph).separate(song.data, 8000)
    live = Live(song.data, 8000)
    Live.until, Live.stems = heard, threading.Event()
    blocks = []
    for block in Separator(GRAPHS / graph).stream(live):
        Live.stems.set()
        blocks.append(block)
    for stem, whole in zip(np.concatenate(blocks, -1), expected.values(), strict=True):
        np.testing.assert_array_equal(stem, whole)


def test_a_model_standardised_by_the_song_hears_all_of_it(tmp_path: Path) -> None:
    song = noise(2, 44100)
    soundfile.write(tmp_path / "song.wav", song.data.T, 44100)
    found = answer(str(GRAPHS / "complex"), str(tmp_path / "song.wav"), str(tmp_path), "{}", "stream")
    assert found["whole"]
    assert found["heard"] == pytest.approx(2.0)
