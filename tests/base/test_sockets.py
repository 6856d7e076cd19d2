"""A run asks the net for nothing and leaves nothing in anybody's home: no socket, no device id."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS

HOLD = """
import sys, time
from ortsep.commands import ending
def run():
    from ortsep.cli import app
    app(sys.argv[1:-1], standalone_mode=False)
    time.sleep(float(sys.argv[-1]))
ending.run_to_end(run)
"""
"""A run, and the rest of the time that a longer one would take: onnxruntime 1.29's telemetry came from second 9 on."""


def watched(tmp_path: Path, hold: float) -> tuple[set[str], list[str], str]:
    """The sockets to the net that a run had at any moment, the files in its home afterwards, and what it said."""
    home, song = tmp_path / "home", tmp_path / "song.wav"
    home.mkdir()
    soundfile.write(song, np.random.default_rng(0).uniform(-0.1, 0.1, (16_000, 2)), 8000)
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH")}
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    words = ["run", str(GRAPHS / "waves"), str(song), "-o", str(tmp_path / "out"), "--quiet"]
    command = [sys.executable, "-c", HOLD, *words, str(hold)]
    process = subprocess.Popen(
        command, env={**kept, **places}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    sockets: set[str] = set()
    local: set[str] = set()
    while process.poll() is None:
        try:
            links = [str(entry.readlink()) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:  # it has just ended, or closed one
            links = []
        sockets |= {link[len("socket:[") : -1] for link in links if link.startswith("socket:")}
        # Those of the Unix domain reach nobody else: the pair by which a signal wakes the main thread is of these.
        local |= {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
        time.sleep(0.02)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert list((tmp_path / "out").rglob("*.wav"))
    return sockets - local, sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()), said


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("hold", [0.0, pytest.param(13.0, marks=pytest.mark.long)])
def test_a_run_opens_no_socket_and_writes_nothing_at_home(tmp_path: Path, hold: float) -> None:
    assert watched(tmp_path, hold) == (set(), [], "")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_socket_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = "import os, pathlib, socket\nkept = socket.socket()\npathlib.Path(os.environ['HOME'], 'id').touch()"
    monkeypatch.setattr(sys.modules[__name__], "HOLD", f"{opened}\n{HOLD}")
    sockets, files, _ = watched(tmp_path, 0.0)
    assert len(sockets) == 1 and files == ["id"]
