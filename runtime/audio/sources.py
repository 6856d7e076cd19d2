"""Mixtures, and blocks of mixtures or stems with other channels, at other rates, or what is left over."""

import math
import numbers
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ortsep.audio.resample import resample, resampled_length
from ortsep.audio.song import MOST_CHANNELS, open_song, scan
from ortsep.base.arrays import F32
from ortsep.base.errors import AudioError, UsageError
from ortsep.base.scratch import Scratch
from ortsep.base.threads import closed

BLOCK = 1 << 16
LOUDEST = 1e6
"""The largest sample of an array that counts as audio: squares of more leave float32's range in a model."""


@runtime_checkable
class Source(Protocol):
    """Where a mixture comes from: decoded anew at each call of ``blocks``, also while another call's are read."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def samples(self) -> int: ...
    def blocks(self) -> Iterator[F32]:
        """Blocks [channels, n] float32, ``samples`` in all."""


@dataclass(frozen=True)
class ArraySource:
    """A mixture [C, N] in memory."""

    data: F32
    sample_rate: int

    @property
    def channels(self) -> int:
        return int(self.data.shape[0])

    @property
    def samples(self) -> int:
        return int(self.data.shape[1])

    def blocks(self) -> Iterator[F32]:
        for at in range(0, self.samples, BLOCK):
            yield self.data[:, at : at + BLOCK]


@dataclass(frozen=True)
class At:
    """A source at another rate and, where ``width`` is not 0, with so many channels (see ``fit_channels``)."""

    source: Source
    sample_rate: int
    width: int = 0

    @property
    def channels(self) -> int:
        return self.width or self.source.channels

    @property
    def samples(self) -> int:
        return resampled_length(self.source.samples, self.source.sample_rate, self.sample_rate)

    def blocks(self) -> Iterator[F32]:
        return self._fitted(self.source.blocks())

    def survey(self) -> Iterator[F32]:
        """The blocks, for who only measures them: a source that makes them may know a shorter way (``survey``)."""
        return self._fitted(_survey(self.source))

    def _fitted(self, blocks: Iterator[F32]) -> Iterator[F32]:
        source = self.source
        with closed(blocks) as raw:
            for block in resample(raw, source.channels, source.sample_rate, self.sample_rate, self.samples):
                yield fit_channels(block, self.channels)


@dataclass(frozen=True)
class Channel:
    """One channel of a source as a mono source, or ``channels`` of them from there on."""

    source: Source
    index: int
    channels: int = 1

    @property
    def sample_rate(self) -> int:
        return self.source.sample_rate

    @property
    def samples(self) -> int:
        return self.source.samples

    def blocks(self) -> Iterator[F32]:
        return self._picked(self.source.blocks())

    def survey(self) -> Iterator[F32]:
        """As ``At.survey``."""
        return self._picked(_survey(self.source))

    def _picked(self, blocks: Iterator[F32]) -> Iterator[F32]:
        with closed(blocks) as raw:
            for block in raw:
                yield block[self.index : self.index + self.channels]


def _survey(source: Source) -> Iterator[F32]:
    blocks: Iterator[F32] = getattr(source, "survey", source.blocks)()
    return blocks


@dataclass(frozen=True)
class FileSource:
    """A song's file as a source whose number of samples is known."""

    song: Any
    samples: int

    @property
    def sample_rate(self) -> int:
        return int(self.song.sample_rate)

    @property
    def channels(self) -> int:
        return int(self.song.channels)

    def blocks(self) -> Iterator[F32]:
        blocks: Iterator[F32] = self.song.blocks()
        return blocks


class SoundFileSource:
    """An open ``soundfile.SoundFile``, from its beginning; it must stay open and unread by others meanwhile."""

    def __init__(self, file: Any) -> None:
        if not file.seekable():
            raise AudioError("the sound file can't be read more than once; keep it in a file and give its path")
        self._file, self._lock = file, threading.Lock()
        self.sample_rate, self.channels, self.samples = int(file.samplerate), int(file.channels), int(file.frames)

    def blocks(self) -> Iterator[F32]:
        for at in range(0, self.samples, BLOCK):
            with self._lock:
                self._file.seek(at)
                block = self._file.read(min(BLOCK, self.samples - at), dtype="float32", always_2d=True)
            yield np.ascontiguousarray(block.T)


