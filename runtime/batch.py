"""Several songs: one after the other here, or in processes of their own; one that fails does not stop the others.

A process per job, not a thread: a decoder or provider that crashes takes one song with it, and an interruption ends
each job as it ends a single run.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

from ortsep.base import heap, interrupt
from ortsep.base.errors import OrtsepError
from ortsep.base.whole import sweep
from ortsep.chain import Chain
from ortsep.options import Options
from ortsep.report.write import draw_report, require_files
from ortsep.separator import Separator
from ortsep.songs.record import Files, SongReport
from ortsep.songs.separate import Seconds, separate_file

_PATIENCE = 0.5
"""Seconds that an interrupted job has for an orderly end: less than its parent's own."""


@dataclass(frozen=True)
class Job:
    """What all songs of a batch share. ``models`` as typed, ``loading`` the keyword arguments of Separator."""

    models: tuple[str, ...]
    loading: dict[str, Any]
    options: Options
    files: Files
    timeout: float | None = None


class Task(NamedTuple):
    """One song and where its stems go, and its report if there is to be one."""

    song: Path
    targets: dict[str, Path]
    page: Path | None = None

    def folders(self) -> set[Path]:
        """Where something is written."""
        return {path.parent for path in (*self.targets.values(), self.page) if path is not None}


class Event(NamedTuple):
    """What happened to task number ``task``; ``value``: None, (seconds done, in all), a SongReport, an OrtsepError."""

    task: int
    kind: Literal["started", "progress", "finished", "failed"]
    value: Any = None


Tell = Callable[[Event], None]


class Errand(Protocol):
    """What a process is given: a ``Task``, or what else its way of working knows what to do with."""

    @property
    def song(self) -> Path | str: ...

    def folders(self) -> set[Path]: ...


Work = Callable[..., SongReport]
"""As ``separate_task``: (separator, job, errand, progress, sink). Pickled by name."""


def load(models: Sequence[str], loading: dict[str, Any]) -> Separator | Chain:
    """One model, or several one behind the other; all but the first as MODEL or MODEL@STEM."""
    later = [model.partition("@") for model in models[1:]]
    names = (models[0], *(name for name, _, _ in later))
    return Chain.of([Separator(name, **loading) for name in names], [feed or None for _, _, feed in later])


def separate_task(
    separator: Separator | Chain, job: Job, task: Task, progress: Seconds, sink: BinaryIO | None = None
) -> SongReport:
    """``separate_file``, then the page. Every failure is an OrtsepError; only an interruption passes through."""
    try:
        if task.page is not None:
            require_files(job.files, piped=sink is not None)
        given: dict[str, Any] = {"progress": progress, "timeout": job.timeout, "sink": sink}
        given["once"] = task.page is not None  # the page decodes the song once more
        report = separate_file(separator, task.song, job.files, job.options, targets=task.targets, **given)
        if task.page is None:
            return report
        return draw_report(separator, report, task.page, job.files, job.options)
    except OrtsepError:
        raise
    except MemoryError as error:
        raise OrtsepError(f"{task.song}: memory ran out; close other programs, or take a smaller model") from error
    except Exception as error:
        raise OrtsepError(
            f"{task.song}: unexpected {type(error).__name__}: {error}; run it alone with --debug and report it"
        ) from error


def in_this_process(
    separator: Separator | Chain,
    job: Job,
    tasks: Iterable[Errand],
    tell: Tell,
    sink: BinaryIO | None = None,
    work: Work = separate_task,
) -> None:
    """Separate ``tasks`` one after the other. ``sink`` takes the one stem of the one task."""
    for number, task in enumerate(tasks):
        tell(Event(number, "started"))

        def told(done: float, total: float, number: int = number) -> None:
            tell(Event(number, "progress", (done, total)))

        try:
            report = work(separator, job, task, told, sink)
        except OrtsepError as error:
            tell(Event(number, "failed", error))
        else:
            tell(Event(number, "finished", report))


def in_processes(job: Job, tasks: Iterable[Errand], jobs: int, tell: Tell, work: Work = separate_task) -> None:
    """Separate ``tasks`` in ``jobs`` processes, which take them from the iterable as they become free.

    The processors are divided among them unless ``loading`` says how many threads a graph has. An exception, Ctrl-C
    included, ends all jobs; none leaves a half-written file. A process that dies costs its song and is replaced.
    """
    threads = job.loading.get("threads") or max(1, (os.cpu_count() or 1) // jobs)
    shared = Job(job.models, {**job.loading, "threads": threads}, job.options, job.files, job.timeout)
    waiting = enumerate(tasks)
    crew: dict[Connection, _Worker] = {}
    try:
        for given in islice(waiting, jobs):
            worker = _Worker(shared, work)
            crew[worker.connection] = worker
            worker.give(*given)
        while crew:
            for ready in wait(list(crew)):
                worker = crew[ready]  # type: ignore[index]
                event = worker.event()
                tell(event)
                if event.kind not in ("finished", "failed"):
                    continue
                del crew[worker.connection]
                if not worker.usable():
                    worker.sweep()
                if (next_one := next(waiting, None)) is not None:
                    worker = worker if worker.usable() else _Worker(shared, work)
                    crew[worker.connection] = worker
                    worker.give(*next_one)
                else:
                    worker.end()
    finally:
        _end(crew.values())


def _end(crew: Collection["_Worker"]) -> None:
    """End the jobs and remove what they leave: on a busy machine one may not get to its own cleaning in time."""
    for worker in crew:
        worker.process.terminate()
    deadline = time.monotonic() + 1.5 * _PATIENCE
    for worker in crew:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
    for worker in crew:
        worker.process.join()
        worker.sweep()


class _Worker:
    def __init__(self, job: Job, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, job, work), daemon=True)
        with unhearing():
            self.process.start()
        theirs.close()
        self.task = -1
        self._errand: Errand = Task(Path(), {})

    def give(self, number: int, task: Errand) -> None:
        self.task, self._errand = number, task
        with contextlib.suppress(OSError):  # a process that is dead already is noticed by ``event``
            self.connection.send((number, task))

    def event(self) -> Event:
        try:
            event: Event = self.connection.recv()
            return event
        except (EOFError, OSError):
            self.process.join(_PATIENCE)
            code = self.process.exitcode
            how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
            error = OrtsepError(
                f"{self._errand.song}: the process that separated it {how}; if memory ran out, try fewer --jobs"
            )
            return Event(self.task, "failed", error)

    def usable(self) -> bool:
        return self.process.is_alive()

    def sweep(self) -> None:
        """Remove what a process that is dead has left where it wrote."""
        for folder in self._errand.folders():
            sweep(folder)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(_PATIENCE)
        self.process.kill()


@contextlib.contextmanager
def unhearing() -> Iterator[None]:
    """Processes that begin inside never hear Ctrl-C: their parent ends them, and until they have imported what handles
    it they would answer with a traceback."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, which unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, job: Job, work: Work) -> None:
    """A process: take tasks until there is none, and tell what happens. Ends itself when its parent is gone."""
    interrupt.end_promptly(_PATIENCE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too and ends its jobs
    heap.give_back()
    try:
        separator: Separator | Chain | None = None
        while (given := connection.recv()) is not None:
            number, task = given

            def tell(event: Event, number: int = number) -> None:
                connection.send(event._replace(task=number))

            try:
                separator = separator or load(job.models, job.loading)
            except OrtsepError as error:
                tell(Event(number, "failed", error))
            else:
                in_this_process(separator, job, [task], tell, work=work)
    except (KeyboardInterrupt, EOFError, ConnectionError):
        interrupt.leave()
