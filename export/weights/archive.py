"""Unpacking a tar archive from elsewhere: only plain files, only below the given folder, only so many bytes.

The hash of every file is kept with them, so that a later use knows whether they still are what was unpacked.
"""

import contextlib
import gzip
import io
import json
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ortsep.base.cache import content_hash
from ortsep.base.errors import FileMissing, OutputError, WeightsError
from ortsep.base.whole import begin, drop
from ortsep.export.weights.download import locked

MAX_MEMBERS = 256
RECORD = ".unpacked.json"
"""In the unpacked folder: the sha256 of each file's content, by its path."""


class _TooLarge(Exception):
    """The archive holds more bytes than its limit."""


class _Limited(io.RawIOBase):
    """A stream that fails after ``limit`` bytes, so that neither a bomb nor a forged header can fill memory."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size if size >= 0 else self._left + 1, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise _TooLarge
        return data

    def readable(self) -> bool:
        return True


def _limited(stream: gzip.GzipFile, limit: int) -> IO[bytes]:
    return cast(IO[bytes], _Limited(stream, limit))


def unpack_tar_gz(archive: Path, folder: Path, limit: int) -> None:
    """Unpack ``archive``, of at most ``limit`` bytes uncompressed, as ``folder``, which appears only when complete.

    A folder that is there is kept if every file in it is still what was unpacked, and else made anew. Raises
    FileMissing, OutputError, and WeightsError for an archive that is damaged or too large, or holds anything but plain
    files and folders inside ``folder``.
    """
    if untouched(folder):
        return
    if not archive.is_file():
        raise FileMissing(f"there is no archive {archive}; check the path")
    working = begin(folder, "make room", folder=True, alone=False)
    try:
        with gzip.open(archive, "rb") as stream, tarfile.open(fileobj=_limited(stream, limit), mode="r|") as tar:
            for count, member in enumerate(tar):
                if count >= MAX_MEMBERS:
                    raise WeightsError(f"{archive} holds more than {MAX_MEMBERS} files; fetch it again")
                if member.size > limit:  # said beforehand: skipping it would take as long as unpacking
                    raise _TooLarge
                _unpack_member(tar, member, working, archive)
        (working / RECORD).write_text(json.dumps(_hashes(working)), encoding="utf-8")
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not untouched(folder):  # otherwise another process was faster
                shutil.rmtree(folder, ignore_errors=True)
                working.replace(folder)
    except _TooLarge as error:
        raise WeightsError(
            f"{archive} unpacks to more than {limit >> 20} MB, so it is not what it should be"
        ) from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{archive} is damaged or no tar.gz archive ({error}); fetch it again") from error
    except OSError as error:
        raise OutputError(f"{archive} can't be unpacked into {folder.parent} ({error.strerror}); make room") from error
    finally:
        drop(working)


def untouched(folder: Path) -> bool:
    """Whether an unpacked folder holds what it was unpacked with, and nothing else."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        held: object = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return held == _hashes(folder)
    return False


def _hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each file's content by its path in the folder; what is no plain file has none."""
    paths = [path for path in sorted(folder.rglob("*")) if path != folder / RECORD and not _is_folder(path)]
    plain = {path: path.is_file() and not path.is_symlink() for path in paths}
    return {path.relative_to(folder).as_posix(): content_hash(path) if plain[path] else "" for path in paths}


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    name = PurePosixPath(member.name)
    unsafe = (
        name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name or "\0" in member.name
    )
    if unsafe or not (member.isreg() or member.isdir()):
        kind = "a path outside its folder" if unsafe else "a link or a device"
        raise WeightsError(
            f"{archive} holds {kind} ({member.name[:60]!r}), so it is not safe to unpack; fetch it again"
        )
    path = folder.joinpath(*name.parts)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None
    with path.open("wb") as target:
        shutil.copyfileobj(source, target)
