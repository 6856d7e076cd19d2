"""What CoreML takes of our graphs, beside ONNX Runtime's own checker, on any machine; and what each family keeps."""

import json
import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.tools.mobile_helpers import usability_checker
from typer.testing import CliRunner

from ortsep.base.decibels import snr
from ortsep.cli import app
from ortsep.export.exporter import choose_weights, export_model
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.files import save_model
from ortsep.export.targets import LONGEST, TARGETS, Fit, as_loaded, fit, fits, free_sizes
from ortsep.graphs.model import load_model
from ortsep.graphs.session import Session, fix_batch

NOTES = Path(usability_checker.__file__).parent
TABLES = {
    "coreml": "coreml_supported_mlprogram_ops.md",
    "coreml-neuralnetwork": "coreml_supported_neuralnetwork_ops.md",
}


@pytest.mark.parametrize("target", TABLES)
def test_the_tables_are_those_of_onnxruntime(target: str) -> None:
    lines = (NOTES / TABLES[target]).read_text(encoding="utf-8").splitlines()
    told = {line.split("|")[1].replace("ai.onnx.", "ai.onnx:") for line in lines if line.startswith("|ai.onnx")}
    names = {name.partition(":")[2].replace("Argmax", "ArgMax") for name in told}
    assert names - TARGETS[target] == set(), "onnxruntime has learnt these"
    assert TARGETS[target] - names <= {"GatherND", "Tile", "Where", "And", "Identity"}, (
        "an older onnxruntime lacks some"
    )


HELD = {
    ("spleeter:2stems", False): (1, 1.0),
    ("larsnet", False): (1, 1.0),
    ("moises_light:paper_small", True): (1, 1.0),
    ("drums_mini", False): (4, 0.94),
}
WHOLE = {("umxse", False): (26, 32, 4)}
"""What would be taken of graphs that run in parts, were they run whole: all but their LSTMs."""


@pytest.mark.parametrize(("name", "portable"), HELD)
def test_each_family_keeps_its_pieces(name: str, portable: bool, tmp_path: Path) -> None:
    model = load_model(export_model(name, choose_weights("random:0"), tmp_path / "m", portable=portable).folder)
    found = fits(model)
    pieces, share = HELD[name, portable]
    assert len(found) == len(model.members)
    for each in found.values():
        assert each[0].pieces <= pieces
        assert each[0].share >= share, each[0].reasons
    if pieces == 1:  # its own checker finds the same where no dimension is long
        path = model.file(model.members[0])
        loaded = as_loaded(path, free_sizes(model.spec, onnx.load(str(path))))
        theirs = usability_checker.check_coreml_partitions(loaded, True, TABLES["coreml"])
        assert (theirs.num_partitions, theirs.num_supported_nodes) == (1, found[path.name][0].nodes)


@pytest.mark.parametrize(("name", "portable"), WHOLE)
def test_a_graph_that_runs_in_parts_is_not_taken(name: str, portable: bool, tmp_path: Path) -> None:
    """A part has no shapes, so that the session takes the CPU for it; nothing else would be true."""
    model = load_model(export_model(name, choose_weights("random:0"), tmp_path / "m", portable=portable).folder)
    taken, nodes, pieces = WHOLE[name, portable]
    for each in fits(model).values():
        assert (each[0].taken, each[0].pieces, each[0].nodes, each[-1].share) == (0, 0, nodes, 1.0)
        assert f"{taken} of {nodes} nodes would be taken in {pieces} pieces" in each[0].reasons[0][0]


def test_the_drums_for_coreml_keep_their_pieces_and_sound_the_same(tmp_path: Path) -> None:
    folder = export_model("drums_mini", choose_weights("random:0"), tmp_path / "m", target="coreml").folder
    (each,) = fits(load_model(folder)).values()
    assert each[0].pieces <= 4
    assert each[0].share >= 0.95
    assert dict(each[0].reasons) == {"LSTM is no operator of the target": 2, "Log is no operator of the target": 1}
    usual = export_model("drums_mini", choose_weights("random:0"), tmp_path / "u").folder
    x = np.abs(np.random.default_rng(0).standard_normal((1, 2, 1025, 60))).astype(np.float32)
    given, same = (Session(f / "drums_mini.onnx", provider="cpu").run({"magnitude": x})[0] for f in (folder, usual))
    assert snr(same, given) >= 120


def told(g: Graph, tmp_path: Path) -> Fit:
    save_model(g.model(), tmp_path / "g.onnx")
    return fit(as_loaded(tmp_path / "g.onnx", {}), "coreml")


def test_a_long_dimension_and_a_foreign_operator_cut_a_graph(tmp_path: Path) -> None:
    g = Graph("g")
    x = g.input("x", [1, 2, LONGEST])
    x = g.op("Tanh", g.op("Log", g.op("Sigmoid", x)))
    g.output(x, "y", [1, 2, LONGEST])
    found = told(g, tmp_path)
    assert (found.nodes, found.taken, found.pieces) == (3, 2, 2)
    assert found.reasons == (("Log is no operator of the target", 1),)
    g = Graph("g")
    x = g.reshape(g.op("Relu", g.input("x", [1, 2, LONGEST + 1])), 2, 1, -1)
    g.output(g.op("Tanh", g.slice(x, 2, 0, 8)), "y", [2, 1, 8])
    found = told(g, tmp_path)
    assert (found.taken, found.pieces) == (1, 1)
    assert ("Relu reads a dimension above 16384", 1) in found.reasons


def test_branches_that_meet_behind_a_cut_are_no_further_piece(tmp_path: Path) -> None:
    """Two branches: one runs on while the other waits for what the CPU gives."""
    g = Graph("g")
    x = g.input("x", [1, 4])
    left = g.op("Tanh", g.op("Log", g.op("Relu", x)))
    right = g.op("Sigmoid", g.op("Tanh", g.op("Relu", g.op("Sigmoid", x))))
    g.output(g.add(left, right), "y", [1, 4])
    found = told(g, tmp_path)
    assert (found.nodes, found.taken, found.pieces) == (8, 7, 2)


def test_a_free_batch_is_fixed_for_coreml(tmp_path: Path) -> None:
    folder = export_model("umxse", choose_weights("random:0", stems=("speech",)), tmp_path / "m").folder
    file = folder / "speech.onnx"
    options = ort.SessionOptions()
    fix_batch(options, file)
    session = ort.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == 1
    x = np.ones((1, 1, 513, 9), np.float32)
    np.testing.assert_allclose(
        session.run(None, {"magnitude": x})[0], Session(file).run({"magnitude": x})[0], rtol=1e-4
    )


def test_inspect_tells_it() -> None:
    logging.disable(logging.NOTSET)
    done = CliRunner().invoke(app, ["inspect", "drums_mini", "--targets"])
    assert done.exit_code == 0, done.output
    assert "drums_mini.onnx: coreml takes 70 of 74 nodes in 4 pieces\n  2 x LSTM is no operator" in done.stdout
    document = json.loads(CliRunner().invoke(app, ["inspect", "drums_mini", "--targets", "--json"]).stdout)
    assert document["targets"]["drums_mini.onnx"][0]["pieces"] == 4
