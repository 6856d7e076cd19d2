"""Songs and stems at addresses, by fsspec: a song comes into a temporary folder, finished stems go to their place.

On an object store too a name is only ever that of a whole object: what is written goes to a temporary key first and is
copied, or, where the store gives one upload all or nothing (``put`` of S3 and its kin), straight there; the record that
says that a song is done goes last.
"""

import contextlib
import functools
import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ParamSpec, TypeVar

from ortsep.base.errors import AudioError, FileMissing, MissingDependency, OrtsepError, OutputError, UsageError

P = ParamSpec("P")
R = TypeVar("R")

_WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "memory")
"""Protocols whose stores show an object only when all of it is there."""
_PIECE = 1 << 20
_WAITS = (0.5, 1.0, 2.0)
"""Seconds before a transfer is tried again, times 0.5 to 1.5 by chance: clients of one store shall not come in step."""


class RemoteError(OrtsepError, OSError):
    """A store that doesn't answer, or not now: trying again may help."""

    transient = True


def opened(url: str) -> tuple[Any, str]:
    """The file system of an address and the path in it. Raises MissingDependency and UsageError."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependency(f"{url} needs fsspec, which isn't installed: pip install 'ortsep[fleet]'") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependency(f"{url} needs another package ({error}); install it") from error
    except ValueError as error:
        raise UsageError(f"{url} is no address that fsspec knows ({error}); check it") from error
    return system, path


@contextlib.contextmanager
def _saying(url: str, write: bool = False) -> Iterator[None]:
    """Turns a store's errors into sentences, and tells what may pass from what won't."""
    try:
        yield
    except OrtsepError:
        raise
    except FileNotFoundError as error:
        what = "bucket or folder" if write else "song"
        raise (OutputError if write else FileMissing)(f"there is no {what} at {url}; check the address") from error
    except PermissionError as error:
        raise OutputError(f"{url} refuses these credentials ({_first(error)}); check them") from error
    except Exception as error:  # every store has errors of its own
        name = type(error).__name__
        if "Credential" in name or "Auth" in name:
            raise OutputError(f"{url} wants credentials ({_first(error)}); set them as its client expects") from error
        raise RemoteError(f"{url} can't be reached now ({name}: {_first(error)}); try again later") from error


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _patient(step: Callable[P, R]) -> Callable[P, R]:
    """Try again what a store's hiccup or a cut connection ended; the last error is raised as it is."""

    @functools.wraps(step)
    def tried(*args: P.args, **kwargs: P.kwargs) -> R:
        for wait in _WAITS:
            try:
                return step(*args, **kwargs)
            except RemoteError:
                time.sleep(wait * random.uniform(0.5, 1.5))
        return step(*args, **kwargs)

    return tried


@_patient
def fetch(url: str, folder: Path) -> Path:
    """The song at ``url`` as a file in ``folder``, under its own name. Raises FileMissing, RemoteError, AudioError.

    A transfer that ends early is found by the object's size.
    """
    system, path = opened(url)
    target = folder / (PurePosixPath(path).name or "song")
    with _saying(url):
        size = system.info(path).get("size")
        target.unlink(missing_ok=True)  # what a cut transfer left
        with system.open(path, "rb", cache_type="readahead") as source, target.open("xb") as file:
            while part := source.read(_PIECE):
                file.write(part)
    if size is not None and target.stat().st_size != size:
        raise RemoteError(f"{url} came with {target.stat().st_size} of {size} bytes; try again later")
    if not target.stat().st_size:
        raise AudioError(f"{url} is empty; upload the song again")
    return target


@_patient
def deliver(file: Path, url: str) -> None:
    """Put a finished file at ``url``, whole or not at all. Raises OutputError, RemoteError."""
    system, path = opened(url)
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    with _saying(url, write=True):
        system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        if any(protocol in _WHOLE for protocol in protocols):
            system.put_file(str(file), path)
            return
        partial = str(PurePosixPath(path).with_name(f".{PurePosixPath(path).name}.{secrets.token_hex(4)}.partial"))
        try:
            system.put_file(str(file), partial)
            system.mv(partial, path)
        except BaseException:
            with contextlib.suppress(Exception):
                system.rm_file(partial)
            raise


@_patient
def identity(url: str) -> dict[str, Any]:
    """What tells an object's content from that of another without reading it: size, and what the store gives of an
    ETag, a checksum or a time."""
    system, path = opened(url)
    with _saying(url):
        known: Mapping[str, Any] = system.info(path)
    names = ("size", "ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "created")
    return {"url": url, **{name: str(known[name]) for name in names if known.get(name) is not None}}


@_patient
def recorded(url: str) -> dict[str, Any]:
    """The record that a former run left at ``url``; empty where there is none that can be read."""
    system, path = opened(url)
    try:
        with _saying(url):
            text = system.cat_file(path)
        found = json.loads(text)
    except (FileMissing, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@_patient
def all_there(urls: Mapping[str, str], sizes: Mapping[str, int]) -> bool:
    """Whether every stem is where it belongs, with the size that was written."""
    for name, url in urls.items():
        system, path = opened(url)
        try:
            with _saying(url):
                if system.info(path).get("size") != sizes.get(name):
                    return False
        except FileMissing:
            return False
    return True


@_patient
def globbed(url: str, endings: tuple[str, ...]) -> list[str]:
    """The songs at an address: those that match its wildcards, or lie in the folder that it is, or itself.

    Raises FileMissing where there is none, and RemoteError.
    """
    system, path = opened(url)
    with _saying(url):
        if any(character in path for character in "*?["):
            found = sorted(system.glob(path))
        elif system.isdir(path):
            found = sorted(p for p in system.find(path) if p.lower().endswith(endings))
        else:
            found = [path]
        if not found:
            raise FileMissing(f"{url} matches no song; check the address")
    return [str(system.unstrip_protocol(p)) for p in found]


@_patient
def head(url: str, folder: Path, count: int = 1 << 20) -> Path:
    """The beginning of the song at ``url``, for its header. Raises FileMissing, RemoteError."""
    system, path = opened(url)
    target = folder / (PurePosixPath(path).name or "song")
    with _saying(url), system.open(path, "rb", block_size=count, cache_type="first") as source:
        target.write_bytes(source.read(count))
    return target
