"""An end within a second, also where Python is in no position to hear of the signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import GRAPHS

from ortsep import separator as separating
from ortsep.audio.sources import ArraySource
from ortsep.base.errors import Cancelled
from ortsep.separator import Separator

CATALOGUE = ["--weights", "random", "-o", "made"]
IMPORTING = """
import itertools
from pathlib import Path
Path(__file__).with_suffix(".begun").touch()
sum(itertools.repeat(0, 1 << 60))  # years in one call of C, which keeps the lock of the interpreter
"""
STUCK = """
import hashlib, sys
from pathlib import Path
from ortsep.base import interrupt
from ortsep.base.whole import hold, release
interrupt.end_promptly(0.2, "ended")
folder = hold(Path("folder.partial"))
folder.mkdir()
(folder / "inside").touch()
hold(Path("file.partial")).touch()
release(hold(Path("kept.wav")))
Path("kept.wav").touch()
while True:
    try:
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 1 << 30)  # minutes in one call of C
    except KeyboardInterrupt:  # the signal came before the call
        continue
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_stuck_in_a_library_ends(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", STUCK]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(how)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - sent < 10
    assert process.returncode == 130 and errors.strip() == "ended"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize(
    ("library", "command", "how"),
    [
        ("torch", ["ortsep.cli", "export", "htdemucs", *CATALOGUE], signal.SIGINT),
        ("onnx", ["ortsep.cli", "export", "spleeter:2stems", *CATALOGUE], signal.SIGTERM),
        ("torch", ["ortsep.cli", "export", "moises_light:paper_small", *CATALOGUE], signal.SIGINT),
        ("onnx", ["ortsep.cli", "export", "umxse", *CATALOGUE], signal.SIGTERM),
        ("onnx", ["ortsep.cli", "validate", "made"], signal.SIGINT),
        ("onnx", ["ortsep.cli", "optimize", "a.onnx", "-o", "b.onnx"], signal.SIGTERM),
        ("numpy", ["ortsep.cli", "bench", "made"], signal.SIGINT),
        ("numpy", ["ortsep.cli", "run", "made", "song.wav"], signal.SIGTERM),
        ("typer", ["ortsep", "run", "made", "song.wav"], signal.SIGINT),
    ],
)
def test_a_library_that_is_being_imported_holds_nothing_up(
    tmp_path: Path, library: str, command: list[str], how: signal.Signals
) -> None:
    """As torch does for a second or more: no other thread of Python runs, no handler of a signal."""
    if library == "torch":
        pytest.importorskip("onnx")  # which is imported before
    fakes, work, temporary = tmp_path / "fakes", tmp_path / "work", tmp_path / "temporary"
    for folder in (fakes, work, temporary):
        folder.mkdir()
    (fakes / f"{library}.py").write_text(IMPORTING)
    begun = fakes / f"{library}.begun"
    env = {**os.environ, "PYTHONPATH": str(fakes), "TMPDIR": str(temporary), "ORTSEP_CACHE": str(work / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert begun.exists(), process.communicate(timeout=1)
        time.sleep(0.2)
        process.send_signal(how)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - sent < 2
    finally:
        process.kill()
    assert process.returncode == -how
    assert "Traceback" not in errors
    assert not list(work.rglob("*"))
    assert {path.name for path in temporary.iterdir()} <= {".ses"}  # which onnxruntime leaves when it is imported


ORDERLY = """
import os, signal, sys
from pathlib import Path
from ortsep.base import interrupt
from ortsep.base.whole import hold
before = signal.getsignal(signal.SIGINT)
with interrupt.at_once():
    assert signal.getsignal(signal.SIGINT) is before  # not ours to change
interrupt.end_promptly(30.0)
for _ in range(2):
    with interrupt.at_once():
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
hold(Path("file.partial")).touch()
try:
    with interrupt.at_once():
        signal.raise_signal(getattr(signal, sys.argv[1]))
except KeyboardInterrupt:
    interrupt.leave("orderly")
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_an_import_while_something_is_half_written_ends_orderly(tmp_path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", ORDERLY, how], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr.strip() == "orderly"
    assert not list(tmp_path.iterdir())


LATER = """
import signal, sys
from ortsep.base import interrupt
from ortsep.base.signals import signals_later
interrupt.end_promptly(30.0)
try:
    with signals_later():
        with signals_later():
            signal.raise_signal(getattr(signal, sys.argv[1]))
            print("inside", flush=True)
        print("still inside", flush=True)
    print("too far")
except KeyboardInterrupt:
    print("out", flush=True)
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_a_signal_waits_while_a_library_is_called_that_calls_back(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", LATER, how], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["inside", "still inside", "out", ""], done.stderr


def test_a_cancel_while_the_network_is_loaded_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """htdemucs takes seconds to load: without this its first chunks would run to their end."""
    loading, go_on, ran = threading.Event(), threading.Event(), []

    class Slow(separating.Network):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            loading.set()
            go_on.wait(20)

        def infer(self, work: Any, cancel: Any = None) -> Any:
            ran.append(work)
            return super().infer(work, cancel)

    monkeypatch.setattr(separating, "Network", Slow)
    separator = Separator(GRAPHS / "waves")
    source = ArraySource(np.zeros((2, 80_000), np.float32), 8000)
    stream, ends = separator.stream(source), []

    def consume() -> None:
        try:
            list(stream)
        except Cancelled as error:
            ends.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    assert loading.wait(20)
    separator.cancel()
    go_on.set()
    thread.join(20)
    assert len(ends) == 1 and ran == []
    assert sum(block.shape[-1] for block in separator.stream(source)) == 80_000


@pytest.mark.parametrize("name", ["waves", "ratio"])
def test_a_cancel_before_the_first_block_counts(name: str) -> None:
    separator = Separator(GRAPHS / name)
    stream = separator.stream(ArraySource(np.zeros((2, 80_000), np.float32), 8000))
    separator.cancel()
    with pytest.raises(Cancelled):
        next(stream)
