"""Which of UVR's files a file is, whatever it is called: by the key over its end, and only then by its name."""

from pathlib import Path

from ortsep.models.catalogue import Card, card_named
from ortsep.models.contracts import mdx_net, vr
from ortsep.models.contracts.read import file_key

CHECKPOINT = ".pth"
"""The ending of the checkpoints that are told by key and name: UVR's VR networks."""
_NEAR = 0.1
_LARGEST = 1 << 30
"""Bytes beyond which no file of UVR's is."""


def official_card(path: Path) -> Card | None:
    """The card of the file's key or, where the key is in no table, of its name; None for other people's files.

    Raises ModelError for a file that can't be read.
    """
    family = "vr" if path.suffix == CHECKPOINT else "mdx_net"
    entries = vr.ENTRIES if family == "vr" else mdx_net.ENTRIES
    if path.stat().st_size > _LARGEST:
        return None
    entry = entries.get(file_key(path))
    card = card_named(entry.file if entry is not None else path.stem)
    return card if card is not None and card.family == family else None


def may_be(path: Path, card: Card) -> bool:
    """Whether a file has the size of a card's, as far as it is known: others need no look into."""
    size, source = path.stat().st_size, card.sources[0].size if card.sources else 0
    if source:
        return size == source
    return abs(size - card.size_mb * 1e6) <= _NEAR * size if card.size_mb else size <= _LARGEST


def has_key(path: Path, card: Card) -> bool:
    """Whether a file has the key that a card's has. Raises ModelError for a file that can't be read."""
    key = str(card.arguments.get("key", ""))
    return bool(key) and may_be(path, card) and file_key(path) == key


def checkpoint_entry(path: Path) -> vr.Entry | None:
    """What UVR's table says of a .pth, by its key or its name; None where it says nothing. Raises ModelError."""
    card = official_card(path)
    if card is not None:
        return vr.Entry(card.name, str(card.arguments["layout"]), str(card.arguments["primary"]))
    return vr.ENTRIES.get(file_key(path))
