"""Running a generator ahead of its consumer in a thread, so that reading, STFT, graph and writing overlap."""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ortsep.base.cancel import Cancel

T = TypeVar("T")
R = TypeVar("R")
_END = object()
_CANCELLED = object()
PATIENCE = 2.0
"""Seconds that closing an iterator waits for its thread: one that is stuck in a read ends by itself later."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int | None:
    """How many of these are cores of their own and no second threads of others; None where Linux doesn't say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    lists = (Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in os.sched_getaffinity(0))
    try:
        return len({each.read_text(encoding="ascii") for each in lists})
    except (OSError, ValueError):
        return None


@contextmanager
def closed(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """Iterate over ``items``, and close them afterwards where they are a generator's.

    A generator that is not read to its end, because its reader failed, keeps its files open for as long as anybody
    keeps that failure's traceback.
    """
    iterator = iter(items)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def abreast(work: Callable[[T], R], items: Iterable[T], count: int) -> Generator[R, None, None]:
    """``work`` of each of ``items``, in their order, ``count`` at a time in threads of their own.

    A result is given as soon as it is there, though the next item may be long in coming. What an item's work raises is
    raised in its turn; what else is running is waited for, also where the iterator is closed early.
    """
    if count == 1:
        with closed(items) as given:
            yield from map(work, given)
        return
    free = threading.Semaphore(count)
    with ThreadPoolExecutor(count, thread_name_prefix="ortsep-abreast") as pool:

        def submitted() -> Iterator[Future[R]]:
            with closed(items) as given:
                while free.acquire() and (item := next(given, _END)) is not _END:
                    yield pool.submit(work, item)  # type: ignore[arg-type]
                    del item

        with closed(ahead(submitted(), count, on_close=free.release)) as running:
            for each in running:
                yield each.result()
                del each
                free.release()


def ahead(
    items: Iterable[T],
    depth: int = 1,
    on_close: Callable[[], None] | None = None,
    *,
    cancel: Cancel | None = None,
) -> Generator[T, None, None]:
    """Yield ``items`` in order, computed up to ``depth`` ahead in a thread of their own.

    An exception in the thread is raised here, and Cancelled as soon as ``cancel`` is set, whatever the thread is busy
    with. Closing the iterator early stops the thread and waits for it, though not for one that a source keeps waiting;
    ``on_close`` is called first, to cut short what it is busy with.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopping = threading.Event()

    def wake() -> None:
        with contextlib.suppress(queue.Full):
            ready.put_nowait(_CANCELLED)

    thread = threading.Thread(target=_fill, args=(ready, items, stopping), name="ortsep-ahead", daemon=True)
    thread.start()
    ended = False
    try:
        with cancel.calling(wake) if cancel is not None else contextlib.nullcontext():
            while True:
                if cancel is not None:
                    cancel.check()
                item = ready.get()
                if item is _END:
                    break
                if isinstance(item, _Failure):
                    ended = True
                    raise item.error
                if item is not _CANCELLED:
                    yield item  # type: ignore[misc]
                del item
        ended = True
    finally:
        stopping.set()
        if on_close is not None and not ended:
            on_close()
        thread.join(PATIENCE)


def _fill(ready: "queue.Queue[object]", items: Iterable[object], stopping: threading.Event) -> None:
    """Put ``items`` into ``ready``, then ``_END`` or the ``_Failure`` that ended them, until ``stopping`` is set."""

    def put(item: object) -> bool:
        while not stopping.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    try:
        with closed(items) as iterator:
            for item in iterator:
                if not put(item):
                    break
                del item
        put(_END)
    except BaseException as error:
        put(_Failure(error))


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
