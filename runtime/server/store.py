"""The jobs of a server, in an SQLite database: what is waiting survives a restart, whatever ended the process."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ortsep.base.errors import OutputError

State = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")
ATTEMPTS = 2
"""How often a job is begun: once more where the server ended while it ran."""

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL,
    key TEXT UNIQUE,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,
    song TEXT NOT NULL,
    file TEXT NOT NULL,
    request TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
"""
_COLUMNS = "id, state, song, file, request, created, started, finished, attempts, result, error"


@dataclass(frozen=True)
class Job:
    """One separation. Times are seconds since 1970."""

    id: str
    state: State
    song: str
    """The song's name as its sender called it: for people only, never a path."""
    file: str
    """The upload's name in the job's folder."""
    request: Mapping[str, Any]
    created: float
    started: float | None
    finished: float | None
    attempts: int
    result: Mapping[str, Any] | None
    error: str | None


def new_id() -> str:
    """An identifier that nobody guesses: 128 random bits in 22 characters that need no escaping in a URL."""
    return secrets.token_urlsafe(16)


class Store:
    """Any thread may call any method. Raises OutputError where the database can't be opened."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = NORMAL")
            self._base.executescript(_TABLE)
        except sqlite3.Error as error:
            raise OutputError(
                f"the jobs in {path} can't be opened ({error}); name another folder with --data"
            ) from error

    def add(self, id_: str, song: str, file: str, request: Mapping[str, Any], fingerprint: str, key: str | None) -> Job:
        """A new job at the end of the queue; where ``key`` is taken, nothing is added and the job that has it comes
        back."""
        with self._lock:
            self._base.execute(
                "INSERT INTO jobs (id, key, fingerprint, state, song, file, request, created) "
                "VALUES (?, ?, ?, 'queued', ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (id_, key, fingerprint, song, file, json.dumps(request), time.time()),
            )
            row = self._base.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id_,)).fetchone()
            if row is None:
                row = self._base.execute(f"SELECT {_COLUMNS} FROM jobs WHERE key = ?", (key,)).fetchone()
        return _job(row)

    def by_key(self, key: str) -> tuple[Job, str] | None:
        """The job that was made with an idempotency key, and the fingerprint of its request."""
        with self._lock:
            row = self._base.execute(f"SELECT {_COLUMNS}, fingerprint FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if row is None else (_job(row[:-1]), row[-1])

    def get(self, id_: str) -> Job | None:
        with self._lock:
            row = self._base.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id_,)).fetchone()
        return None if row is None else _job(row)

    def newest(self, count: int, before: float | None = None) -> list[Job]:
        """Jobs from the newest on, made before ``before``."""
        with self._lock:
            rows = self._base.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE created < ? ORDER BY number DESC LIMIT ?",
                (before if before is not None else float("inf"), count),
            ).fetchall()
        return [_job(row) for row in rows]

    def place(self, id_: str) -> int:
        """How many jobs begin before this one does, and itself; 0 where it does not wait."""
        with self._lock:
            (count,) = self._base.execute(
                "SELECT count(*) FROM jobs WHERE state = 'queued' AND number <= "
                "(SELECT number FROM jobs WHERE id = ? AND state = 'queued')",
                (id_,),
            ).fetchone()
        return int(count)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._lock:
            rows = self._base.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        return {"queued": 0, "running": 0, "done": 0, "failed": 0, "cancelled": 0, **dict(rows)}

    def claim(self) -> Job | None:
        """The job that has waited longest, now running; None where none waits."""
        with self._lock:
            row = self._base.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ? WHERE number = "
                f"(SELECT min(number) FROM jobs WHERE state = 'queued') RETURNING {_COLUMNS}",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def finish(self, id_: str, state: State, result: Mapping[str, Any] | None = None, error: str | None = None) -> bool:
        """A running job has ended. False where it isn't running any more: it was cancelled meanwhile."""
        with self._lock:
            done = self._base.execute(
                "UPDATE jobs SET state = ?, finished = ?, result = ?, error = ? WHERE id = ? AND state = 'running'",
                (state, time.time(), None if result is None else json.dumps(result), error, id_),
            )
        return done.rowcount == 1

    def cancel(self, id_: str) -> State | None:
        """Cancel what waits or runs; gives the state before, None where there is no such job."""
        with self._lock:
            row = self._base.execute("SELECT state FROM jobs WHERE id = ?", (id_,)).fetchone()
            self._base.execute(
                "UPDATE jobs SET state = 'cancelled', finished = ? WHERE id = ? AND state IN ('queued', 'running')",
                (time.time(), id_),
            )
        return None if row is None else row[0]

    def put_back(self, id_: str) -> None:
        """A running job waits again, at its old place, as if it had not been begun: the server ends in good order."""
        with self._lock:
            self._base.execute(
                "UPDATE jobs SET state = 'queued', started = NULL, attempts = attempts - 1 "
                "WHERE id = ? AND state = 'running'",
                (id_,),
            )

    def remove(self, id_: str) -> None:
        with self._lock:
            self._base.execute("DELETE FROM jobs WHERE id = ?", (id_,))

    def recover(self) -> None:
        """At the start: what was running when the process died waits again, or has failed where that was its last
        attempt."""
        reason = f"the server ended {ATTEMPTS} times while this song was being separated; it is not begun again"
        with self._lock:
            self._base.execute(
                "UPDATE jobs SET state = 'failed', finished = ?, error = ? WHERE state = 'running' AND attempts >= ?",
                (time.time(), reason, ATTEMPTS),
            )
            self._base.execute("UPDATE jobs SET state = 'queued', started = NULL WHERE state = 'running'")

    def ended_before(self, moment: float) -> list[str]:
        """Identifiers of the jobs that ended before ``moment``."""
        with self._lock:
            rows = self._base.execute(
                "SELECT id FROM jobs WHERE state IN ('done', 'failed', 'cancelled') AND finished < ?", (moment,)
            ).fetchall()
        return [id_ for (id_,) in rows]

    def ids(self) -> set[str]:
        with self._lock:
            return {id_ for (id_,) in self._base.execute("SELECT id FROM jobs").fetchall()}

    def close(self) -> None:
        with self._lock:
            self._base.close()


def _job(row: tuple[Any, ...]) -> Job:
    id_, state, song, file, request, created, started, finished, attempts, result, error = row
    read = None if result is None else json.loads(result)
    return Job(id_, state, song, file, json.loads(request), created, started, finished, attempts, read, error)
