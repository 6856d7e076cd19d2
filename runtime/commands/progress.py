"""What commands tell on the way, on stderr: sentences and a bar for people, or NDJSON events for programs."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from ortsep.base.errors import OrtsepError
from ortsep.songs.separate import SongReport

_EVERY = {"bar": 0.05, "json": 0.2}
"""Least seconds between two updates of one song."""


class Teller(Protocol):
    """Takes what happens to songs, by their number."""

    def started(self, number: int, song: Path) -> None: ...
    def progress(self, number: int, song: Path, done: float, total: float) -> None: ...
    def finished(self, number: int, report: SongReport) -> None: ...
    def failed(self, number: int, song: Path, error: OrtsepError) -> None: ...
    def close(self) -> None: ...


class Events:
    """One JSON object a line; the fields of each ``event``:

    ========  =====================================================================================================
    started   song
    progress  song, done, total (seconds of audio; at most five a second, and the last)
    finished  song, skipped, seconds, processing_time, stems (paths by name), report (with --report), warnings
    failed    song, error, status
    error     error, status: what stopped the whole run
    ========  =====================================================================================================
    """

    def __init__(self) -> None:
        self._last: dict[int, float] = {}

    def started(self, number: int, song: Path) -> None:
        emit("started", song=str(song))

    def progress(self, number: int, song: Path, done: float, total: float) -> None:
        now = time.monotonic()
        if done >= total or now - self._last.get(number, 0.0) >= _EVERY["json"]:
            self._last[number] = now
            emit("progress", song=str(song), done=round(done, 3), total=round(total, 3))

    def finished(self, number: int, report: SongReport) -> None:
        document = report.document()
        keys = ("song", "skipped", "seconds", "processing_time", "stems", "report", "warnings")
        emit("finished", **{key: document[key] for key in keys if key in document})

    def failed(self, number: int, song: Path, error: OrtsepError) -> None:
        emit("failed", song=str(song), error=str(error), status=error.status)

    def close(self) -> None:
        pass


def emit(event: str, **fields: Any) -> None:
    """One event on stderr."""
    print(json.dumps({"event": event, **fields}, ensure_ascii=False), file=sys.stderr, flush=True)


class Sentences:
    """A line for each song and, on a terminal, a bar with the time left. ``quiet`` leaves the failures."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._tasks: dict[int, Any] = {}
        self._last: dict[int, float] = {}
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[reached]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()

    def started(self, number: int, song: Path) -> None:
        if self._bar is not None:
            name = song.name.replace("[", r"\[")
            self._tasks[number] = self._bar.add_task(name, total=None, reached="")

    def progress(self, number: int, song: Path, done: float, total: float) -> None:
        now = time.monotonic()
        if number in self._tasks and (done >= total or now - self._last.get(number, 0.0) >= _EVERY["bar"]):
            self._last[number] = now
            reached = f"{100 * done / total if total else 100:3.0f}%  {done:.0f}/{total:.0f} s"
            self._bar.update(self._tasks[number], completed=done, total=total, reached=reached)

    def finished(self, number: int, report: SongReport) -> None:
        self._clear(number)
        if not self._quiet:
            self._print("\n".join(_lines(report)))

    def failed(self, number: int, song: Path, error: OrtsepError) -> None:
        self._clear(number)
        self._print(f"ortsep: {error}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _clear(self, number: int) -> None:
        if number in self._tasks:
            self._bar.remove_task(self._tasks.pop(number))

    def _print(self, text: str) -> None:
        if self._bar is None:
            print(text, file=sys.stderr)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _lines(report: SongReport) -> list[str]:
    page = [f"  report: {report.page}"] if report.page else []
    if report.skipped:
        return [f"{report.song}: skipped, its stems are there and still right", *page]
    places = {str(Path(path).parent) for path in report.stems.values() if path}
    where = f" -> {', '.join(sorted(places))}" if places else ""
    names = ", ".join(stem.stem_name for stem in report.outputs)
    speed = f"{report.seconds:.1f} s of audio in {report.processing_time:.1f} s on {report.provider}"
    said = [f"{report.song}: {names}{where} ({speed}, {report.real_time_factor:.2f} of real time)"]
    if report.null_db is not None:
        said.append(f"  the stems add up to the mixture: what is left lies {report.null_db:.1f} dB below it")
    return said + page + [f"  note: {warning}" for warning in report.warnings]


class Downloads:
    """How files come, called with name, bytes so far and bytes in all (0 where nobody knows).

    For programs events ``downloading`` with ``file``, ``done`` and ``total``, at most five a second; for people a bar
    on a terminal, else a line for each file.
    """

    def __init__(self, manner: str, quiet: bool) -> None:
        self._manner, self._quiet = manner, quiet
        self._file, self._last = "", 0.0
        self._bar: Any = None

    def __call__(self, file: str, done: int, total: int) -> None:
        now = time.monotonic()
        new, complete = file != self._file, bool(total) and done >= total
        if not (new or complete or now - self._last >= _EVERY[self._manner]):
            return
        self._file, self._last = file, now
        if self._manner == "json":
            emit("downloading", file=file, done=done, total=total)
        elif not self._quiet and sys.stderr.isatty():
            self._draw(file, done, total, new)
        elif not self._quiet and new:
            size = f" ({total / 1e6:.1f} MB)" if total else ""
            print(f"downloading {file}{size}", file=sys.stderr, flush=True)

    def _draw(self, file: str, done: int, total: int, new: bool) -> None:
        if new:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self.close()
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(file.replace("[", r"\["), total=total or None)
        self._bar.update(self._bar.task_ids[0], completed=done)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
