"""``ortsep run``: a model, songs and folders; one report each; one bad song does not stop the others."""

import contextlib
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ortsep import __version__
from ortsep.audio.spool import spool
from ortsep.base.errors import OrtsepError, UsageError
from ortsep.base.paths import exists, is_url
from ortsep.base.whole import scratch
from ortsep.batch import Event, Job, Task, in_processes, in_this_process, load
from ortsep.chain import Chain
from ortsep.commands.arguments import tell_apart
from ortsep.commands.dry import plan_songs
from ortsep.commands.ending import interrupted
from ortsep.commands.folders import gather
from ortsep.commands.make import export_first
from ortsep.commands.progress import Events, Sentences, Teller
from ortsep.commands.settings import Far, RunSettings
from ortsep.commands.terminal import screen
from ortsep.options import Options
from ortsep.report.write import pages, require_files
from ortsep.separator import Separator
from ortsep.songs import Files, SongReport, places

PIPE = "-"
"""Standard input as a song, standard output as ``Files.output``."""


def run_songs(
    words: Sequence[str], options: Options, files: Files, loading: dict[str, Any], settings: RunSettings
) -> int:
    """Separate every song. Returns the exit status: that of the first song that failed, else 0."""
    if settings.far != Far() or any(is_url(word) for word in (*words, str(files.output))):
        from ortsep.commands.fleet import run_list

        return run_list(words, options, files, loading, settings)
    typed = tell_apart(words, settings.model, settings.then)
    sink = _sink(files, typed.songs, settings)
    if settings.report:
        require_files(files, piped=sink is not None)
    if typed.taken and settings.draws:
        screen.say(f"no model was named: {typed.models[0]} is taken, which is ready here; -n NAME takes another")
    for model in typed.models:
        export_first(model, settings.progress, settings.quiet)
    if settings.draws:
        screen.doing(f"loading {' and '.join(typed.models)} ...")
    separator = load(typed.models, loading)
    options, named = _targets(separator, options, typed.songs)
    names = separator.names(options)
    if sink is not None and len(names) != 1:
        raise UsageError(f"-o - takes one stem and these are {', '.join(names)}; choose one with --stems")
    found = gather(named, None if sink else Path(files.output), settings.recursive)
    if settings.draws:
        screen.say(*found.notes, *(_described(separator) if settings.verbose else []))
    songs = found.songs
    if settings.dry:
        return plan_songs(separator, songs, options, files, as_json=settings.as_json)
    teller: Teller = (
        Events() if settings.progress == "json" else Sentences(settings.quiet, len(songs), settings.verbose)
    )
    with contextlib.ExitStack() as stack:
        if PIPE in named and settings.draws:
            screen.doing("reading the song from standard input ...")
        read = [_from_stdin(stack, settings.raw) if str(song) == PIPE else song for song in songs]
        if sink is None:
            targets = places(separator, read, files, options)
            drawn = pages(separator, read, files, targets) if settings.report else [None] * len(read)
            tasks = [Task(*of_song) for of_song in zip(read, targets, drawn, strict=True)]
        else:
            tasks = [Task(song, {}) for song in read]
        results = _Results(songs, teller, alone=len(songs) == 1 or settings.debug)
        job = Job(typed.models, loading, options, files, settings.timeout)
        with closing(teller):
            if settings.jobs > 1 and len(tasks) > 1:
                in_processes(job, tasks, settings.jobs, results.take)
            else:
                in_this_process(separator, job, tasks, results.take, sink)
    if settings.as_json:
        print(json.dumps(_document(separator, results)))
    if settings.progress != "json" and len(songs) > 1 and (results.errors or not settings.quiet):
        screen.say(results.summary())
    return min(results.errors.items())[1].status if results.errors else 0


def _targets(separator: Separator | Chain, options: Options, words: Sequence[str]) -> tuple[Options, list[str]]:
    """``--targets vocals drums`` as Open-Unmix writes it: words that are stems of the model and no files are stems."""
    known = separator.names(Options()) if options.stems else ()
    stems = [word for word in words if word in known and not exists(word)]
    songs = [word for word in words if word not in stems]
    if not songs:
        raise UsageError(f"{', '.join(words)} would be stems, and no song is left; name a song")
    return replace(options, stems=(*options.stems, *stems)), songs


def _described(separator: Separator | Chain) -> list[str]:
    """What --verbose says of the models before the songs."""
    lines = []
    for model in separator.models:
        spec = model.spec
        channels = {1: "mono", 2: "stereo"}.get(spec.channels, f"{spec.channels} channels")
        lines.append(
            f"{spec.name}: {', '.join(model.stems)}; {spec.sample_rate} Hz, {channels}; {model.size() / 1e6:.0f} MB in "
            f"{model.folder}; weights: {spec.weights.licence or 'licence unknown'}"
        )
    return [*lines, f"  on {separator.provider}{': ' * bool(separator.provider_reason)}{separator.provider_reason}"]


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
                verb = "is" if len(self.reports) == 1 else "are"
                finished = f"{len(self.reports)} of {len(self.songs)} songs {verb} done"
                interrupted.done = f"{finished} and nothing half-written was left; --skip-existing goes on from there"
            self._teller.finished(number, self.reports[number])
        else:
            self.errors[number] = event.value
            if self._alone:
                raise event.value
            self._teller.failed(number, song, event.value)


def _sink(files: Files, named: Sequence[str], settings: RunSettings) -> BinaryIO | None:
    """Standard output, where the stem goes there. Raises UsageError for what can't go together."""
    if list(named).count(PIPE) > 1:
        raise UsageError("standard input (-) can be read once; name it once")
    if settings.raw is not None and PIPE not in named:
        raise UsageError("--raw says what standard input is: name - as a song")
    if settings.report and (str(files.output) == PIPE or files.inline_audio):
        how = "--inline-audio" if files.inline_audio else "-o -"
        raise UsageError(f"--report writes a page beside the stems' files and {how} writes none; leave one of them out")
    if str(files.output) != PIPE:
        return None
    if len(named) != 1 or Path(named[0]).is_dir():
        raise UsageError("-o - writes one stem of one song to standard output; name one song")
    if settings.as_json or files.inline_audio:
        raise UsageError("-o - and --json both need standard output; leave one of them out")
    if sys.stdout.isatty():
        raise UsageError("-o - writes audio to standard output and that is a terminal; pipe it into a program or file")
    return sys.stdout.buffer


def _from_stdin(stack: contextlib.ExitStack, raw: str | None) -> Path:
    if sys.stdin.isatty():
        raise UsageError("- reads a song from standard input and that is a terminal; pipe a song into it")
    return spool(sys.stdin.buffer, stack.enter_context(scratch("ortsep")), raw)


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
