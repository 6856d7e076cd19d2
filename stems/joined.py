"""All stems of a song in one MP4, as players of Native Instruments' Stems expect it: the mixture and four stems.

Five audio streams of one length, ALAC or AAC by ffmpeg, the mixture alone switched on for players that know nothing of
stems; their names and colours in JSON in the atom ``moov/udta/stem``. Stems that are fewer than four are followed by
silence, as the format has four.
"""

import contextlib
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from ortsep.base import whole
from ortsep.base.arrays import F32
from ortsep.base.errors import MissingDependency, OutputError, UsageError
from ortsep.stems.encoders import RawFile, rounded
from ortsep.stems.files import MEND, Tally, Whole, Written, saying
from ortsep.stems.paths import JOINED
from ortsep.stems.tags import Tags, write_tags

STEMS = 4
CODECS = {"24": ("ALAC", 24), "16": ("ALAC", 16), "aac": ("AAC", 0)}
"""Codec and bits of each ``--subtype``; the first is the default."""
_AAC_KBIT = 256
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_COLOURS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_DSP = {
    "compressor": {
        **{"enabled": False, "ratio": 3, "output_gain": 0.5, "input_gain": 0.5, "attack": 0.003, "release": 0.3},
        **{"threshold": 0, "hp_cutoff": 300, "dry_wet": 50},
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35},
}
"""What a player does to the sum of the stems: nothing, in the words that it needs."""
_PIECE = 1 << 16


def check_joined(names: Sequence[str], channels: int, sample_rate: int, subtype: str | None) -> None:
    """Raise UsageError for stems that one MP4 can't hold, MissingDependency without ffmpeg."""
    if len(names) > STEMS:
        raise UsageError(
            f"stem.mp4 holds four stems and these are {', '.join(names)}; choose with --stems, or three and --residual"
        )
    if subtype is not None and subtype not in CODECS:
        raise UsageError(f"--subtype {subtype} is nothing that stem.mp4 has; use {', '.join(CODECS)}")
    if channels > 2:
        raise UsageError(f"stem.mp4 is stereo and these are {channels} channels; add --downmix")
    if subtype == "aac" and sample_rate not in _AAC_RATES:
        raise UsageError(f"AAC has no sample rate of {sample_rate} Hz; add --rate 44100, or take --subtype 24")
    if shutil.which("ffmpeg") is None:
        raise MissingDependency("stem.mp4 is written by ffmpeg, which is not on the PATH; install it, or use --flac")


