"""The inputs and outputs of an ONNX file, read without loading its graph.

Field numbers are those of onnx/onnx.proto: ModelProto 7 graph, 8 opset_import; GraphProto 5 initializer, 11 input,
12 output; ValueInfoProto 1 name, 2 type; TypeProto 1 tensor_type (1 elem_type, 2 shape); Dimension 1 dim_value,
2 dim_param; OperatorSetIdProto 1 domain, 2 version.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ortsep.base.errors import ModelError
from ortsep.models.protobuf import fields

_TYPES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_MAX_FIELDS = 1_000_000
LONGEST_NAME = 60
"""Letters of a name in a message."""
Fields = Iterator[tuple[int, int, int, int]]


@dataclass(frozen=True)
class Shaped:
    """An input or output of a graph: its name, its dimensions (None or a name where free), its element type."""

    name: str
    shape: tuple[int | str | None, ...]
    type: str = "float32"

    def __str__(self) -> str:
        sizes = ", ".join("?" if d is None else _shown(str(d)) for d in self.shape)
        return f"{_shown(self.name)} [{sizes}]" + ("" if self.type == "float32" else f" {self.type}")


def _shown(name: str) -> str:
    """A name of a stranger's file within a sentence: control characters escaped, and not longer than a name is."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)
    return plain if len(plain) <= LONGEST_NAME else f"{plain[:LONGEST_NAME]}..."


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives, in its order, and the opset that it is written in."""

    inputs: tuple[Shaped, ...]
    outputs: tuple[Shaped, ...]
    opset: int = 0

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"


def read_signature(path: Path) -> Signature:
    """The tensors of an ONNX file, in milliseconds whatever its size. Raises ModelError for a damaged one.

    Weights that older files list among their inputs are none.
    """
    inputs: list[Shaped] = []
    outputs: list[Shaped] = []
    weights: set[str] = set()
    opset = 0
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for field, _, start, stop in _fields(data, 0, len(data)):
                if field == 8:
                    opset = max(opset, _opset(data, start, stop))
                if field != 7:
                    continue
                for inner, _, begin, end in _fields(data, start, stop):
                    if inner in (11, 12):
                        (inputs if inner == 11 else outputs).append(_tensor(data, begin, end))
                    elif inner == 5:
                        weights.add(_text(data, begin, end, 8))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read as an ONNX model ({error}); copy or export it again") from error
    return Signature(tuple(t for t in inputs if t.name not in weights), tuple(outputs), opset)


def _fields(data: mmap.mmap, position: int, end: int) -> Fields:
    """Field number, value (of a number) and extent (of bytes) of a message's fields."""
    for count, field in enumerate(fields(data, position, end)):
        if count == _MAX_FIELDS:
            raise ValueError("more fields than any exporter writes")
        yield field.number, field.value, field.begin, field.end


def _tensor(data: mmap.mmap, start: int, stop: int) -> Shaped:
    shape: list[int | str | None] = []
    kind = 0
    for field, _, begin, end in _fields(data, start, stop):
        if field != 2:
            continue
        for variant, _, first, last in _fields(data, begin, end):
            if variant != 1:
                continue
            for part, value, low, high in _fields(data, first, last):
                if part == 1:
                    kind = value
                elif part == 2:
                    shape = [_dimension(data, a, b) for p, _, a, b in _fields(data, low, high) if p == 1]
    return Shaped(_text(data, start, stop, 1), tuple(shape), _TYPES.get(kind, f"type {kind}"))


def _dimension(data: mmap.mmap, start: int, stop: int) -> int | str | None:
    for field, value, begin, end in _fields(data, start, stop):
        if field == 1:
            return value if 0 < value < 1 << 40 else None
        if field == 2:
            return data[begin:end].decode("utf-8", "replace") or None
    return None


def _text(data: mmap.mmap, start: int, stop: int, wanted: int) -> str:
    for field, _, begin, end in _fields(data, start, stop):
        if field == wanted:
            return data[begin:end].decode("utf-8", "replace")
    return ""


def _opset(data: mmap.mmap, start: int, stop: int) -> int:
    domain, version = "", 0
    for field, value, begin, end in _fields(data, start, stop):
        domain = data[begin:end].decode("utf-8", "replace") if field == 1 else domain
        version = value if field == 2 else version
    return version if domain in ("", "ai.onnx") else 0
