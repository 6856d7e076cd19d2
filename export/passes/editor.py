"""Reading and rewriting an ONNX graph: what every pass works with.

A pass finds nodes, adds new ones, and points the users of an old value to a new one; what nothing uses any more goes
when the editor finishes. Values are names, as in ONNX. Values that a subgraph (If, Loop) uses are never replaced.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ortsep.base.arrays import Array
from ortsep.export.passes.inference import Shape, inferred

_CARRIED = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Concat", "Pad", "Expand"}
"""Operators that give what they are given, whatever its type."""


class Editor:
    """A graph under change. ``shape``, ``constant``, ``producer`` and ``users`` answer for any value."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.nodes = [_copied(node) for node in model.graph.node]
        self.outputs = [value.name for value in model.graph.output]
        given = {value.name for value in model.graph.input}
        self._stored = {t.name: t for t in model.graph.initializer if t.name not in given}
        self._values: dict[str, Array] = {}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._producer: dict[str, onnx.NodeProto] = {}
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._pinned: set[str] = set()
        self._names = {*given, *(t.name for t in model.graph.initializer), *self.outputs}
        for node in self.nodes:
            self._index(node)
        self._shapes, self._kinds = inferred(model)
        self._kinds |= {name: tensor.data_type for name, tensor in self._stored.items()}

    def _index(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            self._producer[name] = node
            self._names.add(name)
        for name in node.input:
            self._users[name].append(node)
        self._names.add(node.name)
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                self._pinned |= {name for inner in _all_nodes(graph) for name in inner.input}
                self._pinned |= {value.name for value in graph.output}

    # -- asking ---------------------------------------------------------------------------------------------------

    def find(self, *kinds: str) -> list[onnx.NodeProto]:
        """The nodes of these kinds (of the standard domain) that are there now, in their order."""
        return [node for node in self.nodes if node.op_type in kinds and node.domain in ("", "ai.onnx")]

    def producer(self, value: str, *kinds: str) -> onnx.NodeProto | None:
        """The node that makes ``value``, if it is of one of these kinds (any kind where none is given)."""
        node = self._producer.get(value)
        if node is None or (kinds and (node.op_type not in kinds or node.domain not in ("", "ai.onnx"))):
            return None
        return node

    def users(self, value: str) -> list[onnx.NodeProto]:
        return list(self._users[value])

    def only_user(self, value: str, *kinds: str) -> onnx.NodeProto | None:
        """The one node that uses ``value``, if nothing else does and it is of one of these kinds."""
        users = self._users[value]
        if len(users) != 1 or self.fixed(value) or list(users[0].input).count(value) != 1:
            return None
        node = users[0]
        return node if not kinds or (node.op_type in kinds and node.domain in ("", "ai.onnx")) else None

    def fixed(self, value: str) -> bool:
        """Whether the name must stay: a graph output, or used inside a subgraph."""
        return value in self.outputs or value in self._pinned

    def constant(self, value: str) -> Array | None:
        """The value of an initializer or Constant node, else None."""
        if value not in self._values:
            node = self._producer.get(value)
            if value in self._stored:
                self._values[value] = numpy_helper.to_array(self._stored[value])
            elif node is not None and node.op_type == "Constant" and (array := _constant(node)) is not None:
                self._values[value] = array
            else:
                return None
        return self._values[value]

    def ints(self, value: str) -> list[int] | None:
        """An integer constant as a flat list."""
        array = self.constant(value)
        return None if array is None or array.dtype.kind != "i" else [int(v) for v in array.reshape(-1)]

    def shape(self, value: str) -> Shape | None:
        """The inferred shape; None where even the rank is unknown, and for each dimension that is not a number."""
        return tuple(self._stored[value].dims) if value in self._stored else self._shapes.get(value)

    def static(self, value: str) -> tuple[int, ...] | None:
        """The shape, where all of it is known."""
        shape = self.shape(value)
        return None if shape is None or None in shape else tuple(d for d in shape if d is not None)

    def is_float(self, value: str) -> bool:
        """float32: the only type that the passes compute in."""
        return bool(self._kinds.get(value) == TensorProto.FLOAT)

    def float_input(self, node: onnx.NodeProto, rank: int | None = None) -> Array | None:
        """A binary node's constant float operand (None if it has none)."""
        for name in node.input:
            array = self.constant(name)
            if array is not None and array.dtype == np.float32 and (rank is None or array.ndim <= rank):
                return array
        return None

    def other(self, node: onnx.NodeProto) -> str:
        """A binary node's operand that is no constant."""
        return str(next((name for name in node.input if self.constant(name) is None), node.input[0]))

    def stored(self, value: str) -> onnx.TensorProto | None:
        """The initializer of this name, where there is one that is no input as well."""
        return self._stored.get(value)

    def initializers(self) -> list[str]:
        """The names of all initializers that are no inputs as well."""
        return list(self._stored)

    def needed(self) -> set[str]:
        """The values that an output or a subgraph needs."""
        return {name for node in self.in_order() for name in node.input} | set(self.outputs) | self._pinned

    # -- changing -------------------------------------------------------------------------------------------------

    def fresh(self, stem: str) -> str:
        name, number = stem, 0
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    def const(self, value: Any, dtype: npt.DTypeLike = np.float32) -> str:
        """Store a constant; equal ones of one pass are stored once."""
        array = np.asarray(value, dtype=dtype)
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._by_content:
            name = self.fresh("folded")
            self._stored[name] = numpy_helper.from_array(array, name)
            self._kinds[name] = self._stored[name].data_type
            self._by_content[key] = name
        return self._by_content[key]

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, float32 unless it only moves what is of another type."""
        name = self.fresh(f"{kind}_new")
        node = helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes)
        self.nodes.append(node)
        self._index(node)
        self._kinds[name] = self._kinds.get(inputs[0], 0) if kind in _CARRIED else TensorProto.FLOAT
        return name

    def copy(self, node: onnx.NodeProto, *inputs: str, **changes: Any) -> str:
        """Add a node like ``node`` with other inputs and attributes; of its outputs the first."""
        new = self.op(node.op_type, *inputs, domain=node.domain)
        self._kinds[new] = self._kinds.get(node.output[0], 0)
        made = self._producer[new]
        for attribute in node.attribute:
            if attribute.name not in changes:
                made.attribute.add().CopyFrom(attribute)
        made.attribute.extend(helper.make_attribute(key, value) for key, value in changes.items() if value is not None)
        return new

    def more_outputs(self, first: str, count: int) -> list[str]:
        """Give the node that makes ``first`` further outputs."""
        node = self._producer[first]
        names = [self.fresh(f"{first}_more") for _ in range(count)]
        node.output.extend(names)
        for name in names:
            self._producer[name] = node
        return names

    def reshape(self, x: str, shape: Any) -> str:
        return self.op("Reshape", x, self.const(list(shape), np.int64))

    def mean(self, x: str, *axes: int) -> str:
        """The mean over ``axes``, kept as ones, one at a time from the last: see ``norms``."""
        for axis in sorted(axes, reverse=True):
            if self.opset >= 18:
                x = self.op("ReduceMean", x, self.const([axis], np.int64), keepdims=1)
            else:
                x = self.op("ReduceMean", x, axes=[axis], keepdims=1)
        return x

    def record(self, value: str, shape: Shape) -> None:
        """Tell the shape of a new value to what else this pass does."""
        self._shapes[value] = shape

    def replace(self, old: str, new: str) -> None:
        """Point all users of ``old`` to ``new``. A graph output keeps its name."""
        if old in self.outputs:
            maker = self._producer[old]
            maker.output[list(maker.output).index(old)] = aside = self.fresh(f"{old}_before")
            self._producer[aside] = maker
            node = helper.make_node("Identity", [new], [old], name=self.fresh(f"{old}_out"))
            if new in self._producer and not self.fixed(new):
                node = self._producer[new]
                node.output[list(node.output).index(new)] = old
                for user in self._users.pop(new, []):
                    _rename(user, new, old)
                    self._users[old].append(user)
            else:
                self.nodes.append(node)
            self._producer[old] = node
            return
        for user in self._users.pop(old, []):
            _rename(user, old, new)
            self._users[new].append(user)

    def finish(self) -> onnx.ModelProto:
        """A new model: nodes that nothing needs gone, the others in an order in which they can run."""
        kept, used = self.in_order(), self.needed()
        made = onnx.ModelProto()
        for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
            setattr(made, field, getattr(self.model, field))
        for name in ("opset_import", "metadata_props", "functions"):
            getattr(made, name).extend(getattr(self.model, name))
        domains = {o.domain for o in made.opset_import}
        made.opset_import.extend(helper.make_opsetid(d, 1) for d in sorted({n.domain for n in kept} - domains - {""}))
        graph, was = made.graph, self.model.graph
        graph.name, graph.doc_string = was.name, was.doc_string
        graph.node.extend(kept)
        graph.input.extend(was.input)
        graph.output.extend(was.output)
        # What inference can't see behind an operator of another domain, an earlier pass knew.
        there = {name for node in kept for name in node.output if name not in self.outputs}
        known = ((name, shape) for name, shape in self._shapes.items() if name in there and self._kinds.get(name))
        graph.value_info.extend(helper.make_tensor_value_info(n, self._kinds[n], shape) for n, shape in known)
        inputs = {value.name for value in was.input}
        graph.initializer.extend(t for t in was.initializer if t.name in inputs)
        graph.initializer.extend(t for name, t in self._stored.items() if name in used)
        return made

    def in_order(self) -> list[onnx.NodeProto]:
        """The nodes that an output needs, in an order in which they can run."""
        place = {id(node): i for i, node in enumerate(self.nodes)}
        done: set[int] = set()
        order: list[onnx.NodeProto] = []
        pending = [(self._producer[name], False) for name in reversed(self.outputs) if name in self._producer]
        while pending:
            node, ready = pending.pop()
            if id(node) in done:
                continue
            if ready:
                done.add(id(node))
                order.append(node)
                continue
            pending.append((node, True))
            needs = [*node.input, *_captured(node)]
            before = [self._producer[n] for n in needs if n in self._producer and id(self._producer[n]) not in done]
            pending.extend((n, False) for n in sorted(before, key=lambda n: -place[id(n)]))
        return order


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _constant(node: onnx.NodeProto) -> Array | None:
    for name, kind in {"value_float": np.float32, "value_int": np.int64}.items():
        for key in (name, f"{name}s"):
            if (value := attribute(node, key)) is not None:
                return np.asarray(value, kind)
    value = attribute(node, "value")
    return None if value is None else numpy_helper.to_array(value)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    for i, name in enumerate(node.input):
        if name == old:
            node.input[i] = new


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute_ in node.attribute:
            for inner in [attribute_.g, *attribute_.graphs]:
                yield from _all_nodes(inner)


def _captured(node: onnx.NodeProto) -> set[str]:
    graphs = [graph for a in node.attribute for graph in [a.g, *a.graphs]]
    inside = {name for graph in graphs for inner in _all_nodes(graph) for name in inner.input}
    return inside | {value.name for graph in graphs for value in graph.output}
