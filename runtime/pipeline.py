"""Running a generator ahead of its consumer in a thread, so that reading, STFT, graph and writing overlap."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], depth: int = 1, on_close: Callable[[], None] | None = None) -> Generator[T, None, None]:
    """Yield ``items`` in order, computed up to ``depth`` ahead in a thread of their own.

    An exception in the thread is raised here. Closing the iterator early stops the thread and waits for it;
    ``on_close`` is called first, to cut short what it is busy with.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopping = threading.Event()

    def put(item: object) -> bool:
        while not stopping.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put(item):
                    break
            put(_END)
        except BaseException as error:
            put(_Failure(error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="ortsep-ahead", daemon=True)
    thread.start()
    ended = False
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failure):
                ended = True
                raise item.error
            yield item  # type: ignore[misc]
            del item
        ended = True
    finally:
        stopping.set()
        if on_close is not None and not ended:
            on_close()
        thread.join()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
