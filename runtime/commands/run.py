"""``ortsep run``: a model, songs and folders; one report each; one bad song does not stop the others."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.chain import Chain
from ortsep.model import find_model
from ortsep.models.catalogue import catalogue
from ortsep.models.errors import FileMissing, OrtsepError, UsageError
from ortsep.separator import Options, Separator
from ortsep.songs import Files, Seconds, SongReport, places, separate_file

EXTENSIONS = (
    *(".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".au"),
    *(".m4a", ".mp4", ".aac", ".wma", ".mka", ".webm"),
)
"""What counts as a song in a folder; a file that is named is opened whatever it is called."""


def run_songs(
    arguments: Sequence[str],
    options: Options,
    files: Files,
    loading: dict[str, Any],
    *,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Separate every song. Returns the exit status: that of the first song that failed, else 0."""
    models, named = _split(arguments)
    if not named:
        raise UsageError("name a model and at least one song: ortsep run MODEL SONG...")
    separator = _load(models, loading)
    separator.names(options)
    songs = list(_songs(named))
    reports: list[SongReport] = []
    failures: list[tuple[Path, OrtsepError]] = []
    _warn_of_noise(separator, quiet)
    for path, targets in zip(songs, places(separator, songs, files, options), strict=True):
        try:
            with _progress(path.name, quiet) as told:
                report = separate_file(separator, path, files, options, targets=targets, progress=told, timeout=timeout)
        except OrtsepError as error:
            if len(songs) == 1 or debug:
                raise
            failures.append((path, error))
            print(f"ortsep: {error}", file=sys.stderr)
            continue
        reports.append(report)
        if not quiet:
            _tell(report)
    if as_json:
        print(json.dumps(_document(separator, reports, failures, len(songs)), ensure_ascii=False))
    return failures[0][1].status if failures else 0


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


def _load(models: Sequence[str], loading: dict[str, Any]) -> Separator | Chain:
    first = Separator(models[0], **loading)
    if len(models) == 1:
        return first
    name, _, feed = models[1].partition("@")
    return Chain(first, Separator(name, **loading), feed or None)


def _document(
    separator: Separator | Chain, reports: list[SongReport], failures: list[tuple[Path, OrtsepError]], count: int
) -> dict[str, Any]:
    """One song: its report. Several: all reports and failures in ``songs``."""
    if count == 1:
        return reports[0].document()
    failed = [{"song": str(path), "error": str(error), "status": error.status} for path, error in failures]
    return {
        "version": __version__,
        "model": separator.spec.name,
        "songs": [r.document() for r in reports] + failed,
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


@contextlib.contextmanager
def _progress(title: str, quiet: bool) -> Iterator[Seconds | None]:
    """A bar with the time left on a terminal; elsewhere nothing."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.completed:.0f}/{task.total:.0f} s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title.replace("[", r"\["), total=None)
        last = 0.0

        def told(done: float, total: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > 0.05 or done >= total:
                last = now
                bar.update(task, completed=done, total=total)

        yield told


def _tell(report: SongReport) -> None:
    if report.skipped:
        print(f"{report.song}: skipped, its stems are there", file=sys.stderr)
        return
    places = {str(Path(path).parent) for path in report.stems.values() if path}
    where = f" -> {', '.join(sorted(places))}" if places else ""
    names = ", ".join(stem.stem_name for stem in report.outputs)
    speed = f"{report.seconds:.1f} s of audio in {report.processing_time:.1f} s on {report.provider}"
    print(f"{report.song}: {names}{where} ({speed}, {report.real_time_factor:.2f} of real time)", file=sys.stderr)
    for warning in report.warnings:
        print(f"  note: {warning}", file=sys.stderr)


def _warn_of_noise(separator: Separator | Chain, quiet: bool) -> None:
    if separator.spec.weights.random and not quiet:
        print(f"{separator.spec.name} has random weights: its stems are noise", file=sys.stderr)
