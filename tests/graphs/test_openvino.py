"""OpenVINO, its own runtime, on a graph of every family: equal to the CPU provider, or not what it claims to be."""

import numpy as np
import onnxruntime
import pytest

from ortsep.base.decibels import snr

pytest.importorskip("torch")
import onnx
from family_graphs import FAMILIES
from onnx import helper

GATE = 100.0
LOOPED = ["bs_roformer", "mel_roformer"]
"""Whose usual graphs have loops with ONNX Runtime's own operators, which OpenVINO refuses to read."""
PORTABLE = [(name, True) for name in ("htdemucs", "moises_light", *LOOPED)]
USUAL = [(name, False) for name in FAMILIES if name not in LOOPED]


@pytest.mark.parametrize(("name", "portable"), [*USUAL, *PORTABLE])
def test_openvino_computes_what_the_cpu_does(name: str, portable: bool) -> None:
    openvino = pytest.importorskip("openvino")
    model, feeds = FAMILIES[name](portable)
    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    read.reshape({key: list(value.shape) for key, value in feeds.items()})
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = compiled(feeds)
    for output, expected in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        assert snr(expected, given[output.name]) >= GATE


def test_rotary_positions_are_told_of_each_token() -> None:
    """OpenVINO takes the one number that ONNX Runtime takes for the first position for the position of all.

    RoFormers have theirs in loops, which no other runtime is given.
    """
    model, feeds = FAMILIES["moises_light"](False)
    turned = [node for node in model.graph.node if node.op_type == "RotaryEmbedding"]
    assert turned
    for node in turned:
        for value in node.input[:2]:
            if value not in {output.name for output in model.graph.output}:
                model.graph.output.append(helper.make_empty_tensor_value_info(value))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    for node in turned:
        tokens, places = (found[value] for value in node.input[:2])
        np.testing.assert_array_equal(places, np.tile(np.arange(tokens.shape[1]), (len(tokens), 1)))


def test_lstms_of_one_input_have_silences_of_their_own() -> None:
    """Two LSTMs on one input with no states given are what OpenVINO 2026.4 computes wrongly (SCNet: 1 dB)."""
    for name, make in FAMILIES.items():
        model: onnx.ModelProto = make(False).model
        lstms = [node for node in model.graph.node if node.op_type == "LSTM"]
        bare = [node.input[0] for node in lstms if len(node.input) < 7]
        assert len(bare) == len(set(bare)), (name, bare)
