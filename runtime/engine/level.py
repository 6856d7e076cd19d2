"""Mean and deviation by which a song or its spectrum is standardised, gathered in float64 and constant memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ortsep.base.arrays import C64, F32
from ortsep.engine.stft import Analyser
from ortsep.models.spec import STFT, Normalization


@dataclass(frozen=True)
class Level:
    """What is taken off and divided by; the identity by default."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, mean: float, variance: float, eps: float) -> "Level":
        """``eps`` is added to the deviation; what is as good as constant and has no ``eps`` is not divided."""
        return cls(mean, float(np.sqrt(variance)) + eps or 1.0)

    def apply(self, x: F32) -> F32:
        return x if self == Level() else (x - np.float32(self.mean)) * np.float32(1 / self.deviation)

    def undo(self, x: F32) -> F32:
        return x if self == Level() else x * np.float32(self.deviation) + np.float32(self.mean)

    def turned(self) -> "Level":
        """That of the negated signal."""
        return Level(-self.mean, self.deviation)


def level_of(values: F32, normalization: Normalization) -> Level:
    """That of an array's values."""
    variance = float(np.var(values, dtype=np.float64, ddof=normalization.ddof)) if values.size > 1 else 0.0
    return Level.of(float(np.mean(values, dtype=np.float64)), variance, normalization.eps)


class Statistics:
    """Mean and standard deviation of a song's mono mix, gathered block by block."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, block: F32) -> None:
        """Take in a block [C, n] (Chan, Golub and LeVeque 1979: pairwise update of mean and sum of squares)."""
        mono = block.mean(axis=0, dtype=np.float64)
        if not mono.size:
            return
        mean, count = float(mono.mean()), self.count + mono.size
        delta = mean - self._mean
        self._squares += float(np.square(mono - mean).sum()) + delta * delta * self.count * mono.size / count
        self._mean += delta * mono.size / count
        self.count = count

    def level(self, eps: float, ddof: int = 1) -> Level:
        """The level to standardise by; a silent or one-sample song has a deviation of ``eps``, or 1 without."""
        variance = self._squares / (self.count - ddof) if self.count > 1 else 0.0
        return Level.of(self._mean, variance, eps)


def spectrum_level(transform: STFT, channels: int, blocks: Iterable[F32], normalization: Normalization) -> Level:
    """That of a song's spectrum, real and imaginary parts over the graph's bins.

    What Moises-Light's ``forward`` takes over the whole clip; frames of silence that fill the transform's multiple of
    frames count.
    """
    analyser = Analyser(transform, channels, threads=1)
    total = squares = 0.0
    count = 0

    def take_in(spectrum: C64) -> None:
        nonlocal total, squares, count
        parts = spectrum[:, : transform.bins].swapaxes(1, 2).view(np.float32)
        total += float(parts.sum(dtype=np.float64))
        squares += float(np.square(parts, dtype=np.float64).sum())
        count += parts.size

    for block in blocks:
        take_in(analyser.push(block))
    take_in(analyser.finish())
    variance = max(0.0, squares - total * total / count) / max(1, count - normalization.ddof)
    return Level.of(total / count, variance, normalization.eps)
