"""What ``recognise`` wants to know of a file, read in milliseconds: tensors, metadata, key, and what lies beside it."""

import hashlib
from functools import lru_cache
from pathlib import Path

from ortsep.base.errors import ModelError
from ortsep.models.contracts.contract import File
from ortsep.models.onnx_file import read_metadata
from ortsep.models.onnx_signature import read_signature

KEYED = 10_000 * 1024
"""Bytes at the end of a file of which UVR takes the MD5 to look a model's parameters up."""


def file_key(path: Path) -> str:
    """MD5 of the last 10,240,000 bytes of a file, all of it if it is smaller; read once a process as long as its size
    and time stay. Raises ModelError."""
    try:
        status = path.stat()
        return _key(path.absolute(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{path} can't be read ({error.strerror}); check its permissions") from error


@lru_cache(maxsize=1024)
def _key(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, size - KEYED))
        return hashlib.md5(file.read(KEYED), usedforsecurity=False).hexdigest()


def read_file(path: Path) -> File:
    """What is known of an ONNX file without loading its graph. Raises FileMissing and ModelError."""
    metadata = read_metadata(path)
    beside = frozenset(entry.name for entry in path.parent.iterdir())
    return File(path.name, read_signature(path), metadata, file_key(path), beside)
