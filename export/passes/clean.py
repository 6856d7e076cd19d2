"""Passes that change nothing but the bookkeeping: constants, moves of data, activations written out."""

import math

import onnx
import onnxruntime as ort
from onnx import helper

from ortsep.base.arrays import Array
from ortsep.export.passes.contract import contract
from ortsep.export.passes.editor import Editor, attribute
from ortsep.export.passes.inference import Shape

_CHANCE = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_LARGEST = 1 << 21
"""Elements to which a folded constant may grow beyond its inputs: a table may, a broadcast weight may not."""
_MOVES = ("Reshape", "Unsqueeze", "Squeeze", "Flatten")


@contract(ensures=("constants only as initializers",))
def fold_constants(ed: Editor) -> int:
    """Compute once what depends on no input: position tables, transposed weights, shapes.

    ONNX Runtime does it too, at each start of a session and with all initializers twice in memory; and other passes
    see weights only where they are constants. Computed by ONNX Runtime itself, without its optimisations.
    """
    known: set[str] = set()
    folded: list[onnx.NodeProto] = []
    for node in ed.nodes:
        if node.op_type == "Constant" and node.domain == "":
            if ed.constant(node.output[0]) is not None:
                known.add(node.output[0])
                folded.append(node)
            continue
        inputs = [name for name in node.input if name]
        quiet = node.op_type not in _CHANCE and not any(a.g.node or a.graphs for a in node.attribute)
        if node.domain or not inputs or not quiet or any(ed.fixed(name) for name in node.output):
            continue
        if not all(name in known or ed.constant(name) is not None for name in inputs):
            continue
        sizes = [ed.static(name) for name in node.output]
        largest = max((math.prod(ed.static(name) or ()) for name in inputs), default=0)
        if all(s is not None and math.prod(s) <= max(_LARGEST, largest) for s in sizes):
            known.update(node.output)
            folded.append(node)
    inside = {id(node) for node in folded}
    wanted = [n for node in folded for n in node.output if any(id(u) not in inside for u in ed.users(n))]
    for name, value in _computed(ed, folded, wanted).items():
        ed.replace(name, ed.const(value, value.dtype))
    return len([n for n in folded if any(ed.users(o) or o in wanted for o in n.output)]) if wanted else 0


def _computed(ed: Editor, nodes: list[onnx.NodeProto], wanted: list[str]) -> dict[str, Array]:
    values = {name: value for name in wanted if (value := ed.constant(name)) is not None}
    names = [name for name in wanted if name not in values]
    if not names:
        return values
    stored = {n: tensor for node in nodes for n in node.input if (tensor := ed.stored(n)) is not None}
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    graph = helper.make_graph(nodes, "constants", [], outputs, list(stored.values()))
    model = helper.make_model(graph, opset_imports=ed.model.opset_import, ir_version=ed.model.ir_version)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return values | dict(zip(names, session.run(names, {}), strict=True))


@contract(ensures=("no node or initializer that nothing needs",))
def drop_dead(ed: Editor) -> int:
    """Remove nodes and initializers that no output needs."""
    return len(ed.nodes) - len(ed.in_order()) + len(set(ed.initializers()) - ed.needed())


def simplify_moves(ed: Editor) -> int:
    """Identity, Dropout, and chains of Reshape, Squeeze, Unsqueeze and Transpose as one node or none.

    Two transpositions are one of the composed permutation; one that moves only axes of size 1 is a Reshape, which costs
    nothing where ONNX Runtime would copy; of several Reshapes the last decides.
    """
    count = 0
    for node in ed.find("Identity", "Dropout"):
        value = node.input[0]
        kept = node.op_type == "Identity" or (len(node.input) < 3 and not any(ed.users(n) for n in node.output[1:]))
        if kept and not ed.fixed(node.output[0]) and ed.users(node.output[0]):
            ed.replace(node.output[0], value)
            count += 1
    for node in ed.find(*_MOVES, "Transpose"):
        if ed.users(node.output[0]) or ed.fixed(node.output[0]):
            count += _simplified(ed, node)
    return count


