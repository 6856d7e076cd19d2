"""Runs a command as a person does: on a pseudo-terminal of a given width that is all its standard streams."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>]")


class Seen(NamedTuple):
    """How a command ended and all that it wrote to the terminal, as it came."""

    status: int
    raw: str

    @property
    def text(self) -> str:
        """Without escape sequences; a line that was drawn over and over is there each time."""
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")


def typed(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    columns: int = 80,
    rows: int = 24,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    then: Callable[[subprocess.Popen[bytes], str], bool] | None = None,
    timeout: float = 120.0,
) -> Seen:
    """Run ``command`` on a terminal. ``stdout``: a file descriptor where only stderr is to be the terminal.

    ``then`` is called with the process and what was seen so far each time something came, until it returns True.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    everything = {**os.environ, "TERM": "xterm-256color", **(env or {})}
    for name in ("COLUMNS", "LINES"):
        everything.pop(name, None)
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=everything,
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    seen = bytearray()
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # Linux's end of a terminal whose processes are gone
                    break
                if not part:
                    break
                seen += part
                if then is not None and then(process, seen.decode(errors="replace")):
                    then = None
            elif process.poll() is not None:
                break
        status = process.wait(max(1.0, deadline - time.monotonic()))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(ours)
    return Seen(status, seen.decode(errors="replace"))
