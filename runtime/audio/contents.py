"""What is found in an audio file before it is decoded, and the pieces of it that a decoder is given."""

from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

Segment = bytes | tuple[int, int]
"""A stretch of a virtual file: bytes of its own, or the range [start, end) of the real one."""
Kind = Literal["chunked", "flac", "ogg", "mpeg", "other"]
MOST_JUNK = 1 << 16
"""Bytes in front of the audio that are searched for its beginning."""


class Encoding(NamedTuple):
    """How samples without a header are to be read; ``subtype`` is libsndfile's name."""

    subtype: str
    rate: int
    channels: int


@dataclass(frozen=True)
class Contents:
    """One file's container. ``claimed`` and ``present`` are in one unit of the container's own (bytes or samples)."""

    kind: Kind
    parts: tuple[tuple[Segment, ...], ...]
    """The virtual files that a decoder reads one after the other in place of the file."""
    raw: bool = False
    """The parts are headerless little-endian samples of the format that the header at ``begin`` gives."""
    encoding: Encoding | None = None
    """Of raw parts, where libsndfile reads the header wrong."""
    begin: int = 0
    end: int = 0
    """The file's own header and its end: tags and junk lie around them."""
    problem: Literal["cut off", "longer"] | None = None
    """The file ends before what its header promises, or holds audio beyond it."""
    claimed: int | None = None
    present: int | None = None
    samples: int | None = None
    """Samples a channel, where the container counts them better than the decoder."""
    doubtful: bool = False
    """Whether the file is whole can only be told by decoding it."""
    layout: tuple[str, ...] | None = None
    """The speakers of the channels, where the file states them (``ortsep.audio.layouts``)."""
    notes: tuple[str, ...] = ()
    """What a person should know of it, as sentences without the file's name in front."""


def whole(kind: Kind, begin: int, end: int) -> Contents:
    """The file as it is, between tags."""
    return Contents(kind, (((begin, end),),), begin=begin, end=end)


def read_at(file: BinaryIO, position: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``position`` on."""
    file.seek(position)
    return file.read(length)
