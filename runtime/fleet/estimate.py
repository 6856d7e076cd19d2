"""What a run over a list would take: headers are read, and one short piece is separated here; nothing is written."""

import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.audio.song import open_song
from ortsep.audio.sources import ArraySource
from ortsep.base.errors import OrtsepError
from ortsep.base.paths import is_url
from ortsep.batch import Job
from ortsep.chain import Chain
from ortsep.fleet import remote
from ortsep.fleet.lists import Row
from ortsep.fleet.run import Order, errands
from ortsep.separator import Separator

_PIECE = 20.0
"""Seconds that are separated to measure the pace."""
_BYTES = {"wav": 4, "flac": 2}
"""Bytes a sample, at most, of the formats that are not coded to a bitrate."""


@dataclass(frozen=True)
class Estimate:
    """``hours`` of audio in ``songs``; ``unread`` songs whose length only decoding tells; ``bytes_out`` of stems, at
    most; ``pace``: seconds of this machine for a second of audio; ``machine_hours``: all of it at this pace."""

    songs: int
    unread: int
    hours: float
    bytes_out: int
    pace: float
    machine_hours: float

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        unread = f" ({self.unread} more don't say how long they are)" if self.unread else ""
        return (
            f"{self.songs} songs, {self.hours:.2f} h of audio{unread}; up to {self.bytes_out / 1e9:.2f} GB of stems; "
            f"{self.machine_hours:.2f} h on this machine, one song at a time ({self.pace:.3f} s for a second of audio)"
        )


def estimate(separator: Separator | Chain, job: Job, order: Order, found: Iterable[Row]) -> Estimate:
    """Raises what naming the songs raises; a song that can't be opened counts as unread."""
    songs = unread = size = 0
    seconds = 0.0
    for errand in errands(found, separator, job, order.shard):
        songs += 1
        length, rate, channels = _header(errand.song)
        if length is None:
            unread += 1
            continue
        changed = errand.changed(job)
        files = changed.files
        part = max(0.0, length - files.start)
        part = part if files.duration is None else min(part, files.duration)
        seconds += part
        size += round(part * (files.rate or rate) * channels * len(errand.targets) * _BYTES.get(files.format, 0.5))
    pace = _pace(separator, job)
    return Estimate(songs, unread, seconds / 3600, size, pace, seconds * pace / 3600)


def _header(song: str) -> tuple[float | None, int, int]:
    """Seconds, sample rate and channels as the header has them."""
    try:
        if not is_url(song):
            opened = open_song(song)
            samples = opened.samples
            return (None if samples is None else samples / opened.sample_rate), opened.sample_rate, opened.channels
        with tempfile.TemporaryDirectory() as folder:
            return _header(str(remote.head(song, Path(folder))))
    except OrtsepError:
        return None, 0, 0


def _pace(separator: Separator | Chain, job: Job) -> float:
    """Seconds for a second of audio, with the threads that the run would give a graph; once before to warm up."""
    rate = separator.spec.sample_rate
    noise = (0.1 * np.random.default_rng(0).standard_normal((2, round(_PIECE * rate)))).astype(np.float32)
    took = 0.0
    for _ in range(2):
        began = time.perf_counter()
        for _block in separator.stream(ArraySource(noise, rate), job.options):
            pass
        took = time.perf_counter() - began
    return took / _PIECE
