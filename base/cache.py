"""The folders for what can be made again and what is kept, and the hashes of files that are hashed more than once."""

import hashlib
import os
import sys
from functools import lru_cache
from pathlib import Path

from ortsep.base.errors import OutputError


def cache_folder() -> Path:
    """Where checkpoints and verdicts are kept: $ORTSEP_CACHE, else ``ortsep`` in the platform's folder for caches.

    Raises OutputError where neither is known: an account without a home.
    """
    if given := os.environ.get("ORTSEP_CACHE"):
        return Path(given).expanduser()
    home = _home()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "ortsep" / "Cache"
    if sys.platform == "linux" and (cache := os.environ.get("XDG_CACHE_HOME")):
        return Path(cache) / "ortsep"
    if home is None:
        raise OutputError("this account has no home folder to keep a cache in; name a folder in ORTSEP_CACHE")
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "ortsep"
    if sys.platform == "win32":
        return home / "AppData" / "Local" / "ortsep" / "Cache"
    return home / ".cache" / "ortsep"


def data_folder() -> Path | None:
    """``ortsep`` in the platform's folder for what a user keeps; None for an account without a home."""
    home = _home()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "ortsep"
    if sys.platform == "linux" and (data := os.environ.get("XDG_DATA_HOME")):
        return Path(data) / "ortsep"
    if home is None:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "ortsep"
    if sys.platform == "win32":
        return home / "AppData" / "Local" / "ortsep"
    return home / ".local" / "share" / "ortsep"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and no such user known to the system
        return None


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal, computed once a process as long as its size and time stay. OSError."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)


def content_hash(path: Path) -> str:
    """The sha256 of what is in a file at this moment, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> str:
    return content_hash(path)
