"""Folders of models: those that ``ortsep export`` and ``adopt`` made, and loose files of other people in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ortsep.base.errors import OrtsepError
from ortsep.graphs.recognised import SIDECAR, recognised
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY
from ortsep.stems.manifest import FILE_NAME as MANIFEST


@dataclass(frozen=True)
class Loose:
    """A file without a spec of ours: what it is and its stems, or why it can't be run as it is."""

    path: Path
    title: str = ""
    stems: tuple[str, ...] = ()
    reason: str = ""


def model_folders(homes: Sequence[Path]) -> list[Path]:
    """The folders of one model each, in ``homes``."""
    return [f for home in homes for f in _folders(home) if of_one_model(f)]


def loose_files(homes: Sequence[Path]) -> list[Loose]:
    """Other people's files in ``homes`` and in their folders that are no model's own, recognised one by one."""
    places = [place for home in homes for place in (home, *(f for f in _folders(home) if not of_one_model(f)))]
    return [_loose(file) for place in places if place.is_dir() for file in sorted(place.glob("*.onnx"))]


def _folders(home: Path) -> list[Path]:
    if not home.is_dir():
        return []
    return [f for f in sorted(home.iterdir()) if f.is_dir() and not f.name.startswith(".") and any(f.glob("*.onnx"))]


def of_one_model(folder: Path) -> bool:
    """Whether a folder's graphs are described, by themselves, by a spec.json or by a stems.txt."""
    beside = any((folder / name).is_file() for name in (SIDECAR, MANIFEST))
    return beside or any(map(_described, sorted(folder.glob("*.onnx"))))


def _described(file: Path) -> bool:
    try:
        return METADATA_KEY in read_metadata(file)
    except OrtsepError:
        return False


def _loose(file: Path) -> Loose:
    try:
        if METADATA_KEY in read_metadata(file):
            return Loose(file, "an exported model")
        made = recognised(file)
    except OrtsepError as error:
        return Loose(file, reason=str(error))
    return Loose(file, made.title, made.spec.names)
