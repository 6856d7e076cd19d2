"""Reading a TensorFlow V2 checkpoint (a "bundle": PREFIX.index and PREFIX.data-00000-of-00001) without TensorFlow.

The index is a sorted table in LevelDB's format (leveldb, doc/table_format.md) from variable name to a protocol buffer
``BundleEntryProto`` (tensorflow, core/protobuf/tensor_bundle.proto) that says where in the data the values are. Every
checksum is verified. Nothing is executed, and hostile files cost no more time and memory than their size allows.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ortsep.base.arrays import Array
from ortsep.base.errors import FileMissing, WeightsError
from ortsep.export.weights.crc32c import crc32c, unmask

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
"""Numbers of tensorflow's ``DataType`` (core/framework/types.proto) and what they are in numpy."""

MAX_INDEX = 4 << 20
"""Bytes of an index that is still read; Spleeter's largest has 740 variables in 35 kB."""
MAX_ENTRIES = 20_000
MAX_KEY = 1024
MAX_RANK = 8
MAX_SHARDS = 64
MAX_META = 8 << 20

Fields = dict[int, list[int | bytes]]


class _Damage(Exception):
    """What is wrong with the bytes; ``read_bundle`` says in which file."""


@dataclass(frozen=True)
class Entry:
    """Where one variable's values are: ``size`` bytes at ``offset`` of shard ``shard``, with their masked checksum."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number of at most 64 bits, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Damage("it ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise _Damage("a number in it has more than 64 bits")


def _fields(data: bytes) -> Fields:
    """A protocol buffer message as a dict from field number to its values: integers, or bytes as they are."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise _Damage(f"a message in it has the wire type {kind}")
        if at > len(data):
            raise _Damage("a message in it is cut off")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _integer(fields: Fields, number: int, default: int = 0) -> int:
    value = fields.get(number, [default])[-1]
    if not isinstance(value, int):
        raise _Damage(f"field {number} of a message is not a number")
    return value - (1 << 64) if value >> 63 else value


def _messages(fields: Fields, number: int) -> list[Fields]:
    values = fields.get(number, [])
    if any(isinstance(value, int) for value in values):
        raise _Damage(f"field {number} of a message is not a message")
    return [_fields(value) for value in values if isinstance(value, bytes)]


