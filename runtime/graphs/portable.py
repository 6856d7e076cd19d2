"""Portable forms of graphs, in the cache: the same of operators of the ONNX standard alone, for providers that run none
of ONNX Runtime's own.

``ortsep.export.portable`` makes them, for ``ortsep doctor --tune``; each is as large as its graph. The least used go
where all of them together would pass ``MOST``.
"""

import contextlib
import os
from pathlib import Path

from ortsep import __version__
from ortsep.base.cache import cache_folder, sha256_of
from ortsep.base.errors import OutputError

MOST = 4 * 10**9
"""Bytes that all forms together may take."""


def _folder() -> Path:
    return cache_folder() / "portable"


def portable_path(graph: Path) -> Path:
    """Where the portable form of a graph is or would be, by what is in its file. OutputError without a cache."""
    return _folder() / f"{sha256_of(graph)[:24]}.{__version__}.onnx"


def used(form: Path) -> Path:
    """The same form, which was used last of all from now on."""
    with contextlib.suppress(OSError):
        os.utime(form)
    return form


def forms() -> dict[Path, int]:
    """All that there are, with their bytes, the least used first."""
    found = []
    with contextlib.suppress(OSError, OutputError):
        for form in _folder().glob("*.onnx"):
            with contextlib.suppress(OSError):
                status = form.stat()
                found.append((status.st_mtime_ns, form, status.st_size))
    return {form: size for _, form, size in sorted(found)}


def make_room(size: int, most: int = MOST) -> None:
    """Remove forms, the least used first, until ``size`` more bytes fit into ``most``. Never raises."""
    there = forms()
    total = size + sum(there.values())
    for form, bytes_ in there.items():
        if total <= most:
            return
        with contextlib.suppress(OSError):
            form.unlink()
            total -= bytes_
