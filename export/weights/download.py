"""Official checkpoints by URL: resumed, checked against their hash before anyone opens them, kept in a cache."""

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from socket import gaierror
from ssl import SSLCertVerificationError, SSLError
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ortsep.base.cache import cache_folder
from ortsep.base.errors import DownloadError
from ortsep.export.weights.files import file_sha256
from ortsep.models.catalogue import Source

TIMEOUT = 30.0
"""Seconds of silence after which a connection counts as broken."""
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new try after a transient failure that brought nothing."""
LARGEST = 8 << 30
"""Bytes accepted from a server that announces no size, for a file whose size the catalogue does not know."""
BLOCK = 1 << 18

Progress = Callable[[str, int, int], None]


def fetch(
    source: Source, cache: Path | None = None, progress: Progress | None = None, *, offline: bool = False
) -> Path:
    """The file of ``source`` on this machine, downloaded at most once and with the hash that the catalogue promises.

    ``progress`` is called with the file's name, bytes so far and bytes in all (0 where nobody knows). Safe to call from
    several processes at once. Raises DownloadError, also for a file that is not here where ``offline``; then no file
    under the final name is left behind.
    """
    _check_url(source.url)
    folder = cache or cache_folder()
    path = folder / _file_name(source.url)
    if _verified(path, source):
        return path
    if offline:
        raise DownloadError(
            f"{path.name} is not in the cache, and --offline keeps from fetching it; put it at {path}, or run once "
            "without --offline"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{path.name}.lock"):
            if not _verified(path, source):
                _download(source, path, progress)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{folder} can't keep {path.name} ({error.strerror or error}); "
            "make room or name another folder in ORTSEP_CACHE"
        ) from error
    return path


def in_cache(source: Source, cache: Path | None = None) -> bool:
    """Whether the file is on this machine already, whole and with its hash. Raises DownloadError for a bad address."""
    _check_url(source.url)
    try:
        return _verified((cache or cache_folder()) / _file_name(source.url), source)
    except OSError:
        return False


def open_url(request: Request, timeout: float = TIMEOUT) -> HTTPResponse:
    """Open an address, following redirects but never from https to anything else."""
    response: HTTPResponse = build_opener(_Redirects).open(request, timeout=timeout)
    return response


def _file_name(url: str) -> str:
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]*", name):
        raise DownloadError(f"{url} does not end in a plain file name; mend the card")
    return name


def _check_url(url: str) -> None:
    """Refuse what is not https; plain http only from this machine to itself."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname)):
        raise DownloadError(f"{url} is not an https address, so what it sends can't be trusted; use --weights PATH")


def _loopback(host: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host or "").is_loopback
    return host == "localhost"


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        safe = new.scheme == "https" or (new.scheme == "http" == old.scheme and _loopback(new.hostname))
        if not safe:
            raise DownloadError(f"{req.full_url} redirects to {newurl}, which is not https; use --weights PATH")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _verified(path: Path, source: Source) -> bool:
    """Whether the file is there and right; a wrong one is removed, since nothing may ever open it."""
    if not path.is_file():
        return False
    right = file_sha256(path).startswith(source.sha256) if path.stat().st_size else False
    if right and (not source.size or path.stat().st_size == source.size):
        return True
    path.unlink(missing_ok=True)
    return False


def _download(source: Source, path: Path, progress: Progress | None) -> None:
    part = path.with_name(path.name + ".part")
    failures = 0
    while not (source.size and part.exists() and part.stat().st_size == source.size):
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(source, part, progress)
            break
        except (HTTPError, URLError, HTTPException, TimeoutError, ConnectionError, SSLError, _Short) as error:
            grown = part.exists() and part.stat().st_size > before
            failures = 0 if grown else failures + 1
            if not _transient(error) or failures > len(PAUSES):
                raise DownloadError(_offline(source, path, error)) from error
            time.sleep(PAUSES[max(failures - 1, 0)])
    actual = file_sha256(part) if part.stat().st_size else "that of nothing"
    if not actual.startswith(source.sha256):
        _forget(part)
        raise DownloadError(
            f"{source.url} sent a file with sha256 {actual} where {source.sha256} was expected; it was removed, "
            "so try again later or use --weights PATH"
        )
    part.replace(path)
    _forget(part)


