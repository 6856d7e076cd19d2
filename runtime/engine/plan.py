"""What a run will do, before anything is loaded: (spec, options, samples, wanted) to a frozen plan that can be printed.

A plan is of chunks in time, of the frames of one STFT whose stems a filter makes (magnitude models), or of those of a
spectrum of several bands that one mask divides (VR models).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from ortsep.base.arrays import F32
from ortsep.engine.bands import band_frames, heard_samples
from ortsep.engine.chunks import Plan, make_plan
from ortsep.engine.stft import frame_count
from ortsep.models.bands import Bands
from ortsep.models.spec import Blocks, Chunks, Filter, ModelSpec
from ortsep.options import Options, change_blocks, change_chunks, change_filter, refuse_options

BLOCK = 300
"""Frames, about: a block of stereo spectra of 2049 bins with four stems is 60 MB then."""


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
    parts: bool = False
    """Whether the graphs run part by part over the song (``ortsep.models.parts``), which the grouping is not for."""

    @property
    def whole(self) -> bool:
        """Whether the song is one block."""
        return self.frames <= self.grouping.whole and not self.parts

    @property
    def block(self) -> int:
        """Frames of a block where the graphs run part by part: about ``BLOCK``, whole windows of the filter."""
        if self.filtering.method != "wiener" or not self.filtering.iterations:
            return BLOCK
        return self.filtering.window * max(1, BLOCK // self.filtering.window)

    @property
    def runs(self) -> int:
        """How many times each graph runs."""
        if self.whole:
            return 1
        if self.parts:
            return -(-self.frames // self.block)
        size, overlap = (
            self.grouping.frames * (1 if self.grouping.overlap else self.grouping.batch),
            self.grouping.overlap,
        )
        return max(1, -(-(self.frames - overlap) // (size - overlap)))

    def __str__(self) -> str:
        grouping, filtering = self.grouping, self.filtering
        size = "all frames at once" if self.whole else f"blocks of {grouping.frames} frames, {grouping.batch} a run"
        if self.parts:
            size = f"blocks of {self.block} frames, the networks' states from block to block through the song"
        crossed = (
            f", cross-faded over {grouping.overlap}" if grouping.overlap and not (self.whole or self.parts) else ""
        )
        passes = f", {filtering.iterations} iterations over {filtering.window} frames" if filtering.iterations else ""
        return "\n".join(
            [
                f"song: {self.samples} samples at {self.rate} Hz ({self.samples / self.rate:.2f} s)",
                f"frames: {self.frames}, in {size}{crossed}",
                f"filter: {filtering.method}{passes}{', beside what is none of the stems' if self.rest else ''}",
                f"runs of each graph: {self.runs}",
            ]
        )


@dataclass(frozen=True)
class BandRun:
    """Frames of a spectrum of several bands, in windows of which the middle counts. ``rows``: the wanted ones of the
    two stems, of which the mask is the first's."""

    samples: int
    rate: int
    rows: tuple[int, ...]
    frames: int
    window: int
    context: int
    step: int
    """Frames from one window to the next."""
    exponents: tuple[float, float]
    """Of the mask, below the split row and from it on."""
    post_process: float | None
    high_end: bool
    lost: int
    """Samples at the song's end that are silent in the stems."""

    @property
    def counted(self) -> int:
        """Frames of a window that count."""
        return self.window - 2 * self.context

    @property
    def tta(self) -> bool:
        """Whether every frame is the mean of two windows'."""
        return self.step < self.counted

    @property
    def starts(self) -> range:
        """The first frame that counts, window by window."""
        return range(self.step - self.counted, self.frames, self.step)

    @property
    def runs(self) -> int:
        """How many times the graph runs."""
        return len(self.starts)

    def __str__(self) -> str:
        below, above = self.exponents
        more = ", post-processed" * (self.post_process is not None) + ", the high end filled" * self.high_end
        return "\n".join(
            [
                f"song: {self.samples} samples at {self.rate} Hz ({self.samples / self.rate:.2f} s), whose peak is "
                "measured in a pass of its own",
                f"frames: {self.frames}, in windows of {self.window}, of which {self.counted} count, every {self.step}",
                f"mask: to the power of {below:.3g}, from the split row on {above:.3g}{more}",
                f"runs of the graph: {self.runs}",
            ]
        )


Run = ChunkRun | FrameRun | BandRun


def plan_run(spec: ModelSpec, options: Options, samples: int, wanted: Sequence[int]) -> Run:
    """The run that gives the ``wanted`` stems (indices of the spec's) of a song of ``samples`` at the model's rate.

    Raises UsageError for an option that the model can't use.
    """
    refuse_options(spec, options)
    if spec.domain == "magnitude":
        return _of_frames(spec, options, samples, wanted)
    if spec.bands is not None:
        return _of_bands(spec, spec.bands, options, samples, wanted)
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
        parts=bool(spec.parts) and options.chunk is None,
    )


def _of_bands(spec: ModelSpec, bands: Bands, options: Options, samples: int, wanted: Sequence[int]) -> BandRun:
    window = options.window or bands.window
    counted = window - 2 * bands.context
    frames = band_frames(bands, heard_samples(bands, samples))
    return BandRun(
        samples=samples,
        rate=spec.sample_rate,
        rows=tuple(wanted),
        frames=frames,
        window=window,
        context=bands.context,
        step=counted // 2 if options.tta else counted,
        exponents=exponents(bands.aggression if options.aggression is None else options.aggression, bands.inverted),
        post_process=options.post_process,
        high_end=options.high_end,
        lost=max(0, samples - bands.hop * (frames - 1)),
    )


def exponents(aggression: int, inverted: bool) -> tuple[float, float]:
    """Of a mask, below the split row and from it on, for UVR's aggression in percent (``adjust_aggr``)."""
    if not aggression:
        return 1.0, 1.0
    strength = 2 * aggression / 100
    strength = 1 - strength if inverted else strength
    return 1 + strength / 3, 1 + strength
