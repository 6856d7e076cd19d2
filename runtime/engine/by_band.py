"""Windows of a spectrum of several bands, and one mask for two stems: stem blocks from mixture blocks, in constant
memory.

Around the network as UVR has it: windows of which the middle frames count, one after the other without overlap, and
zeros before and behind the song. Reading, transforms and writing go on while the graph runs, each in a thread of its
own.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ortsep.base.arrays import C64, F32
from ortsep.base.cancel import Cancel
from ortsep.base.threads import ahead, closed
from ortsep.engine.bands import BandAnalyser, BandSynthesiser, Frames
from ortsep.engine.by_chunk import Progress
from ortsep.engine.network import Network
from ortsep.engine.plan import BandRun
from ortsep.models.bands import Bands
from ortsep.stems.artifacts import Artifacts

_MIRROR = 10
"""Rows below the pre-filter that are not mirrored into the high end."""


def separate_bands(
    network: Network,
    run: BandRun,
    blocks: Iterable[F32],
    peak: float,
    progress: Progress | None = None,
    *,
    cancel: Cancel | None = None,
) -> Iterator[F32]:
    """Separate blocks [2, n] of a song whose stacked spectrum has this ``peak``: blocks [S, 2, n], ``run.samples`` in
    all, the last ``run.lost`` of them silent.

    However it ends, ``cancel`` is set then: it is this run's alone.
    """
    cancel = cancel or Cancel()
    bands = network.spec.bands
    assert bands is not None
    synthesiser = BandSynthesiser(bands, len(run.rows), run.frames, threads=1)
    kept, done = run.samples - run.lost, 0
    pairs = ahead(_masked(network, bands, run, blocks, peak, cancel), on_close=cancel.cancel, cancel=cancel)
    try:
        with closed(pairs) as given:
            for frames, mask in given:
                stems = _stems(frames.stacked, mask, run.rows)
                above = _mirrored(bands, stems, frames.above) if run.high_end else None
                block = synthesiser.push(stems, above)[..., : kept - done]
                done += block.shape[-1]
                if block.shape[-1]:
                    yield block
                if progress is not None:
                    progress(min(done, run.samples), run.samples)
        last = synthesiser.finish()[..., : kept - done]
        yield np.pad(last, ((0, 0), (0, 0), (0, run.lost)))
        if progress is not None:
            progress(run.samples, run.samples)
    finally:
        cancel.end()


def _stems(spectrum: C64, mask: F32, rows: tuple[int, ...]) -> C64:
    """The wanted ones of the two stems, [S, 2, F, t]: what the mask lets through and what it leaves."""
    stems = np.empty((len(rows), 2, spectrum.shape[-1], spectrum.shape[1]), np.complex64).swapaxes(2, 3)
    for stem, row in zip(stems, rows, strict=True):
        np.multiply(spectrum, mask if row == 0 else 1 - mask, out=stem)
    return stems


def _mirrored(bands: Bands, stems: C64, above: C64) -> C64:
    """What UVR's ``high_end_process`` puts into the highest bins, [S, 2, H, t]: the rows below the pre-filter,
    mirrored, with the mixture's phase; the mixture itself where that is softer."""
    count = above.shape[1]
    end = (bands.prefilter[0] if bands.prefilter else bands.bins) - _MIRROR
    mirror = np.abs(stems[:, :, end - count : end])[:, :, ::-1]
    size = np.abs(above)
    scale = np.divide(np.minimum(size, mirror), size, out=np.zeros_like(mirror), where=size > 0)
    filled: C64 = above * scale
    return filled


