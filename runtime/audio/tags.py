"""Tags around the audio of a file, of whatever format: where the audio begins and ends.

Programs put them before and behind anything, though few formats allow for it, and decoders take them for damage or for
samples. Sources of the layouts: id3.org (ID3v1, its "TAG+" extension, ID3v2.2 to 2.4 with footer), Hydrogenaudio
(APEv1 and v2), id3.org (Lyrics3 and Lyrics3 v2).
"""

import struct
from typing import BinaryIO

from ortsep.audio.contents import read_at

_ID3V1, _ID3V1_MORE = 128, 227
_APE = 32
_LYRICS3 = 5100
_WINDOW = 1 << 18
_MOST_ID3 = 1 << 24
"""Bytes of a file's end that are searched for an ID3v2 tag: covers make them large."""


def between_tags(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where what lies between the tags in front and behind begins and ends. Equal for a file of nothing but tags."""
    begin = _after_front(file, size)
    end = size
    while end > begin and (length := _tag_before(file, begin, end)):
        end -= length
    return begin, max(begin, end)


def id3_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag whose 10 bytes of header are ``head``, its footer included; 0 where it is none.

    The size is written in 7 bits a byte, so that no byte of it has its top bit.
    """
    if len(head) < 10 or head[:3] != b"ID3" or 0xFF in head[3:5] or any(byte & 0x80 for byte in head[6:10]):
        return 0
    body = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + body + (10 if head[5] & 0x10 else 0)


def _after_front(file: BinaryIO, size: int) -> int:
    position = 0
    while position < size:
        head = read_at(file, position, _APE)
        if length := id3_length(head):
            position += length
        elif head[:8] == b"APETAGEX" and len(head) == _APE and struct.unpack("<I", head[20:24])[0] & 1 << 29:
            position += _APE + int(struct.unpack("<I", head[12:16])[0])
        else:
            break
    return min(position, size)


def _tag_before(file: BinaryIO, begin: int, end: int) -> int:
    """Bytes of the tag that ends at ``end``; 0 for none."""
    tail = read_at(file, max(begin, end - _LYRICS3 - 20), min(end - begin, _LYRICS3 + 20))
    length = _id3v1(tail) or _ape(tail[-_APE:]) or _lyrics3(tail) or _id3_with_footer(tail[-10:])
    if length <= end - begin and length:
        return length
    return _id3_at_the_end(file, begin, end)


def _id3v1(tail: bytes) -> int:
    tag = tail[-_ID3V1:]
    year = tag[93:97]
    if len(tag) < _ID3V1 or tag[:3] != b"TAG" or not all(byte in b"\0 0123456789" for byte in year):
        return 0
    more = tail[-_ID3V1 - _ID3V1_MORE : -_ID3V1]
    return _ID3V1 + (_ID3V1_MORE if more[:4] == b"TAG+" else 0)


def _ape(footer: bytes) -> int:
    if len(footer) < _APE or footer[:8] != b"APETAGEX":
        return 0
    version, length, _, flags = struct.unpack("<IIII", footer[8:24])
    return int(length) + (_APE if version >= 2000 and flags & 1 << 31 else 0)


def _lyrics3(tail: bytes) -> int:
    if tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15
    if tail.endswith(b"LYRICSEND"):
        return len(tail) - max(0, tail.rfind(b"LYRICSBEGIN")) if b"LYRICSBEGIN" in tail else 0
    return 0


def _id3_with_footer(footer: bytes) -> int:
    return id3_length(b"ID3" + footer[3:]) if footer[:3] == b"3DI" else 0


def _id3_at_the_end(file: BinaryIO, begin: int, end: int) -> int:
    """An ID3v2 tag without a footer can only be found by a header whose size leads exactly to the end."""
    for start in range(end, max(begin, end - _MOST_ID3), -_WINDOW):
        window, at = read_at(file, max(begin, start - _WINDOW), _WINDOW + 9), -1
        while (at := window.find(b"ID3", at + 1)) >= 0:
            position = max(begin, start - _WINDOW) + at
            if position + id3_length(window[at : at + 10]) == end:
                return end - position
    return 0