def _simplified(ed: Editor, node: onnx.NodeProto) -> int:
    x, out = node.input[0], node.output[0]
    shape, given = ed.shape(out), ed.shape(x)
    if shape is None or given is None:
        return 0
    source = ed.producer(x, *_MOVES, "Transpose")
    if node.op_type == "Transpose":
        perm = list(attribute(node, "perm", range(len(given))[::-1]))
        if source is not None and source.op_type == "Transpose":
            first = list(attribute(source, "perm", range(len(given))[::-1]))
            new = _transposed(ed, source.input[0], [first[p] for p in perm])
        elif perm == list(range(len(perm))):
            new = x
        elif (target := _target(shape)) and [p for p in perm if given[p] != 1] == sorted(
            p for p in perm if given[p] != 1
        ):
            new = ed.reshape(x, target)
        else:
            return 0
    elif shape == given and None not in shape:
        new = x
    elif (target := _target(shape)) and source is not None and source.op_type != "Transpose":
        new = ed.reshape(source.input[0], target)
    elif target and node.op_type != "Reshape":
        new = ed.reshape(x, target)
    else:
        return 0
    ed.record(new, shape)
    ed.replace(out, new)
    return 1


def _transposed(ed: Editor, x: str, perm: list[int]) -> str:
    return x if perm == list(range(len(perm))) else ed.op("Transpose", x, perm=perm)


def _target(shape: Shape) -> list[int]:
    """A shape for Reshape: at most one dimension left to infer; empty where that can't be said."""
    return [] if shape.count(None) > 1 or 0 in shape else [-1 if d is None else d for d in shape]


def drop_expand(ed: Editor) -> int:
    """Expand in front of arithmetic: Add(Expand(a), x) = Add(a, x) where x has the expanded shape already.

    Exporters write broadcasts out; a table of 100 kB becomes a tensor of 33 MB that is kept for the whole session.
    A product of an expanded value with a scalar is the expanded product.
    """
    count = 0
    for node in ed.find("Expand"):
        value, out = node.input[0], node.output[0]
        shape = ed.static(out)
        user = ed.only_user(out, "Mul", "Add", "Sub", "Div")
        if shape is None or user is None:
            continue
        scalar = ed.float_input(user)
        if scalar is not None and scalar.size == 1:
            scaled = ed.copy(user, *(value if name == out else name for name in user.input))
            nxt = ed.only_user(user.output[0], "Mul", "Add", "Sub", "Div")
            if nxt is None or not _covered(ed, nxt, user.output[0], shape):
                continue
            ed.replace(nxt.output[0], ed.copy(nxt, *(scaled if n == user.output[0] else n for n in nxt.input)))
            count += 1
        elif _covered(ed, user, out, shape):
            ed.replace(user.output[0], ed.copy(user, *(value if n == out else n for n in user.input)))
            count += 1
    return count


def _covered(ed: Editor, node: onnx.NodeProto, value: str, shape: tuple[int, ...]) -> bool:
    """Whether the operand other than ``value`` has the result's whole shape by itself."""
    others = [name for name in node.input if name != value]
    return len(others) == 1 and ed.static(others[0]) == shape


def fuse_gelu(ed: Editor) -> int:
    """x * 0.5 * (1 + erf(x / sqrt 2)), in any order of its products, as one Gelu (Hendrycks and Gimpel 2016).

    One pass over memory in place of five. Gelu is in the standard from opset 20; in older files it stays with ONNX
    Runtime, which knows the pattern too.
    """
    count = 0
    for erf in ed.find("Erf") if ed.opset >= 20 else []:
        inner = ed.producer(erf.input[0], "Div", "Mul")
        outer = ed.only_user(erf.output[0], "Add")
        if inner is None or outer is None:
            continue
        root, one = ed.float_input(inner), ed.float_input(outer)
        if root is None or one is None or root.size != 1 or one.size != 1 or float(one.item()) != 1.0:
            continue
        wanted = math.sqrt(2) if inner.op_type == "Div" else math.sqrt(0.5)
        upside_down = inner.op_type == "Div" and ed.constant(inner.input[1]) is None
        if abs(float(root.item()) / wanted - 1) > 1e-5 or upside_down:
            continue
        x, last = ed.other(inner), _gelu_end(ed, outer, ed.other(inner))
        if last is not None:
            ed.replace(last.output[0], ed.op("Gelu", x))
            count += 1
    return count


def _gelu_end(ed: Editor, outer: onnx.NodeProto, x: str) -> onnx.NodeProto | None:
    """The last product of x, 0.5 and the sum that ``outer`` makes."""

    def half(node: onnx.NodeProto) -> bool:
        value = ed.float_input(node)
        return value is not None and value.size == 1 and float(value.item()) == 0.5

    first = ed.only_user(outer.output[0], "Mul")
    if first is None:
        return None
    operand = next(name for name in first.input if name != outer.output[0])
    scaled = ed.producer(operand, "Mul")
    if scaled is not None and half(scaled) and ed.other(scaled) == x:
        return first
    second = ed.only_user(first.output[0], "Mul")
    if second is None:
        return None
    if half(first):
        return second if x in second.input else None
    return second if operand == x and half(second) else None
