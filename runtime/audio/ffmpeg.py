"""Decoding with ffmpeg what libsndfile can't: a process that is given one file, one demuxer, and no other address."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ortsep.audio.contents import Contents
from ortsep.audio.foreign import Foreign, format_of
from ortsep.audio.layouts import ffmpeg_layout
from ortsep.audio.stream import Stream
from ortsep.base.arrays import F32
from ortsep.base.errors import AudioError, TimedOut

MP3 = Foreign(b"", 0, "mp3", "an MPEG audio file")
_COUNTED = {"wv", "tta", "ape", "tak"}
"""Demuxers of formats whose header counts the samples of the one track there is. Others tell a duration of the
container, which a picture, a second track or a late start make another than the track's."""
_SLACK_SECONDS = 0.1
"""By how much such a count may be over."""
_PATIENCE = 60.0
"""Seconds in which ffprobe must have found the audio."""


def tools() -> tuple[str, str] | None:
    """The programs ffmpeg and ffprobe, where both are on the PATH."""
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    return (ffmpeg, ffprobe) if ffmpeg and ffprobe else None


def _input(path: Path, contents: Contents, demuxer: str) -> list[str]:
    # A demuxer that is told isn't guessed: text that poses as a song is no playlist, and what is inside a container
    # can't open another one or an address of the net.
    known = ["-f", demuxer, "-format_whitelist", demuxer, "-protocol_whitelist", "file,subfile"]
    url = f"file:{path.resolve()}"
    if (contents.begin, contents.end) != (0, path.stat().st_size):
        url = f"subfile,,start,{contents.begin},end,{contents.end},,:{url}"
    return [*known, "-i", url]


def probe(path: Path, contents: Contents, known: Foreign, cause: str, deadline: float | None) -> Stream:
    """What ffprobe finds in a file of the format ``known``, by ``deadline``. Raises AudioError, TimedOut."""
    found_tools = tools()
    assert found_tools is not None
    entries = "stream=codec_name,sample_rate,channels,channel_layout,duration:format=format_name,duration"
    command = [found_tools[1], "-v", "error", "-select_streams", "a:0", "-show_entries", entries, "-of", "json"]
    left = _PATIENCE if deadline is None else min(_PATIENCE, deadline - time.monotonic())
    try:
        done = subprocess.run(
            [*command, *_input(path, contents, known.demuxer)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=max(0.0, left),
        )
        data = json.loads(done.stdout or b"{}")
        found, form = data["streams"][0], data.get("format", {})
        rate, channels = int(found["sample_rate"]), int(found["channels"])
        if rate < 1 or channels < 1:  # a header that no decoder could make sense of
            raise ValueError(f"{channels} channels at {rate} Hz")
        seconds = float(found.get("duration") or form.get("duration") or "nan")
    except subprocess.TimeoutExpired:
        if left < _PATIENCE:
            raise TimedOut(f"reading {path} took longer than it was given; allow more time") from None
        raise AudioError(f"ffprobe found no audio in {path} within {left:g} s; convert it to WAV or FLAC") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        if contents.problem == "cut off":
            raise AudioError(f"{path} is cut off before what tells where its audio is; get a complete copy") from None
        raise AudioError(
            f"{path} is {known.name} and has no audio that libsndfile or ffmpeg can read ({cause}); check the file"
        ) from None
    samples = round(seconds * rate) if np.isfinite(seconds) and 0 < seconds < 1e9 else None
    exact = samples if known.demuxer in _COUNTED else None
    cut = contents.problem == "cut off"
    return Stream(
        path,
        "ffmpeg",
        rate,
        channels,
        exact,
        str(form.get("format_name", known.demuxer)),
        str(found.get("codec_name", "unknown")),
        contents,
        round(_SLACK_SECONDS * rate),
        exact,
        samples if cut else None,
        ffmpeg_layout(str(found.get("channel_layout", "")), channels),
    )


def read(
    stream: Stream,
    start: int,
    size: int,
    stop: int | None,
    deadline: float | None = None,
    complain: Callable[[str], None] | None = None,
) -> Iterator[F32]:
    """Blocks [n, C] as of ``ortsep.audio.decode.read``."""
    found_tools = tools()
    if found_tools is None:
        raise AudioError(f"ffmpeg, which decodes {stream.path}, is not on the PATH any more; install it again")
    # Rate and channels are given so that the pipe stays what it is where a stream changes on the way; a layout by its
    # speakers, since -ac means ffmpeg's usual one of so many channels, to which it would mix the song's.
    channels = ["-ac", str(stream.channels)]
    if stream.layout is not None and stream.channels > 2:
        channels = ["-af", f"aformat=channel_layouts={'+'.join(stream.layout)}"]
    shape = [*channels, "-ar", str(stream.sample_rate), "-c:a", "pcm_f32le", "-f", "f32le"]
    source = _input(stream.path, stream.contents, _demuxer(stream))
    command = [found_tools[0], "-v", "error", "-nostdin", *source, "-map", "0:a:0", *shape, "pipe:1"]
    width, at = 4 * stream.channels, 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        try:
            with _killed_at(process, deadline) as late:
                while (stop is None or at < stop) and len(data := process.stdout.read(width * size)) >= width:
                    count = len(data) // width
                    block = np.frombuffer(data, "<f4", count * stream.channels).reshape(-1, stream.channels)
                    block = block if stop is None else block[: stop - at]
                    skip = min(len(block), max(0, start - at))
                    at += len(block)
                    if skip < len(block):
                        yield block[skip:].astype(np.float32, copy=False)
                if stop is not None and at >= stop:
                    return
                status = process.wait()
            if late.is_set():
                raise TimedOut(f"reading {stream.path} took longer than it was given; allow more time")
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    if status != 0:
        raise AudioError(
            f"{stream.path} is damaged at {at / stream.sample_rate:.2f} s (ffmpeg: "
            f"{lines[-1] if lines else f'status {status}'}); get a sound copy"
        )
    if lines and complain is not None:
        complain(f"ffmpeg found {stream.path} damaged ({lines[-1]}): parts of it may be missing")


def _demuxer(stream: Stream) -> str:
    with stream.path.open("rb") as file:
        file.seek(stream.contents.begin)
        return (format_of(file.read(600)) or MP3).demuxer


@contextlib.contextmanager
def _killed_at(process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[threading.Event]:
    """Kill ``process`` at ``deadline``, so that a read of its output ends; the event says that it was."""
    late = threading.Event()
    if deadline is None:
        yield late
        return

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
