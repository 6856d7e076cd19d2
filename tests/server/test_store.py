"""The database of jobs: order, claims, cancels and what a restart makes of them."""

import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from ortsep.base.errors import OutputError
from ortsep.server.store import ATTEMPTS, Store


def filled(store: Store, *ids: str) -> None:
    for id_ in ids:
        store.add(id_, f"{id_}.wav", "song.wav", {"model": "m"}, "print", None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs.sqlite")


def test_jobs_are_taken_in_the_order_they_came(store: Store) -> None:
    filled(store, "a", "b", "c")
    assert [store.place(x) for x in "abc"] == [1, 2, 3]
    first = store.claim()
    assert first is not None and (first.id, first.state, first.attempts) == ("a", "running", 1)
    assert [store.place(x) for x in "abc"] == [0, 1, 2]
    assert store.counts() == {"queued": 2, "running": 1, "done": 0, "failed": 0, "cancelled": 0}


def test_no_job_is_taken_twice(store: Store) -> None:
    filled(store, *(str(n) for n in range(200)))
    taken: list[str] = []

    def take() -> None:
        while (job := store.claim()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == [str(n) for n in range(200)]


def test_what_ran_when_the_process_died_is_begun_once_more_then_has_failed(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    filled(store, "a", "b")
    for _ in range(ATTEMPTS):
        job = store.claim()
        assert job is not None and job.id == "a"
        store.close()
        store = Store(tmp_path / "jobs.sqlite")
        store.recover()
    failed = store.get("a")
    assert failed is not None and failed.state == "failed" and "2 times" in (failed.error or "")
    after = store.claim()
    assert after is not None and after.id == "b"


def test_an_orderly_end_costs_no_attempt(store: Store) -> None:
    filled(store, "a")
    for _ in range(5):
        job = store.claim()
        assert job is not None and job.attempts == 1
        store.put_back("a")


def test_a_cancelled_job_does_not_become_done(store: Store) -> None:
    filled(store, "a")
    store.claim()
    assert store.cancel("a") == "running"
    assert not store.finish("a", "done", {"stems": {}})
    job = store.get("a")
    assert job is not None and job.state == "cancelled"
    assert store.cancel("nothing") is None


def test_a_key_belongs_to_one_job(store: Store) -> None:
    first = store.add("a", "s", "f", {}, "one", "key")
    assert store.add("b", "s", "f", {}, "two", "key").id == first.id == "a"
    known = store.by_key("key")
    assert known is not None and known[1] == "one"
    assert store.get("b") is None


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match="can't be opened"):
        Store(tmp_path / "jobs.sqlite")
