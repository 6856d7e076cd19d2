"""One song from its file to its stems: read, separated, written, recorded. Of pages nothing is known here."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from ortsep.audio.heard import Heard
from ortsep.audio.resample import resampled_length
from ortsep.audio.song_tags import song_tags
from ortsep.audio.sources import At, FileSource, Source
from ortsep.base.arrays import F32
from ortsep.base.cancel import Cancel
from ortsep.base.errors import Cancelled, OutputError, TimedOut, UsageError
from ortsep.base.threads import ahead
from ortsep.base.whole import sweep
from ortsep.chain import Chain
from ortsep.models.catalogue import folder_name
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs.mixture import DecodedOnce, counted
from ortsep.songs.notes import notes
from ortsep.songs.null import null_depth
from ortsep.songs.provenance import provenance, still_right, write_sidecar
from ortsep.songs.record import LOSSLESS, Files, SongReport, Stem, skipped
from ortsep.stems.files import StemWriter, Written
from ortsep.stems.joined import STEMS, JoinedWriter, Track
from ortsep.stems.paths import output_paths
from ortsep.stems.pipe import MemoryWriter, PipeWriter
from ortsep.stems.tags import Tags

Seconds = Callable[[float, float], None]
"""Progress: seconds of audio done and in all."""


class Output(Protocol):
    """Where stems go, block by block: files, a pipe or memory. Leaving the context completes them, or nothing."""

    written: dict[str, Written]
    notes: list[str]

    def write(self, blocks: Mapping[str, F32]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *of_error: Any) -> None: ...


def places(
    separator: Separator | Chain, songs: Sequence[str | Path], files: Files, options: Options
) -> list[dict[str, Path]]:
    """For each song the file of each stem; two songs of one name get different ones. Raises UsageError."""
    names, spec = separator.names(suited(separator, options, files)), separator.spec
    paths = [Path(song) for song in songs]
    return output_paths(
        files.template, Path(files.output), paths, names, model=folder_name(spec.name), ext=files.format
    )


def separate_file(
    separator: Separator | Chain,
    path: str | Path,
    files: Files | None = None,
    options: Options | None = None,
    *,
    targets: Mapping[str, Path] | None = None,
    sink: BinaryIO | None = None,
    progress: Seconds | None = None,
    timeout: float | None = None,
    cancel: Cancel | None = None,
    once: bool = False,
) -> SongReport:
    """Separate one song into files; ``targets`` says where each stem goes (by default what ``places`` says).

    Every stem's file appears under its name only when all are complete; then their provenance is left beside them.
    ``sink`` takes the one stem that the options choose as float WAV, and no file is written. ``once``: the song is
    decoded once for all that reads it here, and lies on disk meanwhile, as it does for a residual. Raises FileMissing,
    AudioError, UsageError, OutputError; TimedOut after ``timeout`` seconds of reading and separating, and
    Cancelled where ``cancel`` ended it, with nothing left behind.
    """
    files = files or Files()
    options = suited(separator, options or Options(), files)
    began = time.perf_counter()
    to_files = sink is None and not files.inline_audio
    made: dict[str, Any] = {}
    if to_files:
        targets = targets or places(separator, [path], files, options)[0]
        if Path(path).is_file():
            made = provenance(separator, options, files.sound(), Path(path))
        if files.skip_existing and still_right(targets, made):
            return _skipped(separator, path, targets)
    song = counted(path, timeout=timeout, **files.reading())
    heard, hertz = _listened_to(separator, song), separator.spec.sample_rate

    def told(done: int, whole: int) -> None:
        if progress is not None:
            progress(done / hertz, whole / hertz)

    names, rate, run = separator.names(options), files.rate or song.sample_rate, Cancel(cancel)
    more = options.residual or options.two_stems is not None or files.joined  # what is left over, and the null
    folder = next(iter(targets.values())).parent if to_files and targets else None
    with closing(DecodedOnce(heard, folder)) if more or once else nullcontext(heard) as source:
        stream = separator.stream(source, options, rate=rate, progress=told, cancel=run)
        with (
            _deadline(run, timeout, began),
            _output(separator, song, source, files, options, targets or {}, sink) as output,
            closing(ahead(stream, on_close=run.cancel, cancel=run)) as blocks,
        ):
            first = _written(blocks, output, names, run) - began
        report = _report(separator, path, song, heard, output, options, (first, time.perf_counter() - began))
        if not to_files or not targets:
            return report
        if more and (files.joined or files.format in LOSSLESS):
            alike = At(source, rate, report.outputs[0].channels)
            parts = _tracks(targets, alike.channels) if files.joined else targets.values()
            report = replace(report, null_db=null_depth(alike, parts, report.gain))
    return _recorded(report, targets, made)


def _written(blocks: Iterator[F32], output: Output, names: Sequence[str], run: Cancel) -> float:
    """Write all blocks; the time (``perf_counter``) after the first."""
    first = 0.0
    for block in blocks:
        output.write(dict(zip(names, block, strict=True)))
        first = first or time.perf_counter()
        run.check()
    return first


def _listened_to(separator: Separator | Chain, source: Source) -> Source:
    """The song, listened to where the model that it goes to hears drums only."""
    return Heard(source) if separator.models[0].spec.content == "drums" else source


def suited(separator: Separator | Chain, options: Options, files: Files) -> Options:
    """The options as ``files`` need them: a model of one channel hears a mix to mono where that is asked for, and in
    one file of four stems what is left of the mixture takes a place that is free."""
    if files.downmix and any(model.spec.channels == 1 for model in separator.models):
        options = replace(options, downmix=True)
    if files.joined and options.two_stems is None and len(separator.names(options)) < STEMS:
        options = replace(options, residual=True)
    return options


def _tracks(targets: Mapping[str, Path], channels: int) -> list[Track]:
    """The stems in the one file that all of ``targets`` are."""
    return [Track(path, number, channels) for number, path in enumerate(targets.values(), 1)]


def _output(
    separator: Separator | Chain,
    source: FileSource,
    mixture: Source,
    files: Files,
    options: Options,
    targets: Mapping[str, Path],
    sink: BinaryIO | None,
) -> Output:
    names, rate = separator.names(options), files.rate or source.sample_rate
    channels = separator.channels(source.channels, options)
    samples = resampled_length(source.samples, source.sample_rate, rate)
    if files.inline_audio:
        return MemoryWriter(names, rate, channels, samples=samples)
    if sink is None:
        tags, notes = song_tags(source.song.path) if files.tags else (Tags(), ())
        how: dict[str, Any] = {"samples": samples, "tags": tags, "subtype": files.subtype, "clip": files.clip}
        writer: StemWriter | JoinedWriter
        if files.joined:
            alike = At(mixture, rate, channels)
            writer = JoinedWriter(next(iter(targets.values())), names, rate, channels, mixture=alike.blocks, **how)
        else:
            how |= {name: getattr(files, name) for name in ("format", "bitrate", "quality")}
            writer = StemWriter(targets, rate, channels, **how)
        writer.notes.extend(notes)
        return writer
    if len(names) != 1:
        raise UsageError(f"standard output takes one stem and these are {', '.join(names)}; choose one with --stems")
    if files.format != "wav" or files.subtype not in (None, "float"):
        raise UsageError("standard output is float WAV; leave --format and --subtype out, and convert it in the pipe")
    if files.clip != "rescale":
        raise UsageError("standard output is float WAV as it comes; leave --clip-mode out")
    return PipeWriter(sink, names[0], rate, channels, samples=samples)


def _report(
    separator: Separator | Chain,
    path: str | Path,
    source: FileSource,
    heard: Source,
    output: Output,
    options: Options,
    took: tuple[float, float],
) -> SongReport:
    """``took``: seconds until the first samples were written, and in all."""
    written = output.written
    gain = next(iter(written.values())).gain
    cut = sum(stem.cut for stem in written.values())
    said = [heard.warning] if isinstance(heard, Heard) and heard.warning else []
    told = notes(separator, options, source.song, gain, cut, music=bool(said))
    return SongReport(
        song=str(path),
        model=separator.spec.name,
        provider=separator.provider,
        seconds=round(source.samples / source.sample_rate, 6),
        processing_time=took[1],
        first_stems=took[0],
        gain=gain,
        outputs=tuple(Stem.of(written[name]) for name in separator.names(options)),
        warnings=(*source.song.warnings, *said, *told, *output.notes),
        wiener_filter=bool(options.wiener),
    )


def _recorded(report: SongReport, targets: Mapping[str, Path], made: Mapping[str, Any]) -> SongReport:
    """Leave the provenance beside the stems; where it can't be, the report says so."""
    told = ("song", "provider", "gain", "processing_time", "warnings")
    try:
        write_sidecar(targets, made, **{name: getattr(report, name) for name in told})
    except OutputError as error:
        lost = f"these stems can't be skipped by a later run: {error}"
        return replace(report, warnings=(*report.warnings, lost))
    return report


def _skipped(separator: Separator | Chain, path: str | Path, targets: Mapping[str, Path]) -> SongReport:
    for folder in {target.parent for target in targets.values()}:
        sweep(folder)  # what a run left that was killed while it made them again
    return skipped(separator.spec.name, str(path), {name: str(target) for name, target in targets.items()})


@contextmanager
def _deadline(run: Cancel, timeout: float | None, began: float) -> Iterator[None]:
    """Cancel ``run`` ``timeout`` seconds after ``began``. Raises TimedOut."""
    if timeout is None:
        yield
        return
    left = max(0.0, timeout - (time.perf_counter() - began))
    timer = threading.Timer(left, run.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Cancelled as error:
        if timer.is_alive() and time.perf_counter() - began < timeout:
            raise
        raise TimedOut(f"the separation took longer than {timeout:g} s; allow more time or a faster model") from error
    finally:
        timer.cancel()
