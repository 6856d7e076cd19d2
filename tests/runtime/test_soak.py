"""The soak's short form: many threads, cancels, timeouts and failures in one process leave nothing behind."""

import subprocess
import sys

import pytest
from places import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc")
def test_soak() -> None:
    command = [sys.executable, ROOT / "benchmarks" / "soak.py", "--seconds", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "WRONG" not in done.stdout, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("Count(") == 9 and "array " in done.stdout.splitlines()[-1]
