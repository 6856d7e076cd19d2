"""The formats of stems: what each can hold, and how samples become its bytes.

WAV is written here, so that the same samples give the same bytes whenever they are written: libsndfile puts the time
into float WAV. The other formats are libsndfile's.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from ortsep.base.arrays import F32
from ortsep.base.errors import UsageError
from ortsep.base.wav import wav_header

SUBTYPES = {"float": "FLOAT", "24": "PCM_24", "16": "PCM_16"}
"""The command line's names, and libsndfile's."""
_FORMATS = {
    "wav": ("FLOAT", ("FLOAT", "PCM_24", "PCM_16")),
    "flac": ("PCM_24", ("PCM_24", "PCM_16")),
    "ogg": ("VORBIS", ()),
    "mp3": ("MPEG_LAYER_III", ()),
}
"""Default encoding, and the encodings to choose from."""
CLIPS = ("rescale", "clamp", "none")
"""What is done with samples beyond full scale: one gain for all stems where the format needs it, each cut, nothing."""
_BITRATES = {32000: (32, 320), 16000: (8, 160), 8000: (8, 64)}
"""kbit/s that MP3 can have from these sample rates on: the layer's versions 1, 2 and 2.5."""
_MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_BITS = {"FLOAT": 32, "PCM_24": 24, "PCM_16": 16}
_WAV_LIMIT = (1 << 32) - 4096
_PIECE = 65536
"""Samples encoded at a time: libsndfile's Vorbis encoder overflows the stack on a few million."""


@dataclass(frozen=True)
class Encoding:
    """A file format and its encoding, by libsndfile's names."""

    format: str
    subtype: str
    level: float | None = None
    """libsndfile's compression level, 0 (most bits) to 1; None for its default."""
    constant: bool = False
    """Whether every second gets the same number of bits."""

    @property
    def exact(self) -> bool:
        """Float samples, which no peak can exceed."""
        return self.subtype == "FLOAT"


def encoding(
    format: str,
    subtype: str | None = None,
    *,
    sample_rate: int = 44100,
    channels: int = 2,
    samples: int = 0,
    bitrate: int | None = None,
    quality: float | None = None,
) -> Encoding:
    """How to write stems as ``format`` (wav, flac, ogg, mp3) and ``subtype`` (float, 24, 16, or None for the default).

    ``bitrate``: kbit/s of an MP3, constant. ``quality``: 0 to 10 of an MP3 or Vorbis of variable bitrate. Defaults:
    float WAV, 24-bit FLAC, libsndfile's quality of Vorbis and MP3. A WAV beyond 4 GiB becomes RF64.
    Raises UsageError for what the format can't hold.
    """
    if format not in _FORMATS:
        raise UsageError(f"--format {format} is unknown; use {', '.join(_FORMATS)} or stem.mp4")
    default, allowed = _FORMATS[format]
    chosen = default if subtype is None else SUBTYPES.get(subtype, "")
    if subtype is not None and chosen not in allowed:
        names = ", ".join(name for name, value in SUBTYPES.items() if value in allowed)
        mend = f"use {names}" if names else "leave --subtype out"
        raise UsageError(f"--subtype {subtype} is nothing that {format} has; {mend}")
    if format.upper() not in soundfile.available_formats():
        raise UsageError(f"this libsndfile writes no {format}; use --format wav or flac, or upgrade soundfile")
    if format == "mp3" and sample_rate not in _MPEG_RATES:
        raise UsageError(f"MP3 has no sample rate of {sample_rate} Hz; add --rate 44100 or --rate 48000")
    most = {"mp3": 2, "flac": 8}.get(format, 255)
    if channels > most:
        raise UsageError(f"{format} holds up to {most} channels and these are {channels}; use --format wav")
    if format == "wav" and samples * channels * _BITS[chosen] // 8 > _WAV_LIMIT:
        return Encoding("RF64", chosen)
    level = None if quality is None else _level(1.0 - quality / 10)
    if bitrate is not None:
        level = _bitrate_level(bitrate, sample_rate)
    return Encoding(format.upper(), chosen, level, bitrate is not None)


def _bitrate_level(bitrate: int, sample_rate: int) -> float:
    """libsndfile's level for a constant bitrate: it falls linearly with the bitrate between what the rate allows."""
    low, high = next(limits for rate, limits in _BITRATES.items() if sample_rate >= rate)
    if not low <= bitrate <= high:
        raise UsageError(f"MP3 at {sample_rate} Hz has {low} to {high} kbit/s; change --mp3-bitrate {bitrate}")
    return _level((high - bitrate) / (high - low))


def _level(level: float) -> float:
    """What libsndfile takes: of its range from 0 to 1 it refuses the end."""
    return min(max(level, 0.0), 0.9999)


def check_encoding(format: str, bitrate: int | None, quality: float | None, clip: str) -> None:
    """Raise UsageError for options that ``format`` has not, or that exclude each other."""
    if clip not in CLIPS:
        raise UsageError(f"--clip-mode {clip} is unknown; use {', '.join(CLIPS)}")
    if bitrate is not None and quality is not None:
        raise UsageError("--mp3-bitrate asks for a constant bitrate and --quality for a varying one; leave one out")
    if bitrate is not None and format != "mp3":
        raise UsageError(f"--mp3-bitrate is an option of MP3 and these are {format}; add --mp3 or leave it out")
    if quality is not None and format not in ("mp3", "ogg"):
        raise UsageError(f"--quality is an option of MP3 and Vorbis and {format} loses nothing; leave it out")
    if quality is not None and not 0 <= quality <= 10:
        raise UsageError(f"--quality {quality:g} is not from 0 (small) to 10 (good); change it")


