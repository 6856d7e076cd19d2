"""The catalogue: one TOML file per family in ``cards/``, a table per model, and where exported models lie.

A card says what can be exported and under which conditions; a spec says what an exported file is.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ortsep.models.errors import ModelError

CARDS = Path(__file__).parent / "cards"
BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class Source:
    """One official file: its URL, and the sha256 of its bytes or, where only that is known, the beginning of it."""

    url: str
    sha256: str = ""
    size: int = 0
    """Bytes; 0 where not known."""


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
    size_mb: int
    """Of the exported file or files, float32."""
    advice: str
    """One sentence: what to take this model for."""
    sources: tuple[Source, ...] = ()
    aliases: tuple[str, ...] = ()
    homepage: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the family's exporter needs to know to tell its models apart."""


def _card(family: str, name: str, table: dict[str, Any], common: dict[str, Any], path: Path) -> Card:
    merged = {**common, **table}
    try:
        sources = tuple(Source(**s) for s in merged.pop("sources", []))
        stems, aliases = tuple(merged.pop("stems")), tuple(merged.pop("aliases", []))
        redistributable = {"yes": True, "no": False, "unstated": None}[merged.pop("redistributable")]
        return Card(
            name=name,
            family=family,
            stems=stems,
            aliases=aliases,
            sources=sources,
            redistributable=redistributable,
            **merged,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the card {name!r} in {path} is not complete or has an unknown key ({error}); mend it"
        ) from error


def read_cards(path: Path) -> Iterator[Card]:
    """The cards of one family's file: ``[common]`` holds what its ``[models.NAME]`` tables share."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the card file {path} can't be read ({error}); mend or restore it") from error
    for name, table in data.get("models", {}).items():
        yield _card(path.stem, name, table, data.get("common", {}), path)


@cache
def catalogue() -> dict[str, Card]:
    """All cards by name, families in alphabetical order, models in the order of their file."""
    return {card.name: card for path in sorted(CARDS.glob("*.toml")) for card in read_cards(path)}


def find_card(name: str) -> Card:
    """The card of ``name`` or of the model that has it as an alias. Raises ModelError with the nearest names."""
    cards = catalogue()
    for card in cards.values():
        if name == card.name or name in card.aliases:
            return card
    known = [n for card in cards.values() for n in (card.name, *card.aliases)]
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "ortsep models lists them all"
    raise ModelError(f"there is no model called {name!r} in the catalogue; {hint}")


def exported_home() -> Path:
    """The folder that holds exported models: $ORTSEP_MODELS, else models/exported below the working folder."""
    return Path(os.environ.get("ORTSEP_MODELS") or Path("models") / "exported")


def folder_name(model: str) -> str:
    """A model's name as a file name: ``spleeter:2stems`` lies in ``spleeter-2stems``."""
    return model.replace(":", "-").replace("/", "-")
