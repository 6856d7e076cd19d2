"""Containers of chunks, each an identifier and a size: WAV, RF64, Wave64, AIFF, CAF; and AU, which has one header.

Sources: Microsoft/IBM RIFF, EBU Tech 3306 (RF64), Sony Wave64, Apple AIFF and CAF, Sun AU.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

from ortsep.audio.contents import Contents, Encoding, Segment, read_at, whole
from ortsep.audio.layouts import Layout, apple_layout, mask_layout


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


class Chunk(NamedTuple):
    """A chunk's name, where its body begins, and the bytes that its header claims for it."""

    name: bytes
    body: int
    length: int


@dataclass
class Found:
    """What a walk through the chunks finds: the samples' ranges as claimed, and the speakers."""

    data: list[Chunk]
    unknown: bool = False
    """The first size is a placeholder: the samples go on to the end."""
    layout: Layout | None = None
    encoding: Encoding | None = None
    """Of a Wave64 whose format is extensible, which libsndfile takes for integers always."""


_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_DATA, _W64_FORMAT = b"data" + _GUID, b"fmt " + _GUID
SCHEMES = {
    b"RIFF": Scheme(12, 4, "<I", False, 2, b"data", little=True),
    b"RF64": Scheme(12, 4, "<I", False, 2, b"data", little=True),
    b"RIFX": Scheme(12, 4, ">I", False, 2, b"data"),
    b"FORM": Scheme(12, 4, ">I", False, 2, b"SSND", prefix=8),
    b"caff": Scheme(8, 4, ">Q", False, 1, b"data", prefix=4),
    b"riff": Scheme(40, 16, "<Q", True, 8, _W64_DATA, little=True),
}
_CHUNKS_AFTER_DATA = (b"LIST", b"id3 ", b"ID3 ", b"_PMX")
_CHANNELS_AT = {b"COMM": (0, 2), b"desc": (24, 4)}
"""Where AIFF and CAF say how many channels there are, and in how many bytes."""
_MOST_CHUNKS = 10_000
_MOST_PADDING = 1 << 20
_MOST_LAYOUT = 1 << 12
_EXTENSIBLE = 0xFFFE
"""The format tag of a WAVE whose header has a mask, and the true tag behind it."""
_SUBTYPES = {(1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32"}
_SUBTYPES |= {(3, 32): "FLOAT", (3, 64): "DOUBLE", (6, 8): "ALAW", (7, 8): "ULAW"}
"""By format tag and bits."""
_LONGEST_RIFF = 1 << 32


def read_chunks(file: BinaryIO, begin: int, end: int) -> Contents:
    """Examine the container that begins at ``begin`` with one of ``SCHEMES``."""
    magic = read_at(file, begin, 4)
    scheme = SCHEMES[magic]
    found = _walk(file, begin, end, scheme)
    if not found.data:
        return whole("chunked", begin, end)
    contents = _judge(file, begin, end, found, scheme)
    if found.encoding is not None:
        ranges = contents.parts[0] if contents.raw else _ranges(found.data, end)
        contents = replace(contents, parts=(ranges,), raw=True, encoding=found.encoding)
    return replace(contents, layout=found.layout)


def read_au(file: BinaryIO, begin: int, end: int) -> Contents:
    """Examine an AU file, whose header at ``begin`` says where the samples begin and how many bytes they are."""
    offset, claimed = struct.unpack(">II", read_at(file, begin + 4, 8))
    data = [Chunk(b".snd", begin + offset, claimed)]
    return _judge(file, begin, end, Found(data, claimed == 0xFFFFFFFF), None)


def _walk(file: BinaryIO, begin: int, end: int, scheme: Scheme) -> Found:
    found, wide, channels, apple = Found([]), None, 0, b""
    for chunk in _chunks(file, begin + scheme.first, end, scheme):
        name, body, length = chunk
        if name == b"ds64" and not found.data:
            wide = struct.unpack("<Q", read_at(file, body + 8, 8).ljust(8, b"\0"))[0]
        elif name in (b"fmt ", _W64_FORMAT):
            found.layout, encoding = _wave_format(read_at(file, body, 26), scheme)
            found.encoding = encoding if name == _W64_FORMAT else None
        elif name in _CHANNELS_AT:
            channels = int.from_bytes(read_at(file, body + _CHANNELS_AT[name][0], _CHANNELS_AT[name][1]))
        elif name in (b"chan", b"CHAN"):
            apple = read_at(file, body, min(length, _MOST_LAYOUT))
        elif name == scheme.data and (scheme.little or not found.data):
            if wide is not None and length == 0xFFFFFFFF:
                length, unknown = wide, wide in (0, 0xFFFFFFFFFFFFFFFF)
            else:
                unknown = _placeholder(length, scheme)
            if unknown and found.data:
                break
            found.data.append(Chunk(name, body + scheme.prefix, length - scheme.prefix))
            if unknown:
                found.unknown = True
                break
    found.layout = found.layout or apple_layout(apple, channels)
    return found


def _chunks(file: BinaryIO, position: int, end: int, scheme: Scheme) -> Iterator[Chunk]:
    """Every chunk that begins before ``end``, as far as one leads to the next."""
    header = scheme.id_bytes + struct.calcsize(scheme.size_format)
    for _ in range(_MOST_CHUNKS):
        if position + header > end:
            return
        head = read_at(file, position, header)
        name = head[: scheme.id_bytes]
        (length,) = struct.unpack(scheme.size_format, head[scheme.id_bytes :])
        length -= header if scheme.own_header else 0
        yield Chunk(name, position + header, length)
        if length < 0:
            return
        position += header + length + -length % scheme.align


def _placeholder(length: int, scheme: Scheme) -> bool:
    """A size that encoders write when they can't seek back: 0 (GStreamer), all ones (ffmpeg), 2 GiB (sox, arecord)."""
    if scheme.size_format.endswith("Q"):
        return length <= 0 or length >= 1 << 63
    return length <= scheme.prefix or 0x7FFFF000 <= length <= 0x80000000 or length >= 0xFFFFF000


def _wave_format(body: bytes, scheme: Scheme) -> tuple[Layout | None, Encoding | None]:
    """The speakers and the encoding that an extensible format states."""
    if len(body) < 26:
        return None, None
    order = scheme.size_format[0]
    tag, channels, rate, _, _, bits = struct.unpack(order + "HHIIHH", body[:16])
    if tag != _EXTENSIBLE:
        return None, None
    mask, true_tag = struct.unpack(order + "IH", body[20:26])
    subtype = _SUBTYPES.get((true_tag, bits))
    return mask_layout(mask, channels), Encoding(subtype, rate, channels) if subtype else None


# --- Judging ----------------------------------------------------------------------------------------------------------


def _judge(file: BinaryIO, begin: int, end: int, found: Found, scheme: Scheme | None) -> Contents:
    """Compare what the headers claim with what there is, and mend the view of the file where they can't be taken."""
    first = found.data[0]
    plain = whole("chunked", begin, end)
    present = max(0, end - first.body)
    mendable = scheme is not None and scheme.little
    to_the_end: tuple[Segment, ...] = ((first.body, end),)
    mended = replace(plain, parts=(to_the_end,), raw=True)
    if found.unknown:
        streamed = first.length <= 0 and not _harmless(file, first.body, end)
        return mended if mendable and streamed else plain
    claimed, last = sum(chunk.length for chunk in found.data), found.data[-1]
    if last.body + last.length > end + 1:  # a padding byte at the end may be missing
        there = claimed - (last.body + last.length - end)
        parts = (_ranges(found.data, end),) if len(found.data) > 1 else plain.parts
        return replace(plain, parts=parts, raw=len(found.data) > 1, problem="cut off", claimed=claimed, present=there)
    if len(found.data) > 1:
        return replace(plain, parts=(_ranges(found.data, end),), raw=True)
    if mendable and 0 <= (present - claimed) % _LONGEST_RIFF < 2 < present - claimed:
        return mended  # past 4 GiB a plain WAV's sizes start again at 0
    stop = first.body + claimed
    if scheme is SCHEMES[b"riff"]:  # libsndfile reads a Wave64 to the end of the file
        plain = whole("chunked", begin, stop)
    if not mendable or any(_harmless(file, after, end) for after in (stop, stop + claimed % 2)):
        return plain
    return replace(mended, problem="longer", claimed=claimed, present=present)


def _ranges(data: list[Chunk], end: int) -> tuple[Segment, ...]:
    return tuple((chunk.body, min(end, chunk.body + chunk.length)) for chunk in data if chunk.body < end)


def _harmless(file: BinaryIO, position: int, end: int) -> bool:
    """Whether the bytes from ``position`` on are no audio: further chunks, padding, or next to nothing."""
    if end - position < 16:
        return True
    if end - position <= _MOST_PADDING and not read_at(file, position, end - position).strip(b"\0"):
        return True
    for _ in range(_MOST_CHUNKS):
        name, length = struct.unpack("<4sI", read_at(file, position, 8))
        if not all(0x20 <= byte < 0x7F for byte in name):
            return False
        position += 8 + length + length % 2
        if position > end + 1:
            return name in _CHUNKS_AFTER_DATA
        if end - position < 8:
            return True
    return False
