"""One song's report: a page of HTML beside its stems, complete in itself but for the stems' audio, with pictures.

What it shows is read back from the files, block by block: it is true of what is on disk. Needs the extra ``report``.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile

from ortsep.audio.resample import resample, resampled_length
from ortsep.audio.sources import Source, fit_channels
from ortsep.base.errors import AudioError
from ortsep.base.whole import whole_file
from ortsep.graphs.model import Model
from ortsep.options import Options
from ortsep.report.overview import Gatherer, Overview
from ortsep.report.page import Signal, label, render
from ortsep.report.pictures import colour_stops, common_scale, draw, require_matplotlib
from ortsep.songs.null import null_depth
from ortsep.songs.provenance import recorded, sidecar
from ortsep.songs.separate import Files, SongReport

_BLOCK = 1 << 16
_LOSSLESS = ("wav", "flac")


def write_report(
    path: Path, report: SongReport, source: Source, models: Sequence[Model], options: Options, files: Files
) -> None:
    """Write the page ``path`` for the finished stems of ``report``; it appears complete or not at all.

    ``source`` is the song, and ``models``, ``options`` and ``files`` what the stems were made with. Raises
    MissingDependency without matplotlib, AudioError where a file can't be read, OutputError.
    """
    require_matplotlib()
    _write(path, _page(path.parent, report, source, models, options, files))


def refresh_report(
    path: Path,
    skipped: SongReport,
    targets: Mapping[str, Path],
    source: Callable[[], Source],
    models: Sequence[Model],
    options: Options,
    files: Files,
) -> None:
    """``write_report`` for stems of an earlier run, unless ``path`` is already newer than what that run recorded."""
    with contextlib.suppress(OSError):
        if path.stat().st_mtime_ns >= sidecar(targets).stat().st_mtime_ns:
            return
    song = source()
    write_report(path, _as_recorded(skipped, recorded(targets), song), song, models, options, files)


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
    overviews = [_of_file(file) for file in stems.values()]
    rate, channels = overviews[0].sample_rate, overviews[0].channels
    mixture = _of_mixture(source, rate, channels, report.gain)
    null_db = report.null_db
    if null_db is None and files.format in _LOSSLESS:
        null_db = null_depth(source, stems.values(), channels, rate, report.gain)
    scale = common_scale([mixture, *overviews])
    shown = [Signal("Mixture", mixture, draw(mixture, scale, label("the mixture", mixture), "m"))]
    for k, ((name, file), overview) in enumerate(zip(stems.items(), overviews, strict=True)):
        shown.append(Signal(name, overview, draw(overview, scale, label(name, overview), f"s{k}"), file))
    specs = [model.spec for model in models]
    figures: Any = {"null_db": null_db, "top": scale.top, "colours": colour_stops()}
    return render(folder, report, shown[0], shown[1:], specs, options, files, **figures)


def _write(path: Path, text: str) -> None:
    mend = "the stems are complete: make room there and run again with --skip-existing"
    with whole_file(path, mend) as partial:
        # A file name that is no valid Unicode is shown with question marks; links don't come through here.
        partial.write_bytes(text.encode("utf-8", "replace"))


def _of_file(path: Path) -> Overview:
    try:
        with soundfile.SoundFile(path) as file:
            gatherer = Gatherer(max(1, file.frames), file.samplerate, file.channels)
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                gatherer.push(block.T)
    except soundfile.SoundFileError as error:
        raise AudioError(f"the stem {path} can't be read back for the report ({error}); separate it again") from error
    return gatherer.finish()


def _of_mixture(source: Source, rate: int, channels: int, gain: float) -> Overview:
    """The mixture as the stems are: their rate, channels and gain."""
    samples = resampled_length(source.samples, source.sample_rate, rate)
    gatherer = Gatherer(samples, rate, channels)
    for block in resample(source.blocks(), source.channels, source.sample_rate, rate, samples):
        gatherer.push(fit_channels(block, channels) * gain)
    return gatherer.finish()