class RawFile:
    """Samples one behind the other, behind ``header``: float WAV, or what waits to be encoded."""

    def __init__(self, path: Path, header: bytes = b"") -> None:
        self._file = path.open("wb")
        self._file.write(header)

    def write(self, samples: npt.NDArray[Any]) -> None:
        """Append samples [n, C]."""
        self._file.write(_interleaved(samples).data)

    def close(self) -> None:
        """May be called more than once. Raises OSError where what was written last has no room."""
        self._file.close()


def header(encoding: Encoding, sample_rate: int, channels: int, samples: int) -> bytes:
    """What stands before ``samples`` samples a channel in a WAV."""
    bits, rf64 = _BITS[encoding.subtype], encoding.format == "RF64"
    size = samples * channels * bits // 8
    return wav_header(sample_rate, channels, size, tag=3 if encoding.exact else 1, bits=bits, rf64=rf64)


def encode(
    raw: Path, target: Path, sample_rate: int, channels: int, samples: int, encoding: Encoding, gain: float
) -> Iterator[None]:
    """Write the float32 file ``raw``, times ``gain``, to ``target``, a step a piece; it may be left at any of them.

    For a thread that gets no signals: libsndfile calls back into Python and an exception there is lost. Raises OSError
    with the system's own cause, soundfile.LibsndfileError for any other.
    """
    own = encoding.format in ("WAV", "RF64")
    bits = _BITS.get(encoding.subtype)
    sink: RawFile | _Encoder
    with raw.open("rb") as source:
        if own:
            sink = RawFile(target, header(encoding, sample_rate, channels, samples))
        else:
            sink = _Encoder(target, sample_rate, channels, encoding)
        with contextlib.closing(sink):
            while len(data := np.fromfile(source, np.float32, _PIECE * channels)):
                whole = rounded((data * np.float32(gain)).reshape(-1, channels), bits)
                sink.write(_packed(whole, bits) if own and bits else whole)
                yield


def rounded(samples: F32, bits: int | None) -> npt.NDArray[Any]:
    """Samples as left-aligned int32 of ``bits``: libsndfile rounds floats down, half a step off on average."""
    if bits is None:
        return samples
    full = 1 << (bits - 1)
    whole: npt.NDArray[Any] = np.clip(np.rint(samples * float(full)), -full, full - 1).astype(np.int32) << (32 - bits)
    return whole


def _packed(whole: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """The upper ``bits`` of int32 [n, C] as little-endian bytes [n, C * bits / 8]."""
    count = bits // 8
    parts = whole.astype("<i4").view(np.uint8).reshape(*whole.shape, 4)[..., 4 - count :]
    return np.ascontiguousarray(parts).reshape(len(whole), -1)


def _interleaved(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Samples [n, C] in that order in memory; channel by channel, which takes a fifth of numpy's own copy."""
    if samples.flags.c_contiguous:
        return samples
    copy = np.empty(samples.shape, samples.dtype)
    for channel in range(samples.shape[1]):
        copy[:, channel] = samples[:, channel]
    return copy


_MODES = {("MP3", True, False): "VARIABLE", ("MP3", True, True): "CONSTANT"}
"""libsndfile's modes of bitrate, by format, whether a level is given, and whether it is constant."""


class _Encoder:
    """A file of libsndfile's whose failures carry the system's own cause."""

    def __init__(self, path: Path, sample_rate: int, channels: int, encoding: Encoding) -> None:
        self._sink = _Sink(path.open("w+b"))
        try:
            with self._sink.telling():
                self._sound = soundfile.SoundFile(
                    self._sink,
                    "w",
                    sample_rate,
                    channels,
                    format=encoding.format,
                    subtype=encoding.subtype,
                    compression_level=encoding.level,
                    bitrate_mode=_MODES.get((encoding.format, encoding.level is not None, encoding.constant)),
                )
        except BaseException:
            self._sink.close()
            raise

    def write(self, samples: npt.NDArray[Any]) -> None:
        with self._sink.telling():
            self._sound.write(samples)

    def close(self) -> None:
        if self._sink.closed:
            return
        try:
            with self._sink.telling():
                self._sound.close()
        finally:
            self._sink.close()


class _Sink(io.RawIOBase):
    """A file that libsndfile writes through Python.

    An exception can't pass through libsndfile, which calls every failure "System error" and keeps silent about one
    at the close: it is kept here and raised afterwards.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except BaseException as error:
            self._error = self._error or error
            return 0

    def tell(self) -> int:
        try:
            return self._file.tell()
        except BaseException as error:
            self._error = self._error or error
            return 0

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)  # type: ignore[attr-defined,no-any-return]
        except BaseException as error:
            self._error = self._error or error
            return 0

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except BaseException as error:
            self._error = self._error or error
            return 0

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError):  # soundfile asserts that all was written
            if self._error is None:
                raise
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()
