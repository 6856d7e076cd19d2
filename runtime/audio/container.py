"""What an audio file's container promises, and what the file really holds: found without decoding.

libsndfile shortens a truncated file without a word, stops at the first link of a chained Ogg, trusts an estimate for an
MP3 without a Xing header (a variable bitrate then loses its end), and takes a streamed WAV of size 0 for empty. So the
containers are read here first, and where libsndfile would go wrong it is handed a mended view of the file: ``parts``.

Sources of the layouts: Microsoft/IBM RIFF and EBU Tech 3306 (RF64), Sony Wave64, Apple AIFF and CAF, Sun AU; RFC 9639
(FLAC); RFC 3533 (Ogg). MPEG audio is in ``ortsep.audio.mpeg``.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from ortsep.audio.mpeg import after_id3, read_mpeg

Segment = bytes | tuple[int, int]
"""A stretch of a virtual file: bytes of its own, or the range [start, end) of the real one."""


@dataclass(frozen=True)
class Contents:
    """One file's container. ``claimed`` and ``present`` are in one unit of the container's own (bytes or samples)."""

    kind: Literal["chunked", "flac", "ogg", "mpeg", "other"]
    parts: tuple[tuple[Segment, ...], ...]
    """The virtual files that a decoder reads one after the other in place of the file."""
    raw: bool = False
    """The parts are headerless little-endian samples of the format that the file's own header gives."""
    problem: Literal["cut off", "longer"] | None = None
    """The file ends before what its header promises, or holds audio beyond it."""
    claimed: int | None = None
    present: int | None = None


def examine(path: Path) -> Contents:
    """Read a file's container. Never raises for its contents, only OSError; what it can't tell is ``other``."""
    with path.open("rb", buffering=1 << 16) as file:
        size = file.seek(0, 2)
        head = _at(file, 0, 16)
        start = 0
        if head[:3] == b"ID3" and len(head) >= 10:
            start = after_id3(head, 0)
            head = _at(file, start, 16)
        if head[:4] in _SCHEMES and start == 0:
            return _chunked(file, size, _SCHEMES[head[:4]])
        if head[:4] == b".snd" and start == 0 and len(head) >= 12:
            offset, claimed = struct.unpack(">II", head[4:12])
            return _judge_data(file, size, Data(offset, claimed, claimed == 0xFFFFFFFF), None)
        if head[:4] == b"fLaC":
            return _flac(file, size, start)
        if head[:4] == b"OggS":
            return _ogg(file, size, start)
        stream = read_mpeg(file, size, start)
        if stream is None:
            return _whole("other", size)
        parts = _whole("mpeg", size).parts if stream.front is None else ((stream.front, (stream.begin, size)),)
        problem: Literal["cut off"] | None = "cut off" if stream.cut else None
        return Contents("mpeg", parts, problem=problem, claimed=stream.claimed, present=stream.frames)


def _whole(kind: Literal["chunked", "flac", "ogg", "mpeg", "other"], size: int) -> Contents:
    return Contents(kind, (((0, size),),))


def _at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


# --- RIFF and its relatives: chunks of an identifier and a size -------------------------------------------------------


class Scheme(NamedTuple):
    """How a family of containers lays out its chunks."""

    first: int
    id_bytes: int
    size_format: str
    own_header: bool
    """A chunk's size counts its own header."""
    align: int
    data: bytes
    prefix: int = 0
    """Bytes in the data chunk before the samples."""
    little: bool = False


class Data(NamedTuple):
    """The data chunk: where its samples start, the bytes that its header claims, and whether that is a placeholder."""

    offset: int
    claimed: int
    unknown: bool


_W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
_SCHEMES = {
    b"RIFF": Scheme(12, 4, "<I", False, 2, b"data", little=True),
    b"RF64": Scheme(12, 4, "<I", False, 2, b"data", little=True),
    b"RIFX": Scheme(12, 4, ">I", False, 2, b"data"),
    b"FORM": Scheme(12, 4, ">I", False, 2, b"SSND", prefix=8),
    b"caff": Scheme(8, 4, ">Q", False, 1, b"data", prefix=4),
    b"riff": Scheme(40, 16, "<Q", True, 8, _W64_DATA, little=True),
}
_CHUNKS_AFTER_DATA = (b"LIST", b"id3 ", b"ID3 ", b"_PMX")
_TAGS = (b"TAG", b"ID3", b"APETAGEX")
_MOST_CHUNKS = 10_000
_MOST_PADDING = 1 << 20