class Kept:
    """Blocks [C, n] or [n] that can be read once, kept in a temporary file as float32.

    Raises OutputError where no room is left for them.
    """

    def __init__(self, blocks: Iterable[npt.ArrayLike], sample_rate: int) -> None:
        self.sample_rate, self.channels, self.samples = sample_rate, 0, 0
        self._file, self._lock = Scratch("the mixture"), threading.Lock()
        with closed(blocks) as given:
            for block in given:
                data, _ = as_mixture(np.atleast_2d(np.asarray(block)), as_it_lies=True)
                if self.channels not in (0, len(data)):
                    raise AudioError(f"a block of {len(data)} channels follows one of {self.channels}; give all alike")
                self.channels = len(data)
                self._file.write(4 * self.channels * self.samples, data.T)
                self.samples += data.shape[1]
        if not self.samples:
            raise AudioError("the mixture has no samples; give at least one")

    def blocks(self) -> Iterator[F32]:
        frame = 4 * self.channels
        for at in range(0, self.samples, BLOCK):
            block = np.empty((min(BLOCK, self.samples - at), self.channels), np.float32)
            with self._lock:
                self._file.read(at * frame, block)
            yield block.T


def as_source(given: Any, sample_rate: int | None, default_rate: int) -> Source:
    """Whatever holds a mixture as a Source.

    A Source; the path of a song; an open ``soundfile.SoundFile``; an array ([N], [C, N] or [N, C]) or an iterable of
    blocks [C, n] or [n], both at ``sample_rate`` (by default ``default_rate``). It has one channel or two (``stereo``).
    Raises AudioError, FileMissing, and UsageError for a rate where the source states its own.
    """
    named = isinstance(given, str | Path)
    stated = isinstance(given, Source) or named or hasattr(given, "samplerate")
    if stated and sample_rate is not None:
        raise UsageError("a sample rate belongs to arrays and blocks, and this source has its own; leave it out")
    if isinstance(given, Source):
        return stereo(given)
    if named:
        song = open_song(given)
        tell(song.warnings)
        return FileSource(song, scan(song).samples)
    if hasattr(given, "samplerate"):
        return stereo(SoundFileSource(given))
    rate = as_rate(sample_rate) if sample_rate is not None else default_rate
    if isinstance(given, Iterator):
        return stereo(Kept(given, rate))
    return stereo(ArraySource(as_mixture(given)[0], rate))


def stereo(source: Source) -> Source:
    """The source, or its first two channels where it has more, which a warning of Python's says: Open-Unmix's rule.

    (openunmix 1.3, ``utils.preprocess``: "Only the first two channels will be processed".)
    """
    if source.channels <= 2:
        return source
    tell([f"the mixture has {source.channels} channels: the first two are separated; mix it down first to hear all"])
    return Channel(source, 0, 2)


def tell(what: Iterable[str]) -> None:
    """Warn, as of the line outside this package that asked."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ortsep":
        frame, level = frame.f_back, level + 1
    for text in what:
        warnings.warn(text, stacklevel=level)


def as_rate(value: Any) -> int:
    """A sample rate in Hz, 44100.0 as well as 44100. Raises UsageError for what is none."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value != int(value) or not 1000 <= value <= 768_000:
        raise UsageError(f"a sample rate of {value!r} is not a whole number of Hz from 1000 to 768000; change it")
    return int(value)


