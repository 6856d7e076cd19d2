"""What is asked of one song, and what was done with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.errors import UsageError
from ortsep.stems.encoders import check_encoding
from ortsep.stems.files import Written
from ortsep.stems.paths import JOINED

LOSSLESS = ("wav", "flac")
"""Formats of which a sum of stems means something."""
_READING = ("start", "duration", "downmix", "allow_truncated")


_WRITING = ("format", "subtype", "rate", "bitrate", "quality", "clip", "tags")
_TEMPLATE = "{model}/{song}/{stem}.{ext}"


@dataclass(frozen=True)
class Files:
    """Where songs are read and stems written. Times in seconds, ``rate`` in Hz (None: the song's)."""

    output: str | Path = "separated"
    template: str = _TEMPLATE
    """``{model}/{song}.{ext}`` for all stems in one file, where nothing else is said."""
    format: str = "wav"
    subtype: str | None = None
    rate: int | None = None
    bitrate: int | None = None
    """kbit/s of MP3, constant."""
    quality: float | None = None
    """Of MP3 and Vorbis with a varying bitrate, 0 (small) to 10 (good)."""
    clip: str = "rescale"
    """What is done with samples beyond full scale: rescale, clamp or none."""
    start: float = 0.0
    duration: float | None = None
    downmix: bool = False
    allow_truncated: bool = False
    skip_existing: bool = False
    """Leave a song alone whose stems are there, made of the same samples by the same model, options and versions."""
    tags: bool = True
    """Carry the song's tags and pictures over to the stems, with the extra ``tags``."""
    inline_audio: bool = False
    """The samples in the report instead of files."""

    def __post_init__(self) -> None:
        if self.rate is not None and not 1000 <= self.rate <= 768_000:
            raise UsageError(f"a rate of {self.rate} Hz is not from 1000 to 768000; change --rate")
        if self.joined and self.template == _TEMPLATE:
            object.__setattr__(self, "template", "{model}/{song}.{ext}")
        check_encoding(self.format, self.bitrate, self.quality, self.clip)
        if self.inline_audio and self.joined:
            raise UsageError(f"--inline-audio writes no file and {JOINED} is one; leave one of them out")
        if self.inline_audio and self.clip != "rescale":
            raise UsageError("--clip-mode is about files and --inline-audio writes none; leave one of them out")

    @property
    def joined(self) -> bool:
        """Whether all stems of a song are in one file."""
        return self.format == JOINED

    def reading(self) -> dict[str, Any]:
        """The options of ``ortsep.audio.song.open_song``: what is read of a song."""
        return {name: getattr(self, name) for name in _READING}

    def sound(self) -> dict[str, Any]:
        """The options that change what is in a file, not where it is."""
        return {name: getattr(self, name) for name in (*_WRITING, *_READING)}


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
    """The samples [channels][samples], of a stem that is in no file."""

    @classmethod
    def of(cls, written: Written) -> "Stem":
        """The stem that a writer has finished."""
        path = None if written.path is None else str(written.path)
        shape = (written.channels, written.sample_rate, written.samples)
        audio = None if written.audio is None else written.audio.tolist()
        return cls(written.stem, path, *shape, written.peak, written.rms, audio)

    def document(self) -> dict[str, Any]:
        """The stem for JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


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
    first_stems: float = 0.0
    """Seconds of the processing time until the first samples of the stems were written."""
    skipped: bool = False
    """The stems are those of an earlier run; what that run recorded is told of them."""
    null_db: float | None = None
    page: str | None = None
    """The HTML page with pictures, where one was asked for."""
    version: str = field(default=__version__)

    @property
    def real_time_factor(self) -> float:
        """Processing time over seconds of audio: below 1 is faster than real time."""
        return self.processing_time / self.seconds if self.seconds else 0.0

    @property
    def stems(self) -> dict[str, str | None]:
        """Path by stem name."""
        return {stem.stem_name: stem.path for stem in self.outputs}

    def document(self) -> dict[str, Any]:
        """The report for JSON. ``stems`` is a map of paths; of stems in no file it is a list with their samples."""
        outputs = [stem.document() for stem in self.outputs]
        inline = any(stem.audio is not None for stem in self.outputs)
        return {
            "version": self.version,
            "model": self.model,
            "backend": self.provider,
            "song": self.song,
            **({"stems": outputs} if inline else {"stems": self.stems, "outputs": outputs}),
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


def skipped(model: str, song: str, targets: Mapping[str, str]) -> SongReport:
    """The record of a song whose stems ``targets`` were there and right."""
    outputs = tuple(Stem(name, target, 0, 0, 0, 0.0, 0.0) for name, target in targets.items())
    return SongReport(song, model, "", 0.0, 0.0, 1.0, outputs, skipped=True)