def _block(data: bytes, offset: int, size: int) -> list[tuple[bytes, bytes]]:
    """The keys and values of one block, in their order."""
    end = offset + size
    if end + 5 > len(data) - FOOTER:
        raise _Damage("a block lies outside the file")
    (stored,) = struct.unpack_from("<I", data, end + 1)
    if crc32c(data[offset : end + 1]) != unmask(stored):
        raise _Damage("the checksum of a block is wrong")
    if data[end] != 0:
        raise _Damage("a block is compressed (TensorFlow writes checkpoints uncompressed)")
    block = data[offset:end]
    restarts = struct.unpack_from("<I", block, size - 4)[0] if size >= 4 else 0
    stop = size - 4 - 4 * restarts
    if stop < 0 or restarts == 0:
        raise _Damage("a block has no valid list of restarts")
    entries: list[tuple[bytes, bytes]] = []
    key, at = b"", 0
    while at < stop:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or shared + fresh > MAX_KEY or at + fresh + length > stop:
            raise _Damage("an entry does not fit into its block")
        previous, key = key, key[:shared] + block[at : at + fresh]
        if entries and key <= previous:
            raise _Damage("its keys are not in order")
        at += fresh
        entries.append((key, block[at : at + length]))
        at += length
        if len(entries) > MAX_ENTRIES:
            raise _Damage(f"it has more than {MAX_ENTRIES} entries")
    return entries


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of a table, in ascending order."""
    if len(data) < FOOTER or struct.unpack_from("<Q", data, len(data) - 8)[0] != MAGIC:
        raise _Damage("it does not end as a table does, so it is cut off or something else")
    footer = data[-FOOTER:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, at = _varint(footer, at)
    last, position, count = None, 0, 0
    for _, handle in _block(data, offset, size):
        offset, at = _varint(handle, 0)
        size, at = _varint(handle, at)
        if offset < position:
            raise _Damage("its blocks overlap")
        position = offset + size + 5
        for key, value in _block(data, offset, size):
            if last is not None and key <= last:
                raise _Damage("its keys are not in order")
            last, count = key, count + 1
            if count > MAX_ENTRIES:
                raise _Damage(f"it has more than {MAX_ENTRIES} entries")
            yield key, value


def _entry(key: bytes, value: bytes) -> Entry:
    name = key.decode("utf-8", "backslashreplace")
    fields = _fields(value)
    if 7 in fields:
        raise _Damage(f"{name} is stored in slices")
    dtype = DTYPES.get(_integer(fields, 1))
    if dtype is None:
        raise _Damage(f"{name} is of tensorflow's type {_integer(fields, 1)}, which is not a plain number")
    (shape_fields,) = _messages(fields, 2) or [{}]
    shape = tuple(_integer(dim, 1) for dim in _messages(shape_fields, 2))
    size = _integer(fields, 5)
    if len(shape) > MAX_RANK or any(dim < 0 for dim in shape) or math.prod(max(dim, 1) for dim in shape) > 1 << 40:
        raise _Damage(f"{name} can't have the shape {str(shape)[:60]}")
    if math.prod(shape) * np.dtype(dtype).itemsize != size:
        raise _Damage(f"{name} has {size} bytes, which is not what the shape {str(shape)[:60]} takes")
    return Entry(name, dtype, shape, _integer(fields, 3), _integer(fields, 4), size, _integer(fields, 6))


def _entries(data: bytes) -> tuple[int, list[Entry]]:
    """The number of shards and the entries of an index, sorted by name."""
    table = _table(data)
    key, value = next(table, (b"?", b""))
    if key != b"":
        raise _Damage("it has no header")
    header = _fields(value)
    shards = _integer(header, 1)
    if not 1 <= shards <= MAX_SHARDS:
        raise _Damage(f"it can't have {shards} shards")
    if _integer(header, 2) != 0:
        raise _Damage("it was written on a big-endian machine")
    entries = [_entry(key, value) for key, value in table]
    position = dict.fromkeys(range(shards), 0)
    for entry in sorted(entries, key=lambda e: (e.shard, e.offset, e.size)):
        if entry.offset < position.get(entry.shard, entry.offset + 1):
            raise _Damage(f"{entry.name} overlaps another variable or lies in no shard")
        position[entry.shard] = entry.offset + entry.size
    return shards, entries


def read_index(prefix: Path) -> tuple[int, list[Entry]]:
    """The number of shards and the variables of the checkpoint ``PREFIX.index``; no values are read.

    Raises FileMissing, and WeightsError for anything but a sound index of a V2 checkpoint.
    """
    path = prefix.with_name(prefix.name + ".index")
    if not path.is_file():
        raise FileMissing(f"there is no checkpoint index {path}; name the folder that holds model.index")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_INDEX + 1)
        if len(data) > MAX_INDEX:
            raise _Damage(f"it is over {MAX_INDEX >> 20} MB")
        return _entries(data)
    except OSError as error:
        raise WeightsError(f"{path} can't be read ({error.strerror}); check its permissions") from error
    except _Damage as damage:
        raise WeightsError(f"{path} is not a sound checkpoint index: {damage}; fetch the checkpoint again") from damage


def read_bundle(prefix: Path) -> dict[str, Array]:
    """The variables of the checkpoint PREFIX.index and PREFIX.data-*, by name, in native byte order.

    Raises FileMissing for a file that is not there, and WeightsError for one that is damaged or not a V2 checkpoint.
    """
    shards, entries = read_index(prefix)
    values: dict[str, Array] = {}
    for shard in range(shards):
        path = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
        if not path.is_file():
            raise FileMissing(f"the checkpoint {prefix} lacks its file {path.name}; fetch the checkpoint again")
        try:
            with path.open("rb") as stream:
                available = path.stat().st_size
                for entry in (e for e in entries if e.shard == shard):
                    if entry.offset + entry.size > available:
                        raise _Damage(f"it ends before the values of {entry.name}")
                    stream.seek(entry.offset)
                    raw = stream.read(entry.size)
                    if len(raw) != entry.size or crc32c(raw) != unmask(entry.crc):
                        raise _Damage(f"the checksum of {entry.name} is wrong")
                    array = np.frombuffer(raw, entry.dtype).reshape(entry.shape)
                    values[entry.name] = array.astype(array.dtype.newbyteorder("="), copy=False)
        except OSError as error:
            raise WeightsError(f"{path} can't be read ({error.strerror}); check its permissions") from error
        except _Damage as damage:
            raise WeightsError(f"{path} is damaged: {damage}; fetch the checkpoint again") from damage
    return values


def graph_nodes(path: Path) -> tuple[tuple[str, str], ...]:
    """Name and operator of each node, in the order in which they were made, of a checkpoint's ``.meta``.

    It is a serialized MetaGraphDef; there are none where it can't be read.
    """
    try:
        if path.stat().st_size > MAX_META:
            return ()
        (graph,) = _messages(_fields(path.read_bytes()), 2)
        nodes = [(node.get(1, [b""])[-1], node.get(2, [b""])[-1]) for node in _messages(graph, 1)]
    except (OSError, _Damage, ValueError):
        return ()
    return tuple(
        (name.decode("utf-8", "replace"), kind.decode("ascii", "replace"))
        for name, kind in nodes
        if isinstance(name, bytes) and isinstance(kind, bytes)
    )
