"""Reading what an ONNX file says of itself without loading it: its metadata, and the files that it keeps tensors in.

Field numbers are those of ``ModelProto`` in onnx/onnx.proto: 1 ir_version, 7 graph, 8 opset_import, 14 metadata_props.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ortsep.base.errors import FileMissing, ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GROUP = (3, 4)
_GRAPH, _METADATA = 7, 14
_MAX_ENTRY = 16 << 20
_MAX_FIELDS = 5_000_000
_MAX_DEPTH = 40
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Where tensors are in a model: fields by message, ``entry`` being a ``TensorProto``'s external_data."""


def read_metadata(path: Path) -> dict[str, str]:
    """The ``metadata_props`` of an ONNX file, in milliseconds whatever its size.

    Raises FileMissing, or ModelError for a file that is not ONNX or is truncated.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _scan(file, size, path)
    except FileNotFoundError as error:
        raise FileMissing(f"there is no model file {path}; export one with: ortsep export NAME") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path} is a folder where a .onnx file was expected; name the file inside it") from error
    except OSError as error:
        raise ModelError(f"{path} can't be read ({error.strerror}); check its permissions") from error


def _scan(file: BinaryIO, size: int, path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    graph = False
    truncated = ModelError(f"{path} is cut short; copy or export it again")
    if size == 0:
        raise ModelError(f"{path} is empty, not an ONNX model; export it again")
    while file.tell() < size:
        key = _varint(file)
        field, wire = (key >> 3, key & 7) if key is not None else (0, 7)
        if wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32) or not 1 <= field <= 100:
            raise ModelError(f"{path} is not an ONNX model; name a .onnx file that ortsep export has made")
        if wire == _VARINT:
            if _varint(file) is None:
                raise truncated
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if length is None:
            length = _varint(file)
        if length is None or file.tell() + length > size:
            raise (
                truncated
                if graph or field == _GRAPH
                else ModelError(
                    f"{path} is not an ONNX model, or is cut short; name a .onnx file that ortsep export has made"
                )
            )
        graph = graph or field == _GRAPH
        if field == _METADATA and length <= _MAX_ENTRY:
            entry = dict(_strings(file.read(length)))
            found[entry.get(1, "")] = entry.get(2, "")
        else:
            file.seek(length, 1)
    if not graph:
        raise ModelError(f"{path} is not an ONNX model; name a .onnx file that ortsep export has made")
    return found


def _strings(data: bytes) -> Iterator[tuple[int, str]]:
    position = 0
    while position < len(data):
        field = data[position] >> 3
        length, shift = 0, 0
        position += 1
        while position < len(data):
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield field, data[position : position + length].decode("utf-8", "replace")
        position += length


def _varint(file: BinaryIO) -> int | None:
    """A protobuf varint; None at the end of the file or where it has more than ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def external_files(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file in which it keeps tensors; mostly none.

    Raises ModelError for one that is outside the model's folder, links followed: older versions of ONNX Runtime would
    read any file of this machine as weights. Also for a model nested or cut up as no exporter does.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = sorted(_locations(data, path))
        folder = path.parent.resolve()
        found = []
        for name in names:
            place = (folder / name).resolve()
            if not place.is_relative_to(folder) or place == folder:
                raise ModelError(
                    f"{path} keeps weights in {name[:200]!r}, which is outside its folder; if you trust it, copy that "
                    "file beside it and save the model again"
                )
            found.append(folder / name)
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} can't be read ({error}); copy or export it again") from error
    return tuple(found)


def _locations(data: mmap.mmap, path: Path) -> set[str]:
    """The ``location`` of every tensor's external data. A damaged part ends the walk: ONNX Runtime refuses it too."""
    found: set[str] = set()
    strange = ModelError(f"{path} is nested or cut up as no exporter does; export the model again")
    fields = 0
    todo = [("model", 0, len(data), 0)]
    while todo:
        kind, position, end, depth = todo.pop()
        children = _CHILDREN[kind]
        if depth > _MAX_DEPTH:
            raise strange
        while position < end:
            fields += 1
            if fields > _MAX_FIELDS:
                raise strange
            key, position = read_number(data, position, end)
            key &= 0xFFFFFFFF  # as protobuf reads it
            wire = key & 7
            if wire == _VARINT:
                _, position = read_number(data, position, end)
                continue
            if wire in _GROUP:  # protobuf skips groups and goes on; looking into them instead misses nothing
                continue
            length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
            if length is None:
                if wire != _BYTES:
                    break
                length, position = read_number(data, position, end)
            child = children.get(key >> 3) if wire == _BYTES else None
            stop = min(position + length, end)
            if child == "entry":
                entry = dict(_strings(data[position : min(stop, position + (1 << 16))]))
                if entry.get(1) == "location":
                    found.add(entry.get(2, ""))
            elif child is not None:
                todo.append((child, position, stop, depth + 1))
            position = stop
    return found


def read_number(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """A varint and the position behind it; the end where it is damaged."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            return 0, end
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return 0, end
