"""Stretches of a graph that run in another layout than what stands around them, brought to the outer layout.

Between a move of the axes and its inverse, operators that work on each element, or along named axes, can as well run
on the outer layout, with their axes renamed; then both moves are gone. Two moves are known: a transposition, and the
fold of rows into the batch by which exporters write a 1-D convolution on every row of a spectrogram,
[B, C, F, T] -> [B, F, C, T] -> [B F, C, T], which becomes a 2-D convolution of kernel (1, k).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx

from ortsep.base.arrays import Array
from ortsep.export.passes.editor import Editor, attribute

_UNARY = {"Gelu", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Erf", "Elu"}
_BINARY = {"Add", "Sub", "Mul", "Div"}
_AXIS = {"Split", "Concat"}

Leaves = Callable[[onnx.NodeProto], str | None]
"""Says of a node behind the stretch which outer value it gives; None for one that is inside."""


@dataclass(frozen=True)
class Layout:
    """Inner axis i is the outer axis ``axes[i]``; ``rows`` are outer axes that lie in the inner batch as well."""

    axes: tuple[int, ...]
    rows: tuple[int, ...]
    outer: tuple[int, ...]
    """The outer shape at the entry."""

    @property
    def rank(self) -> int:
        return len(self.outer)

    def constant(self, value: Array) -> Array | None:
        """A constant of the inner layout in the outer one; None where it differs from row to row."""
        inner = (1,) * (len(self.axes) - value.ndim) + value.shape
        if value.ndim > len(self.axes) or (self.rows and inner[0] != 1):
            return None
        shape = [1] * self.rank
        order = sorted(range(len(inner)), key=lambda i: self.axes[i])
        for axis, size in zip(self.axes, inner, strict=True):
            shape[axis] = size
        return value.reshape(inner).transpose(order).reshape(shape)


def unfold_rows(ed: Editor) -> int:
    """Convolutions on rows folded into the batch as 2-D convolutions of kernel (1, k): two copies less a stretch."""
    count = 0
    for node in ed.find("Reshape"):
        swap = ed.producer(node.input[0], "Transpose")
        inner, moved = ed.static(node.output[0]), ed.static(node.input[0])
        if swap is None or inner is None or moved is None or attribute(swap, "perm") != [0, 2, 1, 3]:
            continue
        if inner != (moved[0] * moved[1], *moved[2:]):
            continue
        b, f, c, t = moved
        layout = Layout((0, 1, 3), (2,), (b, c, f, t))

        def leaves(user: onnx.NodeProto, moved: tuple[int, ...] = moved) -> str | None:
            back = ed.only_user(user.output[0], "Transpose") if user.op_type == "Reshape" else None
            right = back is not None and attribute(back, "perm") == [0, 2, 1, 3]
            same = right and ed.static(user.output[0]) is not None and len(ed.static(user.output[0]) or ()) == 4
            rows = (ed.static(user.output[0]) or ())[:2] == moved[:2]
            return str(back.output[0]) if back is not None and same and rows else None

        count += _moved(ed, node.output[0], swap.input[0], layout, leaves)
    return count


def cancel_transposes(ed: Editor) -> int:
    """A transposition and its inverse around a stretch of element-wise operators and reductions: neither is needed."""
    count = 0
    for node in ed.find("Transpose"):
        shape = ed.static(node.input[0])
        perm = tuple(attribute(node, "perm", ()))
        if shape is None or len(perm) != len(shape):
            continue
        inverse = [perm.index(i) for i in range(len(perm))]

        def leaves(user: onnx.NodeProto, inverse: list[int] = inverse) -> str | None:
            back = user.op_type == "Transpose" and attribute(user, "perm") == inverse
            return str(user.output[0]) if back else None

        count += _moved(ed, node.output[0], node.input[0], Layout(perm, (), shape), leaves)
    return count


def _moved(ed: Editor, inner: str, outer: str, layout: Layout, leaves: Leaves) -> int:
    """Rewrite the stretch from the value ``inner`` to the ends that ``leaves`` finds, on ``outer``; gives its size."""
    members = _stretch(ed, inner, layout, leaves)
    if not members:
        return 0
    known = {inner: outer}
    for node in members:
        end = leaves(node)
        if end is not None:
            ed.replace(end, known[node.input[0]])
            continue
        for old, new in zip(node.output, _rewritten(ed, node, layout, known), strict=True):
            known[old] = new
    return len(members)


def _stretch(ed: Editor, start: str, layout: Layout, leaves: Leaves) -> list[onnx.NodeProto]:
    """The nodes behind ``start`` in the order in which they run, ends included; empty where one doesn't fit."""
    inside, found, waiting = {start}, {}, [start]
    while waiting:
        value = waiting.pop()
        if ed.fixed(value) or not ed.users(value):
            return []
        for user in ed.users(value):
            if id(user) in found:
                continue
            found[id(user)] = user
            if leaves(user) is None:
                if not _fits(ed, user, layout):
                    return []
                inside.update(user.output)
                waiting.extend(user.output)
    for node in found.values():
        if leaves(node) is None and not all(_given(ed, node, i, name, inside, layout) for i, name in _inputs(node)):
            return []
    ended = any(leaves(node) is not None for node in found.values())
    return [node for node in ed.in_order() if id(node) in found] if ended else []


