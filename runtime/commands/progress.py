"""What commands tell on the way, on stderr: sentences and a bar for people, or NDJSON events for programs."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from ortsep.base.decibels import level
from ortsep.base.errors import OrtsepError
from ortsep.commands.terminal import cells, screen, shortened, shown
from ortsep.songs.record import SongReport

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
    """One event on stderr, in ASCII: any locale and any name survives it."""
    print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)


class Sentences:
    """A line for each song and, on a terminal, a bar with the time left.

    ``quiet`` leaves the failures, ``verbose`` adds the stems' levels.

    ``songs``: how many there are. What the model says of itself in every song is told once.
    """

    def __init__(self, quiet: bool, songs: int = 1, verbose: bool = False) -> None:
        self._quiet, self._songs, self._verbose = quiet, songs, verbose
        self._begun: dict[int, float] = {}
        self._bars: dict[int, tuple[str, float, float]] = {}
        self._last = 0.0
        self._told: set[str] = set()

    def started(self, number: int, song: Path) -> None:
        self._begun[number] = time.monotonic()
        self._bars[number] = (f"{number + 1}/{self._songs} {song.name}" if self._songs > 1 else song.name, 0.0, 0.0)
        if screen.columns and not screen.lively and not self._quiet:
            screen.say(f"separating {song}")
        self._draw()

    def progress(self, number: int, song: Path, done: float, total: float) -> None:
        self._bars[number] = (self._bars[number][0], done, total)
        now = time.monotonic()
        if done >= total or now - self._last >= _EVERY["bar"]:
            self._last = now
            self._draw()

    def finished(self, number: int, report: SongReport) -> None:
        self._bars.pop(number, None)
        self._draw()
        if not self._quiet:
            new = [note for note in report.warnings if note not in self._told]
            self._told.update(new)
            levels = _levels(report) if self._verbose else []
            screen.say(*_lines(report), *levels, *(f"  note: {note}" for note in new))

    def failed(self, number: int, song: Path, error: OrtsepError) -> None:
        self._bars.pop(number, None)
        self._draw()
        screen.say(f"ortsep: {error}")

    def close(self) -> None:
        screen.clear()

    def _draw(self) -> None:
        if not self._quiet and screen.lively:
            now = time.monotonic()
            screen.show([_bar(*bar, now - self._begun[number]) for number, bar in self._bars.items()])


def _bar(name: str, done: float, total: float, elapsed: float, reached: str = "") -> str:
    """A line of one column less than the terminal has: name, bar, how far, and the time left as soon as it is known.

    Before anything is ``done`` there is the name alone: a song is being opened, or the first chunk is on its way.
    """
    room, share = screen.columns - 1, done / total if total else 0.0
    if not done:
        return shortened(shown(f"{name} ..."), room)
    left = f"  {_clock(elapsed / share - elapsed)} left" if elapsed >= 1.0 and 0.02 <= share < 1 else ""
    reached = f"  {reached or f'{100 * share:3.0f}%'}{left:<{len('  00:00 left')}}" if total else f"  {reached}"
    room -= len(reached)
    wide = bool(total) and screen.columns >= 60
    title = shortened(shown(name), room * 3 // 5 - 2 if wide else room)
    bar = screen.bar(share, room - cells(title) - 2) if wide else ""
    return f"{title}  {bar}{reached}" if bar else f"{title}{reached}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:.0f}:{minutes:02.0f}:{seconds:02.0f}" if hours else f"{minutes:2.0f}:{seconds:02.0f}"


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
    return said + page


def _levels(report: SongReport) -> list[str]:
    """What --verbose says of each stem; dB of full scale."""
    return [
        f"  {stem.stem_name}: peak {_decibels(stem.peak)}, RMS {_decibels(stem.rms)}, {stem.channels} x {stem.samples} "
        f"samples at {stem.sample_rate} Hz{', ' + stem.path if stem.path else ''}"
        for stem in report.outputs
        if stem.samples
    ]


def _decibels(amplitude: float) -> str:
    return f"{level(amplitude):.1f} dBFS" if amplitude > 0 else "silent"


class Downloads:
    """How files come, called with name, bytes so far and bytes in all (0 where nobody knows).

    For programs events ``downloading`` with ``file``, ``done`` and ``total``, at most five a second; for people a bar
    on a terminal, else a line for each file.
    """

    def __init__(self, manner: str, quiet: bool) -> None:
        self._manner, self._quiet = manner, quiet
        self._file, self._last = "", 0.0
        self._begun, self._had = 0.0, 0

    def __call__(self, file: str, done: int, total: int) -> None:
        now = time.monotonic()
        new, complete = file != self._file, bool(total) and done >= total
        if not (new or complete or now - self._last >= _EVERY[self._manner]):
            return
        self._file, self._last = file, now
        if new:
            self._begun, self._had = now, done
        if self._manner == "json":
            emit("downloading", file=file, done=done, total=total)
        elif not self._quiet and screen.lively:
            self._draw(file, done, total, now - self._begun)
        elif not self._quiet and new:
            size = f" ({total / 1e6:.1f} MB)" if total else ""
            screen.say(f"downloading {file}{size}")

    def _draw(self, file: str, done: int, total: int, elapsed: float) -> None:
        """A download that goes on where an earlier one ended has its time left counted from there."""
        reached = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        fresh = done - self._had
        pace = elapsed * done / fresh if fresh else 0.0  # as if all of it had come at the pace of what is new
        screen.show([_bar(f"downloading {file}", done, total, pace, reached)])

    def close(self) -> None:
        """Take the bar away."""
        screen.clear()
