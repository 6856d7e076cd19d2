"""An end within a second, also where Python is in no position to hear of the signal."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortsep import separator as separating
from ortsep.separator import Separator
from ortsep.session import Cancelled
from ortsep.sources import ArraySource

GRAPHS = Path(__file__).parents[1] / "data" / "graphs"
STUCK = """
import hashlib, sys
from pathlib import Path
from ortsep import interrupt
from ortsep.stems.partials import hold, release
interrupt.end_promptly(0.2, "ended")
folder = hold(Path("folder.partial"))
folder.mkdir()
(folder / "inside").touch()
hold(Path("file.partial")).touch()
release(hold(Path("kept.wav")))
Path("kept.wav").touch()
print("ready", flush=True)
while True:
    try:
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


def test_a_cancel_while_the_network_is_loaded_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """htdemucs takes seconds to load: without this its first chunks would run to their end."""
    loading, go_on, ran = threading.Event(), threading.Event(), []

    class Slow(separating.Network):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            loading.set()
            go_on.wait(20)

        def infer(self, work: Any) -> Any:
            ran.append(work)
            return super().infer(work)

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
