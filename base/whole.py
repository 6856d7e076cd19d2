"""Files and folders that get their names only when they are complete, and the removal of what never will be.

Until then a file is a hidden one beside its place, under a name that tells the machine and the process that writes it
and is never the same twice. Who writes next into a folder removes there what the dead have left.
"""

import contextlib
import errno
import hashlib
import os
import platform
import random
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from ortsep.base.errors import OrtsepError, OutputError

_ABANDONED = 24 * 3600.0
"""Seconds after which a partial file of another machine or container, whose processes can't be seen, counts as left."""
_NAME = re.compile(r"(\..+)\.([0-9a-f]{5})-([0-9]+)(-[0-9a-f]{6})?(\.encoded)?\.partial", re.DOTALL)
"""What is hidden, the machine, the process and the random part, which versions before 0.2 did not have."""
_TRIES = 3
"""Of two that begin the same file in one moment neither may get it; then each tries again a little later."""

_held: set[Path] = set()
_beginning = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # they are the parent's


@contextlib.contextmanager
def whole_file(path: Path, mend: str = "choose another folder", *, alone: bool = True) -> Iterator[Path]:
    """An empty temporary file, which becomes ``path`` at the end of the block; after an exception nothing is left.

    Its folder is made. Every OSError becomes an OutputError that names ``path`` and ends in ``mend``; so does another
    run that is writing ``path`` at this moment, unless it need not be ``alone``.
    """
    partial = begin(path, mend, alone=alone)
    try:
        with saying(path, mend):
            yield partial
            partial.replace(path)
    finally:
        drop(partial)


@contextlib.contextmanager
def whole_folder(
    path: Path, mend: str = "choose another folder", *, stale: str | None = None, alone: bool = True
) -> Iterator[Path]:
    """As ``whole_file``, a folder, but an OSError of the block itself passes as it is.

    Where ``path`` is a folder already, the new files take the place of those of their name, all or none. Other files
    stay, but for those that match ``stale``, a pattern; subfolders are for a new ``path`` only.
    """
    working = begin(path, mend, folder=True, alone=alone)
    try:
        yield working
        if path.exists():
            moves = [(file, path / file.name) for file in sorted(working.iterdir())]
            old = set(path.glob(stale)) - {target for _, target in moves} if stale else set()
            replace_all(moves, mend, sorted(old))
        else:
            with saying(path, mend):
                working.replace(path)
    finally:
        drop(working)


def begin(path: Path, mend: str, *, folder: bool = False, alone: bool = True) -> Path:
    """Make the empty temporary file or folder of ``path``, and the folders above; it is held until ``drop``.

    Created exclusively: a link that somebody put there is not followed. Raises OutputError, as ``whole_file`` does.
    """
    with saying(path, mend):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.is_dir() != folder:
            number = errno.ENOTDIR if folder else errno.EISDIR
            raise OSError(number, os.strerror(number))
        for attempt in range(_TRIES):
            with _beginning:
                partial = hold(partial_path(path))
                try:
                    _create(partial, folder)
                    others = _swept(path.parent, partial) if alone else []
                except BaseException:
                    drop(partial)
                    raise
                if not others:
                    return partial
                drop(partial)
            if os.getpid() in others:
                break
            time.sleep(random.uniform(0.01, 0.05) * (attempt + 1))
    raise OutputError(
        f"{path} is being written by {'this' if os.getpid() in others else 'another'} process (number {others[0]}) at "
        "this moment; wait until it is done, or name another place"
    )


def _create(partial: Path, folder: bool) -> None:
    if folder:
        partial.mkdir()
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(partial, flags, 0o666))


def drop(partial: Path) -> None:
    """Remove what ``begin`` made, where it is still there, and forget it. Never raises."""
    _remove(partial)
    release(partial)


@contextlib.contextmanager
def saying(path: Path, mend: str) -> Iterator[None]:
    """Turn an OSError of writing ``path`` into an OutputError of one sentence that ends in ``mend``."""
    try:
        yield
    except OrtsepError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        room = "make room there or " if full and not mend.startswith("make room") else ""
        raise OutputError(f"{path} can't be written ({error.strerror or error}); {room}{mend}") from error


def replace_all(moves: Sequence[tuple[Path, Path]], mend: str, remove: Sequence[Path] = ()) -> None:
    """Give finished files their names: ``moves`` are (from, to); and ``remove`` files. All of it, or nothing.

    Each name is at any time that of a whole file, new or old (on a file system without second names for a moment of
    none). After an exception, Ctrl-C included, all old files are back and new ones without an old one are gone.
    Raises OutputError, which names the file and ends in ``mend``.
    """
    kept: dict[Path, Path] = {}
    try:
        for target in (*(to for _, to in moves), *remove):
            if target.exists():
                kept[target] = hold(partial_path(target))
                with saying(target, mend):
                    _keep(target, kept[target])
        for partial, target in moves:
            with saying(target, mend):
                partial.replace(target)
        for target in remove:
            with saying(target, mend):
                target.unlink(missing_ok=True)
    except BaseException:
        for target, old in kept.items():
            with contextlib.suppress(OSError):
                if old.exists():
                    old.replace(target)
        for partial, target in moves:
            if target not in kept and not partial.exists():
                _remove(target)
        raise
    finally:
        for old in kept.values():  # after a rollback both names may be of one file, and then replace does nothing
            drop(old)


def _keep(target: Path, old: Path) -> None:
    """A second name for the file ``target``; where the file system has no such thing, its only one."""
    if target.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        os.link(target, old, follow_symlinks=False)
    except (OSError, NotImplementedError):
        target.replace(old)


def partial_path(path: Path) -> Path:
    """A new name for what is to become ``path``: hidden, beside it, with this machine and process in it."""
    return path.with_name(f"{_hidden(path)}.{_machine()}-{os.getpid()}-{secrets.token_hex(3)}.partial")


def _hidden(path: Path) -> str:
    return path.name if path.name.startswith(".") else f".{path.name}"


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


def remove_held() -> None:
    """Remove what is held, for a process that has to end at once. Never raises."""
    for path in list(_held):
        _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A temporary folder of the system's, for this user only, which is gone afterwards; held meanwhile."""
    home = Path(tempfile.gettempdir())
    sweep(home)
    folder = hold(partial_path(home / name))
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        drop(folder)


def sweep(folder: Path) -> None:
    """Remove the partial files in ``folder`` whose process is dead (killed, or the machine stopped). Never raises."""
    _swept(folder)


def _swept(folder: Path, but: Path | None = None) -> list[int]:
    """``sweep``, and the processes of this machine that write what ``but`` is to become, ``but`` itself aside."""
    own = _NAME.fullmatch(but.name) if but else None
    others = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found is None or (but and entry.name == but.name):
                continue
            path, pid = folder / entry.name, int(found[3])
            here = found[2] == _machine()
            with contextlib.suppress(OSError):
                if here and pid == os.getpid():
                    left = path not in _held
                elif here and sys.platform != "win32":
                    left = not _alive(pid)
                else:
                    left = time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
                if left:
                    _remove(path)
                elif here and own and found[1] == own[1]:
                    others.append(pid)
    return others


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
