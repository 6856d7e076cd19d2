"""A reader of files under tests/fuzz.py, and how it gets them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ortsep.base.errors import OrtsepError

BINARY = (b"\x80" * 9 + b"\1", b"PK\3\4", b"ID3\4\0\0", b"TAG", b"data", b"\0" * 64)


@dataclass(frozen=True)
class Reader:
    """Sound files, words thrown in among their bytes, what reads them out of a folder, and how often its turn comes."""

    name: str
    originals: tuple[bytes, ...]
    words: tuple[bytes, ...]
    read: Callable[[Path, bytes], object]
    weight: int = 10


def file(name: str, *readers: Callable[[Path], object]) -> Callable[[Path, bytes], None]:
    """Put the bytes into a file of this name and let all readers see it; the first one's error is the error."""

    def read(folder: Path, data: bytes) -> None:
        path = folder / name
        path.write_bytes(data)
        errors = []
        for reader in readers:
            try:
                reader(path)
            except OrtsepError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    return read
