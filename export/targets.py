"""Which nodes of a graph an accelerator takes, and in how many pieces, told from the graph alone, on any machine.

Every piece costs a way to the device and back, and what is left out runs on the CPU in between. What counts is the
graph that the session makes: its free dimensions fixed and its constants folded.

Sources: the operators and their notes in ONNX Runtime's page of its CoreML execution provider; that provider's
``IsInputSupported`` for the longest dimension, and ``CreateSupportedPartitionNodeGroups`` for how nodes are grouped.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import numpy_helper, shape_inference

from ortsep.base.errors import ModelError
from ortsep.base.whole import scratch
from ortsep.engine.sizes import sizes_of
from ortsep.export.graph.builder import MICROSOFT
from ortsep.graphs.model import Model
from ortsep.graphs.session import KEPT_APART
from ortsep.models.spec import ModelSpec

LONGEST = 16384
"""CoreML's largest dimension of a tensor that a node reads."""
_ML_PROGRAM = """
Add And ArgMax AveragePool Cast Ceil Clip Concat Conv ConvTranspose Cos DepthToSpace Div Elu Erf Exp GatherND Gelu Gemm
GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid Identity InstanceNormalization
LayerNormalization LeakyRelu MatMul Max MaxPool Mul PRelu Pow Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape
Resize Round Shape Sigmoid Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where
"""
_NEURAL_NETWORK = """
Add ArgMax AveragePool BatchNormalization Cast Clip Concat Conv DepthToSpace Div Flatten GlobalAveragePool GlobalMaxPool
Gather Gemm LRN LeakyRelu MatMul MaxPool Mul PRelu Pad Pow Reciprocal ReduceSum Relu Reshape Resize Shape Sigmoid Slice
Softmax Split Sqrt Squeeze Sub Tanh Transpose
"""
TARGETS = {
    "coreml": frozenset(_ML_PROGRAM.split()),
    "coreml-neuralnetwork": frozenset(_NEURAL_NETWORK.split()),
}
"""Operators of the ONNX standard that a target knows. ortsep asks CoreML for ML programs."""
WEB = "web"
"""onnxruntime-web, whose wasm has all operators of the CPU provider: ortsep's graphs run in it whole (tests/graphs)."""
WEB_LONGEST = 2**31
"""Bytes of a file: what a wasm of 32 bits, which has 4 GB for file, weights and tensors together, can be expected to
load."""
CONSTANT = {
    "Conv": (2,),
    "ConvTranspose": (1, 2),
    "Gemm": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "GatherND": (1,),
    "Reshape": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
"""Inputs that have to be constants, where they are given."""
Shapes = Mapping[str, tuple[int, ...] | None]


@dataclass(frozen=True)
class Fit:
    """How a graph fits a target: its nodes, those that the target takes, in how many pieces, and what keeps the others
    out, by number of nodes."""

    target: str
    nodes: int
    taken: int
    pieces: int
    reasons: tuple[tuple[str, int], ...]
    size_mb: float | None = None
    """Of the file, where it has to be sent."""

    @property
    def share(self) -> float:
        return self.taken / self.nodes if self.nodes else 0.0


def free_sizes(spec: ModelSpec, model: onnx.ModelProto) -> dict[str, int]:
    """What a session for one block or chunk at a time makes of a graph's free dimensions, by their names.

    Raises ModelError for one that the spec says nothing of.
    """
    sizes = {}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.dim_param:
                continue
            known = sizes_of(spec, value.name)
            if axis not in known:
                raise ModelError(
                    f"{value.name} is free in axis {axis}, of which the spec says nothing; export it again, or make "
                    "ortsep's own file of it: ortsep adopt --rewrite"
                )
            sizes[dim.dim_param] = known[axis]
    return sizes


def as_loaded(path: Path, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """The graph of a file as a session makes it for CoreML: ``sizes`` fixed, constants folded, shapes known."""
    with scratch("ortsep-target") as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folder / "loaded.onnx")
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        ort.InferenceSession(str(path), options, ["CPUExecutionProvider"], disabled_optimizers=KEPT_APART)
        made = onnx.load(str(folder / "loaded.onnx"))
    return shape_inference.infer_shapes(made, data_prop=True)


def fit(model: onnx.ModelProto, target: str) -> Fit:
    """How a graph whose shapes are known fits a target."""
    shapes, constants = shapes_of(model), {tensor.name for tensor in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    reasons = [_reason(node, TARGETS[target], shapes, constants) for node in nodes]
    counted = Counter(reason for reason in reasons if reason)
    return Fit(
        target, len(nodes), reasons.count(""), pieces(nodes, [not r for r in reasons]), tuple(counted.most_common())
    )


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...] | None]:
    """Every tensor's shape; None where a dimension is free. Tensors of which nothing is known are missing."""
    found: dict[str, tuple[int, ...] | None] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            continue
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        found[value.name] = None if -1 in dims else tuple(dims)
    for node in model.graph.node:
        if node.op_type == "Constant":
            array = next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
            found[node.output[0]] = () if array is None else array.shape
    return found


