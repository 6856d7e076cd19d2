"""What the parts of a network give of every frame of a song, until the parts that read it have run: in temporary files,
so that memory doesn't grow with the song."""

import tempfile
import threading
from collections.abc import Hashable
from contextlib import ExitStack
from io import BytesIO
from typing import IO

import numpy as np

from ortsep.base.arrays import F32
from ortsep.base.errors import OutputError

SMALL = 1 << 21
"""Bytes of a tensor that is held in memory: 24 s of Open-Unmix's hidden states."""


class Store:
    """Tensors [T, width] of a song of ``frames`` frames by name, written and read in blocks of any order, by any
    threads. Files go with the ``with``, if not before."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._tensors: dict[Hashable, tuple[IO[bytes], int, threading.Lock]] = {}
        self._lock, self._files = threading.Lock(), ExitStack()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
        self._tensors.clear()

    def write(self, name: Hashable, start: int, values: F32) -> None:
        """Put frames [t, width] at ``start``. Raises OutputError where no room is left."""
        try:
            file, _, lock = self._open(name, values.shape[-1])
            with lock:
                file.seek(4 * start * values.shape[-1])
                file.write(np.ascontiguousarray(values).data)
                file.flush()
        except OSError as error:
            raise OutputError(
                f"what the network remembers of the song can't be kept in {tempfile.gettempdir()} "
                f"({error.strerror or error}); make room there or set TMPDIR"
            ) from error

    def read(self, name: Hashable, start: int, stop: int) -> F32:
        """Frames [t, width] from ``start`` to ``stop``, all of them written before."""
        file, width, lock = self._tensors[name]
        values = np.empty((stop - start, width), np.float32)
        with lock:
            file.seek(4 * start * width)
            file.readinto(values.data)  # type: ignore[attr-defined]  # both kinds of file have it
        return values

    def drop(self, name: Hashable) -> None:
        """Forget a tensor."""
        file, _, lock = self._tensors.pop(name)
        with lock:
            file.close()

    def _open(self, name: Hashable, width: int) -> tuple[IO[bytes], int, threading.Lock]:
        with self._lock:
            if name not in self._tensors:
                small = 4 * self._frames * width <= SMALL
                file: IO[bytes] = BytesIO() if small else tempfile.TemporaryFile(prefix="ortsep-")  # noqa: SIM115  (closed with it)
                self._tensors[name] = self._files.enter_context(file), width, threading.Lock()
            return self._tensors[name]
