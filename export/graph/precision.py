"""Smaller and faster variants of a graph, which are never as exact as float32 and so are only made when asked for.

``fp16-weights``: weights stored as float16 and cast to float32 when the session is created; half the file, the same
arithmetic. ``int8``: products with constant matrices in 8-bit integers, scales taken from the data at run time (dynamic
quantisation, ``onnxruntime.quantization.quantize_dynamic``); a quarter of those weights, and faster where the CPU has
8-bit dot products. On CPUs without them (AVX2 only) its sums may saturate, so measure it where it runs.
"""

import contextlib
import logging
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from ortsep.base.errors import UsageError
from ortsep.base.whole import scratch
from ortsep.export.graph.builder import all_nodes
from ortsep.models.spec import Timing

Run = Callable[[Mapping[str, Any]], dict[str, Any]]

PRECISIONS = ("fp32", "fp16-weights", "int8")

GATES = {"fp32": 100.0, "fp16-weights": 50.0, "int8": 25.0}
"""Lowest SNR in dB that a graph of this precision may have against its original. Half floats round to 11 bits, a
relative error of 2^-12 to 2^-11 for each weight (66-72 dB), of which deep networks keep 60; 8 bits over a row's range
leave 30 to 40 dB."""

LITTLE = 0.1
"""Share of the weights below which a precision says how few it changes."""
_LEFT = {
    "int8": "only its products with constant matrices (MatMul, Gemm) can be, and its convolutions stay float32",
    "fp16-weights": "only weights of two and more dimensions and 1024 and more values are stored as halves",
}
RUNS = 5
"""Of each graph, for its time."""
_LARGE = 1024
"""Elements from which a tensor is worth storing otherwise."""
_ROUNDING = 60.0
"""dB that a tensor must keep when rounded to float16; one with many subnormal values does not, and stays as it is."""


def with_precision(
    model: onnx.ModelProto, precision: str, say: Callable[[str], None] = lambda _: None
) -> onnx.ModelProto:
    """The model in this precision: a new one, or the same for ``fp32``.

    ``say`` is told where it changes less than a tenth of the weights. Raises UsageError for an unknown name, and for a
    precision that would change none: the file would be the float32 one under another name.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision {precision!r}; choose {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return model
    made = fp16_weights(model) if precision == "fp16-weights" else int8_products(model)
    before, after = _floats(model), _floats(made)
    name = model.graph.name or "this graph"
    if after == before:
        raise UsageError(f"{name} has nothing that {precision} could change, since {_LEFT[precision]}; take fp32")
    if before - after < LITTLE * before:
        say(
            f"{name}: {precision} changes {before - after:,} of {before:,} weights ({(before - after) / before:.1%}), "
            f"since {_LEFT[precision]}"
        )
    return made


def _floats(model: onnx.ModelProto) -> int:
    """Values stored as float32."""
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)


def fp16_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large weight tensors (two and more dimensions) as float16 with a Cast behind them.

    Biases, norms and small tensors stay float32: they weigh nothing and their rounding would be heard by every sample.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, casts = made.graph, []
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or tensor.name in given:
            continue
        array = numpy_helper.to_array(tensor)
        if array.size < _LARGE or not _survives(array):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def _survives(array: np.ndarray[Any, Any]) -> bool:
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16).astype(np.float64)
    if not np.isfinite(rounded).all():
        return False
    noise, power = float(np.square(rounded - array).sum()), float(np.square(array, dtype=np.float64).sum())
    return noise == 0 or power > noise * 10 ** (_ROUNDING / 10)


def int8_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """MatMul and Gemm with constant weights in 8-bit integers, one scale a column; convolutions stay float32.

    Raises UsageError where the products lie in a loop: ONNX Runtime's quantiser makes graphs of them that don't load.
    """
    if any(node.op_type == "Scan" for node in model.graph.node):
        raise UsageError(
            f"int8 can't go into the loops of {model.graph.name or 'this graph'}; export it with --portable, where it "
            "has none"
        )
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(max(logging.getLogger().level, logging.ERROR))  # it advises through the root logger
    with scratch("ortsep-int8") as folder:
        path = folder / "int8.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        quantize_dynamic(
            copy,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=_batched(copy),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
        )
        made = onnx.load(str(path))
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    made.producer_name = model.producer_name
    return made


def _batched(model: onnx.ModelProto) -> list[str]:
    """Names of the products with several matrices at once, of which ONNX Runtime takes no scale a column."""
    several = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 2}
    return [node.name for node in all_nodes(model.graph.node) if node.op_type == "MatMul" and node.input[1] in several]


def open_graph(model: onnx.ModelProto | Path) -> Run:
    """A graph on the CPU provider, as a function from inputs to outputs, both by name."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run_graph(model: onnx.ModelProto | Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A graph's outputs by name, on the CPU provider."""
    return open_graph(model)(inputs)


def measure_time(
    stage: str, exact: Run, other: Run, inputs: Mapping[str, Any], clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """What ``other`` takes against ``exact``, run in turns; both have run before."""
    took: list[tuple[float, float]] = []
    for _ in range(RUNS):
        began = clock()
        exact(inputs)
        between = clock()
        other(inputs)
        took.append((between - began, clock() - between))
    ratio = statistics.median(seconds / base for base, seconds in took)
    seconds = statistics.median(seconds for _, seconds in took)
    return Timing(stage, float(f"{ratio:.3g}"), float(f"{seconds:.3g}"), machine())


def machine() -> str:
    """The processor and the runtime, in words."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {os.cpu_count()} threads, onnxruntime {ort.__version__}"
