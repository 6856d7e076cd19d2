"""Writing the stems of one song: block by block, under their final names only when all are complete.

Float WAV is written as it comes. Formats of limited range may need one gain for all stems of a song, and the peak is
known only at the end: those are kept as float32 on disk (never in memory) and encoded at the close.
"""

import contextlib
import errno
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import soundfile

from ortsep.base.errors import OutputError, UsageError
from ortsep.base.signals import signals_later
from ortsep.base.whole import hold, partial_path, release, sweep

F32 = npt.NDArray[np.float32]

SUBTYPES = {"float": "FLOAT", "24": "PCM_24", "16": "PCM_16"}
"""The command line's names, and libsndfile's."""
_FORMATS = {
    "wav": ("FLOAT", ("FLOAT", "PCM_24", "PCM_16")),
    "flac": ("PCM_24", ("PCM_24", "PCM_16")),
    "ogg": ("VORBIS", ()),
    "mp3": ("MPEG_LAYER_III", ()),
}
"""Default encoding, and the encodings to choose from."""
_MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_BITS = {"PCM_24": 24, "PCM_16": 16}
_WAV_BYTES = {"FLOAT": 4, "PCM_24": 3, "PCM_16": 2}
_WAV_LIMIT = (1 << 32) - 4096
_PIECE = 65536
"""Samples handed to libsndfile at a time: its Vorbis encoder overflows the stack on a few million."""


@dataclass(frozen=True)
class Encoding:
    """A file format and its encoding, by libsndfile's names."""

    format: str
    subtype: str

    @property
    def exact(self) -> bool:
        """Float samples, which no peak can exceed."""
        return self.subtype == "FLOAT"


def encoding(
    format: str, subtype: str | None = None, *, sample_rate: int = 44100, channels: int = 2, samples: int = 0
) -> Encoding:
    """How to write stems as ``format`` (wav, flac, ogg, mp3) and ``subtype`` (float, 24, 16, or None for the default).

    Defaults: float WAV, 24-bit FLAC, libsndfile's quality of Vorbis and MP3. A WAV beyond 4 GiB becomes RF64.
    Raises UsageError for what the format can't hold.
    """
    if format not in _FORMATS:
        raise UsageError(f"--format {format} is unknown; use {', '.join(_FORMATS)}")
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
    if format == "wav" and samples * channels * _WAV_BYTES[chosen] > _WAV_LIMIT:
        return Encoding("RF64", chosen)
    return Encoding(format.upper(), chosen)


@dataclass(frozen=True)
class Written:
    """A finished stem. ``peak`` and ``rms`` are the file's, in full scales, over all channels, after ``gain``."""

    stem: str
    path: Path
    sample_rate: int
    channels: int
    samples: int
    peak: float
    rms: float
    gain: float
    """The one factor of all stems of the song; 1 unless a peak would have clipped."""
    format: str
    subtype: str


