"""The wire format of protocol buffers, read as protobuf's own C++ reads it, and written.

Whatever is checked here is what ONNX Runtime then sees only if both take the same bytes for the same fields: numbers
written longer than they need be, fields that nobody knows, groups, a field given twice.
Source: protobuf.dev, "Encoding"; the limits are those of protobuf's parser.
"""

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_FIXED = {FIXED64: 8, FIXED32: 4}
_TAG_BYTES, _LENGTH_BYTES, _VARINT_BYTES = 5, 5, 10


class Field(NamedTuple):
    """A field: its number, its wire type, the value of a VARINT, and where it lies; BYTES without their length."""

    number: int
    wire: int
    value: int
    begin: int
    end: int


class Damaged(ValueError):
    """The bytes from ``position`` on are no fields. ``number`` is the field that is cut off there, or 0."""

    def __init__(self, position: int, number: int = 0) -> None:
        super().__init__(f"no field at byte {position}")
        self.number = number


def fields(data: bytes | mmap, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[begin:end]``, in order. Raises Damaged where protobuf would give up.

    What is inside a group comes as fields of the message around it: protobuf would skip it, so that a reader sees
    those fields and more.
    """
    while begin < end:
        tag, position = _number(data, begin, end, _TAG_BYTES)
        tag &= 0xFFFFFFFF
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire > FIXED32:
            raise Damaged(begin)
        value, stop = 0, position
        if wire == VARINT:
            value, stop = _number(data, position, end, _VARINT_BYTES, number)
        elif wire == BYTES:
            length, position = _number(data, position, end, _LENGTH_BYTES, number)
            stop = position + length
        elif wire in _FIXED:
            stop = position + _FIXED[wire]
        if stop > end:
            raise Damaged(begin, number)
        yield Field(number, wire, value, position, stop)
        begin = stop


def texts(data: bytes | mmap, begin: int, end: int, errors: str = "replace") -> dict[int, str]:
    """The strings of a message by field, the last of each, as protobuf keeps it. Raises Damaged.

    ``errors`` is what becomes of bytes that are no UTF-8, as of bytes.decode.
    """
    found = (field for field in fields(data, begin, end) if field.wire == BYTES)
    return {field.number: bytes(data[field.begin : field.end]).decode("utf-8", errors) for field in found}


def _number(data: bytes | mmap, position: int, end: int, most: int, of: int = 0) -> tuple[int, int]:
    """A varint of at most ``most`` bytes, and the position behind it."""
    value, start = 0, position
    for shift in range(0, 7 * most, 7):
        if position >= end:
            raise Damaged(start, of)
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise Damaged(start)


def varint(value: int) -> bytes:
    """A number of at least 0 as it is written."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number_field(number: int, value: int) -> bytes:
    """A VARINT field."""
    return varint(number << 3 | VARINT) + varint(value)


def bytes_field(number: int, content: bytes) -> bytes:
    """A BYTES field: a message, an array."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def text_field(number: int, text: str) -> bytes:
    return bytes_field(number, text.encode())
