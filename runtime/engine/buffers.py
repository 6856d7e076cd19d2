"""A song's samples as chunks need them: a sliding view of its stream, its border, and the sum of what comes out."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ortsep.base.arrays import F32


class Window:
    """A sliding view of a stream of blocks [C, n] that begins at sample ``start``, zeros outside it.

    It keeps only what may still be read.
    """

    def __init__(self, blocks: Iterable[F32], channels: int, start: int = 0) -> None:
        self._blocks = iter(blocks)
        self._parts: list[F32] = []
        self._base = start
        self._end = start
        self._channels = channels

    def read(self, start: int, length: int) -> F32:
        """Samples [start, start + length) as a new array [C, length]; none of them may have been dropped."""
        while self._end < start + length and (block := next(self._blocks, None)) is not None:
            if block.shape[-1]:
                self._parts.append(block)
                self._end += block.shape[-1]
        out = np.zeros((self._channels, length), np.float32)
        position = self._base
        for part in self._parts:
            a, b = max(start, position), min(start + length, position + part.shape[-1])
            if a < b:
                out[:, a - start : b - start] = part[:, a - position : b - position]
            position += part.shape[-1]
        return out

    def drop(self, before: int) -> None:
        """Forget samples before ``before``."""
        while self._parts and self._base + self._parts[0].shape[-1] <= before:
            self._base += self._parts.pop(0).shape[-1]


def reflected(blocks: Iterable[F32], before: int, after: int) -> Iterator[F32]:
    """The blocks [C, n] of a song with its reflection about its first and last sample in front and behind.

    The song must be longer than ``before`` and ``after``. Held are its first ``before`` samples, until they have come,
    and its last ``after``.
    """
    start: list[F32] = []
    tail: deque[F32] = deque()
    held = count = 0
    for block in blocks:
        if count <= before:
            start.append(block)
            count += block.shape[-1]
            if count > before:
                yield np.concatenate(start, axis=-1)[:, before:0:-1]
                yield from start
                start.clear()
        else:
            yield block
        tail.append(block)
        held += block.shape[-1]
        while held - tail[0].shape[-1] > after:
            held -= tail.popleft().shape[-1]
    end = np.concatenate(tail, axis=-1)
    yield end[:, -2 : -2 - after : -1] if end.shape[-1] > 1 else end[:, :0]


class OverlapAdd:
    """Weighted sum of chunk results [S, C, n]; hands out samples as they become final."""

    def __init__(self, stems: int, channels: int) -> None:
        self._sum = np.zeros((stems, channels, 0), np.float32)
        self._base = 0

    def add(self, start: int, result: F32, weights: F32) -> None:
        """Add ``result`` [S, C, n] times ``weights`` [n] at sample ``start``, which is not final yet."""
        end = start + result.shape[-1] - self._base
        if end > self._sum.shape[-1]:
            grown = np.zeros((*self._sum.shape[:2], end), np.float32)
            grown[..., : self._sum.shape[-1]] = self._sum
            self._sum = grown
        self._sum[..., start - self._base : end] += result * weights

    def final(self, until: int) -> F32:
        """Take out the samples before ``until``, which nothing will be added to any more: [S, C, n], n >= 0."""
        count = max(0, min(until - self._base, self._sum.shape[-1]))
        done, self._sum = self._sum[..., :count], self._sum[..., count:].copy()
        self._base += count
        return done
