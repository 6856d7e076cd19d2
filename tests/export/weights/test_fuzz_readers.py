"""The long fuzz's short form: every reader takes damaged files, and says in one line what is wrong with them."""

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

pytest.importorskip("torch")


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_fuzz_readers(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tests" / "fuzz.py", "--inputs", "1500", "--keep", tmp_path / "kept"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "1500 inputs from 0, 0 findings" in done.stdout, done.stdout + done.stderr[-2000:]