def as_mixture(mix: npt.ArrayLike, *, as_it_lies: bool = False) -> tuple[F32, Callable[[F32], F32]]:
    """An array as [C, N] float32, and the way back from [C, N] to the shape that was given. See ``separate``.

    ``as_it_lies``: the first axis is that of channels even where it is the longer one.
    """
    try:
        array = np.asarray(mix)
    except ValueError as error:
        raise AudioError(f"the mixture is not an array ({error}); give channels of one length") from error
    if array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        raise AudioError(f"samples of type {array.dtype} have no agreed full scale; give int16, int32 or float")
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        middle = 0 if info.min < 0 else (info.max + 1) // 2
        array = (array.astype(np.float64) - middle) / (info.max + 1 - middle)
    elif array.dtype.kind != "f":
        raise AudioError(f"a mixture of type {array.dtype} is not audio; give float or integer samples")
    if array.ndim == 1:
        data, back = array[None], lambda y: y[0]
    elif array.ndim == 2 and (as_it_lies or array.shape[0] <= array.shape[1]):
        data, back = array, lambda y: y
    elif array.ndim == 2:
        data, back = np.ascontiguousarray(array.T), lambda y: y.T
    else:
        raise AudioError(f"a mixture of shape {list(array.shape)} is not [samples] or [channels, samples]; reshape it")
    if data.size == 0:
        raise AudioError("the mixture has no samples; give at least one")
    if data.shape[0] > MOST_CHANNELS:
        raise AudioError(
            f"the mixture has {data.shape[0]} channels and ortsep takes up to {MOST_CHANNELS}; give [channels, samples]"
        )
    return _audible(data), back


def _audible(data: npt.NDArray[Any]) -> F32:
    """Float samples [C, N] as float32. Raises AudioError where they are not finite, or louder than any audio is."""
    if not np.isfinite(data).all():
        channel, at = np.argwhere(~np.isfinite(data))[0]
        raise AudioError(f"the mixture is not finite at sample {at} of channel {channel}; mend it first")
    peak = float(max(data.max(), -data.min()))
    if peak > LOUDEST:
        raise AudioError(f"the mixture's peak is {peak:g}, where full scale is 1; scale it down first")
    return data.astype(np.float32, copy=False)


def fit_channels(block: F32, channels: int) -> F32:
    """A block [c, n] as [channels, n]: mono is repeated, a mono model hears the mean of the channels."""
    if block.shape[0] == channels:
        return block
    if block.shape[0] == 1:
        return np.repeat(block, channels, axis=0)
    if channels == 1:
        mean: F32 = block.mean(axis=0, keepdims=True, dtype=np.float32)
        return mean
    raise AudioError(f"{block.shape[0]} channels don't fit a model of {channels}; mix the song down to stereo first")


def narrowed(blocks: Iterable[F32], channels: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] with ``channels``: a mono song gets mono stems."""
    with closed(blocks) as given:
        for block in given:
            yield block if block.shape[1] == channels else block.mean(axis=1, keepdims=True, dtype=np.float32)


def rerated(blocks: Iterable[F32], stems: int, channels: int, rate: int, wanted: int, samples: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] resampled to ``wanted`` Hz, ``samples`` in all."""
    with closed(blocks) as given:
        flat = (block.reshape(stems * channels, -1) for block in given)
        for block in resample(flat, stems * channels, rate, wanted, samples):
            yield block.reshape(stems, channels, -1)


@dataclass(frozen=True)
class Rest:
    """A stem that is the mixture less ``gain`` times the sum of the stems at the places ``minus``."""

    minus: tuple[int, ...]
    gain: float = 1.0


def completed(
    stems: Iterable[F32], mixture: Source, outputs: Sequence[int | Rest], *, remainder: bool = False
) -> Iterator[F32]:
    """Stem blocks [S, C, n] as other stems: each of ``outputs`` is the place of a stem, or what the mixture has left.

    ``remainder`` adds what the mixture has left of all of them. ``mixture`` is decoded again; it has the stems' rate
    and channels.
    """
    held = np.zeros((mixture.channels, 0), np.float32)
    with closed(stems) as given, closed(mixture.blocks()) as blocks:
        for block in given:
            count = block.shape[-1]
            while held.shape[-1] < count:
                held = np.concatenate([held, next(blocks)], axis=-1)
            made = np.empty((len(outputs) + remainder, *block.shape[1:]), np.float32)
            for out, what in zip(made, outputs, strict=False):
                out[:] = block[what] if isinstance(what, int) else _less(held[:, :count], block[list(what.minus)], what)
            if remainder:
                made[-1] = _less(held[:, :count], made[:-1])
            held = held[:, count:]
            yield made


def _less(mixture: F32, stems: F32, rest: Rest | None = None) -> F32:
    total: F32 = stems.sum(axis=0, dtype=np.float32)
    return mixture - (total if rest is None or rest.gain == 1 else total * np.float32(rest.gain))
