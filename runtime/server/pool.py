"""The processes of a server and the jobs that they work on: one thread a process takes the next job and watches it."""

import contextlib
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortsep.base.memory import resident
from ortsep.batch import unhearing
from ortsep.server.settings import Settings
from ortsep.server.store import Job, Store
from ortsep.server.worker import NO_MEMORY, Limits, Order, work

_PATIENCE = 3.0
"""Seconds that a process has to end a cancelled job by itself."""
_GRACE = 30.0
"""Seconds beyond the time limit of a job after which its process is ended: it can't have heard of it."""


@dataclass(frozen=True)
class Progress:
    """Seconds of audio done and in all, and the moment (monotonic) at which the separation began."""

    done: float
    total: float
    began: float

    def left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; None where there is none yet."""
        passed = time.monotonic() - self.began
        return passed * (self.total - self.done) / self.done if self.done > 0 and passed > 0.5 else None


class Pool:
    """``settings.jobs`` processes. ``ended`` is called with each job that has ended, and how: for the metrics."""

    def __init__(self, store: Store, settings: Settings, folder: Path, ended: Callable[[Job, str], None]) -> None:
        self._store, self._settings, self._folder, self._ended = store, settings, folder, ended
        self._wake = threading.Condition()
        self._stopped = False
        self._progress: dict[str, Progress] = {}
        self._cancelled: set[str] = set()
        self._threads = [threading.Thread(target=self._serve, name=f"ortsep-job-{n}") for n in range(settings.jobs)]
        self.alive = 0
        """Processes that are there now."""

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is a new job."""
        with self._wake:
            self._wake.notify_all()

    def progress(self, id_: str) -> Progress | None:
        """How far a running job is; None before its first sample."""
        return self._progress.get(id_)

    def cancel(self, id_: str) -> None:
        """End a job that the store has as cancelled, and remove its files when it has let go of them."""
        with self._wake:
            self._cancelled.add(id_)
            self._wake.notify_all()

    def stop(self) -> None:
        """End all processes; what they worked on waits again."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        worker: _Worker | None = None
        try:
            while not self._stopped:
                job = self._store.claim()
                if job is None:
                    with self._wake:
                        if not self._stopped:
                            self._wake.wait(1.0)
                    continue
                if worker is None or not worker.process.is_alive():
                    worker = _Worker(self._limits())
                    self.alive += 1
                try:
                    outcome = self._watch(worker, job)
                finally:
                    self._progress.pop(job.id, None)
                if not worker.process.is_alive():
                    self.alive -= 1
                self._ended(job, outcome)
        finally:
            if worker is not None:
                worker.end()

    def _limits(self) -> Limits:
        s = self._settings
        return Limits(s.provider, s.threads_of_a_job(), s.memory_of_a_job(), s.timeout, s.max_length)

    def _watch(self, worker: "_Worker", job: Job) -> str:
        """One job from its order to its end; gives how it ended."""
        folder = self._folder / job.id
        worker.send(Order(job.id, folder, job.file, job.request))
        began, asked = time.monotonic(), 0.0
        while True:
            now = time.monotonic()
            if self._stopped:
                worker.kill()
                self._store.put_back(job.id)
                _empty(folder)
                return "put back"
            if job.id in self._cancelled:
                if not asked:
                    asked = now
                    worker.send("cancel")
                elif now - asked > _PATIENCE:
                    worker.kill()
            if now - began > self._settings.timeout + _GRACE:
                worker.kill()
            if worker.heavy(self._settings.memory_of_a_job()):
                worker.kill()
                return self._end(job, "failed", error=NO_MEMORY)
            said = worker.hear(0.1)
            if said is None:
                if worker.process.is_alive():
                    continue
                return self._end(job, "failed", error=worker.why())
            kind, *values = said
            if kind == "progress":
                known = self._progress.get(job.id)
                self._progress[job.id] = Progress(values[0], values[1], known.began if known else now)
            elif kind == "done":
                return self._end(job, "done", result=values[0])
            else:
                return self._end(job, "failed", error=values[0])

    def _end(self, job: Job, state: Any, result: Any = None, error: str | None = None) -> str:
        if self._store.finish(job.id, state, result, error):
            if state == "failed":
                _empty(self._folder / job.id)
            return str(state)
        with self._wake:
            self._cancelled.discard(job.id)
        self._store.remove(job.id)
        shutil.rmtree(self._folder / job.id, ignore_errors=True)
        return "cancelled"


class _Worker:
    def __init__(self, limits: Limits) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, limits), daemon=True, name="ortsep-worker")
        with unhearing():
            self.process.start()
        theirs.close()
        self._weighed = 0.0

    def send(self, what: Order | str | None) -> None:
        with contextlib.suppress(OSError):  # a process that is dead already is noticed by its silence
            self._connection.send(what)

    def hear(self, seconds: float) -> tuple[Any, ...] | None:
        """The next that it says within ``seconds``."""
        try:
            if not self._connection.poll(seconds):
                return None
            said: tuple[Any, ...] = self._connection.recv()
            return said
        except (EOFError, OSError):
            self.process.join(5.0)
            self.process.kill()
            self.process.join()
            return None

    def heavy(self, limit: int) -> bool:
        """Whether it has taken more than ``limit`` bytes; looked at once a second."""
        now = time.monotonic()
        if now - self._weighed < 1.0 or self.process.pid is None:
            return False
        self._weighed = now
        return resident(self.process.pid) > limit

    def why(self) -> str:
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        return f"the process that separated this song {how}; the song or the model may be at fault, try it once more"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def end(self) -> None:
        self.send(None)
        self.process.terminate()
        self.process.join(2.0)
        self.kill()


def _empty(folder: Path) -> None:
    """Remove what a job made; the song that was sent stays for another attempt or is removed with the job."""
    shutil.rmtree(folder / "stems", ignore_errors=True)
    for name in ("pictures.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
