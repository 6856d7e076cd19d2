"""``ortsep run``: a model, songs and folders; one report each; one bad song does not stop the others."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ortsep import __version__
from ortsep.audio.spool import spool
from ortsep.base.errors import FileMissing, OrtsepError, UsageError
from ortsep.base.whole import scratch
from ortsep.batch import Event, Job, Task, in_processes, in_this_process, load
from ortsep.chain import Chain
from ortsep.commands.ending import interrupted
from ortsep.commands.progress import Events, Sentences, Teller
from ortsep.commands.terminal import screen
from ortsep.graphs.model import find_model
from ortsep.models.catalogue import catalogue
from ortsep.options import Options
from ortsep.report.pictures import require_matplotlib
from ortsep.separator import Separator
from ortsep.songs.separate import Files, SongReport, pages, places

EXTENSIONS = (
    *(".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".au"),
    *(".m4a", ".mp4", ".aac", ".wma", ".mka", ".webm"),
)
"""What counts as a song in a folder; a file that is named is opened whatever it is called."""
PIPE = "-"
"""Standard input as a song, standard output as ``Files.output``."""


@dataclass(frozen=True)
class Manner:
    """How a run goes and what it tells, as typed."""

    jobs: int = 1
    raw: str | None = None
    """What headerless samples on standard input are: FORMAT:RATE:CHANNELS."""
    timeout: float | None = None
    """Seconds for a song."""
    progress: Literal["bar", "json"] = "bar"
    report: bool = False
    """A page with pictures beside the stems of each song."""
    as_json: bool = False
    quiet: bool = False
    debug: bool = False


def run_songs(arguments: Sequence[str], options: Options, files: Files, loading: dict[str, Any], manner: Manner) -> int:
    """Separate every song. Returns the exit status: that of the first song that failed, else 0."""
    models, named = _split(arguments)
    if not named:
        raise UsageError("name a model and at least one song: ortsep run MODEL SONG...")
    sink = _sink(files, named, manner)
    if manner.report:
        require_matplotlib()
    draws = manner.progress != "json" and not manner.quiet
    if draws:
        screen.doing(f"loading {' and '.join(models)} ...")
    separator = load(models, loading)
    names = separator.names(options)
    if sink is not None and len(names) != 1:
        raise UsageError(f"-o - takes one stem and these are {', '.join(names)}; choose one with --stems")
    songs = list(_songs(named))
    teller: Teller = Events() if manner.progress == "json" else Sentences(manner.quiet, len(songs))
    with contextlib.ExitStack() as stack:
        if PIPE in named and draws:
            screen.doing("reading the song from standard input ...")
        read = [_from_stdin(stack, manner.raw) if str(song) == PIPE else song for song in songs]
        if sink is None:
            targets = places(separator, read, files, options)
            drawn = pages(separator, read, files, targets) if manner.report else [None] * len(read)
            tasks = [Task(*of_song) for of_song in zip(read, targets, drawn, strict=True)]
        else:
            tasks = [Task(song, {}) for song in read]
        results = _Results(songs, teller, alone=len(songs) == 1 or manner.debug)
        job = Job(tuple(models), loading, options, files, manner.timeout)
        with closing(teller):
            if manner.jobs > 1 and len(tasks) > 1:
                in_processes(job, tasks, manner.jobs, results.take)
            else:
                in_this_process(separator, job, tasks, results.take, sink)
    if manner.as_json:
        print(json.dumps(_document(separator, results)))
    if manner.progress != "json" and len(songs) > 1 and (results.errors or not manner.quiet):
        screen.say(results.summary())
    return min(results.errors.items())[1].status if results.errors else 0


class _Results:
    """Reports and errors by the number of the song, passed on as they come."""

    def __init__(self, songs: Sequence[Path], teller: Teller, alone: bool) -> None:
        self.songs = songs
        self.reports: dict[int, SongReport] = {}
        self.errors: dict[int, OrtsepError] = {}
        self._teller, self._alone = teller, alone

    def summary(self) -> str:
        """What came of several songs, in one line."""
        skipped = sum(report.skipped for report in self.reports.values())
        done = len(self.reports) - skipped
        parts = [f"{done} done"] * (done > 0) + [f"{skipped} skipped"] * (skipped > 0)
        if not self.errors:
            return f"{len(self.songs)} songs: {', '.join(parts)}"
        return ", ".join([f"ortsep: {len(self.errors)} of {len(self.songs)} songs failed", *parts])

    def take(self, event: Event) -> None:
        """Raises the error of a song that is alone: it is the run's own."""
        number, song = event.task, self.songs[event.task]
        if event.kind == "started":
            self._teller.started(number, song)
        elif event.kind == "progress":
            self._teller.progress(number, song, *event.value)
        elif event.kind == "finished":
            self.reports[number] = replace(event.value, song=str(song))
            if len(self.songs) > 1:
                finished = f"{len(self.reports)} of {len(self.songs)} songs are done"
                interrupted.done = f"{finished} and nothing half-written was left; --skip-existing goes on from there"
            self._teller.finished(number, self.reports[number])
        else:
            self.errors[number] = event.value
            if self._alone:
                raise event.value
            self._teller.failed(number, song, event.value)