class _Short(Exception):
    """The connection ended before the file did."""


def _transfer(source: Source, part: Path, progress: Progress | None) -> None:
    """One request: append to what is there if the server still has the same file, else write anew."""
    note = _note(part)
    have = part.stat().st_size if part.exists() else 0
    validator = _read_validator(note, source.url) if have else ""
    headers = {"User-Agent": "ortsep", "Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        response = open_url(Request(source.url, headers=headers), TIMEOUT)
    except HTTPError as error:
        if error.code == 416:
            _forget(part)
            raise _Short("the server has no such range any more") from error
        raise
    with response:
        resumed = response.status == 206 and _range_start(response.headers) == have
        if response.status == 206 and not resumed:
            _forget(part)
            raise _Short("the server sent another range than was asked for")
        start = have if resumed else 0
        length = response.headers.get("Content-Length") or ""
        total = start + int(length) if length.isdigit() else 0
        if source.size and total and total != source.size:
            _forget(part)
            raise DownloadError(
                f"{source.url} is {total} bytes long where {source.size} were expected; "
                "the publisher may have replaced it, so use --weights PATH"
            )
        limit = total or source.size or LARGEST
        if shutil.disk_usage(part.parent).free < (total or source.size) - start:
            raise DownloadError(
                f"{part.parent} has no room for the {limit - start} bytes of {source.url}; "
                "make room or name another folder in ORTSEP_CACHE"
            )
        if not resumed:
            _write_validator(note, source.url, response.headers)
        done = _copy(response, part, start, limit, total, source, progress)
    if total and done < total:
        raise _Short(f"the connection ended after {done} of {total} bytes")


def _copy(
    response: HTTPResponse, part: Path, start: int, limit: int, total: int, source: Source, progress: Progress | None
) -> int:
    done = start
    with part.open("ab" if start else "wb") as file:
        while block := response.read(BLOCK):
            done += len(block)
            if done > limit:
                file.close()
                _forget(part)
                raise DownloadError(f"{source.url} sends more than the {limit} bytes expected; use --weights PATH")
            file.write(block)
            if progress:
                progress(part.name.removesuffix(".part"), done, total or source.size)
        file.flush()
        os.fsync(file.fileno())
    return done


def _range_start(headers: Message) -> int | None:
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", headers.get("Content-Range") or "")
    return int(match[1]) if match else None


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _write_validator(note: Path, url: str, headers: Message) -> None:
    """Remember what tells this version of the file from another: a strong ETag, else its date."""
    etag = headers.get("ETag") or ""
    validator = etag if etag.startswith('"') else headers.get("Last-Modified") or ""
    note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _read_validator(note: Path, url: str) -> str:
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        data = json.loads(note.read_text(encoding="utf-8"))
        if data.get("url") == url and isinstance(data.get("validator"), str) and data["validator"].isprintable():
            return str(data["validator"])
    return ""


def _transient(error: Exception) -> bool:
    """Whether trying again may help: not without a network, and not when the server says no."""
    if isinstance(error, HTTPError):
        return error.code in (408, 425, 429) or error.code >= 500
    if isinstance(error, URLError):
        reason = error.reason
        return isinstance(reason, OSError) and not isinstance(
            reason, gaierror | ConnectionRefusedError | SSLCertVerificationError
        )
    return True


def _offline(source: Source, path: Path, error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    begins = "begins with" if len(source.sha256) < 64 else "is"
    promised = f"that file, whose sha256 {begins} {source.sha256}," if source.sha256 else "that file"
    return (
        f"{source.url} can't be fetched ({reason}): get {promised} by another way and put it at {path}, "
        "or name a copy with --weights PATH, or make a model of noise with --weights random"
    )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock, which the system lets go of when its process ends, however it ends."""
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:
                    time.sleep(0.2)
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield
