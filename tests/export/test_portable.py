"""Portable forms of graphs with operators of ONNX Runtime's own: equal, in the cache, and told where there is none."""

import builtins
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from ortsep.base.decibels import snr

pytest.importorskip("torch")
from family_graphs import FAMILIES
from onnx import helper

from ortsep.base.errors import ModelError
from ortsep.export.passes import optimize
from ortsep.export.portable import own_operators, portable_form
from ortsep.graphs import portable
from ortsep.measure.tune import _portable_forms

OWN = ("htdemucs", "moises_light")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answers(model: bytes, feeds: Any) -> list[Any]:
    return list(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds))


@pytest.mark.parametrize("name", OWN)
def test_the_form_is_equal_and_of_the_standard_alone(name: str, tmp_path: Path) -> None:
    model, feeds = FAMILIES[name](False)
    assert own_operators(model), "else there is nothing to see here"
    helper.set_model_props(model, {"ortsep": "the spec"})
    onnx.save(model, str(tmp_path / "graph.onnx"))
    form = portable_form(tmp_path / "graph.onnx")
    assert form is not None and form == portable.portable_path(tmp_path / "graph.onnx")
    made = onnx.load(str(form))
    onnx.checker.check_model(made)
    assert own_operators(made) == [] and made.metadata_props[0].value == "the spec"
    for expected, given in zip(
        answers(model.SerializeToString(), feeds), answers(form.read_bytes(), feeds), strict=True
    ):
        assert snr(expected, given) >= 115


def test_optimize_takes_them_out_where_portable_is_asked() -> None:
    model, feeds = FAMILIES["moises_light"](False)
    made, _ = optimize(model, portable=True)
    assert own_operators(made) == []
    pairs = zip(answers(model.SerializeToString(), feeds), answers(made.SerializeToString(), feeds), strict=True)
    assert all(snr(*pair) >= 110 for pair in pairs)


def test_it_is_made_once_and_again_for_another_graph(tmp_path: Path) -> None:
    model, _ = FAMILIES["moises_light"](False)
    said: list[str] = []
    onnx.save(model, str(tmp_path / "graph.onnx"))
    first = portable_form(tmp_path / "graph.onnx", said.append)
    assert portable_form(tmp_path / "graph.onnx", said.append) == first and len(said) == 1
    model.doc_string = "another"
    onnx.save(model, str(tmp_path / "graph.onnx"))
    assert portable_form(tmp_path / "graph.onnx", said.append) != first and len(said) == 2


def test_what_is_portable_needs_none(tmp_path: Path, cache: Path) -> None:
    onnx.save(FAMILIES["spleeter"](False).model, str(tmp_path / "graph.onnx"))
    assert portable_form(tmp_path / "graph.onnx") is None and not list(cache.rglob("*.onnx"))


@pytest.mark.parametrize("change", ["operator", "input"])
def test_what_has_no_standard_form_is_refused(change: str, tmp_path: Path, cache: Path) -> None:
    model, _ = FAMILIES["htdemucs"](False)
    node = next(node for node in model.graph.node if node.op_type == "MultiHeadAttention")
    if change == "operator":
        node.op_type = "DecoderAttention"
    else:
        node.input.append(node.input[0])  # a bias
    onnx.save(model, str(tmp_path / "graph.onnx"))
    with pytest.raises(ModelError, match=r"graph\.onnx has no portable form: nothing of the ONNX standard takes"):
        portable_form(tmp_path / "graph.onnx")
    assert not list(cache.rglob("*.onnx"))


def test_what_lies_in_a_loop_is_left_to_an_export(tmp_path: Path, cache: Path) -> None:
    model, _ = FAMILIES["bs_roformer"](False)
    assert "com.microsoft.MultiHeadAttention" in own_operators(model)
    onnx.save(model, str(tmp_path / "graph.onnx"))
    with pytest.raises(ModelError, match=r"graph\.onnx has operators of ONNX Runtime's own in a loop; export it again"):
        portable_form(tmp_path / "graph.onnx")
    assert not list(cache.rglob("*.onnx"))


def test_without_onnx_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from places import GRAPHS

    from ortsep.graphs.model import load_model

    model = load_model(GRAPHS / "hybrid")
    own = replace(model, spec=replace(model.spec, portable=False))
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("ortsep.export"):
            raise ImportError("No module named 'onnx'", name="onnx")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert _portable_forms(own, ["cpu"], lambda _: None) == ([], []), "and nothing where nobody needs one"
    made, (note,) = _portable_forms(own, ["cpu", "openvino"], lambda _: None)
    assert made == [] and note == (
        "a portable form of the graph, which openvino may run faster, was not tried: making it needs onnx, pip install "
        "'ortsep[onnx]'"
    )
    assert _portable_forms(model, ["cpu", "openvino"], lambda _: None) == ([], [])