def _sink(files: Files, named: Sequence[str], manner: Manner) -> BinaryIO | None:
    """Standard output, where the stem goes there. Raises UsageError for what can't go together."""
    if list(named).count(PIPE) > 1:
        raise UsageError("standard input (-) can be read once; name it once")
    if manner.raw is not None and PIPE not in named:
        raise UsageError("--raw says what standard input is: name - as a song")
    if manner.report and (str(files.output) == PIPE or files.inline_audio):
        how = "--inline-audio" if files.inline_audio else "-o -"
        raise UsageError(f"--report writes a page beside the stems' files and {how} writes none; leave one of them out")
    if str(files.output) != PIPE:
        return None
    if len(named) != 1 or Path(named[0]).is_dir():
        raise UsageError("-o - writes one stem of one song to standard output; name one song")
    if manner.as_json or files.inline_audio:
        raise UsageError("-o - and --json both need standard output; leave one of them out")
    if sys.stdout.isatty():
        raise UsageError("-o - writes audio to standard output and that is a terminal; pipe it into a program or file")
    return sys.stdout.buffer


def _from_stdin(stack: contextlib.ExitStack, raw: str | None) -> Path:
    if sys.stdin.isatty():
        raise UsageError("- reads a song from standard input and that is a terminal; pipe a song into it")
    return spool(sys.stdin.buffer, stack.enter_context(scratch("ortsep")), raw)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The model, perhaps a second one behind it, and the songs.

    The second argument is a model too if it is a .onnx file, a folder with one, or the name of a model and no file.
    """
    if len(arguments) > 1 and _is_model(arguments[1]):
        return list(arguments[:2]), list(arguments[2:])
    return list(arguments[:1]), list(arguments[1:])


def _is_model(argument: str) -> bool:
    name, _, _ = argument.partition("@")
    path = Path(argument if Path(argument).exists() else name)
    if path.is_dir():
        return any(path.glob("*.onnx"))
    if path.exists():
        return path.suffix == ".onnx"
    try:
        find_model(name)
    except FileMissing:
        return any(name in (card.name, *card.aliases) for card in catalogue().values())
    return True


def _document(separator: Separator | Chain, results: _Results) -> dict[str, Any]:
    """One song: its report. Several: all reports in ``songs`` and then the failures, each in the order of the songs."""
    if len(results.songs) == 1:
        return results.reports[0].document()
    failed = [
        {"song": str(results.songs[number]), "error": str(error), "status": error.status}
        for number, error in sorted(results.errors.items())
    ]
    return {
        "version": __version__,
        "model": separator.spec.name,
        "songs": [report.document() for _, report in sorted(results.reports.items())] + failed,
        "failed": len(failed),
    }


def _songs(arguments: Sequence[str]) -> Iterator[Path]:
    """Files as they are named, folders as the audio files in them, sorted by name."""
    for argument in arguments:
        path = Path(argument)
        if not path.is_dir():
            yield path
            continue
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
        if not found:
            raise FileMissing(f"the folder {path} holds no audio files; name songs or another folder")
        yield from found
