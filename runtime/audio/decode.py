"""The decoder of a file: libsndfile, and ffmpeg for what libsndfile can't read."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import soundfile

from ortsep.audio import ffmpeg, sndfile
from ortsep.audio.container import examine
from ortsep.audio.foreign import format_of
from ortsep.audio.stream import Stream
from ortsep.base.arrays import F32
from ortsep.base.errors import AudioError, TimedOut
from ortsep.base.threads import closed

_INSTALL = (
    "install ffmpeg (apt-get install ffmpeg, brew install ffmpeg, winget install ffmpeg), which ortsep then uses by "
    "itself"
)


def probe(path: Path, deadline: float | None = None) -> Stream:
    """Find the decoder for an existing, non-empty file, by ``deadline`` (of time.monotonic).

    Raises AudioError for a file that neither decoder can read, TimedOut.
    """
    contents = examine(path)
    try:
        return sndfile.probe(path, contents)
    except soundfile.LibsndfileError as error:
        cause = str(getattr(error, "error_string", error)).strip().rstrip(".")
    if contents.begin >= contents.end:
        raise AudioError(f"{path} holds tags and no audio; get a complete copy")
    with path.open("rb") as file:
        file.seek(contents.begin)
        known = format_of(file.read(600))
    if known is None and contents.kind == "mpeg":
        known = ffmpeg.MP3
    if contents.problem == "cut off" and contents.kind != "other":
        raise AudioError(f"{path} is cut off and can't be decoded ({cause}); get a complete copy")
    if known is None:
        raise AudioError(
            f"{path} can't be read as audio: libsndfile says {cause!r}, and it begins as no format that ffmpeg is "
            "trusted with; convert it to WAV or FLAC"
        )
    if ffmpeg.tools() is None:
        raise AudioError(f"{path} is {known.name}, which libsndfile can't decode; {_INSTALL}")
    return ffmpeg.probe(path, contents, known, cause, deadline)


def read(
    stream: Stream,
    start: int,
    size: int,
    stop: int | None,
    deadline: float | None = None,
    complain: Callable[[str], None] | None = None,
) -> Iterator[F32]:
    """Blocks [n, C] of at most ``size`` samples from ``start`` up to ``stop`` (None: the end).

    ``complain`` hears what a decoder found wrong without giving up. Raises AudioError where decoding fails, TimedOut
    at ``deadline``.
    """
    if stream.decoder == "libsndfile":
        blocks = sndfile.read(stream, start, size, stop)
    else:
        blocks = ffmpeg.read(stream, start, size, stop, deadline, complain)
    with closed(blocks) as given:
        for block in given:
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut(f"reading {stream.path} took longer than it was given; allow more time")
            yield block
