"""The graphs of UVR's .onnx files in float64: the few operators that torch's exporter makes of a ConvTDFNet.

ONNX Runtime's CPU convolutions are float32 only, so that the reference of a validation is computed here, by torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper

from ortsep.base.errors import WeightsError

Values = list[torch.Tensor]
F = torch.nn.functional


def _pads(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """One padding an axis; only equal ones at both ends occur."""
    pads = attributes.get("pads", [0, 0, 0, 0])
    half = len(pads) // 2
    if list(pads[:half]) != list(pads[half:]):
        raise WeightsError(f"a convolution with the uneven padding {pads} is not MDX-Net's")
    return tuple(pads[:half])


def _conv(x: Values, a: Mapping[str, Any]) -> torch.Tensor:
    bias = x[2] if len(x) > 2 else None
    return F.conv2d(x[0], x[1], bias, a.get("strides", 1), _pads(a), a.get("dilations", 1), a.get("group", 1))


def _conv_transpose(x: Values, a: Mapping[str, Any]) -> torch.Tensor:
    bias = x[2] if len(x) > 2 else None
    return F.conv_transpose2d(x[0], x[1], bias, a.get("strides", 1), _pads(a), 0, a.get("group", 1))


def _batch_norm(x: Values, a: Mapping[str, Any]) -> torch.Tensor:
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=a.get("epsilon", 1e-5))


def _reshape(x: Values, _: Mapping[str, Any]) -> torch.Tensor:
    sizes = [int(s) for s in x[1].tolist()]
    return x[0].reshape([x[0].shape[i] if s == 0 else s for i, s in enumerate(sizes)])


def _concat(x: Values, a: Mapping[str, Any]) -> torch.Tensor:
    return torch.cat(x, a["axis"])


OPERATORS: dict[str, Callable[[Values, Mapping[str, Any]], torch.Tensor]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": lambda x, a: F.instance_norm(x[0], weight=x[1], bias=x[2], eps=a.get("epsilon", 1e-5)),
    "Relu": lambda x, _: torch.relu(x[0]),
    "MatMul": lambda x, _: x[0] @ x[1],
    "Add": lambda x, _: x[0] + x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Reshape": _reshape,
    "Concat": _concat,
    "Identity": lambda x, _: x[0],
    "Cast": lambda x, _: x[0],
    "Shape": lambda x, _: torch.tensor(x[0].shape),
}


def run_double(model: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    """The graph's output for its one input, float64. Raises WeightsError for an operator that no MDX-Net has."""
    graph = model.graph
    values = {t.name: _tensor(t) for t in graph.initializer}
    (name,) = [value.name for value in graph.input if value.name not in values]
    values[name] = x.double()
    uses = [used for node in graph.node for used in node.input]
    left = {used: uses.count(used) for used in set(uses)}
    with torch.no_grad():
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                values[node.output[0]] = _tensor(attributes["value"])
                continue
            run = OPERATORS.get(node.op_type)
            if run is None:
                raise WeightsError(f"{graph.name} has the operator {node.op_type}, which no MDX-Net has")
            values[node.output[0]] = run([values[used] for used in node.input], attributes)
            _forget(values, left, node.input)
    return values[graph.output[0].name]


def _tensor(tensor: onnx.TensorProto) -> torch.Tensor:
    value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    return value.double() if value.is_floating_point() else value


def _forget(values: dict[str, torch.Tensor], left: dict[str, int], used: Sequence[str]) -> None:
    """Let go of what no later node needs: a level's activations are 300 MB."""
    for name in used:
        left[name] -= 1
        if left[name] == 0:
            values.pop(name, None)
