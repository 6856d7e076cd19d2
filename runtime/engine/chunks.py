"""Cutting a song into chunks and joining the results: the plan is plain data, the caller owns the loop.

Semantics of ``demucs.apply.apply_model`` (adefossez/demucs 4.1): triangular weights that sum to one, a short last chunk
centred in context from the song, the shift trick as further, shifted grids over the same song. Because the weights of a
plan are normalised beforehand, one overlap-add buffer serves all of them, and what no later chunk touches is final.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge

import numpy as np
import numpy.typing as npt

from ortsep.models.spec import Chunks, Fixed, Stepped

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """One run of the graph, in samples of the song (which starts at 0; outside it there is silence).

    Of what the graph gives, [start, stop) counts. ``grid_start`` names the regular grid of starts that the chunk
    belongs to: ``grid_start + k * stride``.
    """

    start: int
    stop: int
    origin: int
    """Where the chunk's triangle begins; before ``start`` where a shifted grid begins before the song."""
    grid_start: int


@dataclass(frozen=True)
class Span:
    """Samples [start, start + length) of the song, silence outside it."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class Plan:
    """How a song of ``samples`` is cut: a grid of chunks of ``segment`` every ``stride`` samples from each origin."""

    samples: int
    segment: int
    stride: int
    origins: tuple[int, ...]

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, ordered by where they start to count; made as they are asked for, since a song has thousands."""
        grids = [_grid(origin, self.samples, self.segment, self.stride) for origin in self.origins]
        return merge(*grids, key=lambda chunk: (chunk.start, chunk.origin))

    def weights(self, chunk: Chunk) -> F32:
        """The chunk's share [stop - start] of each output sample, float32; over all chunks the shares sum to one."""
        position = np.arange(chunk.start, chunk.stop)
        total = np.zeros(len(position))
        first = max(0, -(-(chunk.start - self.segment + 1 - chunk.grid_start) // self.stride))
        last = (chunk.stop - 1 - chunk.grid_start) // self.stride
        for k in range(first, last + 1):
            total += _triangle(position - (chunk.grid_start + k * self.stride), self.segment)
        return (_triangle(position - chunk.origin, self.segment) / (total * len(self.origins))).astype(np.float32)


def _triangle(position: npt.NDArray[np.int64], segment: int) -> npt.NDArray[np.float64]:
    """Demucs's weight 1, 2, ... segment//2, segment - segment//2, ... 1 at ``position``, zero outside [0, segment)."""
    return np.clip(np.minimum(position + 1, segment - position), 0, None).astype(np.float64)


def make_plan(samples: int, chunks: Chunks, *, overlap: float | None = None, shifts: int = 0, seed: int = 0) -> Plan:
    """Plan a song of ``samples``.

    ``shifts`` grids with offsets drawn by ``random.Random(seed)`` replace the plain grid; with ``random.seed(seed)``
    the original draws the same ones. ``overlap`` (0 to below 1, a fraction of a chunk) overrides the spec's.
    """
    overlap = chunks.overlap if overlap is None else overlap
    whole = not isinstance(chunks.takes, Fixed) and samples <= max(chunks.whole, 1)
    segment = samples if whole else chunks.length
    stride = max(1, int((1 - overlap) * segment))
    stride = samples if whole else stride // chunks.align * chunks.align or stride
    draw = random.Random(seed)
    spread = chunks.max_shift
    origins = [draw.randint(0, spread) - spread for _ in range(shifts)] if shifts and spread else [0]
    return Plan(samples, segment, stride, tuple(origins))


def _grid(grid_start: int, samples: int, segment: int, stride: int) -> Iterator[Chunk]:
    for origin in range(grid_start, samples, stride):
        stop = min(origin + segment, samples)
        if stop <= 0:
            continue
        yield Chunk(max(origin, 0), stop, origin, grid_start)


def reading(chunk: Chunk, chunks: Chunks, segment: int) -> Span:
    """What a graph of these ``chunks`` reads for a chunk of a plan of ``segment``: the chunk centred in its context."""
    own = chunk.stop - chunk.origin
    takes, length = chunks.takes, segment
    if isinstance(takes, Stepped):
        length = takes.least - (min(0, takes.least - own) // takes.step) * takes.step
    before = (length - own) // 2
    return Span(chunk.origin - before // chunks.align * chunks.align, length)


class Window:
    """A sliding view of a stream of blocks [C, n], zeros outside the song; keeps only what may still be read."""

    def __init__(self, blocks: Iterable[F32], channels: int) -> None:
        self._blocks = iter(blocks)
        self._parts: list[F32] = []
        self._base = 0
        self._end = 0
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


def keep_from(starts: Iterable[int]) -> npt.NDArray[np.int64]:
    """For each of the spans with these ``starts``, in order, the earliest start of it and all later ones."""
    return np.minimum.accumulate(np.fromiter(starts, np.int64)[::-1])[::-1]
