"""The frames of one continuous STFT, grouped for the graph, and a filter: stem blocks from mixture blocks, in constant
memory.

Reading, transforms and writing go on while the graph runs, each in a thread of its own.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ortsep.base.arrays import C64, F32
from ortsep.base.cancel import Cancel
from ortsep.base.threads import abreast, ahead, closed
from ortsep.engine.by_chunk import Progress
from ortsep.engine.domains import Magnitude
from ortsep.engine.network import Network
from ortsep.engine.plan import FrameRun
from ortsep.engine.stft import Analyser, Synthesiser
from ortsep.models.spec import Blocks
from ortsep.stems.masks import apply_filter

_TOGETHER = 64
"""Frames that are masked and transformed back together: few enough to stay in a core's cache."""
_BINS = 64
"""Bins of a graph's estimates that are turned round at a time: measured fastest of 8 to 1024."""


def separate_frames(
    network: Network,
    run: FrameRun,
    blocks: Iterable[F32],
    progress: Progress | None = None,
    *,
    cancel: Cancel | None = None,
) -> Iterator[F32]:
    """Separate blocks [C, n] of a song by masks on its STFT: blocks [S, C, n], ``run.samples`` in all.

    However it ends, ``cancel`` is set then: it is this run's alone.
    """
    cancel = cancel or Cancel()
    domain, channels, samples = network.domain, network.spec.channels, run.samples
    filtering, rows = run.filtering, run.rows
    wiener = filtering.method == "wiener"
    everything = list(rows) == list(range(len(network.wanted)))
    synthesiser = Synthesiser(domain.inverse, (len(rows), channels), samples, threads=None if wiener else 1)
    done = 0
    pairs = ahead(_estimated(network, run, blocks, cancel), on_close=cancel.cancel, cancel=cancel)
    try:
        with closed(_windows(pairs, filtering.window if wiener else 0)) as windows:
            for mixture, estimate in windows:
                for piece in _pieces(mixture.shape[-1], 0 if wiener else _TOGETHER):
                    stems = apply_filter(
                        filtering,
                        mixture[..., piece],
                        estimate[..., piece] if wiener else by_frame(estimate[..., piece]),
                        output="masks" if network.spec.output == "masks" else "stem_magnitudes",
                        complete=not run.rest,
                    )
                    stems = stems if everything else stems[list(rows)]
                    stems[:, :, : domain.inverse.zero_after] = 0
                    block = synthesiser.push(stems)
                    done += block.shape[-1]
                    if block.shape[-1]:
                        yield block
                    if progress is not None:
                        progress(min(done, samples), samples)
        yield synthesiser.finish()
        if progress is not None:
            progress(samples, samples)
    finally:
        cancel.end()


def _estimated(network: Network, run: FrameRun, blocks: Iterable[F32], cancel: Cancel) -> Iterator[tuple[C64, F32]]:
    """Frames [C, F, t] of the song's STFT with the graph's estimates for them, in order."""
    domain, grouping = network.domain, run.grouping
    assert isinstance(domain, Magnitude)
    transform, wiener = domain.transform, run.filtering.method == "wiener"
    # Masks that are zero above the graph's bins leave nothing to compute there; the Wiener filter scales by all bins.
    bins = transform.bins if run.filtering.above == "zeros" and not wiener else None

    def spectra() -> Iterator[C64]:
        analyser = Analyser(transform, network.spec.channels)
        with closed(blocks) as given:
            for block in given:
                yield analyser.push(block)[:, :bins]
        yield analyser.finish()[:, :bins]

    def estimate(spectrum: C64) -> F32:
        return _estimate(network, domain.magnitude(spectrum[:, : transform.bins]), grouping, run.whole, cancel)

    with closed(ahead(spectra(), cancel=cancel)) as parts:
        if grouping.overlap and not run.whole:
            size = run.filtering.window if wiener else grouping.frames
            yield from _crossfaded(regroup(parts, grouping.frames, grouping.overlap), estimate, grouping.overlap, size)
            return
        size = grouping.frames * grouping.batch
        groups = _gathered(parts, run.frames) if run.whole else regroup(parts, size)
        with closed(abreast(lambda group: (group, estimate(group)), groups, network.abreast)) as pairs:
            yield from pairs


def _estimate(network: Network, magnitude: F32, grouping: Blocks, whole: bool, cancel: Cancel) -> F32:
    """The graph's estimates [S, C, F, t] for magnitudes [C, F, t], in blocks of the grouping's frames."""
    frames = magnitude.shape[-1]
    if whole or not grouping.padded:
        whole_estimate: F32 = network.estimate(magnitude[None], cancel)[0]
        return whole_estimate
    channels, bins, _ = magnitude.shape
    count = -(-frames // grouping.frames)
    batch = np.zeros((count, channels, bins, grouping.frames), np.float32)
    for block, start in zip(batch, range(0, frames, grouping.frames), strict=True):
        part = magnitude[..., start : start + grouping.frames]
        block[..., : part.shape[-1]] = part
    estimates = network.estimate(batch, cancel).transpose(1, 2, 3, 0, 4)
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


def _crossfaded(
    groups: Iterable[C64], estimated: Callable[[C64], F32], overlap: int, size: int
) -> Iterator[tuple[C64, F32]]:
    """Estimates of overlapping groups, each joined to the next by a linear cross-fade over the overlap.

    In copies of ``size`` frames: views would keep a group alive while the next is estimated, and groups are large.
    """
    rise = (np.arange(1, overlap + 1, dtype=np.float32)) / np.float32(overlap + 1)
    tail: tuple[C64, F32] | None = None
    for group in groups:
        estimate = estimated(group)
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
    with closed(pairs) as given:
        yield from _windowed(given, window) if window else given


def _windowed(pairs: Iterable[tuple[C64, F32]], window: int) -> Iterator[tuple[C64, F32]]:
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