def _chunked(file: BinaryIO, size: int, scheme: Scheme) -> Contents:
    data = _find_data(file, size, scheme)
    if data is None:
        return _whole("chunked", size)
    return _judge_data(file, size, data, scheme)


def _find_data(file: BinaryIO, size: int, scheme: Scheme) -> Data | None:
    position, wide = scheme.first, None
    for _ in range(_MOST_CHUNKS):
        head = _at(file, position, scheme.id_bytes + struct.calcsize(scheme.size_format))
        if len(head) < scheme.id_bytes + struct.calcsize(scheme.size_format):
            return None
        name = head[: scheme.id_bytes]
        (length,) = struct.unpack(scheme.size_format, head[scheme.id_bytes :])
        body = position + len(head)
        length -= len(head) if scheme.own_header else 0
        if name == b"ds64" and position == scheme.first:
            wide = struct.unpack("<Q", _at(file, body + 8, 8).ljust(8, b"\0"))[0]
        if name == scheme.data:
            if wide is not None and length == 0xFFFFFFFF:
                return Data(body, wide, wide in (0, 0xFFFFFFFFFFFFFFFF))
            return Data(body + scheme.prefix, length - scheme.prefix, _placeholder(length, scheme))
        if length < 0:
            return None
        position = body + length + -length % scheme.align
        if position >= size:
            return None
    return None


def _placeholder(length: int, scheme: Scheme) -> bool:
    """A size that encoders write when they can't seek back: 0 (GStreamer), all ones (ffmpeg), 2 GiB (sox, arecord)."""
    if scheme.size_format.endswith("Q"):
        return length <= 0 or length >= 1 << 63
    return length <= scheme.prefix or 0x7FFFF000 <= length <= 0x80000000 or length >= 0xFFFFF000


def _judge_data(file: BinaryIO, size: int, data: Data, scheme: Scheme | None) -> Contents:
    present = max(0, size - data.offset)
    whole = _whole("chunked", size)
    mended = Contents("chunked", (((data.offset, size),),), raw=True)
    mendable = scheme is not None and scheme.little
    if data.unknown:
        streamed = data.claimed <= 0 and not _harmless(file, data.offset, size)
        return mended if mendable and streamed else whole
    if data.claimed > present + 1:  # a padding byte at the end may be missing
        return Contents("chunked", whole.parts, problem="cut off", claimed=data.claimed, present=present)
    ends = (data.offset + data.claimed, data.offset + data.claimed + data.claimed % 2)
    if mendable and 0 <= (present - data.claimed) % (1 << 32) < 2 < present - data.claimed:
        return mended  # past 4 GiB a plain WAV's sizes start again at 0
    if not mendable or any(_harmless(file, end, size) for end in ends):
        return whole
    return Contents("chunked", mended.parts, raw=True, problem="longer", claimed=data.claimed, present=present)


def _harmless(file: BinaryIO, position: int, size: int) -> bool:
    """Whether the bytes from ``position`` on are no audio: further chunks, a tag, padding, or next to nothing."""
    if size - position < 16:
        return True
    if any(_at(file, position, 8).startswith(tag) for tag in _TAGS):
        return True
    if size - position <= _MOST_PADDING and not _at(file, position, _MOST_PADDING).strip(b"\0"):
        return True
    for _ in range(_MOST_CHUNKS):
        name, length = struct.unpack("<4sI", _at(file, position, 8))
        if not all(0x20 <= byte < 0x7F for byte in name):
            return False
        position += 8 + length + length % 2
        if position > size + 1:
            return name in _CHUNKS_AFTER_DATA
        if size - position < 8:
            return True
    return False


# --- FLAC -------------------------------------------------------------------------------------------------------------


def _crc_table(polynomial: int, bits: int) -> tuple[int, ...]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1) ^ (polynomial if crc & top else 0)
        table.append(crc & mask)
    return tuple(table)


_CRC8, _CRC16 = _crc_table(0x07, 8), _crc_table(0x8005, 16)
_TAIL = 1 << 20
"""Bytes searched for the last frame: more than the largest frame of 8 channels of 24 bits in practice."""


