"""A checkpoint's file: that it is there, and the hash of its bytes."""

import hashlib
from pathlib import Path

from ortsep.base.errors import FileMissing, WeightsError


def existing_file(path: Path) -> Path:
    """``path``, if it is a file that holds something. Raises FileMissing, WeightsError."""
    if path.is_dir():
        raise FileMissing(f"{path} is a folder where a checkpoint file was expected; name the file in it")
    if not path.is_file():
        raise FileMissing(f"there is no checkpoint at {path}; check the path given to --weights")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty; download or copy it again")
    return path


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, 64 hex digits. Raises FileMissing, WeightsError."""
    try:
        with existing_file(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except PermissionError as error:
        raise WeightsError(f"{path} can't be read ({error.strerror}); change its permissions") from error
