"""The separation loops: a stream of mixture blocks in, a stream of stem blocks out, in constant memory.

Two loops serve all domains: chunks in time with overlap-add (waveform, hybrid, complex), and one continuous STFT whose
frames are grouped (magnitude). Both read, transform and write while the graph runs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ortsep.base.threads import abreast, ahead
from ortsep.engine.chunks import OverlapAdd, Plan, Window, keep_from
from ortsep.engine.network import Network, Results, Standard, Work
from ortsep.engine.stft import Analyser, Synthesiser, frame_count
from ortsep.models.spec import STFT, Blocks, Filter
from ortsep.stems.masks import apply_filter

F32 = npt.NDArray[np.float32]
C64 = npt.NDArray[np.complex64]
_TOGETHER = 64
"""Frames that are masked and transformed back together: few enough to stay in a core's cache."""
_BINS = 64
"""Bins of a graph's estimates that are turned round at a time: measured fastest of 8 to 1024."""
Progress = Callable[[int, int], None]
"""Called with the samples done and the samples in all."""


@dataclass(frozen=True)
class Level:
    """Mean and deviation by which a song is standardised; the identity by default."""

    mean: float = 0.0
    deviation: float = 1.0

    def apply(self, x: F32) -> F32:
        return x if self == Level() else (x - np.float32(self.mean)) * np.float32(1 / self.deviation)

    def undo(self, x: F32) -> F32:
        return x if self == Level() else x * np.float32(self.deviation) + np.float32(self.mean)


class Statistics:
    """Mean and standard deviation (ddof 1) of a song's mono mix, gathered block by block in float64."""

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

    def level(self, eps: float) -> Level:
        """The level to standardise by; a silent or one-sample song has a deviation of ``eps``."""
        variance = self._squares / (self.count - 1) if self.count > 1 else 0.0
        return Level(self._mean, float(np.sqrt(variance)) + eps)


def spectrum_statistics(transform: STFT, channels: int, blocks: Iterable[F32], eps: float) -> Standard:
    """Mean and deviation (ddof 1) plus ``eps`` of a song's spectrum, real and imaginary parts over the graph's bins.

    What Moises-Light's ``forward`` takes over the whole clip, here in constant memory and float64; frames of silence
    that fill the transform's multiple of frames count.
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
    variance = max(0.0, squares - total * total / count) / (count - 1)
    return Standard(total / count, float(np.sqrt(variance)) + eps)


def separate_chunks(
    network: Network,
    plan: Plan,
    blocks: Iterable[F32],
    level: Level,
    progress: Progress | None = None,
    *,
    standard: Standard | None = None,
) -> Iterator[F32]:
    """Separate blocks [C, n] of a song, planned beforehand: blocks [S, C, n] in order, ``plan.samples`` in all.

    ``standard``: by what spectra are standardised, where not each chunk's by its own.
    """
    channels = network.spec.channels
    keep = keep_from(network.reading(chunk, plan.segment).start for chunk in plan.chunks())

    def prepared() -> Iterator[Work]:
        window = Window(blocks, channels)
        for chunk, earliest in zip(plan.chunks(), keep, strict=True):
            span = network.reading(chunk, plan.segment)
            window.drop(int(earliest))
            mix = window.read(span.start, span.length)
            if level != Level():
                inside = slice(max(0, -span.start), max(0, min(span.length, plan.samples - span.start)))
                mix[:, inside] = level.apply(mix[:, inside])
            yield network.prepare(mix, span, chunk, plan.segment, standard)

    def inferred() -> Iterator[tuple[Work, Results]]:
        for work in ahead(prepared()):
            yield work, network.infer(work)

    joined = OverlapAdd(len(network.wanted), channels)
    results = ahead(inferred(), on_close=network.cancel)
    for chunk, (work, outputs) in zip(plan.chunks(), results, strict=True):
        result = network.finish(work, outputs)
        done = joined.final(chunk.start)
        joined.add(chunk.start, result, plan.weights(chunk))
        if done.shape[-1]:
            yield level.undo(done)
        if progress is not None:
            progress(chunk.stop, plan.samples)
    yield level.undo(joined.final(plan.samples))


def separate_frames(
    network: Network,
    samples: int,
    blocks: Iterable[F32],
    grouping: Blocks,
    filtering: Filter,
    *,
    rows: Sequence[int],
    residual: bool = False,
    progress: Progress | None = None,
) -> Iterator[F32]:
    """Separate blocks [C, n] of a song of ``samples`` by masks on its STFT: blocks [S, C, n], ``samples`` in all.

    ``rows`` are the stems to keep of those that the network estimates. ``residual`` gives the Wiener filter's model of
    the mixture one source more, for what is none of the stems; the stems stay the same in number.
    """
    transform, channels = network.spec.stft, network.spec.channels
    assert transform is not None
    frames = frame_count(transform, samples)
    whole = frames <= grouping.whole
    wiener = filtering.method == "wiener"
    # Masks that are zero above the graph's bins leave nothing to compute there; the Wiener filter scales by all bins.
    bins = transform.bins if filtering.above == "zeros" and not wiener else None

    def spectra() -> Iterator[C64]:
        analyser = Analyser(transform, channels)
        for block in blocks:
            yield analyser.push(block)[:, :bins]
        yield analyser.finish()[:, :bins]

    def estimated() -> Iterator[tuple[C64, F32]]:
        if grouping.overlap and not whole:
            groups = regroup(ahead(spectra()), grouping.frames, grouping.overlap)
            yield from _crossfaded(network, groups, grouping, filtering.window if wiener else grouping.frames)
            return
        size = grouping.frames * grouping.batch
        groups = _gathered(ahead(spectra()), frames) if whole else regroup(ahead(spectra()), size)

        def pair(group: C64) -> tuple[C64, F32]:
            return group, _estimate(network, group[:, : transform.bins], grouping, whole)

        yield from abreast(pair, groups, network.abreast)

    everything = list(rows) == list(range(len(network.wanted)))
    synthesiser = Synthesiser(transform, (len(rows), channels), samples, threads=None if wiener else 1)
    done = 0
    pairs = ahead(estimated(), on_close=network.cancel)
    for mixture, estimate in _windows(pairs, filtering.window if wiener else 0):
        for piece in _pieces(mixture.shape[-1], 0 if wiener else _TOGETHER):
            spectra_of_stems = apply_filter(
                filtering,
                mixture[..., piece],
                estimate[..., piece] if wiener else by_frame(estimate[..., piece]),
                output="masks" if network.spec.output == "masks" else "stem_magnitudes",
                residual=residual and wiener,
                complete=len(network.wanted) == len(network.spec.stems),
            )
            block = synthesiser.push(spectra_of_stems[: len(rows)] if everything else spectra_of_stems[list(rows)])
            done += block.shape[-1]
            if block.shape[-1]:
                yield block
            if progress is not None:
                progress(min(done, samples), samples)
    yield synthesiser.finish()
    if progress is not None:
        progress(samples, samples)


def _estimate(network: Network, spectrum: C64, grouping: Blocks, whole: bool) -> F32:
    """The graph's estimates [S, C, F, t] for spectra [C, F, t], in blocks of the grouping's frames."""
    magnitude = np.abs(spectrum)
    frames = magnitude.shape[-1]
    if whole or not grouping.padded:
        whole_estimate: F32 = network.estimate(magnitude[None])[0]
        return whole_estimate
    channels, bins, _ = magnitude.shape
    count = -(-frames // grouping.frames)
    batch = np.zeros((count, channels, bins, grouping.frames), np.float32)
    for block, start in zip(batch, range(0, frames, grouping.frames), strict=True):
        part = magnitude[..., start : start + grouping.frames]
        block[..., : part.shape[-1]] = part
    estimates = network.estimate(batch).transpose(1, 2, 3, 0, 4)
    flat: F32 = estimates.reshape(*estimates.shape[:3], -1)[..., :frames]
    return flat


def _pieces(frames: int, size: int) -> Iterator[slice]:
    """``frames`` in pieces of ``size``, or in one where it is 0."""
    size = size or frames
    for start in range(0, frames, size):
        yield slice(start, min(start + size, frames))


def by_frame(values: F32) -> F32:
    """A copy of [..., F, T] that lies frame by frame.

    Some bins at a time: where T is a power of two, the whole of a frame falls into a few lines of the cache.
    """
    *prefix, bins, frames = values.shape
    copy = np.empty((*prefix, frames, bins), values.dtype).swapaxes(-1, -2)
    for low in range(0, bins, _BINS):
        copy[..., low : low + _BINS, :] = values[..., low : low + _BINS, :]
    return copy


def regroup(parts: Iterable[C64], size: int, overlap: int = 0) -> Iterator[C64]:
    """Groups of ``size`` frames from parts of any; each but the first repeats ``overlap`` frames of the former."""
    group: C64 | None = None
    filled = new = 0
    for part in parts:
        while part.shape[-1]:
            if group is None:
                group = np.empty_like(part, shape=(*part.shape[:-1], size))
            taken = min(size - filled, part.shape[-1])
            group[..., filled : filled + taken] = part[..., :taken]
            filled, new, part = filled + taken, new + taken, part[..., taken:]
            if filled == size:
                full = [group]
                group = np.empty_like(group)
                group[..., :overlap] = full[0][..., size - overlap :]
                filled, new = overlap, 0
                yield full.pop()  # not a name that would keep it while the next is filled
    if group is not None and new:
        yield group[..., :filled]


def _gathered(parts: Iterable[C64], frames: int) -> Iterator[C64]:
    """All ``frames`` frames as one array, without a second copy of them on the way."""
    whole: C64 | None = None
    at = 0
    for part in parts:
        if whole is None:
            whole = np.empty((*part.shape[:2], frames), np.complex64)
        whole[..., at : at + part.shape[-1]] = part
        at += part.shape[-1]
    if whole is not None:
        yield whole


def _crossfaded(network: Network, groups: Iterable[C64], grouping: Blocks, size: int) -> Iterator[tuple[C64, F32]]:
    """Estimates of overlapping groups, each joined to the next by a linear cross-fade over the overlap.

    In copies of ``size`` frames: views would keep a group alive while the next is estimated, and groups are large.
    """
    assert network.spec.stft is not None
    bins, overlap = network.spec.stft.bins, grouping.overlap
    rise = (np.arange(1, overlap + 1, dtype=np.float32)) / np.float32(overlap + 1)
    tail: tuple[C64, F32] | None = None
    for group in groups:
        estimate = _estimate(network, group[:, :bins], grouping, whole=False)
        if tail is not None:
            lead, former = estimate[..., :overlap], tail[1]
            lead *= rise
            former *= 1 - rise
            lead += former
            del lead, former
        keep = max(0, group.shape[-1] - overlap)
        tail = group[..., keep:].copy(order="K"), estimate[..., keep:].copy()
        for piece in _pieces(keep, size):
            yield group[..., piece].copy(order="K"), estimate[..., piece].copy()
        del group, estimate
    if tail is not None:
        yield tail


def _windows(pairs: Iterable[tuple[C64, F32]], window: int) -> Iterator[tuple[C64, F32]]:
    """Mixture and estimates in windows of ``window`` frames from the song's start; as they come where it is 0."""
    if not window:
        yield from pairs
        return
    held: list[tuple[C64, F32]] = []
    count = 0
    for pair in pairs:
        held.append(pair)
        count += pair[0].shape[-1]
        if count < window:
            continue
        mixture, estimate = _joined(held)
        whole = count - count % window
        for at in range(0, whole, window):
            yield mixture[..., at : at + window], estimate[..., at : at + window]
        held = [(mixture[..., whole:].copy(), estimate[..., whole:].copy())] if count % window else []
        count %= window
    if count:
        yield _joined(held)


def _joined(pairs: list[tuple[C64, F32]]) -> tuple[C64, F32]:
    if len(pairs) == 1:
        return pairs[0]
    return np.concatenate([m for m, _ in pairs], axis=-1), np.concatenate([e for _, e in pairs], axis=-1)
