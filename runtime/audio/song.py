"""Reading a song: any file that libsndfile or ffmpeg decodes, as a stream of float32 blocks [C, n] in constant memory.

What is wrong with a file is found before anything is made of it: a missing, empty or truncated file, a header that
lies about the length, samples that are not finite. Songs are mono or stereo: of more channels two are heard, or the mix
of all, and that is said.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ortsep.audio.decode import probe, read
from ortsep.audio.layouts import downmix as shares
from ortsep.audio.layouts import front
from ortsep.audio.stream import Stream
from ortsep.base.arrays import F32
from ortsep.base.errors import AudioError, FileMissing, OrtsepError, UsageError
from ortsep.base.threads import closed

BLOCK = 65536
_RATES = (1000, 768_000)
MOST_CHANNELS = 64
_LATEST = 1e9
"""Seconds: 30 years, beyond which nothing can be counted in samples for sure."""


@dataclass(frozen=True)
class Song:
    """A song, or the part of it that was asked for. ``blocks`` decodes it; nothing else is held."""

    path: Path
    sample_rate: int
    channels: int
    """As delivered: at most 2."""
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
    deadline: float | None = None
    """When reading must have ended, of time.monotonic."""

    def blocks(self, size: int = BLOCK, complain: Callable[[str], None] | None = None) -> Iterator[F32]:
        """Decode anew: float32 blocks [C, n], C-contiguous, 1 <= n <= ``size``.

        ``complain`` hears what the decoder found wrong without giving up. Raises AudioError for samples that are not
        finite, and at the end for a file that holds less than it promised; TimedOut at ``deadline``.
        """
        taken, matrix = 0, None if self.mix is None else np.array(self.mix, np.float32)
        stop = None if self.limit is None else self.start + self.limit
        decoded = read(self.source, self.start, size, stop, self.deadline, complain)
        with closing(decoded):  # type: ignore[type-var]
            for block in decoded:
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
    warnings: tuple[str, ...] = ()
    """What the decoder found wrong without giving up, as sentences."""


def scan(song: Song) -> Scan:
    """Decode the whole song once and hold nothing. Raises AudioError for whatever ``Song.blocks`` would raise."""
    samples, peak = 0, np.zeros(song.channels, np.float32)
    complaints: list[str] = []
    with closed(song.blocks(complain=complaints.append)) as blocks:
        for block in blocks:
            samples += block.shape[1]
            peak = np.maximum(peak, np.maximum(block.max(axis=1), -block.min(axis=1)))
    return Scan(samples, tuple(float(p) for p in peak), tuple(complaints))


def open_song(
    path: str | Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    downmix: bool = False,
    allow_truncated: bool = False,
    timeout: float | None = None,
) -> Song:
    """Open a song, or ``duration`` seconds of it from ``start`` on, rounded to samples and ended by the song's end.

    Of 3 and more channels the front left and right are taken, or the first two of a file that doesn't state where they
    are, and a warning says so: Open-Unmix's rule. ``downmix`` takes all of them to stereo by the speakers that the file
    states (``ortsep.audio.layouts``); what is assumed is among the warnings. ``allow_truncated`` takes what is there of
    a file that is cut off or longer than its header says. Reading ends ``timeout`` seconds from now.

    Raises FileMissing, UsageError for a start or duration that is none, AudioError for everything in the file, and
    TimedOut, also while the song is read.
    """
    if not 0 <= start <= _LATEST:
        raise UsageError(f"--start {start:g} is not a time in the song; give seconds from 0 on")
    if duration is not None and not 0 < duration <= _LATEST:
        raise UsageError(f"--duration {duration:g} is no length; give seconds above 0")
    deadline = None if timeout is None else time.monotonic() + timeout
    path = Path(path)
    _check_file(path)
    stream = _probed(path, deadline)
    rate, channels = stream.sample_rate, stream.channels
    first = round(start * rate)
    limit = None if duration is None else max(1, round(duration * rate))
    held, warnings = _check_length(stream, first, limit, allow_truncated)
    mix, said = _to_stereo(stream, downmix) if channels > 2 else (None, "")
    warnings += (f"{path} {said}",) if said else ()
    if held is not None and first >= held + (0 if stream.decoder == "libsndfile" else stream.slack):
        raise AudioError(_nothing(path, start, held / rate))
    rest = None if held is None else max(1, held - first)
    if rest is not None and stream.slack == 0:
        limit = rest if limit is None else min(limit, rest)  # what lies behind isn't for the decoder to see
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
        mix=mix,
        deadline=deadline,
    )


def _to_stereo(stream: Stream, downmix: bool) -> tuple[tuple[tuple[float, ...], ...], str]:
    """Rows left and right with a share for each channel, and what is to be said of them."""
    channels, layout = stream.channels, stream.layout
    if downmix:
        return shares(channels, layout)
    pair = front(layout)
    taken = "first two" if layout is None else "front left and right"
    rows = tuple(tuple(float(place == one) for place in range(channels)) for one in pair)
    return rows, f"has {channels} channels: the {taken} are separated; --downmix takes all of them, mixed to stereo"


def _probed(path: Path, deadline: float | None) -> Stream:
    """What the decoder knows of the file, which is of a rate and number of channels that audio has."""
    try:
        stream = probe(path, deadline)
    except OSError as error:
        if isinstance(error, OrtsepError):
            raise
        raise AudioError(f"{path} can't be read ({error.strerror or error}); check its permissions and disk") from error
    rate, channels = stream.sample_rate, stream.channels
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(f"{path} claims a sample rate of {rate} Hz, which is no audio; convert it to 44100 Hz")
    if channels > MOST_CHANNELS:
        raise AudioError(f"{path} has {channels} channels and ortsep reads up to {MOST_CHANNELS}; split it")
    return stream


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


def _check_length(stream: Stream, first: int, limit: int | None, allowed: bool) -> tuple[int | None, tuple[str, ...]]:
    """The samples to read at most, where they are known, and warnings.

    Raises AudioError for a file that is cut off, unless that is allowed or beyond what is wanted.
    """
    problem, there, promised = stream.contents.problem, stream.there, stream.promised
    notes = tuple(f"{stream.path} {note}" for note in stream.contents.notes)
    if problem is None:
        if stream.samples == 0:
            raise AudioError(_nothing(stream.path, 0.0, 0.0))
        return there, notes
    if there == 0:
        raise AudioError(f"{stream.path} is cut off before its first sample; get a complete copy")
    sure = min((n for n in (there, promised) if n is not None and stream.decoder == "libsndfile"), default=0)
    if limit is not None and first + limit <= sure:
        return there, notes
    if problem == "longer":
        # The header is obeyed, as any player does: what lies behind may be another program's data.
        held = f"{_seconds(there, stream.sample_rate)} where its header claims {_seconds(promised, stream.sample_rate)}"
        if allowed:
            return there, (*notes, f"{stream.path} holds {held}: all of it was read")
        return promised, (
            *notes,
            f"{stream.path} holds {held}: the rest was left out; --allow-truncated takes all of it",
        )
    message = _cut_off(stream.path, there, promised, stream.sample_rate)
    if not allowed:
        raise AudioError(message)
    return there, (*notes, message.split(";")[0])


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
