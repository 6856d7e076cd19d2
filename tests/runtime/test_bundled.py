"""The model that comes with the package: it runs by its name, without torch, from anywhere."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ortsep import Separator
from ortsep.graphs.model import load_model

STEMS = ("kick", "snare", "toms", "hihat", "cymbals")


def test_it_runs_by_name(tmp_path: Path) -> None:
    sound = (np.random.default_rng(0).standard_normal((30000, 2)) * 0.1).astype(np.float32)
    soundfile.write(tmp_path / "beat.wav", sound, 44100, subtype="FLOAT")
    command = [sys.executable, "-m", "ortsep.cli", "run", "drums_mini", "beat.wav", "--json", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    files = [soundfile.read(tmp_path / report["stems"][name], dtype="float32")[0] for name in STEMS]
    assert np.allclose(np.sum(files, axis=0), sound, atol=1e-5)


def test_it_says_what_it_is() -> None:
    spec = load_model("drums_mini").spec
    assert spec.content == "drums" and spec.weights.redistributable and not spec.weights.random
    assert all(figure.db >= figure.gate for figure in spec.validation) and len(spec.validation) >= 4


@pytest.mark.parametrize("samples", [1, 100, 1024, 22050])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_length(samples: int, channels: int) -> None:
    mix = (np.random.default_rng(samples).standard_normal((channels, samples)) * 0.1).astype(np.float32)
    stems = Separator("drums_mini").separate(mix, 44100)
    assert np.allclose(np.sum(list(stems.values()), axis=0), mix, atol=1e-4)
