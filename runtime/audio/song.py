"""Reading a song: any file that libsndfile or ffmpeg decodes, as a stream of float32 blocks [C, n] in constant memory.

What is wrong with a file is found before anything is made of it: a missing, empty or truncated file, a header that
lies about the length, samples that are not finite, more channels than stereo.
"""

import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ortsep.audio.decode import Stream, probe
from ortsep.base.errors import AudioError, FileMissing, UsageError

F32 = npt.NDArray[np.float32]

BLOCK = 65536
_RATES = (1000, 768_000)
_MOST_CHANNELS = 64

_WAVE_ORDER = {
    3: "FL FR FC",
    4: "FL FR BL BR",
    5: "FL FR FC BL BR",
    6: "FL FR FC LFE BL BR",
    7: "FL FR FC LFE BC SL SR",
    8: "FL FR FC LFE BL BR SL SR",
}
"""Microsoft's order of speakers by number of channels, which FLAC (RFC 9639, 9.1.3) and ffmpeg share."""
_VORBIS_ORDER = {
    3: "FL FC FR",
    4: "FL FR BL BR",
    5: "FL FC FR BL BR",
    6: "FL FC FR BL BR LFE",
    7: "FL FC FR SL SR BC LFE",
    8: "FL FC FR SL SR BL BR LFE",
}
"""The order of Vorbis I, 4.3.9, and of Opus (RFC 7845, 5.1.1.2), which libsndfile leaves as it is."""
_HALF = math.sqrt(0.5)
_SPEAKERS = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_HALF, _HALF),
    "LFE": (0.0, 0.0),
    "BL": (_HALF, 0.0),
    "BR": (0.0, _HALF),
    "SL": (_HALF, 0.0),
    "SR": (0.0, _HALF),
    "BC": (0.5, 0.5),
}
"""Shares of left and right by ITU-R BS.775-3, annex 4, table 2 (3/2 to 2/0); in 7.1 both pairs are surrounds."""


@dataclass(frozen=True)
class Song:
    """A song, or the part of it that was asked for. ``blocks`` decodes it; nothing else is held."""

    path: Path
    sample_rate: int
    channels: int
    """As delivered: 2 after a downmix."""
    samples: int | None
    """Samples a channel as the header has it; ``Scan.samples`` counts. None where only decoding tells."""
    format: str
    subtype: str
    decoder: Literal["libsndfile", "ffmpeg"]
    warnings: tuple[str, ...]
    """What was overlooked on request, as sentences."""
    source: Stream
    start: int
    """First sample in the file."""
    limit: int | None
    """Most samples that are wanted."""
    allow_truncated: bool
    mix: tuple[tuple[float, ...], ...] | None
    """Rows left and right, a column for each of the file's channels."""

    def blocks(self, size: int = BLOCK) -> Iterator[F32]:
        """Decode anew: float32 blocks [C, n], C-contiguous, 1 <= n <= ``size``.

        Raises AudioError for samples that are not finite, and at the end for a file that holds less than it promised.
        """
        taken, matrix = 0, None if self.mix is None else np.array(self.mix, np.float32)
        with closing(self.source.read(self.start, size)) as decoded:  # type: ignore[type-var]
            for block in decoded:
                if self.limit is not None:
                    block = block[: self.limit - taken]
                self._check_finite(block, taken)
                taken += len(block)
                yield np.ascontiguousarray(block.T) if matrix is None else matrix @ block.T
                if taken == self.limit:
                    return
        if taken == 0:
            raise AudioError(_nothing(self.path, self.start / self.sample_rate))
        short = self.samples is not None and taken < self.samples - self.source.slack
        if short and not self.allow_truncated:
            raise AudioError(_cut_off(self.path, taken, self.samples, self.sample_rate))

    def _check_finite(self, block: F32, before: int) -> None:
        # Minimum and maximum carry NaN and Inf along, at a fraction of the cost of isfinite.
        if np.isfinite(block.min()) and np.isfinite(block.max()):
            return
        row, channel = np.argwhere(~np.isfinite(block))[0]
        value = "NaN" if np.isnan(block[row, channel]) else "infinite"
        seconds = (self.start + before + int(row)) / self.sample_rate
        raise AudioError(
            f"{self.path} has a sample that is {value} at {seconds:.6f} s in channel {channel + 1}; write the file "
            "again from its source, or separate another part with --start and --duration"
        )


@dataclass(frozen=True)
class Scan:
    """What one pass over a song found: samples a channel, and the peak of every channel."""

    samples: int
    peak: tuple[float, ...]


def scan(song: Song) -> Scan:
    """Decode the whole song once and hold nothing. Raises AudioError for whatever ``Song.blocks`` would raise."""
    samples, peak = 0, np.zeros(song.channels, np.float32)
    for block in song.blocks():
        samples += block.shape[1]
        peak = np.maximum(peak, np.maximum(block.max(axis=1), -block.min(axis=1)))
    return Scan(samples, tuple(float(p) for p in peak))


