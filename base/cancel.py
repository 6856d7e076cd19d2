"""A cancel that belongs to one run: whoever holds it may end the run, from any thread, and nobody else's."""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ortsep.base.errors import Cancelled


class Cancel:
    """An event that also calls what was registered for it. It is set once and never renewed.

    A ``parent`` that is cancelled cancels this too, not the other way round.
    """

    def __init__(self, parent: "Cancel | None" = None) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._calls: dict[int, Callable[[], None]] = {}
        self._parent = parent
        self._registration = 0 if parent is None else parent.register(self.cancel)

    @property
    def cancelled(self) -> bool:
        return self._set

    def cancel(self) -> None:
        """Set it and call what is registered, each once, in this thread."""
        with self._lock:
            self._set = True
            calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call()

    def check(self) -> None:
        """Raise Cancelled where it is set."""
        if self._set:
            raise Cancelled("the separation was cancelled")

    def register(self, call: Callable[[], None]) -> int:
        """Have ``call`` called on ``cancel``, at once where that has been. Gives what ``forget`` takes."""
        with self._lock:
            if not self._set:
                number = max(self._calls, default=0) + 1
                self._calls[number] = call
                return number
        call()
        return 0

    def forget(self, number: int) -> None:
        """Undo a ``register``."""
        with self._lock:
            self._calls.pop(number, None)

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """While inside, ``call`` is registered."""
        number = self.register(call)
        try:
            yield
        finally:
            self.forget(number)

    def end(self) -> None:
        """Cancel, and let go of the parent: the run is over, however it ended, and what still waits shall end."""
        if self._parent is not None:
            self._parent.forget(self._registration)
        self.cancel()


class Cancels:
    """Those of the runs that live now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: weakref.WeakSet[Cancel] = weakref.WeakSet()

    def new(self, parent: Cancel | None = None) -> Cancel:
        """One for a run that begins."""
        cancel = Cancel(parent)
        with self._lock:
            self._live.add(cancel)
        return cancel

    def cancel(self) -> None:
        """Set all of them."""
        with self._lock:
            live = list(self._live)
        for cancel in live:
            cancel.cancel()
