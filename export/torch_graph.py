"""A torch network as an ONNX graph with ortsep's tensors, by ``torch.onnx.export``.

By torch.export first (it needs onnxscript), where that fails by TorchScript's trace; a network with LSTMs or GRUs the
other way round, since torch.export unrolls them over time, into thousands of nodes. What would unroll either way, an
inverse STFT inside, is put otherwise (``inverse_stft``). What comes is checked by whoever asked, since either
may freeze what depends on the input.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

from ortsep.base.errors import ModelError
from ortsep.base.whole import scratch
from ortsep.export.graph.builder import IR_VERSION, check_model
from ortsep.export.inverse_stft import ByHops, StaysOutside

OPSET = 18
"""What torch.export's translation is written for: for others it converts, not always to the end."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
Say = Callable[[str], None]


def graph_of(
    network: torch.nn.Module, example: torch.Tensor, axes: dict[int, str], names: tuple[str, str], say: Say
) -> onnx.ModelProto:
    """The graph of ``network`` on tensors like ``example``, with its input and output called ``names``.

    ``axes``: which of the input's axes may have other sizes, and what to call them. ``example`` has two of axis 0 if
    that is one. Raises ModelError where neither way leads to a graph.
    """
    causes, recurrent = [], any(isinstance(part, torch.nn.RNNBase) for part in network.modules())
    for way in (_by_trace, _by_export) if recurrent else (_by_export, _by_trace):
        try:
            with _quiet(), torch.no_grad(), ByHops():
                made = way(network, example, axes, names)
            made.ir_version = IR_VERSION
            made.producer_name, made.doc_string = "ortsep", ""
            del made.metadata_props[:]
            check_model(made)
            if not made.graph.input:
                raise ValueError("what it gives does not depend on what it hears, as with tensors taken to numpy")
            return made
        except Exception as error:  # of torch's tracers and of whatever the network does meanwhile
            if isinstance(_first(error), StaysOutside):
                raise _first(error) from error
            causes.append(f"{way.__name__.removeprefix('_by_')}: {_first_line(error)}")
            say(f"torch.onnx.export by {causes[-1]}")
    raise ModelError(f"the network can't be exported to ONNX ({'; '.join(causes)}); change that part of it")


def _first(error: BaseException) -> BaseException:
    """What went wrong first: torch wraps it in errors of its own, which tell of steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    """Of what went wrong first, without torch's colours."""
    error = _first(error)
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def _by_export(
    network: torch.nn.Module, example: torch.Tensor, axes: dict[int, str], names: tuple[str, str]
) -> onnx.ModelProto:
    free = dict.fromkeys(axes, torch.export.Dim.AUTO)
    program: Any = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_shapes=(free,) if free else None,
    )
    made: onnx.ModelProto = program.model_proto
    return made


def _by_trace(
    network: torch.nn.Module, example: torch.Tensor, axes: dict[int, str], names: tuple[str, str]
) -> onnx.ModelProto:
    with scratch("ortsep-torch") as folder:
        path = Path(folder) / "traced.onnx"
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_axes={names[0]: axes} if axes else None,
        )
        return onnx.load(str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch tells of its own steps on standard output, and warns of what the comparison behind will show."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def free_axes(model: onnx.ModelProto) -> set[int]:
    """Which axes of the graph's input really have no fixed size."""
    shape = model.graph.input[0].type.tensor_type.shape.dim
    return {axis for axis, size in enumerate(shape) if not size.HasField("dim_value")}
