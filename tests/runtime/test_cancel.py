"""Two at once: a cancel ends its own run, leavers leave nothing behind, results don't depend on who else is there."""

import gc
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes import WAVES, faked, scaled, song
from places import GRAPHS

from ortsep.audio.sources import ArraySource
from ortsep.base.cancel import Cancel, Cancels
from ortsep.base.errors import AudioError, Cancelled, TimedOut
from ortsep.chain import Chain
from ortsep.graphs.session import Observer
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs.record import Files
from ortsep.songs.separate import separate_file


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("ortsep-")]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def settled(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def whole(stream: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(stream), axis=-1)


def test_a_cancel_calls_once_and_children_follow() -> None:
    parent, calls = Cancel(), []
    child = Cancel(parent)
    number = child.register(lambda: calls.append("gone"))
    child.forget(number)
    child.register(lambda: calls.append("child"))
    other = Cancel(parent)
    other.cancel()
    assert not parent.cancelled and not child.cancelled
    parent.cancel()
    parent.cancel()
    assert child.cancelled and calls == ["child"]
    child.register(lambda: calls.append("late"))
    assert calls == ["child", "late"]
    with pytest.raises(Cancelled):
        child.check()
    assert Cancel(parent).cancelled
    ended = Cancel(later := Cancel())
    ended.end()
    assert ended.cancelled and not later.cancelled and not later._calls


def test_those_that_live_are_cancelled_and_no_later_ones() -> None:
    live = Cancels()
    first = live.new()
    live.cancel()
    assert first.cancelled and not live.new().cancelled


@pytest.mark.parametrize("name", ["waves", "masks", "wiener"])
def test_a_is_cancelled_and_b_that_starts_at_once_is_not(name: str) -> None:
    separator = Separator(GRAPHS / name)
    x = song(200_000)
    source, expected = ArraySource(x, 8000), whole(separator.stream(ArraySource(x, 8000)))
    begun, go_on, ends = threading.Event(), threading.Event(), []
    cancel = Cancel()

    def a() -> None:
        try:
            for _ in separator.stream(source, cancel=cancel):
                begun.set()
                go_on.wait(20)
            ends.append("whole")
        except Cancelled:
            ends.append("cancelled")

    thread = threading.Thread(target=a)
    thread.start()
    assert begun.wait(20)
    cancel.cancel()
    b = separator.stream(source)
    first = next(b)
    go_on.set()
    thread.join(20)
    assert ends == ["cancelled"]
    np.testing.assert_array_equal(np.concatenate([first, *b], axis=-1), expected)


@pytest.mark.parametrize("name", ["waves", "masks", "wiener", "bag"])
def test_concurrent_results_are_equal_beside_early_leavers(name: str) -> None:
    separator = Separator(GRAPHS / name)
    songs = [song(20_000 + 777 * k, seed=k) for k in range(24)]
    expected = [Separator(GRAPHS / name).separate(x, 8000) for x in songs]

    def request(k: int) -> dict[str, np.ndarray] | None:
        if k % 2:
            with separator.stream(ArraySource(songs[k // 2], 8000)) as blocks:  # type: ignore[attr-defined]
                next(blocks)
            return None
        return separator.separate(songs[k // 2], 8000)

    def leave(k: int) -> dict[str, np.ndarray] | None:
        stream = separator.stream(ArraySource(songs[k // 2], 8000), Options(stems=("vocals",)) if k % 3 else None)
        next(stream)
        stream.close()
        return None

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda k: leave(k) if k % 2 else request(k), range(48)))
    for k, result in enumerate(done[::2]):
        assert result is not None
        for stem, wanted in expected[k].items():
            np.testing.assert_array_equal(result[stem], wanted)
    assert settled(lambda: not threads())


class Failing:
    """A song that ends in an error, with a file open while it is read."""

    sample_rate, channels, samples = 8000, 2, 100_000

    def __init__(self, at: int) -> None:
        self._at = at

    def blocks(self) -> Iterator[np.ndarray]:
        with Path(__file__).open("rb"):
            for at in range(0, self.samples, 1000):
                if at >= self._at:
                    raise AudioError("the song is broken; take another")
                yield np.zeros((2, 1000), np.float32)


@pytest.mark.parametrize("name", ["waves", "masks", "wiener", "hybrid", "complex", "bag"])
@pytest.mark.parametrize("residual", [False, True])
def test_kept_failures_keep_no_thread_and_no_file(name: str, residual: bool) -> None:
    separator = Separator(GRAPHS / name)
    separator.separate(song(5000), 8000)
    before, kept = open_files(), []
    for _ in range(5):
        with pytest.raises(AudioError, match="the song is broken") as failure:
            list(separator.stream(Failing(60_000), Options(residual=residual)))
        kept.append(failure.value)
    assert settled(lambda: not threads())
    assert open_files() == before
    assert all(error.__traceback__ is not None for error in kept)


@pytest.mark.parametrize("what", ["graph", "reader", "progress"])
def test_whoever_fails_leaves_nothing(what: str) -> None:
    runs = 0

    def fail_later(mix: np.ndarray) -> np.ndarray:
        nonlocal runs
        runs += 1
        if what == "graph" and runs > 20:
            raise RuntimeError("the graph")
        return scaled(0.5, 0.25)(mix)

    def told(done: int, total: int) -> None:
        if what == "progress" and done > 20_000:
            raise RuntimeError("the progress")

    separator, _ = faked(WAVES, fail_later)
    before, kept = open_files(), []
    try:
        stream = separator.stream(Failing(1 << 30), progress=told)
        for block in stream:
            if what == "reader" and block.shape[-1]:
                stream.close()
                raise RuntimeError("the reader")
    except RuntimeError as error:
        kept.append(error)
    assert len(kept) == 1
    assert settled(lambda: not threads())
    assert open_files() == before


@pytest.mark.parametrize("timeout", [0.001, 0.01, 0.05, 0.2])
def test_songs_that_took_too_long_keep_no_file(timeout: float, tmp_path: Path) -> None:
    """Wherever the time ended: while it was counted, read, separated or written."""
    soundfile.write(tmp_path / "song.wav", song(8000 * 60).T, 8000)
    separator, kept = Separator(GRAPHS / "hybrid"), []
    separator.separate(song(5000), 8000)
    before = open_files()
    for number in range(4):
        try:
            separate_file(separator, tmp_path / "song.wav", Files(tmp_path / str(number)), timeout=timeout)
        except TimedOut as error:
            kept.append(error)
    assert kept or timeout > 0.01
    assert settled(lambda: not threads())
    opened = [p.resolve() for p in Path("/proc/self/fd").iterdir() if p.exists()]
    assert not [p for p in opened if tmp_path in p.parents] and open_files() <= before + 1


class Stalling:
    """A song whose reading hangs after its first second, until ``go_on``."""

    sample_rate, channels, samples = 8000, 2, 100_000

    def __init__(self) -> None:
        self.go_on, self.closed = threading.Event(), threading.Event()

    def blocks(self) -> Iterator[np.ndarray]:
        try:
            for at in range(0, self.samples, 2000):
                if at == 40_000:
                    self.go_on.wait(60)
                yield np.zeros((2, 2000), np.float32)
        finally:
            self.closed.set()


@pytest.mark.parametrize("name", ["waves", "masks"])
def test_closing_does_not_wait_for_a_source_that_hangs(name: str) -> None:
    separator, source = Separator(GRAPHS / name), Stalling()
    stream = separator.stream(source)
    next(stream)
    time.sleep(0.2)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 10
    source.go_on.set()
    assert source.closed.wait(10) and settled(lambda: not threads())


@pytest.mark.parametrize("name", ["waves", "masks", "hybrid"])
def test_a_cancel_is_heard_while_a_source_hangs(name: str) -> None:
    """`hybrid` goes through the song first."""
    separator, source, cancel = Separator(GRAPHS / name), Stalling(), Cancel()
    threading.Timer(0.3, cancel.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        list(separator.stream(source, cancel=cancel))
    assert time.monotonic() - began < 10
    source.go_on.set()
    assert source.closed.wait(10) and settled(lambda: not threads())


def test_the_separators_own_cancel_ends_all_that_live_now() -> None:
    separator = Separator(GRAPHS / "waves")
    streams = [separator.stream(ArraySource(song(80_000), 8000)) for _ in range(3)]
    for stream in streams[1:]:
        next(stream)
    separator.cancel()
    for stream in streams:
        with pytest.raises(Cancelled):
            list(stream)
    assert whole(separator.stream(ArraySource(song(9000), 8000))).shape[-1] == 9000


class Counting(Observer):
    def __init__(self) -> None:
        self.loaded, self.runs, self._lock = 0, 0, threading.Lock()

    def opened(self, session: Any) -> None:
        self.loaded += 1

    def running(self) -> Any:
        with self._lock:
            self.runs += 1
        return super().running()


def test_choices_of_stems_share_the_graphs_that_are_loaded_once() -> None:
    seen = Counting()
    separator = Separator(GRAPHS / "single", observer=seen)
    separator.separate(song(4000), stems="vocals")
    assert seen.loaded == 1
    with ThreadPoolExecutor(6) as pool:
        choices = [("vocals",), ("drums",), (), ("vocals", "drums")] * 3
        list(pool.map(lambda stems: separator.separate(song(4000), stems=stems), choices))
    assert seen.loaded == 2 and seen.runs > 10
    separator.close()
    separator.separate(song(4000))
    assert seen.loaded == 4


def test_a_separator_travels_pickled_and_loads_where_it_arrives() -> None:
    separator = Separator(GRAPHS / "waves", provider="cpu", threads=1)
    x = song(9000)
    expected = separator.separate(x)
    again = pickle.loads(pickle.dumps(separator))
    assert (again.stems, again._made) == (separator.stems, separator._made) and not again._graphs.loaded
    for name, stem in again.separate(x).items():
        np.testing.assert_array_equal(stem, expected[name])


def test_a_chain_is_cancelled_as_one(tmp_path: Path) -> None:
    first, _ = faked(WAVES, scaled(0.5, 0.25))
    second = Separator(GRAPHS / "waves")
    chain, source = Chain(first, second, "a"), ArraySource(song(200_000), 8000)
    cancel = Cancel()
    stream, other = chain.stream(source, cancel=cancel), first.stream(source)
    next(stream)
    next(other)
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(stream)
    assert whole(other).shape[-1] > 190_000, "the first model's other song goes on"
    gc.collect()
    assert settled(lambda: not threads())


def test_every_graphs_provider_and_reason_is_told() -> None:
    """Where the second graph of a bag falls back, the first one's provider is not the model's."""
    separator = Separator(GRAPHS / "single")
    separator.separate(song(4000))
    first, second = separator._graphs.loaded
    assert (separator.provider, separator.provider_reason) == ("cpu", "")
    first.provider, second.reason = "cuda", "provider cuda was not taken: it can't load vocals.onnx"
    assert separator.provider == "cuda+cpu"
    assert separator.provider_reason == second.reason