def _inputs(node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
    yield from ((i, name) for i, name in enumerate(node.input) if name)


def _given(ed: Editor, node: onnx.NodeProto, index: int, name: str, inside: set[str], layout: Layout) -> bool:
    if name in inside:
        return True
    value = ed.constant(name)
    if value is None:
        return False
    return node.op_type not in _BINARY | {"Concat"} or layout.constant(value) is not None


def _fits(ed: Editor, node: onnx.NodeProto, layout: Layout) -> bool:
    """Whether the operator means the same on the outer layout with its axes renamed."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _UNARY:
        return True
    shape = ed.shape(node.output[0])
    if shape is None or len(shape) != len(layout.axes):
        return False
    if node.op_type in _BINARY:
        ranks = {len(ed.shape(name) or ()) for _, name in _inputs(node) if ed.constant(name) is None}
        return ranks == {len(layout.axes)}
    if node.op_type in _AXIS:
        return not layout.rows or attribute(node, "axis", 0) % len(shape) != 0
    if node.op_type == "ReduceMean":
        axes = _axes(ed, node)
        batch = layout.rows and any(a % len(shape) == 0 for a in axes)
        return bool(axes and not batch and attribute(node, "keepdims", 1))
    if node.op_type == "Conv":
        return bool(layout.rows) and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    return False


def _axes(ed: Editor, node: onnx.NodeProto) -> list[int]:
    return list((ed.ints(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")) or [])


def _rewritten(ed: Editor, node: onnx.NodeProto, layout: Layout, known: dict[str, str]) -> list[str]:
    def given(name: str) -> str:
        if name in known:
            return known[name]
        value = ed.constant(name)
        moved = layout.constant(value) if value is not None else None
        return name if value is None or moved is None else ed.const(moved, value.dtype)

    rank = len(layout.axes)
    if node.op_type == "Conv":
        return [_row_conv(ed, node, known[node.input[0]])]
    if node.op_type == "ReduceMean":
        axes = [layout.axes[a % rank] for a in _axes(ed, node)]
        if len(node.input) > 1:
            return [ed.copy(node, known[node.input[0]], ed.const(axes, "int64"))]
        return [ed.copy(node, known[node.input[0]], axes=axes)]
    if node.op_type == "Concat":
        return [ed.copy(node, *map(given, node.input), axis=layout.axes[attribute(node, "axis") % rank])]
    if node.op_type == "Split":
        axis = layout.axes[attribute(node, "axis", 0) % rank]
        first = ed.copy(node, known[node.input[0]], *node.input[1:], axis=axis)
        return [first, *ed.more_outputs(first, len(node.output) - 1)]
    return [ed.copy(node, *map(given, node.input))]


def _row_conv(ed: Editor, node: onnx.NodeProto, x: str) -> str:
    weight = ed.constant(node.input[1])
    assert weight is not None
    changes = {
        "kernel_shape": [1, *weight.shape[2:]],
        "strides": [1, *attribute(node, "strides", [1])],
        "dilations": [1, *attribute(node, "dilations", [1])],
        "pads": [v for pair in attribute(node, "pads", [0, 0]) for v in (0, pair)],
    }
    return ed.copy(node, x, ed.const(weight[:, :, None]), *node.input[2:], **changes)