def _reason(node: onnx.NodeProto, known: frozenset[str], shapes: Shapes, constants: set[str]) -> str:
    """Why a target of the operators ``known`` leaves a node to the CPU; empty where it takes it."""
    if node.domain not in ("", "ai.onnx"):
        return f"{node.domain}.{node.op_type} is no operator of the target"
    if node.op_type not in known:
        return f"{node.op_type} is no operator of the target"
    for name in filter(None, node.input):
        shape = shapes.get(name)
        if shape is None:
            return f"{node.op_type} reads a tensor whose shape is not fixed"
        if max(shape, default=0) > LONGEST:
            return f"{node.op_type} reads a dimension above {LONGEST}"
        if math.prod(shape) == 0:
            return f"{node.op_type} reads a tensor of nothing"
    rank = len(shapes.get(node.input[0]) or ()) if node.input else 0
    if node.op_type in ("Conv", "ConvTranspose") and rank > 4:
        return f"{node.op_type} in three dimensions"
    if rank > 5:
        return f"{node.op_type} of rank {rank}"
    lacking = [k for k in CONSTANT.get(node.op_type, ()) if len(node.input) > k and node.input[k]]
    if any(node.input[k] not in constants for k in lacking):
        return f"{node.op_type} with an input that is not constant"
    return ""


def pieces(nodes: list[onnx.NodeProto], taken: list[bool]) -> int:
    """How many groups the taken nodes make, each as large as what it reads allows: a group goes on while any taken node
    has all it reads, and ends when only others have."""
    makers = {name: k for k, node in enumerate(nodes) for name in node.output if name}
    waits = [{makers[name] for name in node.input if name in makers} for node in nodes]
    readers: dict[int, list[int]] = {}
    for k, before in enumerate(waits):
        for each in before:
            readers.setdefault(each, []).append(k)
    left = [len(before) for before in waits]
    ready = {True: [k for k, n in enumerate(left) if not n and taken[k]]}
    ready[False] = [k for k, n in enumerate(left) if not n and not taken[k]]
    count, here = 0, False
    while ready[True] or ready[False]:
        here = here if ready[here] else not here
        count += here
        while ready[here]:
            for k in readers.get(ready[here].pop(), ()):
                left[k] -= 1
                if not left[k]:
                    ready[taken[k]].append(k)
        here = not here
    return count


def fits(model: Model) -> dict[str, list[Fit]]:
    """How each graph of a model fits each target, its free dimensions fixed at one block or chunk, as a session for
    CoreML fixes them. A graph that runs in parts is one for browsers alone: the parts have no shapes."""
    found = {}
    for member in model.members:
        path = model.file(member)
        loaded = as_loaded(path, free_sizes(model.spec, onnx.load(str(path), load_external_data=False)))
        each = [fit(loaded, target) for target in TARGETS]
        if model.spec.parts:
            each = [replace(one, taken=0, pieces=0, reasons=((_PARTS.format(one), one.nodes),)) for one in each]
        found[member.file] = [*each, web_fit(loaded, path.stat().st_size)]
    return found


_PARTS = (
    "it runs in parts, on the CPU alone, in constant memory; whole and with fixed frames {0.taken} of {0.nodes} nodes "
    "would be taken in {0.pieces} pieces"
)


def web_fit(model: onnx.ModelProto, size: int) -> Fit:
    """How a graph in a file of ``size`` bytes fits a browser."""
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    foreign = Counter(node.domain for node in nodes if node.domain not in ("", "ai.onnx", MICROSOFT))
    reasons = [(f"{domain} has operators of its own", count) for domain, count in foreign.most_common()]
    taken = 0 if reasons or size >= WEB_LONGEST else len(nodes)
    if size >= WEB_LONGEST:
        reasons.append((f"the file has {size / 1e6:.0f} MB, more than a browser loads", len(nodes)))
    return Fit(WEB, len(nodes), taken, int(taken > 0), tuple(reasons), round(size / 1e6, 1))


def describe(fits: Mapping[str, list[Fit]]) -> list[str]:
    """The same in words, a line for each graph and target, and below it what is left to the CPU."""
    lines = []
    for file, each in fits.items():
        for found in each:
            pieces_ = f"{found.pieces} piece{'s' * (found.pieces != 1)}"
            size = f", {found.size_mb:.1f} MB to be sent" if found.size_mb is not None else ""
            lines.append(f"{file}: {found.target} takes {found.taken} of {found.nodes} nodes in {pieces_}{size}")
            lines += [f"  {count} x {reason}" for reason, count in found.reasons]
    return lines
