"""Contracts of passes: each is checked, and a pass that breaks one is named."""

import onnx
import pytest

from ortsep.export.graph.builder import Graph
from ortsep.export.passes import apply, passes
from ortsep.export.passes.contract import BrokenPass, Pass, contract, ensured
from ortsep.export.passes.editor import Editor


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTSEP_CHECK_PASSES", "1")


def small() -> onnx.ModelProto:
    g = Graph("small")
    g.output(g.op("Relu", g.add(g.input("x", [2, 3]), g.const([1.0, 2.0, 3.0]))), "y", [2, 3])
    return g.model()


def widen_output(ed: Editor) -> int:
    ed.model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 5
    return 1


def leave_the_standard(ed: Editor) -> int:
    node = ed.find("Relu")[0]
    ed.replace(node.output[0], ed.op("QuickGelu", node.input[0], domain="com.microsoft"))
    return 1


def use_what_is_not_there(ed: Editor) -> int:
    ed.find("Relu")[0].input[0] = "nowhere"
    return 1


def newer_opset(ed: Editor) -> int:
    ed.model.opset_import[0].version += 1
    return 1


@contract(ensures=("constants only as initializers",))
def leave_a_constant(ed: Editor) -> int:
    node = ed.find("Relu")[0]
    constant = ed.op("Constant", "", value_floats=[1.0, 2.0, 3.0])
    del ed.producer(constant).input[:]  # type: ignore[union-attr]
    ed.replace(node.output[0], ed.op("Mul", node.input[0], constant))
    return 1


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (leave_the_standard, "leave_the_standard ensures no operator from outside the standard"),
        (use_what_is_not_there, "use_what_is_not_there ensures a valid graph"),
        (leave_a_constant, "leave_a_constant ensures constants only as initializers"),
    ],
)
def test_a_broken_pass_is_named(broken: Pass, words: str) -> None:
    with pytest.raises(BrokenPass, match=words):
        apply(small(), broken)


@pytest.mark.parametrize(("broken", "words"), [(widen_output, "inputs and outputs"), (newer_opset, "opset")])
def test_a_pass_that_changes_the_model_it_was_given_is_found(broken: Pass, words: str) -> None:
    with pytest.raises(BrokenPass, match=f"{broken.__name__} ensures the same {words}"):
        apply(small(), broken)


def test_what_a_pass_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    model.opset_import[0].version = 12
    with pytest.raises(BrokenPass, match="drop_dead requires opset 13 or later"):
        apply(model, passes()[0])
    monkeypatch.delenv("ORTSEP_CHECK_PASSES")
    assert apply(model, passes()[0]) == (model, 0)


def test_only_fused_attention_may_leave_the_standard() -> None:
    rule = "no operator from outside the standard that was not there"
    assert {one.__name__ for one in passes() if rule not in ensured(one)} == {"fuse_attention"}
    assert all(rule in ensured(one) for one in passes(portable=True))
