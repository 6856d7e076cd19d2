"""Graphs for targets that take less than ONNX Runtime's CPU provider: fixed shapes, and what else the target asks."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx

from ortsep.base.errors import UsageError
from ortsep.export.targets import free_sizes
from ortsep.models.cuts import Fixed, Stepped
from ortsep.models.spec import ModelSpec

FORMS = {"coreml": "fp32", "web": "fp16-weights"}
"""What a model can be exported for, and the precision that its weights are stored in unless another is asked for."""


def precision_for(target: str, precision: str) -> str:
    """The precision of an export for ``target``, fp32 being none that was asked for. Raises UsageError."""
    if not target:
        return precision
    if target not in FORMS:
        raise UsageError(f"there is no target {target!r}; choose {', '.join(FORMS)}")
    return FORMS[target] if precision == "fp32" else precision


def with_fixed_shapes(
    model: onnx.ModelProto, spec: ModelSpec, say: Callable[[str], None] = lambda _: None
) -> tuple[onnx.ModelProto, ModelSpec]:
    """The model for one chunk at a time, of the spec's length, and the spec that says so. The model is changed.

    What hears a whole song, or blocks of any length, keeps its frames free: a session for CoreML fixes them at those of
    a block, and what is shorter runs on the CPU. ``say`` is told.
    """
    if spec.chunks is not None and not isinstance(spec.chunks.takes, Fixed):
        takes, length = spec.chunks.takes, spec.chunks.length
        if isinstance(takes, Stepped):
            length = takes.least + -(-(length - takes.least) // takes.step) * takes.step
        spec = replace(spec, chunks=replace(spec.chunks, takes=Fixed(), length=length))
    sizes = free_sizes(spec, model)
    if spec.chunks is None:
        batches = {v.type.tensor_type.shape.dim[0].dim_param for v in model.graph.input} - {""}
        kept = {name: size for name, size in sizes.items() if name not in batches}
        sizes = {name: size for name, size in sizes.items() if name in batches}
        if kept:
            end = (
                "runs in parts, on the CPU alone"
                if spec.parts
                else "; ".join(f"CoreML gets {n}" for n in kept.values())
            )
            say(f"{spec.name}: {', '.join(kept)} stays free, since it hears blocks of any length; {end}")
    return _fixed(model, sizes), spec


def input_shapes(spec: ModelSpec, model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of a graph's inputs for one block or chunk. Raises ModelError where the spec doesn't say."""
    sizes = free_sizes(spec, model)
    return {
        value.name: tuple(sizes.get(dim.dim_param, dim.dim_value) for dim in value.type.tensor_type.shape.dim)
        for value in model.graph.input
    }


def fixed_like(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model for inputs of just these shapes. It is changed."""
    sizes = {
        dim.dim_param: size
        for value in model.graph.input
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False)
        if dim.dim_param
    }
    return _fixed(model, sizes)


def _fixed(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    del model.graph.value_info[:]
    return model
