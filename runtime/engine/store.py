"""What the parts of a network give of every frame of a song, until the parts that read it have run: in temporary files,
so that memory doesn't grow with the song."""

import threading
from collections.abc import Hashable

import numpy as np

from ortsep.base.arrays import F32
from ortsep.base.scratch import Scratch

SMALL = 1 << 21
"""Bytes of a tensor that is held in memory: 24 s of Open-Unmix's hidden states."""


class Store:
    """Tensors [T, width] of a song of ``frames`` frames by name, written and read in blocks of any order, by any
    threads. Files go with the ``with``, if not before."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._tensors: dict[Hashable, tuple[F32 | Scratch, int, threading.Lock]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._tensors):
            self.drop(name)

    def write(self, name: Hashable, start: int, values: F32) -> None:
        """Put frames [t, width] at ``start``. Raises OutputError where no room is left."""
        kept, width, lock = self._open(name, values.shape[-1])
        with lock:
            if isinstance(kept, Scratch):
                kept.write(4 * start * width, values)
            else:
                kept[start : start + len(values)] = values

    def read(self, name: Hashable, start: int, stop: int) -> F32:
        """Frames [t, width] from ``start`` to ``stop``, all of them written before."""
        kept, width, lock = self._tensors[name]
        values = np.empty((stop - start, width), np.float32)
        with lock:
            if isinstance(kept, Scratch):
                kept.read(4 * start * width, values)
            else:
                values[:] = kept[start:stop]
        return values

    def drop(self, name: Hashable) -> None:
        """Forget a tensor."""
        kept, _, lock = self._tensors.pop(name)
        with lock:
            if isinstance(kept, Scratch):
                kept.close()

    def _open(self, name: Hashable, width: int) -> tuple[F32 | Scratch, int, threading.Lock]:
        with self._lock:
            if name not in self._tensors:
                small = 4 * self._frames * width <= SMALL
                what = "what the network remembers of the song"
                new = np.empty((self._frames, width), np.float32) if small else Scratch(what)
                self._tensors[name] = new, width, threading.Lock()
            return self._tensors[name]
