"""ONNX files: the spec in their metadata, and writing one whole.

What a graph is made of stands in ``builder``.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from ortsep.base.errors import OutputError
from ortsep.base.whole import whole_file
from ortsep.export.graph.builder import without_initializers
from ortsep.models.spec import METADATA_KEY, ModelSpec, from_json

_LARGEST = (1 << 31) - (16 << 20)
"""Bytes of initializers in one file: protobuf's 2 GB less ample room for the rest."""


def attach_spec(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """Write ``spec`` into the model's metadata, in place of one that may be there. Returns the model."""
    kept = [(p.key, p.value) for p in model.metadata_props if p.key != METADATA_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (METADATA_KEY, spec.to_json())]:
        model.metadata_props.add(key=key, value=value)
    return model


def attached_spec(model: onnx.ModelProto) -> ModelSpec | None:
    """The spec in the model's metadata, where there is one. Raises ModelError for one that can't be read."""
    text = next((p.value for p in model.metadata_props if p.key == METADATA_KEY), None)
    return None if text is None else from_json(text, model.graph.name)


def save_model(model: onnx.ModelProto, path: Path) -> int:
    """Write the model to one file, which appears only when complete. Returns its size in bytes.

    Raises OutputError where the file can't be written or would pass protobuf's 2 GB.
    """
    if sum(tensor.ByteSize() for tensor in model.graph.initializer) >= _LARGEST:
        raise OutputError(f"{path.name} would be over ONNX's limit of 2 GB for one file; export fewer stems")
    with whole_file(path, "choose another folder with --output") as partial, partial.open("wb") as file:
        for piece in _serialised(model):
            file.write(piece)
        return file.tell()


def _serialised(model: onnx.ModelProto) -> Iterator[bytes]:
    """The model's bytes, an initializer at a time: no second copy of them all, and room for Ctrl-C in between.

    Field numbers of onnx/onnx.proto: ModelProto.graph is 7, GraphProto.initializer 5.
    """
    bare, graph = without_initializers(model)
    rest = graph.SerializeToString(deterministic=True)
    heads = [_head(5, tensor.ByteSize()) for tensor in model.graph.initializer]
    size = len(rest) + sum(
        len(head) + tensor.ByteSize() for head, tensor in zip(heads, model.graph.initializer, strict=True)
    )
    yield bare.SerializeToString(deterministic=True) + _head(7, size) + rest
    for head, tensor in zip(heads, model.graph.initializer, strict=True):
        yield head + tensor.SerializeToString(deterministic=True)


def _head(field: int, length: int) -> bytes:
    """What precedes ``length`` bytes of a protobuf message's ``field``: its tag and the length as varints."""
    out = bytearray([field << 3 | 2])
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length])


def parameter_count(model: onnx.ModelProto) -> int:
    """Number of float values stored in the graph's initializers."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type in kinds)
