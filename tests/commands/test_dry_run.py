"""``ortsep run --dry-run`` tells the plan and does nothing; ``inspect`` says what ``run`` would."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from places import GRAPHS


def ortsep(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ortsep", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_plan_is_told_and_nothing_done(tmp_path: Path) -> None:
    for name, seconds in (("a", 1), ("b", 2)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros((8000 * seconds, 2)), 8000)
    done = ortsep("run", GRAPHS / "waves", "a.wav", "b.wav", "--dry-run", "--shifts", 2, "--residual", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("\n\n")
    assert first.split("\n") == [
        "a.wav -> drums, vocals, residual",
        "song: 8000 samples at 8000 Hz (1.00 s)",
        "chunks: 6 of 4000 samples (0.50 s) every 3000, on 2 shifted grids",
        "join: triangle, tail centred",
        "runs of each graph: 6",
    ]
    assert "16000 samples" in second and second.startswith("b.wav -> ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav"]


def test_the_plan_as_json_and_an_option_that_means_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((8000, 2)), 8000)
    done = ortsep("run", GRAPHS / "masks", "a.wav", "--dry-run", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["model"] == "masks"
    assert document["songs"][0]["stems"] == ["drums", "vocals"]
    assert document["songs"][0]["plan"]["frames"] == 126
    refused = ortsep("run", GRAPHS / "masks", "a.wav", "--dry-run", "--tta", cwd=tmp_path)
    assert refused.returncode == 2 and "tta is an option of models of chunks" in refused.stderr


def test_inspect_says_what_run_would(tmp_path: Path) -> None:
    for name in ("waves", "masks"):
        document = json.loads(ortsep("inspect", GRAPHS / name, "--json", cwd=tmp_path).stdout)
        assert document["runnable"] is True
