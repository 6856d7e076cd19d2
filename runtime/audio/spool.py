"""A song from standard input, kept in a temporary file: it is read more than once, and memory must not grow with it."""

import shutil
from pathlib import Path
from typing import BinaryIO

from ortsep.base.errors import AudioError, OutputError, UsageError
from ortsep.base.wav import wav_header

RAW = {"u8": (1, 8), "s16le": (1, 16), "s24le": (1, 24), "s32le": (1, 32), "f32le": (3, 32), "f64le": (3, 64)}
"""ffmpeg's names of headerless formats, as WAV's format tag and bits."""
_LARGEST = (1 << 32) - (1 << 16)


def spool(source: BinaryIO, folder: Path, raw: str | None = None) -> Path:
    """Copy ``source`` to the end into ``folder`` and give the file's path.

    ``raw`` says what headerless samples are, as ``FORMAT:RATE:CHANNELS`` (``f32le:44100:2``). Raises UsageError for
    another text, AudioError for no input, OutputError for a full disk.
    """
    header = None if raw is None else _raw(raw)
    path = folder / ("stdin" if header is None else "stdin.wav")
    try:
        with path.open("w+b") as file:
            if header is None:
                shutil.copyfileobj(source, file, 1 << 20)
            else:
                tag, bits, rate, channels = header
                front = len(wav_header(rate, channels, 0, tag=tag, bits=bits))
                file.seek(front)
                shutil.copyfileobj(source, file, 1 << 20)
                size = file.tell() - front
                size -= size % (channels * bits // 8)
                file.truncate(front + size if size else 0)
                file.seek(0)
                # A size of 0 stands for "to the end" where 32 bits don't hold the true one.
                file.write(wav_header(rate, channels, size if size < _LARGEST else 0, tag=tag, bits=bits))
            if file.seek(0, 2) == 0 or (header is not None and size == 0):
                raise AudioError("standard input is empty; pipe a song into it")
    except OSError as error:
        if isinstance(error, AudioError):
            raise
        raise OutputError(
            f"standard input can't be kept in {folder} ({error.strerror or error}); make room there or set TMPDIR"
        ) from error
    return path


def _raw(text: str) -> tuple[int, int, int, int]:
    name, _, rest = text.partition(":")
    rate, _, channels = rest.partition(":")
    if name not in RAW or not (rate.isdecimal() and channels.isdecimal()) or len(text) > 30:
        raise UsageError(f"--raw {text} is not FORMAT:RATE:CHANNELS, as f32le:44100:2, with one of {', '.join(RAW)}")
    if not (1000 <= int(rate) <= 768_000 and 1 <= int(channels) <= 64):
        raise UsageError(f"--raw {text} has a rate beyond 1000 to 768000 Hz or channels beyond 1 to 64; change it")
    return (*RAW[name], int(rate), int(channels))
