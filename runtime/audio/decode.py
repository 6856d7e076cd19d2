"""The two decoders behind ``ortsep.audio.song``: libsndfile, and ffmpeg for what libsndfile can't read.

Both give interleaved float32 as it comes, from the first sample of the file, and hold no more than a block of it.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from ortsep.audio.container import Contents, Segment, examine
from ortsep.base.errors import AudioError
from ortsep.base.signals import signals_later

F32 = npt.NDArray[np.float32]

_RAW_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}
"""Bytes a sample of the encodings that can be read without a header."""
_SEEKABLE = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"}
"""Formats in which libsndfile seeks to the exact sample; in Ogg it may land elsewhere."""
_FOREIGN = {
    b"ftyp": "an MPEG-4 file (AAC or ALAC)",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
    b"0&\xb2u": "a Windows Media file",
    b"wvpk": "a WavPack file",
    b"MAC ": "a Monkey's Audio file",
    b"#!AMR": "an AMR file",
    b"\xff\xf1": "an AAC stream",
    b"\xff\xf9": "an AAC stream",
    b"\x0bw": "an AC-3 stream",
}
_TIMED = ("mov,", "matroska,")
"""ffmpeg's names of containers whose header gives the length exactly enough to notice a truncated file."""
_SLACK_SECONDS = 0.1
"""By how much such a length may be over: encoder padding, and milliseconds as the unit."""
_SLACK_FRAMES = 4 * 1152
"""By how much libsndfile's count of a lossy file may be over: a few frames of the codec."""


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


@dataclass(frozen=True)
class Stream:
    """What a decoder knows of a file's audio. ``samples`` a channel is None where only decoding tells."""

    path: Path
    decoder: Literal["libsndfile", "ffmpeg"]
    sample_rate: int
    channels: int
    samples: int | None
    format: str
    subtype: str
    contents: Contents
    slack: int
    """How many samples fewer than ``samples`` decoding may give without the file being damaged."""

    there: int | None
    """The samples that the file holds; fewer than ``promised`` where it is cut off, more where its header lies."""
    promised: int | None
    """The samples that the header of a file with a problem promises, where it promises any."""

    def read(self, start: int, size: int) -> Iterator[F32]:
        """Blocks [n, C] of at most ``size`` samples from ``start`` on. Raises AudioError where decoding fails."""
        return (_read_libsndfile if self.decoder == "libsndfile" else _read_ffmpeg)(self, start, size)


def probe(path: Path) -> Stream:
    """Find the decoder for an existing, non-empty file. Raises AudioError for a file that neither decoder can read."""
    contents = examine(path)
    try:
        return _probe_libsndfile(path, contents)
    except soundfile.LibsndfileError as error:
        cause = str(getattr(error, "error_string", error)).strip().rstrip(".")
        if contents.problem == "cut off":
            raise AudioError(f"{path} is cut off and can't be decoded ({cause}); get a complete copy") from None
    ffmpeg = _tools()
    if ffmpeg is not None:
        return _probe_ffmpeg(path, contents, cause)
    with path.open("rb") as file:
        head = file.read(12)
    foreign = next((name for magic, name in _FOREIGN.items() if magic in (head[: len(magic)], head[4:8])), None)
    if foreign is not None:
        raise AudioError(
            f"{path} is {foreign}, which libsndfile can't decode; install ffmpeg (apt-get install ffmpeg, "
            "brew install ffmpeg, winget install ffmpeg), which ortsep then uses by itself"
        )
    raise AudioError(
        f"{path} can't be read as audio ({cause}); if it plays elsewhere, install ffmpeg (apt-get install ffmpeg, "
        "brew install ffmpeg, winget install ffmpeg), which ortsep then uses by itself, or convert it to WAV or FLAC"
    )


# --- libsndfile -------------------------------------------------------------------------------------------------------


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


def _raw_arguments(path: Path, contents: Contents) -> dict[str, Any]:
    """What soundfile must be told to read headerless parts; empty where they have their headers."""
    if not contents.raw:
        return {}
    with _opened(path, ((0, path.stat().st_size),)) as (file, _):
        return {
            "format": "RAW",
            "subtype": file.subtype,
            "endian": "LITTLE",
            "samplerate": file.samplerate,
            "channels": file.channels,
        }


