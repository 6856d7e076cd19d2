"""A song's file as a mixture whose length is known, and one that is decoded once though it is read more often."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.audio.heard import Known
from ortsep.audio.song import open_song, scan
from ortsep.audio.sources import BLOCK, FileSource, Source
from ortsep.base.arrays import F32
from ortsep.base.scratch import Scratch


def counted(path: str | Path, **options: Any) -> FileSource:
    """Open a song with the options of ``ortsep.audio.song.open_song``, and count its samples.

    Headers lie: one cheap pass tells the true length, and finds what is broken before anything is computed.
    """
    song = open_song(path, **options)
    found = scan(song)
    song = replace(song, samples=found.samples, warnings=(*song.warnings, *found.warnings))
    return FileSource(song, found.samples)


class DecodedOnce(Known):
    """``source``, decoded by whoever is first anywhere in it; the blocks are kept on disk as float32 for the others.

    Where the disk is full each decodes for itself. The file has no name and is gone with the ``close``, or the process.
    """

    def __init__(self, source: Source, folder: Path | None = None) -> None:
        """``folder``: where the file is, by default where the system keeps such."""
        self.sample_rate, self.channels, self.samples = source.sample_rate, source.channels, source.samples
        self._source, self._decoding = source, source.blocks()
        self._lock = threading.Lock()
        self._folder = folder
        self._file: Scratch | None = None
        self._kept = 0

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()

    def blocks(self) -> Iterator[F32]:
        at = 0
        while at < self.samples:
            block = self._from(at)
            if block is None:
                yield from _after(self._source, at)
                return
            at += block.shape[1]
            yield block

    def _from(self, at: int) -> F32 | None:
        """The next samples from ``at`` on, at most a block; None where they can't be had here."""
        with self._lock:
            new = next(self._decoding, None) if at == self._kept else None
            if new is None and at == self._kept:
                return None
            frame = 4 * self.channels
            with contextlib.suppress(OSError, ValueError):  # ValueError: closed
                if self._file is None:  # not before: the folder is made meanwhile
                    self._file = Scratch("the song", self._folder)
                if new is not None:
                    self._file.write(at * frame, new.T)
                    self._kept += new.shape[1]
                    return new
                kept = np.empty((min(BLOCK, self._kept - at), self.channels), np.float32)
                self._file.read(at * frame, kept)
                return np.ascontiguousarray(kept.T)
            self._decoding = iter(())  # what it gave is not kept, so what would follow is of no use
        return None


def _after(source: Source, at: int) -> Iterator[F32]:
    """The blocks of ``source`` from sample ``at`` on."""
    for block in source.blocks():
        skipped = min(at, block.shape[1])
        at -= skipped
        if skipped < block.shape[1]:
            yield block[:, skipped:]
