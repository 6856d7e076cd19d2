"""Reading what an ONNX file says of itself without loading it: the top level of its protobuf, graph skipped.

Field numbers are those of ``ModelProto`` in onnx/onnx.proto: 1 ir_version, 7 graph, 8 opset_import, 14 metadata_props.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ortsep.models.errors import FileMissing, ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _METADATA = 7, 14
_MAX_ENTRY = 16 << 20


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
