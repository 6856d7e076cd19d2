"""A foreign graph with ortsep's tensors: other names, axes in our order, the stems that count on one axis."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from ortsep.base.errors import ModelError
from ortsep.graphs.foreign import our_axes
from ortsep.models.axes import measure
from ortsep.models.spec import ModelSpec, Tensor

PREFIX = "theirs/"
"""Before every name of the given graph, so that none meets ours."""


class _Glue:
    """Nodes between our tensors and theirs."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"ours/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"ours/{len(self.nodes)}", **attributes))
        return name

    def ints(self, values: Sequence[int]) -> str:
        name = f"ours/const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def rearranged(self, x: str, source: str, target: str, sizes: Mapping[str, int]) -> str:
        """As ``graphs.layout.rearranged``; the batch may be free."""
        if source == target:
            return x
        atoms, wanted = source.replace(" ", ""), target.replace(" ", "")
        kept = [letter for letter in atoms if letter in wanted]
        x = self.op("Reshape", x, self.ints([_size(letter, sizes) for letter in kept]))
        x = self.op("Transpose", x, perm=[kept.index(letter) for letter in wanted if letter in kept])
        parts = [[_size(letter, sizes) for letter in part if letter in kept] for part in target.split()]
        return self.op("Reshape", x, self.ints([-1 if -1 in part else math.prod(part) for part in parts]))


def _size(letter: str, sizes: Mapping[str, int]) -> int:
    if letter == "b":
        return -1
    if letter not in sizes:
        raise ModelError(f"its axis {letter} has no fixed size, so the graph can't be written anew; adopt it as it is")
    return sizes[letter]


def with_our_tensors(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """The graph with our tensors in place of those that ``spec.tensors`` maps; the given one is not changed.

    Raises ModelError where a tensor must be reshaped and has no fixed size.
    """
    made = compose.add_prefix(model, PREFIX)
    given = {value.name.removeprefix(PREFIX): value for value in (*made.graph.input, *made.graph.output)}
    names = {value.name.removeprefix(PREFIX) for value in made.graph.input}
    sizes = _sizes(spec, given)
    glue = _Glue()
    inputs, outputs = [], []
    for tensor in (t for t in spec.tensors.names if t.theirs in names):
        ours = our_axes(tensor.ours, spec)
        x = glue.rearranged(tensor.ours, ours, tensor.axes or ours, sizes)
        glue.op("Cast", x, name=PREFIX + tensor.theirs, to=given[tensor.theirs].type.tensor_type.elem_type)
        inputs.append(_info(tensor.ours, ours, sizes))
    before = len(glue.nodes)
    ends = [t for t in spec.tensors.names if t.theirs not in names]
    for name in dict.fromkeys(t.ours for t in ends):
        ours = our_axes(name, spec)
        parts = [_end(glue, t, ours, sizes) for t in ends if t.ours == name]
        glue.op("Concat", *parts, name=name, axis=1)
        outputs.append(_info(name, ours, {letter: size for letter, size in sizes.items() if letter != "s"}))
    graph = made.graph
    weights = {tensor.name for tensor in graph.initializer}
    others = [value for value in graph.input if value.name in weights]
    nodes = [*glue.nodes[:before], *graph.node, *glue.nodes[before:]]
    for field, values in (("input", [*inputs, *others]), ("output", outputs), ("node", nodes)):
        kept = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(kept)
    graph.initializer.extend(glue.constants)
    del made.metadata_props[:]
    return made


def _end(glue: _Glue, tensor: Tensor, ours: str, sizes: Mapping[str, int]) -> str:
    x = glue.op("Cast", PREFIX + tensor.theirs, to=TensorProto.FLOAT)
    x = glue.rearranged(x, tensor.axes or ours, ours, sizes)
    return glue.op("Gather", x, glue.ints(tensor.rows), axis=1) if tensor.rows else x


def _sizes(spec: ModelSpec, given: Mapping[str, onnx.ValueInfoProto]) -> dict[str, int]:
    """The sizes of all axes, as far as any tensor fixes them."""
    sizes: dict[str, int] = {"c": spec.channels, "r": 2}
    for tensor in spec.tensors.names:
        shape = [d.dim_value or None for d in given[tensor.theirs].type.tensor_type.shape.dim]
        sizes = measure(tensor.axes or our_axes(tensor.ours, spec), shape, sizes) or sizes
    return sizes


def _info(name: str, axes: str, sizes: Mapping[str, int]) -> onnx.ValueInfoProto:
    shape: list[int | str] = []
    for part in axes.split():
        known = [sizes[letter] for letter in part if letter in sizes and letter != "b"]
        shape.append(math.prod(known) if len(known) == len(part) else part)
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
