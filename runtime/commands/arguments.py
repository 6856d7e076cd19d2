"""Which of the words behind ``ortsep run`` are models and which are songs."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ortsep.base.errors import UsageError
from ortsep.base.paths import exists
from ortsep.commands.folders import has_songs
from ortsep.graphs.model import is_ready
from ortsep.models.catalogue import CHECKPOINTS, card_named, is_model_path

PREFERRED = ("htdemucs_ft", "htdemucs", "hdemucs_mmi", "umxl", "umxhq", "spleeter:4stems", "spleeter:2stems")
"""What is taken where no model is named: the first of these that is ready."""


@dataclass(frozen=True)
class Words:
    """What was typed, told apart. ``taken`` says that nobody named the model."""

    models: tuple[str, ...]
    songs: tuple[str, ...]
    taken: bool = False


def tell_apart(words: Sequence[str], model: str | None, then: Sequence[str] = ()) -> Words:
    """The model is the one of -n, else the first word; further ones are those of --then, else the next words as long as
    they can't be songs. Raises UsageError where there is no model or no song."""
    if any(not word for word in words):
        raise UsageError('one of the songs has no name at all (""): in a script a variable may be empty; name it')
    models, songs, taken = _first(list(words), model)
    models = (*models, *then)
    while not then and len(songs) > 1 and _only_a_model(songs[0]):
        models, songs = (*models, songs[0]), songs[1:]
    if not songs:
        raise UsageError("name a model and at least one song: ortsep run MODEL SONG...")
    return Words(models, tuple(songs), taken)


def _first(words: list[str], model: str | None) -> tuple[tuple[str, ...], list[str], bool]:
    if model is not None:
        if words and words[0] == model and not exists(model):
            words = words[1:]
        return (model,), words, False
    if words and not _is_model(words[0]) and exists(words[0]):
        return (_usual(words[0]),), words, True
    return tuple(words[:1]), words[1:], False


def _usual(song: str) -> str:
    """A model that is ready and takes whole songs apart. Raises UsageError with what to take."""
    for name in PREFERRED:
        if is_ready(name):
            return name
    raise UsageError(
        f"no model is named: ortsep run spleeter:2stems {song} is quick to get and quick to run, ortsep run htdemucs "
        f"{song} better; ortsep models lists them all"
    )


def _is_model(word: str) -> bool:
    """Whether a word names a model, by path or by name, ready or not; a checkpoint's path does, which is no song."""
    return Path(word).suffix.lower() in CHECKPOINTS or card_named(word) is not None or is_ready(word)


def _only_a_model(word: str) -> bool:
    """Whether a word behind the model can be nothing but a model: no file of that name, and no folder with songs."""
    name, _, _ = word.partition("@")
    path = Path(word if exists(word) else name)
    if exists(path):
        return is_model_path(path) and not (path.is_dir() and has_songs(path))
    return not glob.has_magic(name) and _is_model(name)
