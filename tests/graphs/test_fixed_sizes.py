"""Providers that take nothing of a free dimension: what the session fixes, and what is of another size then."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import TensorProto, helper
from places import GRAPHS

from ortsep.base.decibels import snr
from ortsep.engine.sizes import all_sizes, sizes_of
from ortsep.graphs.model import load_model
from ortsep.graphs.providers import Verdict
from ortsep.graphs.session import Session
from ortsep.measure.doctor import examine, golden_feeds
from ortsep.separator import Separator

COREML, CPU = "CoreMLExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def coreml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[Any]]:
    """An onnxruntime that says it has CoreML; what its sessions' first inputs look like."""
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    real, shapes = onnxruntime.InferenceSession, []

    def load(model: Any, options: Any, providers: list[Any], **settings: Any) -> Any:
        settings.pop("disabled_optimizers", None)
        session = real(model, options, [CPU], **settings)
        if len(providers) > 1:
            shapes.append(session.get_inputs()[0].shape)
            session.get_providers = lambda: [COREML, CPU]
        return session

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [COREML, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    return shapes


def test_a_song_of_any_length_is_separated_the_same(coreml: list[list[Any]]) -> None:
    """The graph hears any number of frames: blocks of 64 run on the provider, the last and shorter one on the CPU."""
    expected, given = (Separator(GRAPHS / "wiener", provider=name) for name in ("cpu", "coreml"))
    mix = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 20000)).astype(np.float32)
    want, got = expected.separate(mix), given.separate(mix)
    assert coreml == [[1, 2, 129, 64]]
    assert given.provider == "coreml"
    assert given.provider_reason == "what is of another size than provider coreml was fixed at ran on the CPU"
    for stem, wave in want.items():
        assert snr(wave, got[stem]) >= 120
    short = given.separate(mix[:, :3000])
    assert snr(expected.separate(mix[:, :3000])["drums"], short["drums"]) >= 120 and len(coreml) == 1


def test_nothing_is_fixed_for_who_takes_any_size(tmp_path: Path, coreml: list[list[Any]]) -> None:
    x = helper.make_tensor_value_info("magnitude", TensorProto.FLOAT, ["B", 2, 5, "T"])
    y = helper.make_tensor_value_info("masks", TensorProto.FLOAT, ["B", 2, 5, "T"])
    graph = helper.make_graph([helper.make_node("Sigmoid", ["magnitude"], ["masks"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "g.onnx"))
    sizes = {"magnitude": {0: 1, 3: 7}}
    assert Session(tmp_path / "g.onnx", provider="cpu", sizes=sizes).inputs[0].shape == ("B", 2, 5, "T")
    session = Session(tmp_path / "g.onnx", provider="coreml", sizes=sizes)
    assert session.inputs[0].shape == (1, 2, 5, 7)
    for frames in (7, 9):
        batch = np.random.default_rng(frames).standard_normal((3, 2, 5, frames)).astype(np.float32)
        (given,) = session.run({"magnitude": batch})
        np.testing.assert_allclose(given, 1 / (1 + np.exp(-batch)), rtol=1e-5)
    assert coreml == [[1, 2, 5, 7]], "one session more, on the CPU"
    alone = Session(tmp_path / "g.onnx", provider="coreml")
    assert alone.inputs[0].shape == (1, 2, 5, "T") and "CPU" not in alone.reason


def test_sizes_are_of_a_block_or_a_chunk() -> None:
    assert sizes_of(load_model("drums_mini").spec, "magnitude") == {0: 1, 3: 1292}
    assert sizes_of(load_model("drums_mini").spec, "anything") == {0: 1}
    assert all_sizes(load_model("drums_mini").spec)["magnitude"] == {0: 1, 3: 1292}


def test_the_doctor_looks_at_the_graph_as_it_runs(coreml: list[list[Any]]) -> None:
    graph, feeds = golden_feeds(load_model("drums_mini"))
    found = examine(graph, "coreml", feeds, judge_speed=False, runs=1)
    assert isinstance(found, Verdict) and found.correct
    assert coreml and all(shape == [1, 2, 1025, 1292] for shape in coreml)
