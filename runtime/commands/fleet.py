"""``ortsep run`` over long lists, addresses and clusters: what ``ortsep.fleet`` does, told of."""

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.errors import OrtsepError, UsageError
from ortsep.base.paths import is_url
from ortsep.batch import Job, load
from ortsep.commands.folders import OTHER, PLAIN, gather
from ortsep.commands.make import export_first
from ortsep.commands.progress import emit
from ortsep.commands.settings import RunSettings
from ortsep.commands.terminal import screen
from ortsep.fleet.lists import Shard
from ortsep.fleet.onray import Cluster
from ortsep.fleet.run import Order, Tally, rows, run
from ortsep.options import Options
from ortsep.songs.record import Files, SongReport

_NAMED = 100
"""Failures that the JSON document names; the others are in --report-to."""
_EVERY = 0.1


def run_list(
    words: Sequence[str], options: Options, files: Files, loading: dict[str, Any], settings: RunSettings
) -> int:
    """Separate a list. Returns the exit status: that of the first song that failed, else 0."""
    far = settings.far
    _check(files, settings)
    models, songs = _models(words, settings)
    for model in models:
        export_first(model.partition("@")[0], settings.progress, settings.quiet)
    if settings.draws:
        screen.doing(f"loading {' and '.join(models)} ...")
    separator = load(models, loading)
    separator.names(options)
    cluster = None if far.on is None else _cluster(far.on, loading, settings)
    shard = None if far.shard is None else Shard.parse(far.shard)
    order = Order(tuple(songs), far.manifest, shard, cluster, settings.jobs, far.results)
    job = Job(tuple(models), loading, options, files, settings.timeout)
    output = None if is_url(str(files.output)) else Path(files.output)

    def found(named: Sequence[str]) -> Iterable[Path]:
        songs_there = gather(named, output, settings.recursive)
        if settings.draws:
            screen.say(*songs_there.notes)
        return songs_there.songs

    listed = rows(order, (*PLAIN, *OTHER), found)
    if settings.dry:
        from ortsep.fleet.estimate import estimate

        plan = estimate(separator, job, order, listed)
        print(json.dumps({"version": __version__, **plan.document()}) if settings.as_json else plan.sentence())
        return 0
    telling = _Telling(settings)
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints there of dead workers, and stdout is the document's
        tally = run(separator, job, order, listed, telling.ended)
    telling.close(separator.spec.name, tally)
    return tally.status


def _check(files: Files, settings: RunSettings) -> None:
    """Raises UsageError for what a list of songs can't have."""
    for wrong, name in (
        (settings.report, "--report"),
        (files.inline_audio, "--inline-audio"),
        (str(files.output) == "-", "-o -"),
        (settings.raw is not None, "--raw"),
    ):
        if wrong:
            raise UsageError(f"{name} is for a few songs here, not for lists, addresses and clusters; leave it out")
    if settings.far.tries != 3 and settings.far.on is None:
        raise UsageError("--tries is for songs on a cluster: add --on ray, or leave it out")


def _models(words: Sequence[str], settings: RunSettings) -> tuple[tuple[str, ...], list[str]]:
    rest = list(words)
    if settings.model is None and not rest:
        raise UsageError("name a model: ortsep run MODEL --manifest FILE")
    first = settings.model if settings.model is not None else rest.pop(0)
    if is_url(first):
        raise UsageError(f"{first} is a song, and no model is named: ortsep run MODEL {first}")
    models = (first, *settings.then)
    if not rest and settings.far.manifest is None:
        raise UsageError("name songs, or a list of them with --manifest")
    return models, rest


def _cluster(on: str, loading: dict[str, Any], settings: RunSettings) -> Cluster:
    """``ray``, ``ray://HOST:PORT`` or ``ray:HOST:PORT``. Raises UsageError."""
    kind, _, address = on.partition(":")
    if kind != "ray":
        raise UsageError(f"--on {on} is no cluster that ortsep knows; say ray, or ray://HOST:PORT")
    if address.startswith("//"):
        address = on
    gpus = 1.0 if loading["provider"] == "cuda" else 0.0
    workers = settings.jobs if settings.jobs > 1 else 0
    return Cluster(address, workers, loading["threads"] or 1, gpus, settings.far.tries)


class _Telling:
    """What is told on the way: a line at the foot that counts, and every failure; or events."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._began = time.monotonic()
        self._last = 0.0
        self._ended = self._failed = 0
        self._seconds = 0.0
        self._failures: list[dict[str, Any]] = []

    def ended(self, number: int, song: str, outcome: SongReport | OrtsepError) -> None:
        self._ended += 1
        if isinstance(outcome, OrtsepError):
            self._failed += 1
            if len(self._failures) < _NAMED:
                self._failures.append({"song": song, "error": str(outcome), "status": outcome.status})
            if self._settings.progress == "json":
                emit("failed", song=song, error=str(outcome), status=outcome.status)
            else:
                screen.say(f"ortsep: {outcome}")
        else:
            self._seconds += 0.0 if outcome.skipped else outcome.seconds
            if self._settings.progress == "json":
                emit("finished", song=song, skipped=outcome.skipped, seconds=outcome.seconds, stems=outcome.stems)
            elif self._settings.verbose:
                screen.say(f"{song}: {'skipped' if outcome.skipped else 'done'}")
        now = time.monotonic()
        if self._settings.draws and now - self._last >= _EVERY:
            self._last = now
            screen.doing(f"{self._ended} songs, {self._failed} failed, {self._pace()}")

    def close(self, model: str, tally: Tally) -> None:
        passed = time.monotonic() - self._began
        screen.clear()
        if self._settings.as_json:
            counts = {"done": tally.done, "skipped": tally.skipped, "failed": tally.failed}
            times = {"seconds": round(tally.seconds, 3), "elapsed": round(passed, 3)}
            print(json.dumps({"version": __version__, "model": model, **counts, **times, "failures": self._failures}))
        if self._settings.draws:
            rest = f", {tally.skipped} were there" if tally.skipped else ""
            screen.say(f"{tally.done} songs done{rest}, {tally.failed} failed; {self._pace()}")

    def _pace(self) -> str:
        passed = max(1e-3, time.monotonic() - self._began)
        return f"{self._seconds / 3600:.2f} h of audio, {self._seconds / passed:.1f} h of audio an hour"
