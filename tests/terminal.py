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

    def left(self, columns: int) -> list[str]:
        """The lines that stand on a terminal of so many columns in the end."""
        return render(self.raw, columns)[0]

    def flowing(self, columns: int) -> str:
        """What stands there in the end, with lines that a wrap began joined again."""
        return re.sub(r"\n {2,}", " ", "\n".join(self.left(columns)))


def render(raw: str, columns: int) -> tuple[list[str], int]:
    """What a terminal of ``columns`` and endless rows shows of ``raw``, and how often a line was folded at its edge.

    Knows what ortsep draws with: carriage return, line feed, cursor up, erase to the end of the line or screen,
    colours. Anything else raises.
    """
    rows: list[list[str]] = [[]]
    row = column = folded = 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", raw):
        if piece.endswith("A") and len(piece) > 1:
            row = max(0, row - int(piece[2:-1] or 1))
        elif piece == "\x1b[K":
            del rows[row][column:]
        elif piece == "\x1b[J":
            del rows[row][column:], rows[row + 1 :]
        elif piece.startswith("\x1b"):
            assert piece.endswith("m"), f"an escape sequence that ortsep does not use: {piece!r}"
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
        else:
            if column == columns:
                row, column, folded = row + 1, 0, folded + 1
            rows.extend([] for _ in range(row + 1 - len(rows)))
            rows[row].extend(" " * (column + 1 - len(rows[row])))
            rows[row][column] = piece
            column += 1
        rows.extend([] for _ in range(row + 1 - len(rows)))
    lines = ["".join(line).rstrip() for line in rows]
    while lines and not lines[-1]:
        lines.pop()
    return lines, folded


def typed(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    columns: int = 80,
    rows: int = 24,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    then: Callable[[subprocess.Popen[bytes], str], bool | bytes] | None = None,
    hang_up: bool = False,
    often: bool = False,
    timeout: float = 120.0,
) -> Seen:
    """Run ``command`` on a terminal. ``stdout``: a file descriptor where only stderr is to be the terminal.

    ``then`` is called with the process and what was seen so far each time something came, until it returns True, or
    bytes to be typed: b"\\x03" is Ctrl-C. ``hang_up`` closes the terminal at that moment; with ``often`` it is called
    further.
    """
    process, ours = _begun(command, cwd, columns, rows, env or {}, stdout)
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
                if then is not None and (answer := then(process, seen.decode(errors="replace"))):
                    then = then if often else None
                    if isinstance(answer, bytes):
                        os.write(ours, answer)
                    if hang_up:
                        break
            elif process.poll() is not None:
                break
        if hang_up:
            os.close(ours)
        status = process.wait(max(1.0, deadline - time.monotonic()))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not hang_up:
            os.close(ours)
    return Seen(status, seen.decode(errors="replace"))


def _begun(
    command: Sequence[str | Path], cwd: Path, columns: int, rows: int, env: Mapping[str, str], stdout: int | None
) -> tuple["subprocess.Popen[bytes]", int]:
    """The process, and our end of its terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    everything = {**os.environ, "TERM": "xterm-256color", **env}
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
    return process, ours
