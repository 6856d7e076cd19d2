"""What a pass requires of a graph and ensures of its result, in words that can be checked.

A pass without a contract of its own keeps the common one. The checks cost as much as small passes do, so they run only
where the environment variable ``ORTSEP_CHECK_PASSES`` is set, and in the tests.
"""

import os
from collections.abc import Callable

import onnx

from ortsep.export.graph.builder import check_model, foreign_domains, without_initializers
from ortsep.export.passes.editor import Editor

Pass = Callable[[Editor], int]

OLDEST = 13
"""The first opset in which axes are inputs everywhere but in reductions: what the passes write."""
SWITCH = "ORTSEP_CHECK_PASSES"


class BrokenPass(AssertionError):
    """A graph that breaks the contract of a pass, before or behind it."""


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _valid(model: onnx.ModelProto) -> bool:
    try:
        check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True


def _all_live(model: onnx.ModelProto) -> bool:
    editor = Editor(model)
    return len(editor.in_order()) == len(editor.nodes) and set(editor.initializers()) <= editor.needed()


def _no_constant_nodes(model: onnx.ModelProto) -> bool:
    editor = Editor(model)
    constants = [node for node in editor.find("Constant") if editor.constant(node.output[0]) is not None]
    return all(editor.fixed(node.output[0]) for node in constants)


OF_ONE: dict[str, Callable[[onnx.ModelProto], bool]] = {
    f"opset {OLDEST} or later": lambda model: _opset(model) >= OLDEST,
    "a valid graph": _valid,
    "no node or initializer that nothing needs": _all_live,
    "constants only as initializers": _no_constant_nodes,
}
"""Conditions of a graph."""


def _interface(model: onnx.ModelProto) -> list[bytes]:
    return [value.SerializeToString(deterministic=True) for value in (*model.graph.input, *model.graph.output)]


def _domains(model: onnx.ModelProto) -> set[str]:
    return foreign_domains(model.graph.node)


OF_BOTH: dict[str, Callable[[onnx.ModelProto, onnx.ModelProto], bool]] = {
    "the same inputs and outputs": lambda before, after: _interface(before) == _interface(after),
    "the same opset": lambda before, after: _opset(before) == _opset(after),
    "no operator from outside the standard that was not there": lambda before, after: (
        _domains(after) <= _domains(before)
    ),
}
"""Conditions of a result beside the graph that it was made of."""

REQUIRES = (f"opset {OLDEST} or later", "a valid graph")
ENSURES = ("a valid graph", *OF_BOTH)
"""The common contract."""


def contract(*, ensures: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Callable[[Pass], Pass]:
    """Give a pass the common contract with more in what it ensures, and less."""

    def marked(one: Pass) -> Pass:
        one.ensures = tuple(name for name in (*ENSURES, *ensures) if name not in without)  # type: ignore[attr-defined]
        return one

    return marked


def ensured(one: Pass) -> tuple[str, ...]:
    """What a pass ensures, by the names of ``OF_ONE`` and ``OF_BOTH``."""
    names: tuple[str, ...] = getattr(one, "ensures", ENSURES)
    return names


def checking() -> bool:
    """Whether contracts are to be checked."""
    return bool(os.environ.get(SWITCH))


def check_before(one: Pass, model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise BrokenPass where a graph lacks what a pass requires. Returns a copy less weights for ``check_behind``."""
    for name in REQUIRES:
        if not OF_ONE[name](model):
            raise BrokenPass(f"{one.__name__} requires {name}, which the graph before it is not")
    bare, graph = without_initializers(model)
    bare.graph.CopyFrom(graph)
    return bare


def check_behind(one: Pass, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Raise BrokenPass where a result lacks what a pass ensures."""
    for name in ensured(one):
        if not (OF_ONE[name](after) if name in OF_ONE else OF_BOTH[name](before, after)):
            raise BrokenPass(f"{one.__name__} ensures {name}, which its result breaks")
