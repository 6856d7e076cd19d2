"""Running a generator ahead of its consumer in a thread, so that reading, STFT, graph and writing overlap."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_END = object()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def abreast(work: Callable[[T], R], items: Iterable[T], count: int) -> Generator[R, None, None]:
    """``work`` of each of ``items``, in their order, ``count`` at a time in threads of their own.

    What an item's work raises is raised in its turn; what else is running is waited for, also where the iterator is
    closed early.
    """
    if count == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="ortsep-abreast") as pool:
        running: deque[Future[R]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            del item
            if len(running) == count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


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
