"""How soon a stream gives its first stems: in seconds of waiting, and of the song that has to be heard for them."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ortsep.audio.sources import Source
from ortsep.base.arrays import F32
from ortsep.base.threads import closed
from ortsep.graphs.session import Observer
from ortsep.separator import Separator

MOST = 60.0
"""Seconds of the song that are used."""
PART, PAUSE = 0.25, 0.04
"""Seconds of a block of the song, and of waiting before it where what has to be heard is measured: what is prepared in
a pause is not taken for what was needed."""
GRACE, GRACES = 1.0, 8.0
"""Seconds in which stems may follow a graph that has run, before more of the song comes; and all such seconds."""
ROUNDS = 3


class Heed(Observer):
    """Knows whether a graph runs, and how many have."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self.runs = 0

    @property
    def busy(self) -> bool:
        return self._running > 0

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self.runs += 1


class _Live:
    """The first ``MOST`` seconds of a song in small blocks, as fast as they are taken or, ``paced``, with pauses, and
    none while a graph runs or its stems may come."""

    def __init__(self, source: Source, heed: Heed, *, paced: bool = False) -> None:
        self.sample_rate, self.channels = source.sample_rate, source.channels
        self.samples = min(source.samples, round(MOST * source.sample_rate))
        self.began = 0.0
        """When its first block was given."""
        self.given = self.heard = 0
        """Samples, however often they are gone through: by now, and when stems came."""
        self.answered = threading.Event()
        """Set where stems have come."""
        self._source, self._heed, self._paced = source, heed, paced
        self._runs, self._grace = heed.runs, GRACES

    def blocks(self) -> Iterator[F32]:
        at, size = 0, round(PART * self.sample_rate)
        with closed(self._source.blocks()) as given:
            for block in given:
                for low in range(0, block.shape[1], size):
                    part = block[:, low : low + size][:, : self.samples - at]
                    if not part.shape[1]:
                        return
                    self._wait()
                    at += part.shape[1]
                    self.began = self.began or time.perf_counter()
                    self.given = max(self.given, at)
                    yield part

    def _wait(self) -> None:
        if not self._paced:
            return
        time.sleep(PAUSE)
        while self._heed.busy:
            time.sleep(PAUSE / 4)
        if self._heed.runs != self._runs and self._grace > 0:
            self._runs = self._heed.runs
            self.answered.wait(GRACE)
            self._grace -= GRACE


def latency(separator: Separator, source: Source, heed: Heed) -> dict[str, Any]:
    """``latency``: seconds from a song's first block to the first block of stems, once the graphs are loaded, where
    blocks come as fast as they are taken; ``heard``: seconds of the song that had to come in for these stems, within a
    few ``PART``; ``whole``: whether that was all of what was given.

    ``heed`` observes the ``separator``.
    """
    _first(separator, _Live(source, heed))  # loads the graphs
    waited = statistics.median(_first(separator, _Live(source, heed)) for _ in range(ROUNDS))
    live = _Live(source, heed, paced=True)
    _first(separator, live)
    return {"latency": waited, "heard": live.heard / live.sample_rate, "whole": live.heard >= live.samples}


def _first(separator: Separator, live: _Live) -> float:
    with closed(separator.stream(live)) as blocks:
        next(blocks)
        live.heard = live.given
        live.answered.set()
        return time.perf_counter() - live.began
