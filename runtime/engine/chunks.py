"""Cutting a song into chunks and joining the results: the plan is plain data, the caller owns the loop.

What a plan says of a model comes from its ``ortsep.models.spec.Chunks``, whose docstrings say whose scheme each join,
border and tail is. The shift trick (``demucs.apply.apply_model``) is further, shifted grids over the same song. Because
the weights of a plan are normalised beforehand, one overlap-add buffer serves all of them, and what no later chunk
touches is final.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge

import numpy as np
import numpy.typing as npt

from ortsep.base.arrays import F32, F64
from ortsep.models.spec import Chunks, Fixed, Join, Stepped


@dataclass(frozen=True)
class Chunk:
    """One run of the graph, in samples of the song, which starts at 0 and may have a border on both sides.

    Of what the graph gives, [start, stop) counts: that part of the song's samples.
    """

    start: int
    stop: int
    origin: int
    """Where the chunk's window begins; before ``start`` where it begins before the song."""
    own: int
    """How many samples from ``origin`` on the song and its border have for it."""
    grid: "Grid"
    index: int
    """Which of its grid's places it has."""
    count: int = 1
    """How many chunks it stands for: all that the tail "back" moves to one place."""


@dataclass(frozen=True)
class Span:
    """Samples [start, start + length) of the song with its border, silence outside them."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class Grid:
    """Chunks of ``segment`` samples every ``stride`` from ``start``, as long as they begin before ``end``."""

    start: int
    end: int
    segment: int
    stride: int
    join: Join
    back: bool = False
    """Those that would end behind ``end`` are one that ends there."""

    @property
    def places(self) -> int:
        """How many chunks there are; those moved back count as one."""
        return min(-(-(self.end - self.start) // self.stride), self._moved + 1)

    @property
    def _moved(self) -> int:
        """The first place of those that are moved back."""
        if not self.back:
            return 1 << 62
        return max(0, -(-(self.end - self.segment - self.start) // self.stride))

    def place(self, index: int) -> tuple[int, int, int]:
        """Origin, own samples and count of the chunk at ``index``."""
        origin, count = self.start + index * self.stride, 1
        if index == self._moved:
            count = -(-(self.end - self.start) // self.stride) - index
            origin = max(self.start, self.end - self.segment)
        return origin, min(self.segment, self.end - origin), count

    def between(self, start: int, stop: int) -> Iterator[int]:
        """The places whose chunks have a part of [start, stop), in order."""
        first = max(0, -(-(start - self.segment + 1 - self.start) // self.stride))
        last = min(self.places - 1, (stop - 1 - self.start) // self.stride)
        if self.places - 1 == self._moved:  # a chunk that was moved back begins before its place
            last = self.places - 1 if stop > self.place(self.places - 1)[0] else last
            first = min(first, self.places - 1)
        return iter(range(first, last + 1))

    def window(self, index: int) -> F64:
        """The weights [own] of the chunk at ``index``, as they are before they are divided by their sum."""
        _, own, _ = self.place(index)
        if self.join.kind == "fade":
            return _window(self.join, self.segment, index > 0, index < self.places - 1)[:own]
        return _window(self.join, own if self.join.kind == "hann" else self.segment)[:own]


@lru_cache(maxsize=4)
def _window(join: Join, length: int, rises: bool = True, falls: bool = True) -> F64:
    if join.kind == "triangle":
        # demucs.apply: 1, 2, ... length//2, length - length//2, ... 1.
        position = np.arange(length)
        window = np.minimum(position + 1, length - position).astype(np.float64)
    elif join.kind == "hann":
        window = np.hanning(length)
    elif join.kind == "hamming":
        window = np.hamming(length)
    else:
        window, fade = np.ones(length), min(join.fade, length // 2)
        window[:fade] = np.linspace(0, 1, fade) if rises else 1
        window[length - fade :] = np.linspace(1, 0, fade) if falls else 1
    window.flags.writeable = False
    return window


@dataclass(frozen=True)
class Plan:
    """How a song of ``samples`` is cut: one grid of chunks, or as many as there are shifts."""

    samples: int
    segment: int
    stride: int
    before: int
    """Samples of the border before the song, and behind it."""
    after: int
    grids: tuple[Grid, ...]

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, ordered by where they start to count; made as they are asked for, since a song has thousands."""
        return merge(*(self._of(grid) for grid in self.grids), key=lambda chunk: (chunk.start, chunk.origin))

    def _of(self, grid: Grid) -> Iterator[Chunk]:
        for index in range(grid.places):
            origin, own, count = grid.place(index)
            start, stop = max(origin, 0), min(origin + own, self.samples)
            if start < stop:
                yield Chunk(start, stop, origin, own, grid, index, count)

    def weights(self, chunk: Chunk) -> F32:
        """The chunk's share [stop - start] of each output sample, float32; over all chunks the shares sum to one."""
        share = self._share(chunk, alike=False)
        if np.isnan(share).any():
            share = np.where(np.isnan(share), self._share(chunk, alike=True), share)
        return share.astype(np.float32)

    def _share(self, chunk: Chunk, *, alike: bool) -> F64:
        """The chunk's weights over those of all; NaN where all are zero. ``alike``: as if all were one."""
        total, own = np.zeros(chunk.stop - chunk.start), np.zeros(0)
        for index in chunk.grid.between(chunk.start, chunk.stop):
            origin, length, count = chunk.grid.place(index)
            window = np.ones(length) if alike else chunk.grid.window(index)
            a, b = max(chunk.start, origin), min(chunk.stop, origin + length)
            part = window[a - origin : b - origin] if count == 1 else window[a - origin : b - origin] * count
            if a < b:
                total[a - chunk.start : b - chunk.start] += part
            if index == chunk.index:
                own = part
        total *= len(self.grids)
        share: F64 = np.divide(own, total, out=np.full(len(total), np.nan), where=total > 0)
        return share


