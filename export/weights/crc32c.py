"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) in numpy, for checkpoints of a hundred megabytes.

A checksum without its initial and final inversion is linear over GF(2): crc(left + right) is crc(left) advanced over
``len(right)`` zero bytes, plus crc(right). So neighbouring words are joined in pairs, then the pairs in pairs, each
level one vectorised table look-up, instead of byte after byte.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

POLYNOMIAL = 0x82F63B78
"""x^32 + x^28 + ... + 1 (Castagnoli 1993), bits reversed."""
CHUNK = 1 << 20
"""Bytes joined at a time, so that the pairs stay in the processor's cache."""

_MASK_DELTA = 0xA282EAD8
"""TensorFlow's and LevelDB's constant (leveldb, util/crc32c.h): stored checksums are rotated and offset by it."""

U32 = npt.NDArray[np.uint32]


def _advance_bit(crc: int) -> int:
    return (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)


def _apply(columns: tuple[int, ...], crc: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if crc >> bit & 1:
            result ^= column
    return result


@cache
def _columns(level: int) -> tuple[int, ...]:
    """Where each of the 32 bits goes when a checksum advances over ``4 << level`` zero bytes."""
    if level > 0:
        half = _columns(level - 1)
        return tuple(_apply(half, column) for column in half)
    result = []
    for bit in range(32):
        crc = 1 << bit
        for _ in range(32):
            crc = _advance_bit(crc)
        result.append(crc)
    return tuple(result)


@cache
def _tables(level: int) -> tuple[U32, U32]:
    """The same step for every value of the low and of the high 16 bits."""
    tables = []
    for columns in (_columns(level)[:16], _columns(level)[16:]):
        table = np.zeros(1 << 16, np.uint32)
        for bit, column in enumerate(columns):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ np.uint32(column)
        tables.append(table)
    return tables[0], tables[1]


def _fold(words: U32) -> int:
    """The linear checksum of some words, before the last advance over a word's length."""
    level = 0
    while words.size > 1:
        if words.size % 2:  # zeros in front of a message leave a linear checksum as it is
            words = np.concatenate([np.zeros(1, np.uint32), words])
        low, high = _tables(level)
        left, right = words[0::2], words[1::2]
        words = low[left & np.uint32(0xFFFF)] ^ high[left >> np.uint32(16)] ^ right
        level += 1
    return int(words[0])


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The checksum of ``data``; 0xE3069283 for ``b"123456789"``."""
    view = memoryview(data).cast("B")
    if view.nbytes < 4:
        crc = 0xFFFFFFFF
        for byte in view:
            crc ^= byte
            for _ in range(8):
                crc = _advance_bit(crc)
        return crc ^ 0xFFFFFFFF
    first = int.from_bytes(view[:4], "little") ^ 0xFFFFFFFF  # the same as starting from all ones
    rest = 4 + (view.nbytes - 4) % CHUNK
    head = bytes(-rest % 4) + first.to_bytes(4, "little") + view[4:rest]
    crc = _fold(np.frombuffer(head, "<u4"))
    level = (CHUNK // 4).bit_length() - 1
    for offset in range(rest, view.nbytes, CHUNK):
        chunk = np.frombuffer(view[offset : offset + CHUNK], "<u4")
        crc = _apply(_columns(level), crc) ^ _fold(chunk)
    return _apply(_columns(0), crc) ^ 0xFFFFFFFF


def unmask(stored: int) -> int:
    """The checksum behind a stored, masked one."""
    rotated = (stored - _MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def mask(crc: int) -> int:
    """How TensorFlow stores a checksum."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
