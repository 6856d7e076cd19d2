"""From a song's file to its stems' files, and the report of what was done."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

import ortsep
from ortsep.audio.resample import resampled_length
from ortsep.audio.song import Song, open_song, scan
from ortsep.base.cancel import Cancel
from ortsep.base.errors import Cancelled, OutputError, TimedOut, UsageError
from ortsep.base.threads import ahead
from ortsep.base.whole import sweep
from ortsep.chain import Chain
from ortsep.graphs.model import Model
from ortsep.models.catalogue import folder_name
from ortsep.options import Options
from ortsep.report.pictures import require_matplotlib
from ortsep.separator import Separator
from ortsep.songs.null import null_depth
from ortsep.songs.provenance import provenance, still_right, write_sidecar
from ortsep.stems.files import StemWriter, Written
from ortsep.stems.paths import output_paths
from ortsep.stems.pipe import PipeWriter

F32 = npt.NDArray[np.float32]
Seconds = Callable[[float, float], None]
"""Progress: seconds of audio done and in all."""


@dataclass(frozen=True)
class Files:
    """Where songs are read and stems written. Times in seconds, ``rate`` in Hz (None: the song's)."""

    output: str | Path = "separated"
    template: str = "{model}/{song}/{stem}.{ext}"
    format: str = "wav"
    subtype: str | None = None
    rate: int | None = None
    start: float = 0.0
    duration: float | None = None
    downmix: bool = False
    allow_truncated: bool = False
    skip_existing: bool = False
    """Leave a song alone whose stems are there, made from the same file by the same model, options and versions."""
    inline_audio: bool = False
    """The samples in the report instead of files."""

    def __post_init__(self) -> None:
        if self.rate is not None and not 1000 <= self.rate <= 768_000:
            raise UsageError(f"a rate of {self.rate} Hz is not from 1000 to 768000; change --rate")

    def sound(self) -> dict[str, Any]:
        """The options that change what is in a file, not where it is."""
        names = ("format", "subtype", "rate", "start", "duration", "downmix", "allow_truncated")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Stem:
    """One stem of a report: where it is and what is in it. ``peak`` and ``rms`` are of full scale 1, after the gain."""

    stem_name: str
    path: str | None
    channels: int
    sample_rate: int
    samples: int
    peak: float
    rms: float
    audio: Any = None


@dataclass(frozen=True)
class SongReport:
    """What was done with one song.

    ``gain`` (linear) was applied to all stems alike, to fit an integer format. ``null_db`` is how far below the mixture
    lies what the written stems' sum leaves of it, where they are meant to add up (``residual``, ``two_stems``).
    """

    song: str
    model: str
    provider: str
    seconds: float
    processing_time: float
    gain: float
    outputs: tuple[Stem, ...]
    warnings: tuple[str, ...] = ()
    wiener_filter: bool = False
    skipped: bool = False
    null_db: float | None = None
    page: str | None = None
    """The HTML page with pictures, where one was asked for."""
    version: str = field(default_factory=lambda: ortsep.__version__)

    @property
    def real_time_factor(self) -> float:
        """Processing time over seconds of audio: below 1 is faster than real time."""
        return self.processing_time / self.seconds if self.seconds else 0.0

    @property
    def stems(self) -> dict[str, str | None]:
        """Path by stem name."""
        return {stem.stem_name: stem.path for stem in self.outputs}

    def document(self) -> dict[str, Any]:
        """The report for JSON."""
        outputs = [{k: v for k, v in asdict(o).items() if v is not None} for o in self.outputs]
        return {
            "version": self.version,
            "model": self.model,
            "backend": self.provider,
            "song": self.song,
            "stems": self.stems,
            "outputs": outputs,
            "seconds": self.seconds,
            "processing_time": round(self.processing_time, 3),
            "real_time_factor": round(self.real_time_factor, 4),
            "gain": self.gain,
            "wiener_filter": self.wiener_filter,
            "skipped": self.skipped,
            **({} if self.null_db is None else {"null_db": round(self.null_db, 1)}),
            **({} if self.page is None else {"report": self.page}),
            "warnings": list(self.warnings),
        }


def places(
    separator: Separator | Chain, songs: Sequence[str | Path], files: Files, options: Options
) -> list[dict[str, Path]]:
    """For each song the file of each stem; two songs of one name get different ones. Raises UsageError."""
    names, spec = separator.names(options), separator.spec
    paths = [Path(song) for song in songs]
    return output_paths(
        files.template, Path(files.output), paths, names, model=folder_name(spec.name), ext=files.format
    )


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


def separate_file(
    separator: Separator | Chain,
    path: str | Path,
    files: Files | None = None,
    options: Options | None = None,
    *,
    targets: Mapping[str, Path] | None = None,
    page: Path | None = None,
    sink: BinaryIO | None = None,
    progress: Seconds | None = None,
    timeout: float | None = None,
) -> SongReport:
    """Separate one song into files; ``targets`` says where each stem goes (by default what ``places`` says).

    Every stem's file appears under its name only when all are complete; then their provenance is left beside them.
    ``page`` is where a report with pictures goes (``ortsep.report.write``), which is drawn after that.
    ``sink`` takes the one stem that the options choose as float WAV, and no file is written. Raises FileMissing,
    AudioError, UsageError, OutputError and, for ``page`` without matplotlib, MissingDependency; TimedOut after
    ``timeout`` seconds of reading and separating, with nothing left behind.
    """
    files = files or Files()
    options = heard_with(separator, options or Options(), files)
    began = time.perf_counter()
    names = separator.names(options)
    to_files = sink is None and not files.inline_audio
    if page is not None:
        if not to_files:
            raise UsageError("a report stands beside the stems' files and there are none; leave one of them out")
        require_matplotlib()
    made: dict[str, Any] = {}
    if to_files:
        targets = targets or places(separator, [path], files, options)[0]
        if Path(path).is_file():
            made = provenance(_models(separator), options, files.sound(), Path(path))
        if files.skip_existing and still_right(targets, made):
            for folder in {target.parent for target in targets.values()}:
                sweep(folder)  # what a run left that was killed while it made them again
            skipped = _skipped(separator, path, targets)
            if page is None:
                return skipped
            from ortsep.report.write import refresh_report

            refresh_report(page, skipped, targets, lambda: counted_by(path, files), _models(separator), options, files)
            return replace(skipped, page=str(page))
    source = counted_by(path, files, timeout)
    song, total = source.song, source.samples
    rate = files.rate or song.sample_rate
    channels = separator.channels(song.channels, options)
    samples = resampled_length(total, song.sample_rate, rate)
    model_rate = separator.spec.sample_rate

    def told(done: int, whole: int) -> None:
        if progress is not None:
            progress(done / model_rate, whole / model_rate)

    gain = 1.0
    cancel = Cancel()
    stream = ahead(separator.stream(source, options, rate=rate, progress=told, cancel=cancel), on_close=cancel.cancel)
    with _deadline(cancel, timeout, began), closing(stream) as blocks:
        if files.inline_audio:
            outputs = _inline(blocks, names, channels, rate, samples)
        else:
            with _writer(files, sink, targets or {}, names, rate, channels, samples) as writer:
                for block in blocks:
                    writer.write(dict(zip(names, block, strict=True)))
                    if timeout is not None and time.perf_counter() - began > timeout:
                        raise Cancelled("the time is over")
            gain = next(iter(writer.written.values())).gain
            outputs = tuple(_stem(writer.written[name]) for name in names)
    warnings = [*song.warnings, *_warnings(separator, song, gain)]
    null_db = None
    elapsed = time.perf_counter() - began
    if to_files and targets:
        if (options.residual or options.two_stems) and files.format in ("wav", "flac"):
            null_db = null_depth(source, targets.values(), channels, rate, gain)
        try:
            record = {"provider": separator.provider, "gain": gain, "processing_time": elapsed, "warnings": warnings}
            write_sidecar(targets, made, song=str(path), **record)
        except OutputError as error:
            warnings.append(f"these stems can't be skipped by a later run: {error}")
    report = SongReport(
        song=str(path),
        model=separator.spec.name,
        provider=separator.provider,
        seconds=round(total / song.sample_rate, 6),
        processing_time=elapsed,
        gain=gain,
        outputs=outputs,
        warnings=tuple(warnings),
        wiener_filter=bool(options.wiener),
        null_db=null_db,
    )
    if page is None:
        return report
    from ortsep.report.write import write_report  # here, because a report knows what is known of a song

    write_report(page, report, source, _models(separator), options, files)
    return replace(report, page=str(page))


def heard_with(separator: Separator | Chain, options: Options, files: Files) -> Options:
    """The options, with the song mixed down to mono for a model of one channel where ``files`` ask for it."""
    mono = any(model.spec.channels == 1 for model in separator.models)
    return replace(options, downmix=True) if files.downmix and mono else options


def _models(separator: Separator | Chain) -> list[Model]:
    return list(separator.models)


def _writer(
    files: Files,
    sink: BinaryIO | None,
    targets: Mapping[str, Path],
    names: tuple[str, ...],
    rate: int,
    channels: int,
    samples: int,
) -> StemWriter | PipeWriter:
    if sink is None:
        return StemWriter(targets, rate, channels, samples=samples, format=files.format, subtype=files.subtype)
    if len(names) != 1:
        raise UsageError(f"standard output takes one stem and these are {', '.join(names)}; choose one with --stems")
    if files.format != "wav" or files.subtype not in (None, "float"):
        raise UsageError("standard output is float WAV; leave --format and --subtype out, and convert it in the pipe")
    return PipeWriter(sink, names[0], rate, channels, samples=samples)


@contextmanager
def _deadline(cancel: Cancel, timeout: float | None, began: float) -> Iterator[None]:
    """Cancel the separation ``timeout`` seconds after ``began``. Raises TimedOut."""
    if timeout is None:
        yield
        return
    left = max(0.0, timeout - (time.perf_counter() - began))
    timer = threading.Timer(left, cancel.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Cancelled as error:
        raise TimedOut(f"the separation took longer than {timeout:g} s; allow more time or a faster model") from error
    finally:
        timer.cancel()


@dataclass(frozen=True)
class Counted:
    """A song as a source whose number of samples is known."""

    song: Song
    samples: int

    @property
    def sample_rate(self) -> int:
        return self.song.sample_rate

    @property
    def channels(self) -> int:
        return self.song.channels

    def blocks(self) -> Iterator[F32]:
        return self.song.blocks()


def counted(path: str | Path, **options: Any) -> Counted:
    """Open a song with the options of ``ortsep.audio.song.open_song``, and count its samples.

    Headers lie: one cheap pass tells the true length, and finds what is broken before anything is computed.
    """
    song = open_song(path, **options)
    found = scan(song)
    song = replace(song, samples=found.samples, warnings=(*song.warnings, *found.warnings))
    return Counted(song, found.samples)


def counted_by(path: str | Path, files: Files, timeout: float | None = None) -> Counted:
    names = ("start", "duration", "downmix", "allow_truncated")
    return counted(path, timeout=timeout, **{name: getattr(files, name) for name in names})


def _skipped(separator: Separator | Chain, path: str | Path, targets: Mapping[str, Path]) -> SongReport:
    outputs = tuple(Stem(name, str(target), 0, 0, 0, 0.0, 0.0) for name, target in targets.items())
    return SongReport(str(path), separator.spec.name, "", 0.0, 0.0, 1.0, outputs, skipped=True)


def _stem(file: Written) -> Stem:
    return Stem(file.stem, str(file.path), file.channels, file.sample_rate, file.samples, file.peak, file.rms)


def _inline(blocks: Iterator[F32], names: tuple[str, ...], channels: int, rate: int, samples: int) -> tuple[Stem, ...]:
    whole = np.empty((len(names), channels, samples), np.float32)
    at = 0
    for block in blocks:
        whole[..., at : at + block.shape[-1]] = block
        at += block.shape[-1]
    return tuple(
        Stem(n, None, channels, rate, samples, float(np.abs(x).max()), float(np.sqrt(np.mean(x**2))), x.tolist())
        for n, x in zip(names, whole, strict=True)
    )


def _warnings(separator: Separator | Chain, song: Song, gain: float) -> list[str]:
    spec, found = separator.spec, []
    if separator.provider_reason:
        found.append(separator.provider_reason)
    if spec.weights.random:
        found.append("the model has random weights: its stems are noise")
    if gain != 1.0:
        found.append(f"all stems were scaled by {gain:.4g} to fit the format; write float wav to keep the level")
    if song.sample_rate != spec.sample_rate:
        found.append(f"resampled from {song.sample_rate} Hz to the model's {spec.sample_rate} Hz and back")
    found.extend(spec.notes)
    return found
