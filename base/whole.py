"""Names of files that are not complete yet, and the removal of those whose process died or has to end."""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ABANDONED = 24 * 3600.0
"""Seconds after which a partial file of another machine or container, whose processes can't be seen, counts as left."""
_NAME = re.compile(r"\..+\.([0-9a-f]{5})-([0-9]+)(\.encoded)?\.partial", re.DOTALL)


def partial_path(path: Path) -> Path:
    """Where ``path`` is written until it is complete: a hidden file beside it that names this process."""
    dot = "" if path.name.startswith(".") else "."
    return path.with_name(f"{dot}{path.name}.{_machine()}-{os.getpid()}.partial")


_held: set[Path] = set()


def hold(path: Path) -> Path:
    """Remember a temporary file or folder of this process until ``release``; a folder goes with all that is in it."""
    _held.add(path)
    return path


def release(path: Path) -> None:
    """Forget what ``hold`` remembered: it is gone, or has its final name."""
    _held.discard(path)


def any_held() -> bool:
    """Whether a temporary file or folder of this process would be left if it ended now."""
    return bool(_held)


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder, which is gone afterwards; held meanwhile."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = hold(Path(name))
        try:
            yield folder
        finally:
            release(folder)


def remove_held() -> None:
    """Remove what is held, for a process that has to end at once. Never raises."""
    for path in list(_held):
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the partial files in ``folder`` whose process is dead (killed, or the machine stopped). Never raises."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found is None:
                continue
            with contextlib.suppress(OSError):
                here = found[1] == _machine() and sys.platform != "win32"
                old = time.time() - entry.stat().st_mtime > _ABANDONED
                if (here and not _alive(int(found[2]))) or (not here and old):
                    Path(entry.path).unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@cache
def _machine() -> str:
    """Five digits for where this process's number means something: the machine, and on Linux the container."""
    space = ""
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:5]
