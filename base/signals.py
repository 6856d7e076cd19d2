"""Signals and libraries that no exception can pass through."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """While inside, SIGINT and SIGTERM wait; afterwards they do what they would have done.

    libsndfile calls back into Python, and an exception there (Ctrl-C raises one in any line of the main thread) is
    lost: what comes out is a write error. Other threads get no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, keep) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])
