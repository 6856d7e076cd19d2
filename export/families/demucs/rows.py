"""A time axis folded into rows, for devices that take no dimension above 16384 (CoreML).

[B, C, N] is held as [B, C, R, W] with R W >= N: row after row, zeros or anything behind the last sample. A convolution
hears each row with the ends of its neighbours (``neighbours``), after what lies behind the end was made silent
(``silenced``). Each of Demucs's layers divides W by its stride, so that all layers have the same rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ortsep.export.graph.builder import Graph

LONGEST = 16384
"""CoreML's largest dimension of a tensor that a node reads."""


@dataclass(frozen=True)
class Rows:
    """``count`` rows of ``width`` samples, of which the first ``samples`` are meant."""

    count: int
    width: int
    samples: int

    @property
    def rest(self) -> int:
        """Places behind the last sample."""
        return self.count * self.width - self.samples


def rows_of(lengths: Sequence[int], strides: Sequence[int]) -> list[Rows | int]:
    """How each layer's length is held, the first being the longest: folded where it is above ``LONGEST``."""
    if lengths[0] <= LONGEST:
        return list(lengths)
    whole = math.prod(strides)
    count = -(-lengths[0] // (LONGEST - whole))  # less a few, for what a row hears of its neighbours
    width = -(-lengths[0] // (count * whole)) * whole
    held: list[Rows | int] = []
    for length, stride in zip(lengths, [*strides, 1], strict=True):
        held.append(Rows(count, width, length) if length > LONGEST else length)
        width //= stride
    return held


def fold(g: Graph, x: str, rows: Rows, channels: int) -> str:
    """[B, C, N] as rows, zeros behind the end."""
    if rows.rest:
        x = g.concat([x, g.const(np.zeros((1, channels, rows.rest)))], 2)
    return g.reshape(x, 0, 0, rows.count, rows.width)


def unfold(g: Graph, x: str, rows: Rows) -> str:
    """Rows as [B, C, N]."""
    x = g.reshape(x, 0, 0, rows.count * rows.width)
    return g.slice(x, 2, 0, rows.samples) if rows.rest else x


def silenced(g: Graph, x: str, rows: Rows) -> str:
    """Zeros behind the end."""
    if not rows.rest:
        return x
    sounding = np.arange(rows.count * rows.width) < rows.samples
    return g.mul(x, g.const(sounding.reshape(1, 1, rows.count, rows.width)))


def neighbours(g: Graph, x: str, rows: Rows, channels: int, left: int, right: int) -> str:
    """Each row between the last ``left`` samples of the one before and the first ``right`` of the one behind; silence
    before the first and behind the last."""
    x, parts = silenced(g, x, rows), []
    if left:
        ends = g.slice(g.slice(x, 2, 0, rows.count - 1), 3, rows.width - left, rows.width)
        parts.append(g.concat([g.const(np.zeros((1, channels, 1, left))), ends], 2))
    parts.append(x)
    if right:
        begins = g.slice(g.slice(x, 2, 1, rows.count), 3, 0, right)
        parts.append(g.concat([begins, g.const(np.zeros((1, channels, 1, right)))], 2))
    return g.concat(parts, 3) if len(parts) > 1 else x


def rows_mean(g: Graph, x: str, rows: Rows) -> str:
    """The mean over all samples, kept as ones: [B, C, 1, 1]."""
    mean = g.mean(silenced(g, x, rows), -1, -2)
    return g.mul(mean, g.const(rows.count * rows.width / rows.samples)) if rows.rest else mean
