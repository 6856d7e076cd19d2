"""Exports and downloads onto a disk of 2 MB."""

import os
import subprocess
import sys
from pathlib import Path


def test_an_export_onto_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    command = [sys.executable, "-m", "ortsep.cli", "export", "moises_light:paper_small", "--weights", "random"]
    done = subprocess.run(
        [*command, "-o", str(small_disk / "model")], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "No space left" in done.stderr and "--output" in done.stderr and "Traceback" not in done.stderr
    assert list(small_disk.iterdir()) == []


def test_what_was_exported_before_survives(tmp_path: Path, small_disk: Path) -> None:
    (small_disk / "model").mkdir()
    (small_disk / "model" / "moises_light.onnx").write_bytes(b"the old one")
    command = [sys.executable, "-m", "ortsep.cli", "export", "moises_light:paper_small", "--weights", "random"]
    done = subprocess.run(
        [*command, "-o", str(small_disk / "model")], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert (small_disk / "model" / "moises_light.onnx").read_bytes() == b"the old one"
    assert os.listdir(small_disk) == ["model"]  # noqa: PTH208
