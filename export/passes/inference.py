"""Shapes and element types of a graph's values, by ONNX's own inference."""

import math

import onnx
from onnx import helper

Shape = tuple[int | None, ...]

_SMALL = 1024
"""Elements up to which a constant is shown to shape inference: shapes and axes, not weights."""


def inferred(model: onnx.ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shapes and element types by ONNX's own inference, on a copy in which large weights are mere inputs, and operators
    of ONNX Runtime's own are some of the standard that give the same shapes."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(_alike(node) for node in model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    given = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    shapes: dict[str, Shape] = {}
    kinds: dict[str, int] = {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        tensor_type = value.type.tensor_type
        kinds[value.name] = tensor_type.elem_type
        if tensor_type.HasField("shape"):
            dims = tensor_type.shape.dim
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    return shapes, kinds


def _alike(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node that ONNX's inference knows, whose outputs have the shapes of this one's; this one, where none is."""
    whole = len(node.output) == 1 and len(node.input) >= 3 and all(node.input[:3])
    if node.domain != "com.microsoft" or not whole:
        return node
    if node.op_type == "RotaryEmbedding":
        return helper.make_node("Identity", node.input[:1], node.output)
    if node.op_type == "MultiHeadAttention":  # [B, L, E], [B, S, E] and [B, S, V] to [B, L, V]
        inputs = [node.input[0], node.input[2]]
        return helper.make_node("Einsum", inputs, node.output, equation="ble,bsv->blv")
    return node