class JoinedWriter(Whole):
    """The stems of one song on their way into one MP4, with the interface of ``StemWriter``.

    All are kept as float32 on disk until the peak of the song is known. Mono becomes stereo.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        sample_rate: int,
        channels: int,
        *,
        samples: int,
        mixture: Callable[[], Iterator[F32]],
        subtype: str | None = None,
        clip: str = "rescale",
        tags: Tags | None = None,
    ) -> None:
        """``mixture`` gives blocks [C, n] with the rate, channels and length of the stems. Raises what
        ``check_joined`` raises, and OutputError."""
        check_joined(names, channels, sample_rate, subtype)
        self.written: dict[str, Written] = {}
        self.notes: list[str] = []
        self._codec, self._bits = CODECS[subtype or next(iter(CODECS))]
        self._path, self._names, self._rate, self._channels = path, tuple(names), sample_rate, channels
        self._samples, self._mixture, self._clip, self._tags = samples, mixture, clip, tags or Tags()
        streams = ["mixture", *names, *[""] * (STEMS - len(names))]
        self._tally = [Tally(name, sample_rate, channels) for name in streams]
        self._raw: list[Path] = []
        self._open: list[RawFile] = []
        self._made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        self._partial: Path | None = None
        try:
            with saying(path):
                self._partial = whole.begin(path, MEND)
                for _ in range(1 + len(names)):
                    self._raw.append(whole.begin(path, MEND, alone=False))
                    self._open.append(RawFile(self._raw[-1]))
        except BaseException:
            self.abort()
            raise

    def write(self, blocks: Any) -> None:
        """Append one block [C, n] to every stem. Raises OutputError where the disk or the samples are not usable."""
        for number, name in enumerate(self._names, 1):
            self._append(number, blocks[name])

    def _append(self, number: int, block: F32) -> None:
        tally = self._tally[number]
        tally.cut += int(np.count_nonzero(np.abs(block) > 1)) if self._clip != "rescale" else 0
        if self._clip != "rescale":
            block = np.clip(block, -1, 1)
        tally.add(block)
        with saying(self._path):
            self._open[number].write(np.broadcast_to(block, (2, block.shape[1])).T)

    def close(self) -> dict[str, Written]:
        """Encode, and give the file its name. Raises OutputError; then all is as it was before."""
        if self.written:
            return self.written
        assert self._partial is not None
        try:
            for block in self._mixture():
                self._append(0, block)
            for tally in self._tally[: 1 + len(self._names)]:
                if tally.samples != self._samples:
                    got = f"{tally.samples} of {self._samples} samples"
                    raise OutputError(f"{self._path} got {got} of {tally.stem}; run the separation again")
            gain = 1.0 / max(1.0, *(tally.peak for tally in self._tally))
            with saying(self._path):
                for file in self._open:
                    file.close()
                for raw in self._raw:
                    _level(raw, gain, self._bits)
                self._encode(self._partial)
                self.notes += write_tags(self._partial, JOINED, self._tags)
                add_atom(self._partial, _document(self._names))
            whole.replace_all([(self._partial, self._path)], MEND)
        except BaseException:
            self.abort()
            raise
        for tally in self._tally[1 : 1 + len(self._names)]:
            self.written[tally.stem] = tally.written(self._path, "MP4", self._codec, gain)
        self._release()
        return self.written

    def _encode(self, partial: Path) -> None:
        """Raises OutputError with ffmpeg's last word."""
        form = "s32le" if self._bits else "f32le"
        shape = ["-f", form, "-ar", str(self._rate), "-ac", "2"]
        silence = ["-f", "lavfi", "-i", f"anullsrc=r={self._rate}:cl=stereo,atrim=end_sample={self._samples}"]
        inputs = [part for raw in self._raw for part in (*shape, "-i", f"file:{raw.absolute()}")]
        inputs += silence * (1 + STEMS - len(self._raw))
        codec = ["-c:a", "aac", "-b:a", f"{_AAC_KBIT}k"]
        if self._bits:
            codec = ["-c:a", "alac", "-sample_fmt", "s16p" if self._bits == 16 else "s32p"]
        maps = [part for number in range(1 + STEMS) for part in ("-map", f"{number}:a")]
        off = [part for number in range(1, 1 + STEMS) for part in (f"-disposition:a:{number}", "0")]
        plain = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact", "-threads", "1"]
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *inputs, *maps, *codec, *plain]
        command += ["-disposition:a:0", "default", *off, "-f", "mp4", f"file:{partial.absolute()}"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        except FileNotFoundError:
            raise MissingDependency("ffmpeg is not on the PATH any more; install it again, or use --flac") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            cause = said[-1] if said else f"status {done.returncode}"
            raise OutputError(f"{self._path} can't be written (ffmpeg: {cause}); make room there, or use --flac")

    def abort(self) -> None:
        """Remove whatever is not finished, and the folders that were made for it. Never raises."""
        for file in self._open:
            with contextlib.suppress(Exception):
                file.close()
        self._release()
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _release(self) -> None:
        for partial in (*self._raw, *([self._partial] if self._partial else [])):
            whole.drop(partial)


def _level(raw: Path, gain: float, bits: int) -> None:
    """Samples times ``gain`` in their own place: as they are for AAC, left-aligned int32 of ``bits`` for ALAC."""
    with raw.open("r+b") as file:
        while len(data := np.fromfile(file, np.float32, _PIECE)):
            file.seek(-4 * len(data), 1)
            made: npt.NDArray[Any] = rounded(data * np.float32(gain), bits or None)
            file.write(made.astype("<i4" if bits else "<f4", copy=False).tobytes())
            file.seek(0, 1)


def _document(names: Sequence[str]) -> bytes:
    shown = [*names, *["-"] * (STEMS - len(names))]
    stems = [{"name": name, "color": colour} for name, colour in zip(shown, _COLOURS, strict=True)]
    return json.dumps({"version": 1, "mastering_dsp": _DSP, "stems": stems}).encode("ascii")


def add_atom(path: Path, document: bytes) -> None:
    """Put ``document`` into the atom moov/udta/stem. The atom moov is the file's last one, so no offset changes.

    An atom is its size in 4 bytes, itself included, its name in 4, and what it holds (ISO/IEC 14496-12). Raises
    OutputError for a file that ends otherwise.
    """
    stem = struct.pack(">I", 8 + len(document)) + b"stem" + document
    with path.open("r+b") as file:
        place, size = _last_atom(file)
        file.seek(place)
        moov = bytearray(file.read(size))
        if moov[4:8] != b"moov":
            raise OutputError(f"{path} does not end with its atom moov; use another version of ffmpeg, or --flac")
        udta = next((at for at, kind in _atoms(moov, 8) if kind == b"udta"), None)
        if udta is None:
            moov += struct.pack(">I", 8 + len(stem)) + b"udta" + stem
        else:
            length = int.from_bytes(moov[udta : udta + 4], "big")
            moov[udta + length : udta + length] = stem
            moov[udta : udta + 4] = struct.pack(">I", length + len(stem))
        moov[:4] = struct.pack(">I", len(moov))
        file.seek(place)
        file.write(moov)


def _last_atom(file: BinaryIO) -> tuple[int, int]:
    """Where the last atom of a file begins, and its size."""
    at, end = 0, file.seek(0, 2)
    while True:
        file.seek(at)
        size, _ = struct.unpack(">I4s", file.read(8))
        size = int.from_bytes(file.read(8), "big") if size == 1 else size
        if size < 8 or at + size >= end:
            return at, end - at
        at += size


def _atoms(data: bytes | bytearray, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 8 <= len(data):
        yield at, bytes(data[at + 4 : at + 8])
        at += max(8, int.from_bytes(data[at : at + 4], "big"))


class Track:
    """One audio stream of a file, decoded by ffmpeg, with the ``read`` of soundfile. A context."""

    def __init__(self, path: Path, number: int, channels: int) -> None:
        form = ["-map", f"0:a:{number}", "-ac", str(channels), "-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]
        command = ["ffmpeg", "-v", "error", "-nostdin", "-i", f"file:{path.absolute()}", *form]
        self._command, self._channels = command, channels

    def read(self, frames: int) -> npt.NDArray[np.float64]:
        """The next samples [n, C]; fewer than ``frames`` at the end."""
        assert self._process.stdout is not None
        data = self._process.stdout.read(frames * self._channels * 4)
        return np.frombuffer(data, "<f4").reshape(-1, self._channels).astype(np.float64)

    def __enter__(self) -> Self:
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing)
        return self

    def __exit__(self, *of_error: object) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()