def open_song(
    path: str | Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    downmix: bool = False,
    allow_truncated: bool = False,
) -> Song:
    """Open a song, or ``duration`` seconds of it from ``start`` on, rounded to samples and ended by the song's end.

    ``downmix`` takes 3 and more channels to stereo: by ITU-R BS.775 where the number of channels has a standard layout,
    otherwise their mean on both sides. ``allow_truncated`` takes what is there of a file that is cut off or whose
    header lies about its length.

    Raises FileMissing, UsageError for a start or duration that is none, and AudioError for everything in the file.
    """
    if not (math.isfinite(start) and start >= 0):
        raise UsageError(f"--start {start:g} is not a time in the song; give seconds from 0 on")
    if duration is not None and not (duration > 0 and math.isfinite(duration)):
        raise UsageError(f"--duration {duration:g} is no length; give seconds above 0")
    path = Path(path)
    _check_file(path)
    try:
        stream = probe(path)
    except OSError as error:
        if isinstance(error, AudioError | FileMissing):
            raise
        raise AudioError(f"{path} can't be read ({error.strerror or error}); check its permissions and disk") from error
    rate, channels = stream.sample_rate, stream.channels
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(f"{path} claims a sample rate of {rate} Hz, which is no audio; convert it to 44100 Hz")
    if channels > _MOST_CHANNELS:
        raise AudioError(f"{path} has {channels} channels and ortsep reads up to {_MOST_CHANNELS}; split it")
    if channels > 2 and not downmix:
        raise AudioError(f"{path} has {channels} channels; add --downmix to separate its stereo downmix")
    first = round(start * rate)
    limit = None if duration is None else max(1, round(duration * rate))
    warnings = _check_length(stream, first, limit, allow_truncated)
    held = stream.there
    if held is not None and first >= held + (0 if stream.decoder == "libsndfile" else stream.slack):
        raise AudioError(_nothing(path, start, held / rate))
    rest = None if held is None else max(1, held - first)
    return Song(
        path=path,
        sample_rate=rate,
        channels=min(channels, 2),
        samples=rest if limit is None or rest is None else min(rest, limit),
        format=stream.format,
        subtype=stream.subtype,
        decoder=stream.decoder,
        warnings=warnings,
        source=stream,
        start=first,
        limit=limit,
        allow_truncated=allow_truncated,
        mix=_downmix(stream) if channels > 2 else None,
    )


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise FileMissing(f"there is no file {os.fspath(path)!r}; check the path") from None
    except OSError as error:
        raise FileMissing(f"{path} can't be found ({error.strerror}); check the path") from error
    if path.is_dir():
        raise AudioError(f"{path} is a folder; name a song in it")
    if not path.is_file():
        raise AudioError(f"{path} is no regular file and a song is read more than once; save it to a file first")
    if status.st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes); get a complete copy")


def _check_length(stream: Stream, first: int, limit: int | None, allowed: bool) -> tuple[str, ...]:
    """Warnings for a file that is cut off or longer than it says, where that is allowed or beyond what is wanted."""
    problem, there, promised = stream.contents.problem, stream.there, stream.promised
    if problem is None:
        if stream.samples == 0:
            raise AudioError(_nothing(stream.path, 0.0, 0.0))
        return ()
    if there == 0:
        raise AudioError(f"{stream.path} is cut off before its first sample; get a complete copy")
    sure = min((n for n in (there, promised) if n is not None), default=0)
    if limit is not None and first + limit <= sure:
        return ()
    if problem == "longer":
        message = (
            f"{stream.path} holds {_seconds(there, stream.sample_rate)} of audio and its header claims "
            f"{_seconds(promised, stream.sample_rate)}; mend it, or add --allow-truncated to separate all of it"
        )
    else:
        message = _cut_off(stream.path, there, promised, stream.sample_rate)
    if not allowed:
        raise AudioError(message)
    return (message.split(";")[0],)


def _cut_off(path: Path, there: int | None, promised: int | None, rate: int) -> str:
    of = "and its end is missing" if promised is None else f"of {_seconds(promised, rate)}"
    return (
        f"{path} is cut off: it holds {_seconds(there, rate)} {of}; get a complete copy, or add --allow-truncated to "
        "separate what is there"
    )


def _seconds(samples: int | None, rate: int) -> str:
    return "an unknown length" if samples is None else f"{samples / rate:.3f} s"


def _nothing(path: Path, start: float, held: float | None = None) -> str:
    if held == 0:
        return f"{path} has a header and no samples; write it again from its source"
    if start == 0:
        return f"{path} holds no audio that can be decoded; get a complete copy"
    length = "" if held is None else f" ({held:.3f} s)"
    return f"{path}{length} ends before --start {start:g}; choose an earlier start"


def _downmix(stream: Stream) -> tuple[tuple[float, ...], ...]:
    if stream.subtype in ("VORBIS", "OPUS"):
        layout = _VORBIS_ORDER.get(stream.channels)
    elif stream.decoder == "ffmpeg" or stream.format in ("WAV", "WAVEX", "RF64", "W64", "FLAC"):
        layout = _WAVE_ORDER.get(stream.channels)
    else:
        layout = None
    if layout is None:
        return ((1 / stream.channels,) * stream.channels,) * 2
    left, right = zip(*(_SPEAKERS[name] for name in layout.split()), strict=True)
    return left, right