def make_plan(samples: int, chunks: Chunks, *, overlap: float | None = None, shifts: int = 0, seed: int = 0) -> Plan:
    """Plan a song of ``samples``.

    ``shifts`` grids with offsets drawn by ``random.Random(seed)`` replace the plain grid. With ``random.seed(seed)``
    Demucs draws the same first one; the same others only where nothing else draws in between, and the forward pass of
    HTDemucs does, once or more a chunk. ``overlap`` (0 to below 1, a fraction of a chunk) overrides the spec's.
    """
    whole = not isinstance(chunks.takes, Fixed) and samples <= max(chunks.whole, 1)
    segment = stride = samples
    if not whole:
        segment, stride = chunks.length, _step(chunks, overlap)
    before, after = (0, 0) if whole else borders(samples, chunks, segment - stride)
    draw, spread = random.Random(seed), chunks.max_shift
    offsets = [draw.randint(0, spread) - spread for _ in range(shifts)] if shifts and spread else [0]
    back = chunks.tail == "back" and not whole
    grids = tuple(Grid(offset - before, samples + after, segment, stride, chunks.join, back) for offset in offsets)
    return Plan(samples, segment, stride, before, after, grids)


def _step(chunks: Chunks, overlap: float | None) -> int:
    if chunks.parts and overlap is None:
        step = chunks.length // chunks.parts
    else:
        step = max(1, int((1 - (chunks.overlap if overlap is None else overlap)) * chunks.length))
    return step // chunks.align * chunks.align or step


def borders(samples: int, chunks: Chunks, shared: int) -> tuple[int, int]:
    """Samples before and after a song of ``samples`` whose neighbouring chunks share ``shared``."""
    border = chunks.border
    before, after = border.before, border.after
    if border.overlapping:
        before, after = before + shared, after + shared
    if border.multiple:
        after += border.multiple - samples % border.multiple
    if border.fill == "reflect" and samples <= before + after:
        return 0, 0
    return before, after


def reading(chunk: Chunk, chunks: Chunks, segment: int) -> Span:
    """What a graph of these ``chunks`` reads for a chunk of a plan of ``segment``."""
    takes, length = chunks.takes, segment
    if isinstance(takes, Stepped):
        length = takes.least - (min(0, takes.least - chunk.own) // takes.step) * takes.step
    before = (length - chunk.own) // 2 if chunks.tail == "centred" else 0
    return Span(chunk.origin - before // chunks.align * chunks.align, length)


def with_tail(mix: F32, chunk: Chunk, chunks: Chunks) -> F32:
    """What was read for a chunk [C, N], behind its own samples not zeros but their reflection, where that is asked."""
    missing = mix.shape[-1] - chunk.own
    if chunks.tail != "reflect" or missing <= 0 or missing >= chunk.own:
        return mix
    return np.concatenate([mix[:, : chunk.own], mix[:, chunk.own - 1 - missing : chunk.own - 1][:, ::-1]], axis=-1)


def keep_from(starts: Iterable[int]) -> npt.NDArray[np.int64]:
    """For each of the spans with these ``starts``, in order, the earliest start of it and all later ones."""
    return np.minimum.accumulate(np.fromiter(starts, np.int64)[::-1])[::-1]
