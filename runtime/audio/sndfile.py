"""Decoding with libsndfile: interleaved float32 as it comes, from the first sample of the file, a block at a time."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile

from ortsep.audio.contents import Contents, Segment
from ortsep.audio.stream import Stream
from ortsep.base.arrays import F32
from ortsep.base.errors import AudioError
from ortsep.base.signals import signals_later

_RAW_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}
"""Bytes a sample of the encodings that can be read without a header."""
_SEEKABLE = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"}
"""Formats in which libsndfile seeks to the exact sample; in Ogg it may land elsewhere."""
_SLACK_FRAMES = 4 * 1152
"""By how much libsndfile's count of a lossy file may be over: a few frames of the codec."""
_BLOCK = 1 << 16
_ENDLESS = 1 << 62
"""What libsndfile says where it doesn't know the length."""


def _length(segments: tuple[Segment, ...]) -> int:
    return sum(len(s) if isinstance(s, bytes) else s[1] - s[0] for s in segments)


class Spliced(io.RawIOBase):
    """A read-only virtual file of ``segments``: stretches of a real file and bytes in between.

    An exception in a read (a broken disk, Ctrl-C) can't pass through libsndfile: it is kept in ``error`` and the read
    gives nothing.
    """

    def __init__(self, path: Path, segments: tuple[Segment, ...]) -> None:
        self._file = path.open("rb", buffering=1 << 18)
        self._segments = segments
        self._starts = [_length(segments[:i]) for i in range(len(segments) + 1)]
        self._position = 0
        self.error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, self._starts[-1])[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        try:
            view, done = memoryview(buffer).cast("B"), 0
            for segment, start, end in zip(self._segments, self._starts, self._starts[1:], strict=False):
                if not start <= self._position < end or done == len(view):
                    continue
                inside, want = self._position - start, min(end - self._position, len(view) - done)
                if isinstance(segment, bytes):
                    piece = segment[inside : inside + want]
                else:
                    self._file.seek(segment[0] + inside)
                    piece = self._file.read(want)
                view[done : done + len(piece)] = piece
                done, self._position = done + len(piece), self._position + len(piece)
            return done
        except BaseException as error:
            self.error = error
            return 0

    def close(self) -> None:
        self._file.close()
        super().close()


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that reads or writes straight on.

    soundfile seeks to where it is after every read of a seekable file. In MP3 that throws the bit reservoir away:
    read in small blocks, a song that starts quietly comes out at 19 dB.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def _opened(path: Path, segments: tuple[Segment, ...], **raw: Any) -> Iterator[tuple[ForwardFile, Spliced]]:
    with Spliced(path, segments) as virtual:
        try:
            with signals_later():
                file = ForwardFile(virtual, **raw)
        except soundfile.LibsndfileError:
            if virtual.error is not None:
                raise virtual.error from None
            raise
        with file:
            yield file, virtual


def _with_header(contents: Contents) -> tuple[Segment, ...]:
    """The first part, with the header that a raw one lacks."""
    first = contents.parts[0]
    return ((contents.begin, first[0][1]),) if contents.raw and isinstance(first[0], tuple) else first


def _raw_arguments(path: Path, contents: Contents) -> dict[str, Any]:
    """What soundfile must be told to read headerless parts; empty where they have their headers."""
    if not contents.raw:
        return {}
    if contents.encoding is not None:
        subtype, rate, channels = contents.encoding
        return {"format": "RAW", "subtype": subtype, "endian": "LITTLE", "samplerate": rate, "channels": channels}
    with _opened(path, _with_header(contents)) as (file, _):
        return {
            "format": "RAW",
            "subtype": file.subtype,
            "endian": "LITTLE",
            "samplerate": file.samplerate,
            "channels": file.channels,
        }


def probe(path: Path, contents: Contents) -> Stream:
    """Open a file with libsndfile. Raises soundfile.LibsndfileError where it can't, AudioError for what is in it."""
    if contents.encoding is not None:
        kind, samples, (subtype, rate, channels) = "W64", 0, contents.encoding
    else:
        with _opened(path, _with_header(contents)) as (file, _):
            kind, samples, subtype = file.format, file.frames, file.subtype
            rate, channels = file.samplerate, file.channels
    if contents.raw and subtype in _RAW_BYTES:
        samples = _length(contents.parts[0]) // (_RAW_BYTES[subtype] * channels)
    elif contents.raw:
        contents = replace(contents, parts=(_with_header(contents),), raw=False, problem=None)
    for part in contents.parts[1:]:
        with _opened(path, part) as (file, _):
            samples += file.frames
            if (file.samplerate, file.channels) != (rate, channels):
                raise AudioError(
                    f"{path} changes from {channels} channels at {rate} Hz to {file.channels} at {file.samplerate} Hz "
                    "on the way; split it there"
                )
    known = contents.samples if contents.samples is not None or contents.doubtful else samples
    known = None if known is not None and known >= _ENDLESS else known
    stream = Stream(path, "libsndfile", rate, channels, known, kind, subtype, contents, 0, None, None, contents.layout)
    if contents.doubtful:
        return _counted(stream)
    there, promised = _extent(contents, known, _RAW_BYTES.get(subtype, 0) * channels)
    slack = 0 if subtype in _RAW_BYTES or kind == "FLAC" else _SLACK_FRAMES
    return replace(stream, slack=slack, there=there, promised=promised)


def _counted(stream: Stream) -> Stream:
    """The stream with as many samples as decoding gives: where its header promises more, it is cut off."""
    promised, there = stream.samples, 0
    for size in (_BLOCK, _BLOCK >> 7, 1):  # what a block holds before its damage is lost with the block
        try:
            for block in read(stream, there, size, promised):
                there += len(block)
        except AudioError:
            continue
        break
    sound = there == promised if promised is not None else there > 0 and size == _BLOCK
    if sound:
        return replace(stream, samples=there, there=there)
    contents = replace(stream.contents, problem="cut off", claimed=promised, present=there)
    return replace(stream, samples=there, contents=contents, there=there, promised=promised)


def _extent(contents: Contents, samples: int | None, frame_bytes: int) -> tuple[int | None, int | None]:
    """``Stream.there`` and ``Stream.promised`` from what the container says and libsndfile's count."""
    claimed, present = contents.claimed, contents.present
    if contents.problem is None or claimed is None or present is None:
        return samples, None
    if contents.kind == "flac":
        return present, claimed
    if samples is None or present == 0:
        return 0 if present == 0 else None, samples
    if contents.kind == "mpeg" and len(contents.parts[0]) == 1:
        return samples * present // claimed, samples  # libsndfile counts what the Xing header promises
    return samples, claimed // frame_bytes if frame_bytes else round(samples * claimed / present)


def read(stream: Stream, start: int, size: int, stop: int | None) -> Iterator[F32]:
    """Blocks [n, C] of at most ``size`` samples from ``start`` up to ``stop`` (None: the end).

    What lies behind ``stop`` is not looked at. Raises AudioError where decoding fails.
    """
    contents, at = stream.contents, 0
    raw = _raw_arguments(stream.path, contents)
    seekable = stream.format in _SEEKABLE and len(contents.parts) == 1 and not contents.doubtful
    for part in contents.parts:
        with _opened(stream.path, part, **raw) as (file, virtual):
            if seekable and 0 < start < file.frames:
                at = file.seek(start)
            while stop is None or at < stop:
                want = min(_BLOCK, start - at) if at < start else size
                try:
                    with signals_later():
                        block = file.read(
                            want if stop is None else min(want, stop - at), dtype="float32", always_2d=True
                        )
                except soundfile.LibsndfileError as error:
                    _raise(virtual)
                    cause = str(getattr(error, "error_string", error)).strip().rstrip(".")
                    cause = f"libsndfile: {cause}" if cause else "libsndfile can't go on there"
                    raise AudioError(
                        f"{stream.path} is damaged at {at / stream.sample_rate:.2f} s ({cause}); get a sound copy, or "
                        "separate the part before with --duration"
                    ) from None
                _raise(virtual)
                if len(block) == 0:
                    break
                at += len(block)
                if at > start:
                    yield block


def _raise(virtual: Spliced) -> None:
    if isinstance(virtual.error, OSError):
        raise AudioError(f"reading failed ({virtual.error}); check the disk and try again") from virtual.error
    if virtual.error is not None:
        raise virtual.error
