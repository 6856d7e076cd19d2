"""A graph of every family in a browser's runtime: onnxruntime-web's wasm, in node, against the CPU provider.

The package is looked for in the folder that ORTSEP_NODE_MODULES names, or node_modules of the checkout:
``npm install --prefix FOLDER onnxruntime-web``.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from places import ROOT

from ortsep.base.decibels import snr

pytest.importorskip("torch")
import onnx
from family_graphs import FAMILIES

from ortsep.export.graph.precision import fp16_weights

GATE = 100.0
MODULES = Path(os.environ.get("ORTSEP_NODE_MODULES", ROOT / "node_modules"))
RUNNER = Path(__file__).with_name("web_run.mjs")


@pytest.mark.long
@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
@pytest.mark.skipif(not (MODULES / "onnxruntime-web").is_dir(), reason="no onnxruntime-web in ORTSEP_NODE_MODULES")
@pytest.mark.parametrize("name", FAMILIES)
def test_the_browser_computes_what_the_cpu_does(name: str, tmp_path: Path) -> None:
    """Both on the file of ``--target web``, whose weights are halves, and of standard operators alone."""
    exact, feeds = FAMILIES[name](True)
    model = fp16_weights(exact)
    onnx.save(model, str(tmp_path / "graph.onnx"))
    given = {}
    for key, value in feeds.items():
        value.tofile(tmp_path / key)
        given[key] = {"file": str(tmp_path / key), "dims": list(value.shape)}
    case = {"model": str(tmp_path / "graph.onnx"), "feeds": given, "out": str(tmp_path / "out")}
    (tmp_path / "cases.json").write_text(json.dumps([case]))
    command = ["node", str(RUNNER), str(MODULES.parent), str(tmp_path / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for output, expected in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        found = np.fromfile(tmp_path / f"out.{output.name}", np.float32).reshape(expected.shape)
        assert snr(expected, found) >= GATE