def _masked(
    network: Network, bands: Bands, run: BandRun, blocks: Iterable[F32], peak: float, cancel: Cancel
) -> Iterator[tuple[Frames, F32]]:
    """Frames of the song's spectrum with the first stem's mask [2, F, t], as it is to be applied, in order."""

    def spectra() -> Iterator[Frames]:
        analyser = BandAnalyser(bands, threads=1)
        with closed(blocks) as given:
            for block in given:
                yield analyser.push(block)
        yield analyser.finish()

    with closed(ahead(spectra(), cancel=cancel)) as parts:
        song = _Song(parts)

        def masks() -> Iterator[F32]:
            for start in run.starts:
                first = start - run.context
                heard = song.magnitudes(first, run.window) / np.float32(peak)
                mask: F32 = network.estimate(heard[None], cancel)[0, 0]
                yield mask

        shaped = (_shaped(bands, run, mask) for mask in _averaged(run, masks()))
        finals = shaped if run.post_process is None else _processed(shaped, Artifacts(run.post_process))
        for mask in finals:
            if mask.shape[-1]:
                yield song.take(mask.shape[-1]), mask


def _averaged(run: BandRun, masks: Iterator[F32]) -> Iterator[F32]:
    """The windows' masks as those of frames in order; with augmentation the mean of each two that overlap."""
    left = run.frames
    if run.tta:
        former = next(masks)[..., run.step :]
    for mask in masks:
        own = mask[..., : min(left, run.step)]
        if run.tta:
            own = (own + former[..., : own.shape[-1]]) * np.float32(0.5)
            former = mask[..., run.step :]
        left -= own.shape[-1]
        yield own


def _shaped(bands: Bands, run: BandRun, mask: F32) -> F32:
    """A mask to the powers that the aggression makes, below the split row and from it on."""
    below, above = run.exponents
    if (below, above) == (1.0, 1.0):
        return mask
    out = np.empty_like(mask)
    np.power(mask[:, : bands.split], np.float32(below), out=out[:, : bands.split])
    np.power(mask[:, bands.split :], np.float32(above), out=out[:, bands.split :])
    return out


def _processed(masks: Iterable[F32], artifacts: Artifacts) -> Iterator[F32]:
    """Masks drawn to one where ``artifacts`` says so, later than they come."""
    held: deque[F32] = deque()

    def drawn(weights: F32) -> Iterator[F32]:
        at = 0
        while at < len(weights):
            mask = held.popleft()
            count = min(mask.shape[-1], len(weights) - at)
            if count < mask.shape[-1]:
                held.appendleft(mask[..., count:])
            mask = mask[..., :count]
            yield mask + weights[at : at + count] * (1 - mask)
            at += count

    for mask in masks:
        held.append(mask)
        yield from drawn(artifacts.push(mask))
    yield from drawn(artifacts.finish())


class _Song:
    """The frames of a song as windows read them, silent outside it, and as they are taken, once each and later."""

    def __init__(self, parts: Iterable[Frames]) -> None:
        self._parts = iter(parts)
        self._held: deque[Frames] = deque()
        self._base = self._end = self._taken = 0

    def magnitudes(self, start: int, count: int) -> F32:
        """Of the frames from ``start`` on, [2, F, count]; no later window may begin before ``start``."""
        while self._end < start + count and (part := next(self._parts, None)) is not None:
            if part.count:
                self._held.append(part)
                self._end += part.count
        while self._held and self._base + self._held[0].count <= min(start, self._taken):
            self._base += self._held.popleft().count
        found = list(self._within(max(0, start), start + count))
        out = np.zeros((2, found[0].stacked.shape[1], count), np.float32)
        at = max(0, -start)
        for part in found:
            np.abs(part.stacked, out=out[..., at : at + part.count])
            at += part.count
        return out

    def take(self, count: int) -> Frames:
        """The next ``count`` frames, of which a window has been read."""
        found = list(self._within(self._taken, self._taken + count))
        self._taken += count
        stacked, above = ([getattr(part, name) for part in found] for name in ("stacked", "above"))
        return Frames(np.concatenate(stacked, -1), np.concatenate(above, -1))

    def _within(self, start: int, stop: int) -> Iterator[Frames]:
        """The parts of the frames [start, stop) that there are."""
        at = self._base
        for part in self._held:
            a, b = max(start, at) - at, min(stop, at + part.count) - at
            if a < b:
                yield Frames(part.stacked[..., a:b], part.above[..., a:b])
            at += part.count
