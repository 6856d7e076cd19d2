"""Ogg: the links of a chain, whether the last page is there, and how Opus is to be decoded.

Sources: RFC 3533, RFC 7845. An Opus header names the sample rate of what was encoded, "not the sample rate to use for
playback"; libsndfile decodes at it, and a header of 8000 Hz costs everything above 4 kHz. So it is handed a header that
says 48000.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from ortsep.audio.contents import Contents, Segment, read_at, whole
from ortsep.audio.layouts import VORBIS_LAYOUTS

_BEGINS, _ENDS = 2, 4
_HEADER = 27
_OPUS_RATE = (48000).to_bytes(4, "little")
_UNSTATED = 255
"""Opus' channel mapping family of channels without meaning."""


class Page(NamedTuple):
    """A page's place, its flags, and where what follows it begins."""

    position: int
    flags: int
    after: int


def read_ogg(file: BinaryIO, begin: int, end: int) -> Contents:
    """Split a chain into its links, and see whether the file ends within a page."""
    starts, previous_begins, last = [begin], True, Page(begin, 0, begin)
    for page in _pages(file, begin, end):
        begins = bool(page.flags & _BEGINS)
        if begins and not previous_begins:
            starts.append(page.position)
        previous_begins, last = begins, page
    ends = [*starts[1:], last.after]
    parts = tuple(_link(file, a, b) for a, b in zip(starts, ends, strict=True))
    found = replace(whole("ogg", begin, end), parts=parts, layout=_layout(read_at(file, begin, 80)))
    if last.flags & _ENDS:
        return found
    rest = read_at(file, last.after, min(4, end - last.after))
    if last.after == begin or (rest and b"OggS".startswith(rest)):
        return replace(found, problem="cut off")
    return replace(found, notes=("has no page that says it is the last; its end may be missing",))


def _pages(file: BinaryIO, position: int, end: int) -> Iterator[Page]:
    """Every complete page; what lies between two is skipped."""
    while position < end:
        head = read_at(file, position, _HEADER)
        if len(head) == _HEADER and head[:4] == b"OggS":
            lacing = file.read(head[26])
            after = position + _HEADER + head[26] + sum(lacing)
            if len(lacing) < head[26] or after > end:
                return
            yield Page(position, head[5], after)
            position = after
            continue
        window = read_at(file, position + 1, 1 << 16)
        found = window.find(b"OggS")
        position += 1 + found if found >= 0 else max(1, len(window) - 3)


def _link(file: BinaryIO, begin: int, end: int) -> tuple[Segment, ...]:
    """A link as it is, or with another rate in its Opus header and the checksum that then belongs to the page."""
    page = read_at(file, begin, _HEADER + 1)
    body = begin + _HEADER + 1
    if len(page) < _HEADER + 1 or page[26] != 1 or read_at(file, body, 8) != b"OpusHead":
        return ((begin, end),)
    head = read_at(file, body, page[27])
    if len(head) < 19 or head[12:16] == _OPUS_RATE:
        return ((begin, end),)
    head = head[:12] + _OPUS_RATE + head[16:]
    blank = page[:22] + bytes(4) + page[26:] + head
    return (blank[:22] + _checksum(blank).to_bytes(4, "little") + blank[26:], (begin + len(blank), end))


def _checksum(page: bytes) -> int:
    """RFC 3533, 6, field 7: polynomial 0x04c11db7, neither reflected nor inverted."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 1 << 31 else crc << 1) & 0xFFFFFFFF
    return crc


def _layout(head: bytes) -> tuple[str, ...] | None:
    body = head[_HEADER + head[26] :] if len(head) > _HEADER else b""
    if body[:8] == b"OpusHead" and len(body) > 18:
        return VORBIS_LAYOUTS.get(body[9]) if body[18] <= 1 else None
    if body[:7] == b"\x01vorbis" and len(body) > 11:
        return VORBIS_LAYOUTS.get(body[11])
    return None
