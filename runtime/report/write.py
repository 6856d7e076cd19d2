"""One song's report: a page of HTML beside its stems, complete in itself but for the stems' audio, with pictures.

What it shows is read back from the files, block by block: it is true of what is on disk. Needs the extra ``report``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ortsep.audio.song import open_song
from ortsep.audio.sources import At, FileSource, Source
from ortsep.base.errors import UsageError
from ortsep.base.whole import whole_file
from ortsep.chain import Chain
from ortsep.graphs.model import Model
from ortsep.models.catalogue import folder_name
from ortsep.options import Options
from ortsep.report.overview import Gatherer, Overview, of_file
from ortsep.report.page import Signal, label, render, require_jinja
from ortsep.report.pictures import colour_stops, common_scale, draw, require_matplotlib
from ortsep.separator import Separator
from ortsep.songs.mixture import counted
from ortsep.songs.null import null_depth
from ortsep.songs.provenance import recorded, sidecar
from ortsep.songs.record import LOSSLESS, Files, SongReport
from ortsep.stems.paths import output_paths


def pages(
    separator: Separator | Chain, songs: Sequence[str | Path], files: Files, targets: Sequence[Mapping[str, Path]]
) -> list[Path]:
    """For each song where its report goes: the template's place for a stem "report", as .html. Raises UsageError."""
    named = [Path(song) for song in songs]
    spec, template = separator.spec, files.template
    if "{ext}" not in template:
        template += ".{ext}"
    found = output_paths(template, Path(files.output), named, ["report"], model=folder_name(spec.name), ext="html")
    paths = [place["report"] for place in found]
    if set(paths) & {path for place in targets for path in place.values()}:
        raise UsageError(f"the template {files.template!r} gives a stem and a report one file; end it with .{{ext}}")
    return paths


def require_report() -> None:
    """Raises MissingDependency for what a report needs and is not installed."""
    require_matplotlib()
    require_jinja()


def require_files(files: Files, *, piped: bool = False) -> None:
    """Raises UsageError where stems go to no files, MissingDependency without the extra: before anything is begun."""
    if files.inline_audio or piped:
        raise UsageError("a report stands beside the stems' files and there are none; leave one of them out")
    if files.joined:
        raise UsageError("a report plays each stem's own file and stem.mp4 is one for all; leave one of them out")
    require_report()


def draw_report(
    separator: Separator | Chain, report: SongReport, page: str | Path, files: Files, options: Options
) -> SongReport:
    """Draw the page of a song that ``separate_file`` has separated or skipped; gives the record with its ``page``.

    ``separator``, ``files`` and ``options`` are those of that call. The page of a skipped song is drawn only where it
    is older than its stems. Raises as ``write_report`` does.
    """
    path, targets = Path(page), {name: Path(where) for name, where in report.stems.items() if where}
    require_files(files)
    if report.skipped and _is_newer(path, sidecar(targets)):
        return replace(report, page=str(path))
    shown, source = report, _source(report, files)
    if report.skipped:
        shown = _as_recorded(report, recorded(targets), source)
    write_report(path, shown, source, separator.models, options, files)
    return replace(report, page=str(path))


def write_report(
    path: Path, report: SongReport, source: Source, models: Sequence[Model], options: Options, files: Files
) -> None:
    """Write the page ``path`` for the finished stems of ``report``; it appears complete or not at all.

    ``source`` is the song, and ``models``, ``options`` and ``files`` what the stems were made with. Raises
    MissingDependency without the extra ``report``, AudioError where a file can't be read, OutputError.
    """
    require_report()
    text = _page(path.parent, report, source, models, options, files)
    with whole_file(path, "the stems are complete: make room there and run again with --skip-existing") as partial:
        # A file name that is no valid Unicode is shown with question marks; links don't come through here.
        partial.write_bytes(text.encode("utf-8", "replace"))


def _is_newer(page: Path, record: Path) -> bool:
    try:
        return page.stat().st_mtime_ns >= record.stat().st_mtime_ns
    except OSError:
        return False


def _source(report: SongReport, files: Files) -> FileSource:
    """The song once more; its length is known from the report, where that is of this run."""
    if report.skipped:
        return counted(report.song, **files.reading())
    song = open_song(report.song, **files.reading())
    samples = round(report.seconds * song.sample_rate)  # the report keeps microseconds: exact up to 1 MHz
    return FileSource(replace(song, samples=samples), samples)


def _as_recorded(skipped: SongReport, record: Mapping[str, Any], source: Source) -> SongReport:
    def number(key: str, default: float) -> float:
        value = record.get(key)
        return float(value) if isinstance(value, int | float) and 0 < value < 1e9 else default

    warnings = record.get("warnings")
    return replace(
        skipped,
        provider=str(record.get("provider", "")),
        seconds=round(source.samples / source.sample_rate, 6),
        processing_time=number("processing_time", 0.0),
        gain=number("gain", 1.0),
        warnings=tuple(map(str, warnings)) if isinstance(warnings, list) else (),
    )


def _page(
    folder: Path, report: SongReport, source: Source, models: Sequence[Model], options: Options, files: Files
) -> str:
    stems = {name: Path(where) for name, where in report.stems.items() if where}
    overviews = [of_file(file) for file in stems.values()]
    lossless = files.format in LOSSLESS
    mixture, null_db = _of_mixture(source, list(stems.values()) if lossless else [], overviews[0], report.gain)
    scale = common_scale([mixture, *overviews])
    of_mixture = (_song_beside(report, folder), files.start, report.gain)
    shown = [Signal("Mixture", mixture, draw(mixture, scale, label("the mixture", mixture), "m"), *of_mixture)]
    for k, ((name, file), overview) in enumerate(zip(stems.items(), overviews, strict=True)):
        shown.append(Signal(name, overview, draw(overview, scale, label(name, overview), f"s{k}"), file))
    specs = [model.spec for model in models]
    figures: Any = {
        "null_db": null_db if report.null_db is None else report.null_db,
        "top": scale.top,
        "colours": colour_stops(),
    }
    return render(folder, report, shown[0], shown[1:], specs, options, files, **figures)


def _song_beside(report: SongReport, folder: Path) -> Path | None:
    """The song's file, to be played; None for one that is gone after the run, or on another drive than the page."""
    song = Path(report.song)
    kept = not any(part.endswith(".partial") for part in song.parts)
    return song if kept and song.is_file() and song.absolute().drive == folder.absolute().drive else None


def _of_mixture(source: Source, stems: Sequence[Path], like: Overview, gain: float) -> tuple[Overview, float | None]:
    """The mixture as the stems are (their rate, channels and gain), and the null of ``stems``, in one pass."""
    alike = At(source, like.sample_rate, like.channels)
    gatherer = Gatherer(alike.samples, alike.sample_rate, alike.channels)
    depth = null_depth(alike, stems, gain, heard=gatherer.push)
    return gatherer.finish(), depth if stems else None
