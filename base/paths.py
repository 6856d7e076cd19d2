"""Questions about paths that somebody typed: a word of 300 letters, or with a NUL, is no path, and no error either."""

import os
import re
from pathlib import Path


def exists(word: str | Path) -> bool:
    """Whether there is something of this name."""
    return os.path.exists(word)  # noqa: PTH110 (Path.exists raises for what no file system takes)


def is_folder(word: str | Path) -> bool:
    """Whether there is a folder of this name."""
    return os.path.isdir(word)  # noqa: PTH112


def is_url(word: str) -> bool:
    """Whether a word is an address (``s3://...``, ``file://...``) and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", word) is not None
