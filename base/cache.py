"""The folder for what can be made again, and the hashes of files that are hashed more than once."""

import hashlib
import os
import sys
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path:
    """Where checkpoints and verdicts are kept: $ORTSEP_CACHE, else ``ortsep`` in the platform's folder for caches."""
    if given := os.environ.get("ORTSEP_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ortsep"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ortsep" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ortsep"


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal, computed once a process as long as its size and time stay. OSError."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
