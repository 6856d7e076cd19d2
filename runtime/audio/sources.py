"""Mixtures, and blocks of mixtures or stems with other channels, at other rates, or what is left over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ortsep.audio.resample import resample, resampled_length
from ortsep.base.errors import AudioError

F32 = npt.NDArray[np.float32]
BLOCK = 1 << 16


class Source(Protocol):
    """Where a mixture comes from: decoded anew at each call of ``blocks``."""

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


def as_mixture(mix: npt.ArrayLike) -> tuple[F32, Callable[[F32], F32]]:
    """An array as [C, N] float32, and the way back from [C, N] to the shape that was given. See ``separate``."""
    array = np.asarray(mix)
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        middle = 0 if info.min < 0 else (info.max + 1) // 2
        array = (array.astype(np.float64) - middle) / (info.max + 1 - middle)
    elif array.dtype.kind not in "fb" or array.dtype.kind == "b":
        raise AudioError(f"a mixture of type {array.dtype} is not audio; give float or integer samples")
    array = array.astype(np.float32, copy=False)
    if array.ndim == 1:
        data, back = array[None], lambda y: y[0]
    elif array.ndim == 2 and array.shape[0] <= array.shape[1]:
        data, back = array, lambda y: y
    elif array.ndim == 2:
        data, back = np.ascontiguousarray(array.T), lambda y: y.T
    else:
        raise AudioError(f"a mixture of shape {list(array.shape)} is not [samples] or [channels, samples]; reshape it")
    if data.size == 0:
        raise AudioError("the mixture has no samples; give at least one")
    if data.shape[0] > 2:
        raise AudioError(f"the mixture has {data.shape[0]} channels; mix it down to mono or stereo first")
    if not np.isfinite(data).all():
        channel, at = np.argwhere(~np.isfinite(data))[0]
        raise AudioError(f"the mixture is not finite at sample {at} of channel {channel}; mend it first")
    return data, back


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


def narrowed(blocks: Iterator[F32], channels: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] with ``channels``: a mono song gets mono stems."""
    for block in blocks:
        yield block if block.shape[1] == channels else block.mean(axis=1, keepdims=True, dtype=np.float32)


def rerated(blocks: Iterator[F32], stems: int, channels: int, rate: int, wanted: int, samples: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] resampled to ``wanted`` Hz, ``samples`` in all."""
    flat = (block.reshape(stems * channels, -1) for block in blocks)
    for block in resample(flat, stems * channels, rate, wanted, samples):
        yield block.reshape(stems, channels, -1)


def complement(stems: Iterator[F32], source: Source, model_channels: int, rate: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] at ``rate`` with one stem more: the source, decoded again, less their sum."""
    channels = 1 if source.channels == 1 else model_channels
    samples = resampled_length(source.samples, source.sample_rate, rate)
    mixture = resample(source.blocks(), source.channels, source.sample_rate, rate, samples)
    held = np.zeros((source.channels, 0), np.float32)
    for block in stems:
        count = block.shape[-1]
        while held.shape[-1] < count:
            held = np.concatenate([held, next(mixture)], axis=-1)
        rest = fit_channels(held[:, :count], channels) - block.sum(axis=0, dtype=np.float32)
        held = held[:, count:]
        yield np.concatenate([block, rest[None]])
