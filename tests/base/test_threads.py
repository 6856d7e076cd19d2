import threading
import time
from collections.abc import Iterator

import pytest

from ortsep.base.threads import abreast, ahead


def test_order_is_kept_and_work_runs_ahead() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    stream = ahead(numbers(), depth=2)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 3 <= len(made) <= 5
    assert list(stream) == list(range(1, 20))


def test_an_exception_crosses_over() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("thrown in the thread")

    stream = ahead(broken())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="thrown in the thread"):
        next(stream)


def test_closing_stops_the_thread_and_its_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            closed.set()

    before = threading.active_count()
    stream = ahead(ahead(endless()))
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    assert closed.wait(5)
    assert threading.active_count() == before


def test_on_close_interrupts_what_the_thread_is_busy_with() -> None:
    released = threading.Event()

    def slow() -> Iterator[int]:
        yield 0
        released.wait(30)
        yield 1

    stream = ahead(slow(), on_close=released.set)
    next(stream)
    start = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_work_abreast_keeps_the_order(count: int) -> None:
    def slower_first(i: int) -> int:
        time.sleep(0.02 if i % 2 == 0 else 0.0)
        return i * i

    assert list(abreast(slower_first, range(9), count)) == [i * i for i in range(9)]


def test_work_abreast_runs_at_the_same_time_and_no_further_ahead() -> None:
    meeting = threading.Barrier(2, timeout=5)
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(8):
            taken.append(i)
            yield i

    stream = abreast(lambda i: (meeting.wait(), i)[1], numbers(), 2)
    assert next(stream) == 0
    assert len(taken) == 2
    assert list(stream) == list(range(1, 8))


def test_a_result_does_not_wait_for_the_next_item() -> None:
    heard = threading.Event()

    def live() -> Iterator[int]:
        yield 1
        assert heard.wait(5), "the first result is not there before the second item"
        yield 2

    stream = abreast(lambda i: i, live(), 2)
    assert next(stream) == 1
    heard.set()
    assert list(stream) == [2]


def test_an_exception_abreast_comes_in_its_turn_and_no_thread_is_left() -> None:
    def work(i: int) -> int:
        if i == 2:
            raise ValueError("the third")
        return i

    before = threading.active_count()
    stream = abreast(work, range(9), 2)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(stream)
    assert threading.active_count() == before
