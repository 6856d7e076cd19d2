"""Building ONNX graphs by hand: a thin layer over ``onnx.helper`` that every family uses.

A value is the name of a tensor, a plain ``str``. Parameters are float32 numpy arrays; equal constants are stored once.
Names are deterministic, so that exporting the same weights twice gives the same bytes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from ortsep.base.arrays import Array

OPSET = 20
"""The first with Gelu; ONNX Runtime 1.17 and later run it."""
IR_VERSION = 9
"""What opset 20 was released with; newer numbers are refused by older runtimes for no gain."""
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators (MultiHeadAttention and the like)."""

Dim = int | str


class Graph:
    """An ONNX graph under construction.

    ``scope`` sets a prefix for the names of nodes, for readable profiles. Shapes may hold names for free dimensions.
    """

    def __init__(self, name: str, opset: int = OPSET) -> None:
        self.name = name
        self.opset = opset
        self.prefix = ""
        self._nodes: list[onnx.NodeProto] = []
        self._casts: dict[str, onnx.NodeProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def scope(self, name: str) -> "Graph":
        """Name the nodes that follow ``name/...``. Returns the graph."""
        self.prefix = f"{name}/" if name else ""
        return self

    def input(self, name: str, shape: Sequence[Dim]) -> str:
        """Declare a float32 input."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[Dim]) -> None:
        """Declare ``value`` as the float32 output ``name``."""
        self.named(value, name)
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def named(self, value: str, name: str) -> str:
        """Call ``value`` ``name`` from now on, as who cuts the graph there knows it."""
        for node in all_nodes(self._nodes):
            for i, out in enumerate(node.output):
                if out == value:
                    node.output[i] = name
            for i, used in enumerate(node.input):
                if used == value:
                    node.input[i] = name
        return name

    def const(self, value: Any, dtype: npt.DTypeLike = np.float32) -> str:
        """Store a constant (float32 by default) and return its name."""
        array = np.ascontiguousarray(np.asarray(value), dtype=dtype)
        array = array.reshape(np.shape(value))
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._by_content:
            name = f"const_{len(self._constants)}"
            self._constants[name] = numpy_helper.from_array(array, name)
            self._by_content[key] = name
        return self._by_content[key]

    def half(self, value: Any) -> str:
        """Store a constant as float16 and widen it, once, whatever body reads it."""
        stored = self.const(value, np.float16)
        name = f"{stored}_wide"
        self._casts[name] = helper.make_node("Cast", [stored], [name], name=name, to=TensorProto.FLOAT)
        return name

    def ints(self, *values: int) -> str:
        """Store a 1-D int64 constant: a shape, axes, slice bounds."""
        return self.const(np.asarray(values), np.int64)

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output. An empty string stands for an optional input that is left out."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        self._count += 1
        name = f"{self.prefix}{kind}_{self._count}"
        outs = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), outs, name=name, domain=domain, **attributes))
        return outs

    def scan(self, x: str, body: Callable[[str], str]) -> str:
        """``body`` of each entry of x along its first axis, one after the other; the results stacked.

        What the body reads of the graph around it, its weights above all, is there once.
        """
        self._count += 1
        given, around, self._nodes = f"{self.prefix}each_{self._count}", self._nodes, []
        made, nodes = body(given), self._nodes
        self._nodes = around
        ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, None)] for name in (given, made)]
        return self.op("Scan", x, body=helper.make_graph(nodes, given, *ends), num_scan_inputs=1)

    # -- the operators that networks are made of ------------------------------------------------------------------

    def add(self, a: str, b: str) -> str:
        return self.op("Add", a, b)

    def sub(self, a: str, b: str) -> str:
        return self.op("Sub", a, b)

    def mul(self, a: str, b: str) -> str:
        return self.op("Mul", a, b)

    def div(self, a: str, b: str) -> str:
        return self.op("Div", a, b)

    def reshape(self, x: str, *shape: int) -> str:
        """A 0 keeps that dimension of the input, one -1 is inferred."""
        return self.op("Reshape", x, self.ints(*shape))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=list(perm))

    def concat(self, values: Sequence[str], axis: int) -> str:
        return self.op("Concat", *values, axis=axis)

    def mean(self, x: str, *axes: int) -> str:
        """The mean over ``axes``, kept as ones, one axis at a time from the last.

        ONNX Runtime's CPU kernels sum flat in float32: over [4, 2048, 1032] in one go the error is 8e-4, in steps 1e-7.
        """
        for axis in sorted(axes, reverse=True):
            x = self.op("ReduceMean", x, self.ints(axis), keepdims=1)
        return x

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        return self.op("Slice", x, self.ints(start), self.ints(stop), self.ints(axis), self.ints(step))

    def conv(  # pads as ONNX orders them: all begins, then all ends
        self,
        x: str,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        dilation: Sequence[int] | None = None,
        groups: int = 1,
    ) -> str:
        """Convolution; ``weight`` [out, in/groups, *kernel], any number of spatial dimensions."""
        return self._conv("Conv", x, weight, bias, stride, pads, dilation, groups)

    def conv_transpose(
        self,
        x: str,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        output_padding: Sequence[int] | None = None,
        groups: int = 1,
    ) -> str:
        """Transposed convolution; ``weight`` [in, out/groups, *kernel]."""
        more = {"output_padding": list(output_padding)} if output_padding else {}
        return self._conv("ConvTranspose", x, weight, bias, stride, pads, None, groups, **more)

    def _conv(
        self,
        kind: str,
        x: str,
        weight: Array,
        bias: Array | None,
        stride: Sequence[int] | None,
        pads: Sequence[int] | None,
        dilation: Sequence[int] | None,
        groups: int,
        **more: Any,
    ) -> str:
        rank = weight.ndim - 2
        inputs = [x, self.const(weight)] + ([] if bias is None else [self.const(bias)])
        return self.op(
            kind,
            *inputs,
            kernel_shape=list(weight.shape[2:]),
            strides=list(stride or [1] * rank),
            pads=list(pads or [0] * (2 * rank)),
            dilations=list(dilation or [1] * rank),
            group=groups,
            **more,
        )

    def linear(self, x: str, weight: Array, bias: Array | None = None) -> str:
        """x @ weight.T + bias over the last axis; ``weight`` [out, in] as torch stores it."""
        y = self.op("MatMul", x, self.const(np.ascontiguousarray(weight.T)))
        return y if bias is None else self.add(y, self.const(bias))

    def gelu(self, x: str) -> str:
        """The exact (erf) form, torch's default."""
        return self.op("Gelu", x)

    def positions(self, x: str, most: int) -> str:
        """0 to P - 1 for each sequence of x [N, P, ...], P up to ``most``: int64 [N, P].

        ONNX Runtime's RotaryEmbedding also takes one number, the first position, in place of these; OpenVINO 2026.4
        takes that for the position of every token, so that nothing is turned (43 dB of a Moises-Light).
        """
        table = self.op(
            "Slice", self.const(np.arange(most), np.int64), self.ints(0), self.op("Shape", x, start=1, end=2)
        )
        return self.op("Expand", table, self.op("Shape", x, start=0, end=2))

    def embed(self, model: onnx.ModelProto, feeds: Mapping[str, str], prefix: str) -> dict[str, str]:
        """Take another graph in, its inputs fed by values of this one; its outputs by their names.

        Names of the other get ``prefix``. It must be of the same opset.
        """
        made = compose.add_prefix(model, f"{prefix}/")
        for name, value in feeds.items():
            self._nodes.append(helper.make_node("Identity", [value], [f"{prefix}/{name}"], name=f"{prefix}/in/{name}"))
        self._nodes.extend(made.graph.node)
        self._constants.update({tensor.name: tensor for tensor in made.graph.initializer})
        return {value.name: f"{prefix}/{value.name}" for value in model.graph.output}

    def mask(self, logits: str) -> str:
        """The sigmoid of a mask, whose small values count: 1 / (1 + exp(-x)).

        ONNX Runtime's Sigmoid is wrong in its tail: by 5.6% at 1e-6, by 79% at 1e-8, and zero below. Powers and ratios
        of masks, as Wiener filters take them, show it. Times -1 and no Neg, which CoreML does not know.
        """
        return self.op("Reciprocal", self.add(self.op("Exp", self.mul(logits, self.const(-1.0))), self.const(1.0)))

    # -- the whole ------------------------------------------------------------------------------------------------

    def model(self, doc: str = "") -> onnx.ModelProto:
        """The checked model. Raises onnx.checker.ValidationError for a graph that is not well formed."""
        nodes = [*self._casts.values(), *self._nodes]
        used = {name for node in all_nodes(nodes) for name in node.input}
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        graph = helper.make_graph(nodes, self.name, self._inputs, self._outputs, [], doc)
        domains = sorted(foreign_domains(nodes))
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ortsep")
        for tensor in constants:  # one by one: helper would copy them all twice, and Ctrl-C wait for it
            model.graph.initializer.append(tensor)
        check_model(model)
        return model


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g.node)


def foreign_domains(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """The domains of operators that are not of the ONNX standard."""
    return {node.domain for node in all_nodes(nodes)} - {"", "ai.onnx"}


def check_model(model: onnx.ModelProto) -> None:
    """onnx's checker, on the model with inputs in place of its initializers: it would copy all their values, and Python
    can't be interrupted meanwhile. Raises onnx.checker.ValidationError."""
    bare, graph = without_initializers(model)
    for tensor in model.graph.initializer:
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    bare.graph.CopyFrom(graph)
    onnx.checker.check_model(bare)


def without_initializers(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    """The model without its graph, and the graph without its initializers."""
    graph = {field.name: value for field, value in model.graph.ListFields() if field.name != "initializer"}
    outer = {field.name: value for field, value in model.ListFields() if field.name != "graph"}
    return onnx.ModelProto(**outer), onnx.GraphProto(**graph)
