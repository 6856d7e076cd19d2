"""FLAC: how many samples a file's header promises, and whether its last frame is there. Source: RFC 9639.

The last frame is looked for from the end. Where it is found with both of its checksums, ends exactly where the audio
does and is the one that the header promises, the file is whole. Everything else (a tag that nobody knows, a damaged
end, bytes that look like a frame by chance) is doubtful, and for the decoder to judge.
"""

import re
import struct
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from ortsep.audio.contents import Contents, Segment, read_at, whole
from ortsep.audio.layouts import FLAC_LAYOUTS, mask_layout


def _crc_table(polynomial: int, bits: int) -> tuple[int, ...]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1) ^ (polynomial if crc & top else 0)
        table.append(crc & mask)
    return tuple(table)


_BLOCK = 34
"""Bytes of STREAMINFO."""
_COMMENTS = 4
"""The type of the block of Vorbis comments."""
_MOST_SAMPLES = (1 << 36) - 1
_CRC8, _CRC16 = _crc_table(0x07, 8), _crc_table(0x8005, 16)
_TAIL = 1 << 20
"""Bytes searched for the last frame: more than the largest frame of 8 channels of 24 bits in practice."""
_MOST_FRAMES = 4
"""Frames tried before the end counts as doubtful: each takes a checksum of all that follows it."""
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
"""By the code in a frame's header; 0 stands for what STREAMINFO says."""
_BITS = (0, 8, 12, 0, 16, 20, 24, 32)


class Info(NamedTuple):
    """STREAMINFO, 8.2: the samples of a block where all are equal, and what every frame repeats."""

    block: int
    rate: int
    channels: int
    bits: int
    total: int
    """Samples a channel; 0 where the encoder didn't know."""


def read_flac(file: BinaryIO, begin: int, end: int) -> Contents:
    """Examine the FLAC stream in [begin, end). Its ``claimed`` and ``present`` are samples a channel."""
    found = whole("flac", begin, end)
    block = read_at(file, begin + 8, _BLOCK)
    if len(block) < _BLOCK:
        return replace(found, problem="cut off")
    info = _info(block)
    position, last, layout = begin + 4, False, None
    while not last:
        head = read_at(file, position, 4)
        if len(head) < 4:
            return replace(found, problem="cut off", claimed=info.total or None, present=0)
        last, length = bool(head[0] & 0x80), int.from_bytes(head[1:])
        if head[0] & 0x7F == _COMMENTS and position + length <= end:
            layout = mask_layout(_mask(read_at(file, position + 4, length)), info.channels)
        position += 4 + length
    start = max(position, end - _TAIL)
    held = _samples_held(read_at(file, start, max(0, end - start)), info)
    found = replace(found, samples=info.total or held, layout=layout or FLAC_LAYOUTS.get(info.channels))
    if held is None or held < info.total:
        return replace(found, doubtful=True, parts=(_counted(begin, end, block, info.total or _MOST_SAMPLES),))
    if info.total == held:
        return found
    found = replace(found, parts=(_counted(begin, end, block, held),))
    return replace(found, problem="longer", claimed=info.total, present=held) if info.total else found


def _info(block: bytes) -> Info:
    packed = int.from_bytes(block[10:18])
    smallest, largest = struct.unpack(">HH", block[:4])
    block_size = smallest if smallest == largest else 0
    return Info(block_size, packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & _MOST_SAMPLES)


def _mask(comments: bytes) -> int:
    """The speakers that a comment states as a WAVE mask (RFC 9639, 8.6.2); 0 for none."""
    found = re.search(rb"WAVEFORMATEXTENSIBLE_CHANNEL_MASK=0x([0-9a-fA-F]{1,8})(?![0-9a-fA-F])", comments)
    return int(found[1], 16) if found else 0


def _counted(begin: int, end: int, block: bytes, samples: int) -> tuple[Segment, ...]:
    """The stream in [begin, end) with another total in its STREAMINFO ``block``."""
    at = begin + 8
    patched = (int.from_bytes(block[13:18]) & ~_MOST_SAMPLES | samples).to_bytes(5)
    return ((begin, at + 13), patched, (at + 18, end))


def _samples_held(tail: bytes, info: Info) -> int | None:
    """Samples up to the end of the last frame, where a sound one ends exactly where ``tail`` does; else None."""
    tried = 0
    for at in reversed([found.start() for found in _SYNC.finditer(tail)]):
        frame = _frame(tail[at : at + 17], info)
        if frame is None:
            continue
        crc = 0
        for byte in memoryview(tail)[at:]:
            crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
        if crc == 0:
            return sum(frame)
        tried += 1
        if tried == _MOST_FRAMES:
            break
    return None


def _frame(head: bytes, info: Info) -> tuple[int, int] | None:
    """First sample and length of the frame whose header ``head`` starts with; None where it is no header of these."""
    if len(head) < 6 or head[3] & 1 or (head[1] & 1 == 0 and info.block == 0):
        return None
    size_code, rate_code, channels, bits_code = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    lead = head[4]
    more = next((n for n in range(8) if not lead << n & 0x80), 8)
    if size_code == 0 or rate_code == 15 or more in (1, 8):
        return None
    if (channels + 1 if channels < 8 else 2) != info.channels or channels > 10:
        return None
    if (bits_code and _BITS[bits_code] != info.bits) or (
        0 < rate_code < 12 and _RATES[rate_code] not in (0, info.rate)
    ):
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
    return (number if head[1] & 1 else number * info.block), length
