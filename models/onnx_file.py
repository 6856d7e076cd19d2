"""Reading what an ONNX file says of itself without loading it: its metadata, and the files that it keeps tensors in.

Field numbers are those of onnx/onnx.proto.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ortsep.base.errors import FileMissing, ModelError
from ortsep.models.protobuf import BYTES, END_GROUP, GROUP, Damaged, fields, texts

_GRAPH, _METADATA = 7, 14
_HIGHEST = 100
"""No field of a ModelProto has a number beyond."""
_MAX_ENTRY = 16 << 20
_MAX_FIELDS = 5_000_000
_MAX_DEPTH = 40
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Where tensors are in a model: fields by message, ``entry`` being a ``TensorProto``'s external_data."""
_ADDRESS = "*/_ORT"
"""The beginning of a location that ONNX Runtime takes for a place in its own memory, which no file may name."""
_LARGEST = (1 << 31) - 1
"""Bytes that protobuf reads of a message, and so of an ONNX file."""
_FLATBUFFER = b"ORTM"
"""At byte 4 of ONNX Runtime's own format, which it would read instead of protobuf."""


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of an ONNX file. Raises FileMissing, ModelError."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size == 0:
                raise ModelError(f"{path} is empty, not an ONNX model; export it again")
            if size > _LARGEST:
                raise ModelError(
                    f"{path} has {size / 1e9:.1f} GB, and nothing reads ONNX files over 2 GB; save the model with its "
                    "weights in a file beside it (onnx.save_model(..., save_as_external_data=True))"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if data[4:8] == _FLATBUFFER:
                    raise ModelError(f"{path} is of ONNX Runtime's own format; give the .onnx file it was made from")
                yield data
    except FileNotFoundError as error:
        raise FileMissing(f"there is no model file {path}; export one with: ortsep export NAME") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path} is a folder where a .onnx file was expected; name the file inside it") from error
    except OSError as error:
        raise ModelError(f"{path} can't be read ({error.strerror or error}); check its permissions") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The ``metadata_props`` of an ONNX file, in milliseconds whatever its size.

    Raises FileMissing, or ModelError for a file that is not ONNX or is truncated.
    """
    found: dict[str, str] = {}
    graph = False
    none = ModelError(f"{path} is not an ONNX model; name a .onnx file that ortsep export has made")
    with mapped(path) as data:
        try:
            for number, wire, _, begin, end in fields(data, 0, len(data)):
                if number > _HIGHEST or wire in (GROUP, END_GROUP):
                    raise none
                graph = graph or (number == _GRAPH and wire == BYTES)
                if number == _METADATA and wire == BYTES and end - begin <= _MAX_ENTRY:
                    entry = texts(data, begin, end)
                    found[entry.get(1, "")] = entry.get(2, "")
        except Damaged as error:
            if graph or error.number == _GRAPH:
                raise ModelError(f"{path} is cut short; copy or export it again") from None
            raise ModelError(
                f"{path} is not an ONNX model, or is cut short; name a .onnx file that ortsep export has made"
            ) from None
    if not graph:
        raise none
    return found


def external_files(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file in which it keeps tensors; mostly none.

    Raises ModelError for one that is outside the model's folder, links followed: older versions of ONNX Runtime would
    read any file of this machine as weights. Also for a model nested or cut up as no exporter does.
    """
    with mapped(path) as data:
        names = sorted(_locations(data, path))
    found = []
    try:
        folder = path.parent.resolve()
        for name in names:
            place = (folder / name).resolve()
            if not place.is_relative_to(folder) or place == folder or name.startswith(_ADDRESS):
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
    """The ``location`` of every tensor's external data. A damaged message ends there, which ONNX Runtime refuses."""
    found: set[str] = set()
    strange = ModelError(f"{path} is nested or cut up as no exporter does; export the model again")
    count = 0
    todo = [("model", 0, len(data), 0)]
    while todo:
        kind, begin, end, depth = todo.pop()
        children = _CHILDREN[kind]
        if depth > _MAX_DEPTH:
            raise strange
        try:
            for field in fields(data, begin, end):
                count += 1
                if count > _MAX_FIELDS:
                    raise strange
                child = children.get(field.number) if field.wire == BYTES else None
                if child == "entry":
                    if field.end - field.begin > _MAX_ENTRY:
                        raise strange
                    entry = texts(data, field.begin, field.end, "surrogateescape")  # a name of a file, to the byte
                    if entry.get(1) == "location":
                        found.add(entry.get(2, ""))
                elif child is not None:
                    todo.append((child, field.begin, field.end, depth + 1))
        except Damaged:
            continue
    return found
