"""Ctrl-C and SIGTERM end the process within a second or two, whatever it is doing.

Python tells its main thread of a signal between two of its own instructions: not while a library loads a model, not
while a write to a full pipe hangs. So a thread hears of it too. The main thread has ``PATIENCE`` seconds to end by
itself; then the thread removes the temporary files and ends the process.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from ortsep.stems.partials import remove_held

PATIENCE = 1.0
"""Seconds for an orderly end."""
STATUS = 130
"""The exit status of an interrupted process: that of a shell for Ctrl-C."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_promptly(patience: float = PATIENCE, message: str = "") -> None:
    """From now on SIGINT and SIGTERM raise KeyboardInterrupt, and ``patience`` seconds later end the process.

    Further signals do nothing: what they would interrupt is the cleaning. ``message`` goes to stderr where the process
    has to be ended. For the main thread of a process that is ours, as long as it lives.
    """
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    hearing, telling = socket.socketpair()
    telling.setblocking(False)
    signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    threading.Thread(
        target=_watch, args=(hearing, telling, patience, message), name="ortsep-interrupt", daemon=True
    ).start()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for again in _SIGNALS:
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(hearing: socket.socket, telling: socket.socket, patience: float, message: str) -> None:
    """``telling`` is held here so that nobody closes it."""
    with hearing, telling:
        while heard := hearing.recv(1):
            if heard[0] in _SIGNALS:
                time.sleep(patience)
                leave(message)


def leave(message: str = "") -> NoReturn:
    """End the process at once, as interrupted, with its temporary files removed and ``message`` on stderr.

    The interpreter's own end is left out: it waits for libraries to take down what they built.
    """
    remove_held()
    with contextlib.suppress(OSError, ValueError):
        if message:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{message}\n".encode())
    os._exit(STATUS)