def _probe_libsndfile(path: Path, contents: Contents) -> Stream:
    whole = (((0, path.stat().st_size),),)
    with _opened(path, whole[0] if contents.raw else contents.parts[0]) as (file, _):
        rate, channels, kind, subtype, samples = file.samplerate, file.channels, file.format, file.subtype, file.frames
    if contents.raw and subtype in _RAW_BYTES:
        samples = _length(contents.parts[0]) // (_RAW_BYTES[subtype] * channels)
    elif contents.raw:
        contents = Contents(contents.kind, whole)
    for part in contents.parts[1:]:
        with _opened(path, part) as (file, _):
            samples += file.frames
            if (file.samplerate, file.channels) != (rate, channels):
                raise AudioError(
                    f"{path} changes from {channels} channels at {rate} Hz to {file.channels} at {file.samplerate} Hz "
                    "on the way; split it there"
                )
    known = samples if samples < 1 << 62 else None
    slack = 0 if subtype in _RAW_BYTES or kind == "FLAC" else _SLACK_FRAMES
    there, promised = _extent(contents, known, _RAW_BYTES.get(subtype, 0) * channels)
    return Stream(path, "libsndfile", rate, channels, known, kind, subtype, contents, slack, there, promised)


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


def _read_libsndfile(stream: Stream, start: int, size: int) -> Iterator[F32]:
    raw, at = _raw_arguments(stream.path, stream.contents), 0
    for part in stream.contents.parts:
        with _opened(stream.path, part, **raw) as (file, virtual):
            if stream.format in _SEEKABLE and len(stream.contents.parts) == 1 and 0 < start < file.frames:
                at = file.seek(start)
            while True:
                try:
                    with signals_later():
                        block = file.read(size, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    _raise(virtual)
                    cause = str(getattr(error, "error_string", error)).strip().rstrip(".")
                    raise AudioError(
                        f"{stream.path} is damaged at {at / stream.sample_rate:.2f} s ({cause}); get a sound copy, or "
                        "separate the part before with --duration"
                    ) from None
                _raise(virtual)
                if len(block) == 0:
                    break
                skip = min(len(block), max(0, start - at))
                at += len(block)
                if skip < len(block):
                    yield block[skip:]


def _raise(virtual: Spliced) -> None:
    if isinstance(virtual.error, OSError):
        raise AudioError(f"reading failed ({virtual.error}); check the disk and try again") from virtual.error
    if virtual.error is not None:
        raise virtual.error


# --- ffmpeg -----------------------------------------------------------------------------------------------------------


def _tools() -> tuple[str, str] | None:
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    return (ffmpeg, ffprobe) if ffmpeg and ffprobe else None


def _input(path: Path) -> list[str]:
    # Only local files: a playlist that poses as a song must not make ffmpeg open network addresses.
    return ["-protocol_whitelist", "file,pipe", "-i", f"file:{path.resolve()}"]


def _probe_ffmpeg(path: Path, contents: Contents, cause: str) -> Stream:
    tools = _tools()
    assert tools is not None
    entries = "stream=codec_name,sample_rate,channels,duration:format=format_name,duration"
    command = [tools[1], "-v", "error", "-select_streams", "a:0", "-show_entries", entries, "-of", "json"]
    try:
        done = subprocess.run([*command, *_input(path)], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        data = json.loads(done.stdout or b"{}")
        found, form = data["streams"][0], data.get("format", {})
        rate, channels = int(found["sample_rate"]), int(found["channels"])
        name = str(form.get("format_name", "unknown"))
        seconds = float(found.get("duration") or form.get("duration") or "nan")
    except (OSError, ValueError, KeyError, IndexError, TypeError, subprocess.TimeoutExpired):
        raise AudioError(f"{path} has no audio that libsndfile or ffmpeg can read ({cause}); check the file") from None
    timed = name.startswith(_TIMED) and np.isfinite(seconds)
    samples = round(seconds * rate) if timed else None
    codec = str(found.get("codec_name", "unknown"))
    slack = round(_SLACK_SECONDS * rate)
    return Stream(path, "ffmpeg", rate, channels, samples, name, codec, contents, slack, samples, None)


def _read_ffmpeg(stream: Stream, start: int, size: int) -> Iterator[F32]:
    tools = _tools()
    if tools is None:
        raise AudioError(f"ffmpeg, which decodes {stream.path}, is not on the PATH any more; install it again")
    # Rate and channels are given so that the pipe stays what it is where a stream changes on the way.
    shape = ["-ac", str(stream.channels), "-ar", str(stream.sample_rate), "-c:a", "pcm_f32le", "-f", "f32le"]
    command = [tools[0], "-v", "error", "-nostdin", *_input(stream.path), "-map", "0:a:0", *shape, "pipe:1"]
    width, at = 4 * stream.channels, 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        try:
            while len(data := process.stdout.read(width * size)) >= width:
                block = np.frombuffer(data, "<f4", len(data) // width * stream.channels).reshape(-1, stream.channels)
                skip = min(len(block), max(0, start - at))
                at += len(block)
                if skip < len(block):
                    yield block[skip:].astype(np.float32, copy=False)
            status = process.wait()
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
        if status != 0:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            lines = log.read().decode("utf-8", "replace").strip().splitlines() or [f"status {status}"]
            raise AudioError(
                f"{stream.path} is damaged at {at / stream.sample_rate:.2f} s (ffmpeg: {lines[-1]}); get a sound copy"
            )
