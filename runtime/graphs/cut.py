"""Cutting a part out of an ONNX file, at tensors inside its graph: the nodes between them, and where their weights are.

The weights stay in the file, of which ONNX Runtime maps what it needs: they are neither copied nor parsed. So the file
must keep its bytes while a session of a part lives; ``ortsep export`` puts a new one in its place.

Field numbers are those of onnx/onnx.proto. Nodes with graphs of their own (If, Loop) are taken as they are: ONNX
Runtime refuses a part in which such a graph reads what was cut off.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap
from pathlib import Path

from ortsep.base.errors import ModelError
from ortsep.models.onnx_file import external_files, mapped
from ortsep.models.parts import Part
from ortsep.models.protobuf import BYTES, Damaged, Field, bytes_field, fields, number_field, text_field

_IR, _OPSETS, _GRAPH, _FUNCTIONS = 1, 8, 7, 25
_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 2, 5, 11, 12, 15
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_TENSOR_NAME, _RAW, _EXTERNAL, _LOCATION = 8, 9, 13, 14
_IN_FILE = 1
_LARGE = 1024
"""Bytes from which a tensor stays in the file."""


@dataclass(frozen=True)
class _Graph:
    """What is in an ONNX file, its large tensors by the place where they are."""

    head: bytes
    """All fields of the model that a part of it needs, but the graph."""
    nodes: tuple[bytes, ...]
    ends: tuple[tuple[list[str], list[str]], ...]
    """Of each node the names of its inputs and outputs."""
    weights: Mapping[str, bytes]
    inputs: frozenset[str]


def cut(path: Path, part: Part, *, copied: bool = False) -> bytes:
    """The model between the tensors that the ``part`` reads, states among them, and those that it gives and leaves.

    Its inputs and outputs are float32 of any shape, and its weights are in a file called as this one or, ``copied``, in
    the model itself. Raises ModelError where the graph has no such tensors, and what reading the file raises.
    """
    reads = (*part.reads, *(state.given for state in part.states))
    gives = (part.gives, *(state.left for state in part.states))
    with mapped(path):  # says what is wrong with a file that isn't there
        found = path.stat()
    whole = _read(path, copied, found.st_ino, found.st_mtime_ns, found.st_size)
    kept, lacking = _between(whole.ends, reads, gives)
    known = {name for _, outputs in whole.ends for name in outputs} | whole.weights.keys() | whole.inputs
    missing = [name for name in (*reads, *gives) if name not in known] + sorted(lacking - whole.weights.keys())
    if missing:
        raise ModelError(f"{path} has no tensor {missing[0]}, at which its spec cuts it; export it again")
    graph = b"".join(
        [
            *(bytes_field(_NODE, node) for node, keep in zip(whole.nodes, kept, strict=True) if keep),
            text_field(_NAME, part.gives),
            *(bytes_field(_INITIALIZER, tensor) for name, tensor in whole.weights.items() if name in lacking),
            *(bytes_field(_INPUT, _float_tensor(name)) for name in reads),
            *(bytes_field(_OUTPUT, _float_tensor(name)) for name in gives),
        ]
    )
    return whole.head + bytes_field(_GRAPH, graph)


@lru_cache(maxsize=1)
def _read(path: Path, copied: bool, *_stamp: int) -> _Graph:
    """The file, read once for all its parts, which are cut one after the other; ``_stamp`` tells it from others that
    were at its place."""
    external_files(path)  # refuses one with weights in strange places
    with mapped(path) as data:
        try:
            top = [f for f in fields(data, 0, len(data)) if f.number in (_IR, _OPSETS, _GRAPH, _FUNCTIONS)]
            graphs = [f for f in top if f.number == _GRAPH and f.wire == BYTES]
            inside = [f for graph in graphs for f in fields(data, graph.begin, graph.end) if f.wire == BYTES]
            nodes = [f for f in inside if f.number == _NODE]
            return _Graph(
                head=b"".join(_again(data, f) for f in top if f.number != _GRAPH),
                nodes=tuple(data[f.begin : f.end] for f in nodes),
                ends=tuple(_ends(data, node) for node in nodes),
                weights={
                    name: data[f.begin : f.end] if copied else _there(data, f, path.name)
                    for f in inside
                    if f.number == _INITIALIZER
                    for name in _strings(data, f, _TENSOR_NAME)
                },
                inputs=frozenset(name for f in inside if f.number == _INPUT for name in _strings(data, f, 1)),
            )
        except Damaged:
            raise ModelError(f"{path} is cut short; copy or export it again") from None


def _there(data: mmap, tensor: Field, file: str) -> bytes:
    """A TensorProto that has its bytes, where they are many, in ``file``, at the place where they are in ``data``."""
    inside = list(fields(data, tensor.begin, tensor.end))
    raw = [f for f in inside if f.number == _RAW and f.wire == BYTES]
    if len(raw) != 1 or raw[0].end - raw[0].begin < _LARGE:
        return data[tensor.begin : tensor.end]
    place = {"location": file, "offset": str(raw[0].begin), "length": str(raw[0].end - raw[0].begin)}
    entries = (bytes_field(_EXTERNAL, text_field(1, key) + text_field(2, value)) for key, value in place.items())
    rest = (_again(data, f) for f in inside if f is not raw[0])
    return b"".join([*rest, *entries, number_field(_LOCATION, _IN_FILE)])


def _between(
    ends: Sequence[tuple[list[str], list[str]]], reads: Sequence[str], gives: Sequence[str]
) -> tuple[list[bool], set[str]]:
    """Which nodes, by their inputs and outputs, lead from ``reads`` to ``gives``, and what else they need."""
    needed, kept = set(gives), [False] * len(ends)
    for index in range(len(ends) - 1, -1, -1):  # nodes are in the order in which they run
        inputs, outputs = ends[index]
        if needed & (set(outputs) - set(reads)):
            kept[index] = True
            needed |= set(inputs) - {""}
    made = {name for keep, (_, outputs) in zip(kept, ends, strict=True) if keep for name in outputs}
    return kept, needed - made - set(reads)


def _ends(data: bytes | mmap, node: Field) -> tuple[list[str], list[str]]:
    """Names of a node's inputs and outputs."""
    return list(_strings(data, node, _NODE_INPUT)), list(_strings(data, node, _NODE_OUTPUT))


def _strings(data: bytes | mmap, message: Field, number: int) -> Iterator[str]:
    for field in fields(data, message.begin, message.end):
        if field.number == number and field.wire == BYTES:
            yield bytes(data[field.begin : field.end]).decode("utf-8", "replace")


def _float_tensor(name: str) -> bytes:
    """A ValueInfoProto of float32 without a shape."""
    return text_field(1, name) + bytes_field(2, bytes_field(1, number_field(1, 1)))


def _again(data: bytes | mmap, field: Field) -> bytes:
    """A field as it was read."""
    if field.wire == BYTES:
        return bytes_field(field.number, data[field.begin : field.end])
    return number_field(field.number, field.value)
