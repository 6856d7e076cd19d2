"""What a run will do, before anything is loaded: (spec, options, samples, wanted) to a frozen plan that can be printed.

A plan is of chunks in time, or of the frames of one STFT whose stems a filter makes (magnitude models).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from ortsep.base.arrays import F32
from ortsep.engine.chunks import Plan, make_plan
from ortsep.engine.stft import frame_count
from ortsep.models.spec import Blocks, Chunks, Filter, ModelSpec
from ortsep.options import Options, change_blocks, change_chunks, change_filter, refuse_options


@dataclass(frozen=True)
class Variant:
    """One of the runs whose mean is the result: the mixture with its channels swapped, or negated, and the stems back.

    ``share`` is its weight in the mean.
    """

    swapped: bool = False
    sign: int = 1
    share: float = 1.0

    def of(self, mix: F32) -> F32:
        """The mixture [C, N] as this variant hears it."""
        if self.swapped:
            mix = np.ascontiguousarray(mix[::-1])
        return mix if self.sign > 0 else -mix

    def back(self, stems: F32) -> F32:
        """Its stems [S, C, n] as a share of the result."""
        if self.swapped:
            stems = stems[:, ::-1]
        scale = self.sign * self.share
        return stems if scale == 1 else stems * np.float32(scale)


PLAIN = Variant()


def variants(options: Options) -> tuple[Variant, ...]:
    """Test-time augmentation as MSST's (the song, its channels swapped, its polarity inverted), UVR's denoising
    (0.5 f(x) - 0.5 f(-x)), or the song alone."""
    if options.tta:
        return tuple(Variant(swapped, sign, 1 / 3) for swapped, sign in ((False, 1), (True, 1), (False, -1)))
    if options.denoise:
        return Variant(share=0.5), Variant(sign=-1, share=0.5)
    return (PLAIN,)


@dataclass(frozen=True)
class ChunkRun:
    """Chunks in time, joined by weights. ``rows`` are the stems that the graphs give, as indices of the spec's."""

    samples: int
    rate: int
    rows: tuple[int, ...]
    chunks: Chunks
    plan: Plan
    variants: tuple[Variant, ...]
    levels: Literal["none", "track", "spectrum"]
    """Of what the whole song is gone through once for its mean and deviation, before it is separated."""

    @property
    def runs(self) -> int:
        """How many times each graph runs."""
        return len(self.variants) * sum(1 for _ in self.plan.chunks())

    def __str__(self) -> str:
        plan, join, chunks = self.plan, self.chunks.join, self.runs // len(self.variants)
        first = "" if self.levels == "none" else f", whose {self.levels} is measured in a pass of its own"
        shifts = f", on {len(plan.grids)} shifted grids" if len(plan.grids) > 1 else ""
        fades = f" with fades of {join.fade}" if join.fade else ""
        seconds = plan.segment / self.rate
        lines = [
            f"song: {self.samples} samples at {self.rate} Hz ({self.samples / self.rate:.2f} s){first}",
            f"chunks: {chunks} of {plan.segment} samples ({seconds:.2f} s) every {plan.stride}{shifts}",
            f"join: {join.kind}{fades}, tail {self.chunks.tail}",
            f"runs of each graph: {self.runs}",
        ]
        if plan.before or plan.after:
            lines.insert(2, f"border: {plan.before} samples before and {plan.after} after, {self.chunks.border.fill}")
        return "\n".join(lines)


@dataclass(frozen=True)
class FrameRun:
    """Frames of one STFT, whose stems are made by a filter. ``estimated`` are the stems that the graphs estimate, as
    indices of the spec's, ``rows`` those of them that are kept."""

    samples: int
    rate: int
    estimated: tuple[int, ...]
    rows: tuple[int, ...]
    frames: int
    grouping: Blocks
    filtering: Filter
    rest: bool
    """Whether the Wiener filter's model of the mixture has a source for what is none of the estimated stems."""

    @property
    def whole(self) -> bool:
        """Whether the song is one block."""
        return self.frames <= self.grouping.whole

    @property
    def runs(self) -> int:
        """How many times each graph runs."""
        if self.whole:
            return 1
        size, overlap = (
            self.grouping.frames * (1 if self.grouping.overlap else self.grouping.batch),
            self.grouping.overlap,
        )
        return max(1, -(-(self.frames - overlap) // (size - overlap)))

    def __str__(self) -> str:
        grouping, filtering = self.grouping, self.filtering
        size = "all frames at once" if self.whole else f"blocks of {grouping.frames} frames, {grouping.batch} a run"
        crossed = f", cross-faded over {grouping.overlap}" if grouping.overlap and not self.whole else ""
        passes = f", {filtering.iterations} iterations over {filtering.window} frames" if filtering.iterations else ""
        return "\n".join(
            [
                f"song: {self.samples} samples at {self.rate} Hz ({self.samples / self.rate:.2f} s)",
                f"frames: {self.frames}, in {size}{crossed}",
                f"filter: {filtering.method}{passes}{', beside what is none of the stems' if self.rest else ''}",
                f"runs of each graph: {self.runs}",
            ]
        )


Run = ChunkRun | FrameRun


def plan_run(spec: ModelSpec, options: Options, samples: int, wanted: Sequence[int]) -> Run:
    """The run that gives the ``wanted`` stems (indices of the spec's) of a song of ``samples`` at the model's rate.

    Raises UsageError for an option that the model can't use.
    """
    refuse_options(spec, options)
    if spec.domain == "magnitude":
        return _of_frames(spec, options, samples, wanted)
    assert spec.chunks is not None
    chunks = change_chunks(spec.chunks, options.chunk, spec)
    plan = make_plan(samples, chunks, overlap=options.overlap, shifts=options.shifts, seed=options.seed)
    levels = spec.normalization.kind
    if levels == "chunk" or (levels == "spectrum" and len(list(islice(plan.chunks(), 2))) == 1):
        levels = "none"  # each chunk's own statistics, or the only chunk's, which are the song's
    return ChunkRun(samples, spec.sample_rate, tuple(wanted), chunks, plan, variants(options), levels)


def _of_frames(spec: ModelSpec, options: Options, samples: int, wanted: Sequence[int]) -> FrameRun:
    assert spec.stft is not None and spec.blocks is not None
    filtering = change_filter(spec, options)
    together = filtering.method == "ratio" or (filtering.method == "mask" and filtering.alpha > 0)
    estimated = tuple(range(len(spec.stems))) if together else tuple(wanted)
    rest = filtering.method == "wiener" and (options.rest or options.residual or options.two_stems is not None)
    return FrameRun(
        samples=samples,
        rate=spec.sample_rate,
        estimated=estimated,
        rows=tuple(estimated.index(s) for s in wanted),
        frames=frame_count(spec.stft, samples),
        grouping=change_blocks(spec.blocks, options.chunk, spec),
        filtering=filtering,
        rest=rest,
    )
