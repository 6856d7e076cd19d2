"""A file without a name for what memory shall not hold."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.errors import OutputError


class Scratch:
    """Bytes kept on disk, gone with ``close`` or the process; one thread at a time.

    The file has no buffer: a buffered one tries again at its close to write what the disk had no room for, and raises
    once more, over the sentence that was raised before.
    """

    def __init__(self, what: str, folder: Path | None = None) -> None:
        """``what`` is kept, for the sentence of an error; ``folder``: where, by default where the system keeps such.
        Raises OutputError where no file can be made."""
        self._what, self._folder = what, folder
        try:
            self._file: Any = tempfile.TemporaryFile(buffering=0, prefix=".ortsep-", dir=folder)  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, at: int, values: npt.NDArray[Any]) -> None:
        """Put an array's bytes, in C order, at byte ``at``. Raises OutputError where no room is left."""
        rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        try:
            self._file.seek(at)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._failed(error) from error

    def read(self, at: int, values: npt.NDArray[Any]) -> None:
        """Fill a contiguous array with the bytes from byte ``at`` on. Raises OutputError where fewer are there."""
        rest = values.reshape(-1).view(np.uint8).data
        try:
            self._file.seek(at)
            while rest:
                if not (count := self._file.readinto(rest)):
                    raise OSError("it ends before what is read")
                rest = rest[count:]
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        self._file.close()

    def _failed(self, error: OSError) -> OutputError:
        place = self._folder or tempfile.gettempdir()
        mend = "make room there" + ("" if self._folder else " or set TMPDIR")
        return OutputError(f"{self._what} can't be kept in {place} ({error.strerror or error}); {mend}")
