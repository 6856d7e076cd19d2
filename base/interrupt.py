"""Ctrl-C, SIGTERM and a terminal that closes end the process within a second or two, whatever it is doing.

Python tells its main thread of a signal between two of its own instructions: not while a library loads a model, not
while a write to a full pipe hangs. So a thread hears of it too. The main thread has ``PATIENCE`` seconds to end by
itself; then the thread removes the temporary files and ends the process.

Not even that thread gets its turn while a large C extension is imported (torch: a second and more in one go on a busy
machine). Then there is nothing to remove yet, and ``at_once`` leaves the end to the signal itself.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from ortsep.base.signals import ENDING, put_off
from ortsep.base.whole import any_held, remove_held

PATIENCE = 1.0
"""Seconds for an orderly end."""
STATUS = 130
"""The exit status of an interrupted process: that of a shell for Ctrl-C."""
Message = str | Callable[[], str]
"""What is told at the end; a function is asked at that time, in whichever thread ends the process."""


def end_promptly(patience: float = PATIENCE, message: Message = "") -> None:
    """From now on the signals of ``ENDING`` raise KeyboardInterrupt, and ``patience`` seconds later end the process.

    Further signals do nothing: what they would interrupt is the cleaning. ``message`` goes to stderr where the process
    has to be ended. A hang-up that is ignored stays ignored: that is what nohup asks for. For the main thread of a
    process that is ours, as long as it lives.
    """
    for number in ENDING:
        if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    hearing, telling = socket.socketpair()
    telling.setblocking(False)
    signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    threading.Thread(
        target=_watch, args=(hearing, telling, patience, message), name="ortsep-interrupt", daemon=True
    ).start()


def stand_down() -> None:
    """Undo ``end_promptly``: the signals raise KeyboardInterrupt and nobody ends the process. For a server, whose own
    end takes longer."""
    signal.set_wakeup_fd(-1)
    for number in ENDING:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """While inside, the signals of ``ENDING`` end the process themselves, in the middle of anything: for imports.

    Nobody is told and nothing removed; a shell shows 130 or 143. Without ``end_promptly``, in another thread than the
    main one, and while a temporary file is held, nothing changes.
    """
    ours = threading.current_thread() is threading.main_thread() and not any_held()
    changed = [number for number in ENDING if ours and signal.getsignal(number) is _interrupt]
    for number in changed:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if put_off(number):
        return
    for again in ENDING:
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(hearing: socket.socket, telling: socket.socket, patience: float, message: Message) -> None:
    """``telling`` is held here so that nobody closes it."""
    with hearing, telling:
        while heard := hearing.recv(1):
            if heard[0] in ENDING:
                time.sleep(patience)
                leave(message)


def leave(message: Message = "") -> NoReturn:
    """End the process at once, as interrupted, with its temporary files removed and ``message`` on stderr.

    The interpreter's own end is left out: it waits for libraries to take down what they built.
    """
    remove_held()
    with contextlib.suppress(Exception):
        if text := message() if callable(message) else message:
            os.write(sys.stderr.fileno() if sys.stderr else 2, f"{text}\n".encode(errors="backslashreplace"))
    os._exit(STATUS)