def _flac(file: BinaryIO, size: int, start: int) -> Contents:
    """Compare STREAMINFO's total with where the last complete frame ends, and mend the total where it is missing."""
    info = start + 8
    block = _at(file, info, 34)
    if len(block) < 34:
        return Contents("flac", _whole("flac", size).parts, problem="cut off")
    fixed_size = struct.unpack(">H", block[:2])[0]
    total = int.from_bytes(block[13:18]) & 0xFFFFFFFFF
    position, last = start + 4, False
    while not last:
        head = _at(file, position, 4)
        if len(head) < 4:
            return Contents("flac", _whole("flac", size).parts, problem="cut off", claimed=total or None, present=0)
        last = bool(head[0] & 0x80)
        position += 4 + int.from_bytes(head[1:])
    end = size - 128 if size > 128 and _at(file, size - 128, 3) == b"TAG" else size
    begin = max(position, end - _TAIL)
    tail = _at(file, begin, max(0, end - begin))
    present, stop = _last_flac_frame(tail, fixed_size, begin == position)
    if present == total and total and stop == len(tail):
        return _whole("flac", size)
    patched = (int.from_bytes(block[13:18]) & ~0xFFFFFFFFF | present).to_bytes(5)
    parts = (((0, info + 13), patched, (info + 18, begin + stop)),)
    if total and present != total:
        problem: Literal["cut off", "longer"] = "cut off" if present < total else "longer"
        return Contents("flac", parts, problem=problem, claimed=total, present=present)
    if not total and stop < len(tail):
        return Contents("flac", parts, problem="cut off", present=present)
    return Contents("flac", parts)


def _last_flac_frame(tail: bytes, fixed_size: int, from_first: bool) -> tuple[int, int]:
    """Samples up to the end of the last complete frame in ``tail``, and where in ``tail`` that is."""
    at = len(tail)
    while (at := max(tail.rfind(b"\xff\xf8", 0, at), tail.rfind(b"\xff\xf9", 0, at))) >= 0:
        frame = _flac_header(tail[at : at + 17], fixed_size)
        if frame is not None:
            first, length = frame
            crc = 0
            for byte in tail[at:]:
                crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
            return (first + length, len(tail)) if crc == 0 else (first, at)
    return 0, 0 if from_first else len(tail)


def _flac_header(head: bytes, fixed_size: int) -> tuple[int, int] | None:
    """First sample and length of the frame whose header ``head`` starts with; None where it is no header."""
    if len(head) < 6 or head[3] & 1:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    lead = head[4]
    more = next((n for n in range(8) if not lead << n & 0x80), 8)
    if size_code == 0 or rate_code == 15 or more in (1, 8):
        return None
    following = max(0, more - 1)
    number = lead & (0x7F >> more) if more else lead
    for byte in head[5 : 5 + following]:
        number = number << 6 | byte & 0x3F
    at = 5 + following
    extra = {6: 1, 7: 2}.get(size_code, 0)
    if extra:
        length = int.from_bytes(head[at : at + extra]) + 1
    else:
        length = 192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    crc = 0
    for byte in head[: at + 1]:
        crc = _CRC8[crc ^ byte]
    if crc != 0 or at >= len(head):
        return None
    return (number if head[1] & 1 else number * fixed_size), length


# --- Ogg --------------------------------------------------------------------------------------------------------------


def _ogg(file: BinaryIO, size: int, start: int) -> Contents:
    """Split a chain into its links, and look for the flag on the last page that says the stream is complete."""
    starts, previous_begins, last_flags, end = [start], True, 0, start
    for position, flags, after in _ogg_pages(file, size, start):
        begins = bool(flags & 2)
        if begins and not previous_begins:
            starts.append(position)
        previous_begins, last_flags, end = begins, flags, after
    ends = [*starts[1:], end if len(starts) > 1 else size]
    parts = tuple(((a, b),) for a, b in zip(starts, ends, strict=True))
    return Contents("ogg", parts, problem=None if last_flags & 4 else "cut off")


def _ogg_pages(file: BinaryIO, size: int, position: int) -> Iterator[tuple[int, int, int]]:
    """Position, flags and end of every complete page."""
    while position < size:
        head = _at(file, position, 27)
        if len(head) == 27 and head[:4] == b"OggS":
            lacing = file.read(head[26])
            after = position + 27 + head[26] + sum(lacing)
            if len(lacing) < head[26] or after > size:
                return
            yield position, head[5], after
            position = after
            continue
        window = _at(file, position + 1, 1 << 16)
        found = window.find(b"OggS")
        position += 1 + found if found >= 0 else max(1, len(window) - 3)
