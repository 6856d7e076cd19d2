"""Folders of models: those that ``ortsep export`` and ``adopt`` made, and loose files of other people in them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ortsep.base.errors import OrtsepError
from ortsep.graphs.recognised import SIDECAR, recognised
from ortsep.models.catalogue import Card, card_named
from ortsep.models.contracts.mdx_net import stem_names
from ortsep.models.contracts.official import CHECKPOINT, checkpoint_entry, has_key, official_card
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
    card: str = ""
    """The name in the catalogue of what it is by its key or its name."""

    @property
    def checkpoint(self) -> bool:
        """Whether it has to be exported before it runs."""
        return self.path.suffix == CHECKPOINT


def model_folders(homes: Sequence[Path]) -> list[Path]:
    """The folders of one model each, in ``homes``."""
    return [f for home in homes for f in _folders(home) if of_one_model(f)]


def loose_files(homes: Sequence[Path]) -> list[Loose]:
    """Other people's files in ``homes`` and in their folders that are no model's own, recognised one by one."""
    return [_loose(file) for ending in (".onnx", CHECKPOINT) for file in _files(homes, ending)]


def file_by_key(card: Card, homes: Sequence[Path]) -> Path | None:
    """The .onnx file in ``homes`` that has the key of a card's, whatever it is called."""
    return _first_with_key(card, _files(homes, ".onnx"))


def find_checkpoint(name: str, homes: Sequence[Path]) -> Path | None:
    """The checkpoint in ``homes`` that is called so, or has the key of the card of that name."""
    card, files = card_named(name), list(_files(homes, CHECKPOINT))
    called = card.name if card is not None else name
    found = next((file for file in files if file.stem == called), None)
    return _first_with_key(card, files) if found is None and card is not None else found


def _files(homes: Sequence[Path], ending: str) -> Iterator[Path]:
    """The files in ``homes`` and in their folders that are no model's own."""
    for home in homes:
        for place in (home, *(f for f in _folders(home) if not of_one_model(f))):
            yield from sorted(file for file in place.glob(f"*{ending}") if file.is_file())


def _first_with_key(card: Card, files: Iterable[Path]) -> Path | None:
    for file in files:
        with suppress(OrtsepError):  # one that can't be read is not it
            if has_key(file, card):
                return file
    return None


def _folders(home: Path) -> list[Path]:
    if not home.is_dir():
        return []
    inner = (f for f in sorted(home.iterdir()) if f.is_dir() and not f.name.startswith("."))
    return [f for f in inner if any(f.glob("*.onnx")) or any(f.glob(f"*{CHECKPOINT}"))]


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
        if file.suffix == CHECKPOINT:
            return _loose_checkpoint(file)
        if METADATA_KEY in read_metadata(file):
            return Loose(file, "an exported model")
        made, card = recognised(file), official_card(file)
    except OrtsepError as error:
        return Loose(file, reason=str(error))
    return Loose(file, made.title, made.spec.names, card=card.name if card else "")


def _loose_checkpoint(file: Path) -> Loose:
    entry = checkpoint_entry(file)
    if entry is None:
        return Loose(file, reason=f"it is a checkpoint that no table has; ortsep export {file} tells what it is")
    card = official_card(file)
    return Loose(file, "UVR's VR network, to be exported", stem_names(entry.primary), card=card.name if card else "")