class StemWriter:
    """The stems of one song on their way to disk.

    >>> with StemWriter({"drums": Path("drums.wav")}, 44100, 2, samples=3) as writer:   # doctest: +SKIP
    ...     writer.write({"drums": block})                                              # float32 [C, n]
    >>> writer.written["drums"].peak                                                    # doctest: +SKIP

    Files are written beside their final places under hidden names that end in ``.partial`` and renamed by ``close``,
    which leaving the context calls; an exception, Ctrl-C included, calls ``abort``, which removes them and the folders
    made for them. What a killed process left is removed by the next writer in the same folder.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        sample_rate: int,
        channels: int,
        *,
        samples: int,
        format: str = "wav",
        subtype: str | None = None,
    ) -> None:
        """Make the folders and temporary files for stems of ``samples`` samples. Raises UsageError, OutputError."""
        self.encoding = encoding(format, subtype, sample_rate=sample_rate, channels=channels, samples=samples)
        self.written: dict[str, Written] = {}
        self._paths, self._rate, self._channels, self._samples = dict(paths), sample_rate, channels, samples
        self._peak = dict.fromkeys(paths, 0.0)
        self._power = dict.fromkeys(paths, 0.0)
        self._count = dict.fromkeys(paths, 0)
        self._folders: list[Path] = []
        self._partials: dict[str, Path] = {}
        self._open: dict[str, _Encoder | _FloatFile] = {}
        self._done = False
        try:
            for folder in {path.parent for path in self._paths.values()}:
                sweep(folder)
            for stem, path in self._paths.items():
                with _saying(path):
                    self._make_folder(path.parent)
                self._partials[stem] = hold(partial_path(path))
                hold(_encoded(self._partials[stem]))
                with _saying(path):
                    self._open[stem] = self._start(stem)
        except BaseException:
            self.abort()
            raise

    def write(self, blocks: Mapping[str, F32]) -> None:
        """Append one block [C, n] to every stem. Raises OutputError where the disk or the samples are not usable."""
        for stem, path in self._paths.items():
            block = blocks[stem]
            if block.shape[1] == 0:
                continue
            peak = float(max(block.max(), -block.min()))
            if not np.isfinite(peak):
                at = self._count[stem] / self._rate
                raise OutputError(f"the stem {stem} is not finite after {at:.1f} s; validate the model's graph")
            flat = block.ravel()
            self._peak[stem] = max(self._peak[stem], peak)
            self._power[stem] += float(np.einsum("i,i", flat, flat, dtype=np.float64))
            self._count[stem] += block.shape[1]
            with _saying(path):
                self._open[stem].write(block.T)

    def close(self) -> dict[str, Written]:
        """Complete all files and give them their names. Raises OutputError; then no stem of the song is left."""
        if self._done:
            return self.written
        try:
            for stem, count in self._count.items():
                if count != self._samples:
                    path = self._paths[stem]
                    raise OutputError(f"{path} got {count} of {self._samples} samples; run the separation again")
            for stem, file in self._open.items():
                with _saying(self._paths[stem]):
                    file.close()
            highest = max(self._peak.values(), default=0.0)
            gain = 1.0 if self.encoding.exact or highest <= 1.0 else 1.0 / highest
            if not self.encoding.exact:
                for stem in self._paths:
                    self._encode(stem, gain)
            for stem, path in self._paths.items():
                with _saying(path):
                    self._partials[stem].replace(path)
                self.written[stem] = self._report(stem, gain)
        except BaseException:
            for path in (w.path for w in self.written.values()):
                path.unlink(missing_ok=True)
            self.written.clear()
            self.abort()
            raise
        self._release()
        return self.written

    def abort(self) -> None:
        """Remove whatever is not finished, and the folders that were made for it. Never raises."""
        self._done = True
        for file in self._open.values():
            with contextlib.suppress(Exception):
                file.close()
        for partial in self._partials.values():
            for path in (partial, _encoded(partial)):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        self._release()
        for folder in reversed(self._folders):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _release(self) -> None:
        self._done = True
        for partial in self._partials.values():
            release(partial)
            release(_encoded(partial))

    def _make_folder(self, folder: Path) -> None:
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            self._folders.append(new)

    def _start(self, stem: str) -> "_Encoder | _FloatFile":
        partial = self._partials[stem]
        if self.encoding.exact:
            return _Encoder(partial, self._rate, self._channels, self.encoding)
        return _FloatFile(partial)

    def _encode(self, stem: str, gain: float) -> None:
        """Turn a stem's float32 file into the wanted format, times ``gain``, under the same temporary name."""
        partial = self._partials[stem]
        with _saying(self._paths[stem]):
            with partial.open("rb") as source:
                encoder = _Encoder(_encoded(partial), self._rate, self._channels, self.encoding)
                with contextlib.closing(encoder):
                    while len(data := np.fromfile(source, np.float32, _PIECE * self._channels)):
                        samples = (data * np.float32(gain)).reshape(-1, self._channels)
                        encoder.write(_rounded(samples, _BITS.get(self.encoding.subtype)))
            _encoded(partial).replace(partial)

    def _report(self, stem: str, gain: float) -> Written:
        count = self._count[stem]
        rms = float(np.sqrt(self._power[stem] / max(1, count * self._channels)))
        return Written(
            stem=stem,
            path=self._paths[stem],
            sample_rate=self._rate,
            channels=self._channels,
            samples=count,
            peak=self._peak[stem] * gain,
            rms=rms * gain,
            gain=gain,
            format=self.encoding.format,
            subtype=self.encoding.subtype,
        )


def _rounded(samples: F32, bits: int | None) -> npt.NDArray[Any]:
    """Samples as left-aligned int32 of ``bits``: libsndfile rounds floats down, half a step off on average."""
    if bits is None:
        return samples
    full = 1 << (bits - 1)
    whole: npt.NDArray[Any] = np.clip(np.rint(samples * float(full)), -full, full - 1).astype(np.int32) << (32 - bits)
    return whole


def _interleaved(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Samples [n, C] in that order in memory; channel by channel, which takes a fifth of numpy's own copy."""
    if samples.flags.c_contiguous:
        return samples
    copy = np.empty(samples.shape, samples.dtype)
    for channel in range(samples.shape[1]):
        copy[:, channel] = samples[:, channel]
    return copy


def _encoded(partial: Path) -> Path:
    return partial.with_suffix(".encoded.partial")


@contextlib.contextmanager
def _saying(path: Path) -> Iterator[None]:
    """Turn the errors of writing ``path`` into an OutputError that names it, the cause and the mend."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        cause = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise OutputError(f"{path} can't be written ({cause}); use another --format") from error
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = "make room there or name another folder with -o" if full else "name another folder with -o"
        raise OutputError(f"{path} can't be written ({error.strerror or error}); {mend}") from error


class _FloatFile:
    """Headerless interleaved float32."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, samples: F32) -> None:
        self._file.write(np.ascontiguousarray(samples, np.float32).data)

    def close(self) -> None:
        self._file.close()


class _Encoder:
    """A file of libsndfile's whose failures carry the system's own cause."""

    def __init__(self, path: Path, sample_rate: int, channels: int, encoding: Encoding) -> None:
        self._sink = _Sink(path.open("w+b"))
        try:
            with self._sink.telling():
                self._sound = soundfile.SoundFile(
                    self._sink, "w", sample_rate, channels, format=encoding.format, subtype=encoding.subtype
                )
        except BaseException:
            self._sink.close()
            raise

    def write(self, samples: npt.NDArray[Any]) -> None:
        for at in range(0, len(samples), _PIECE):
            with self._sink.telling():
                self._sound.write(_interleaved(samples[at : at + _PIECE]))

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
            with signals_later():
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
