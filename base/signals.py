"""Signals and libraries that no exception can pass through."""

import contextlib
import signal
import threading
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""What asks a process to end: Ctrl-C, a supervisor, a terminal that closes."""

_depth = 0
_came: list[int] = []


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """While inside, the signals that ``ortsep.base.interrupt`` handles wait; afterwards they do what they would have.

    libsndfile calls back into Python, and an exception there (Ctrl-C raises one in any line of the main thread) is
    lost: what comes out is an error of reading or writing. Other threads get no signals. No handler is changed: in a
    program that is not ours, which has handlers of its own, this does nothing.
    """
    global _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _came:
            came = _came[0]
            _came.clear()
            signal.raise_signal(came)


def put_off(number: int) -> bool:
    """Whether this signal has to wait, for a handler in the main thread; it is raised again in due time."""
    if _depth:
        _came.append(number)
    return bool(_depth)
