"""Chunks in time with overlap-add: a stream of mixture blocks in, a stream of stem blocks out, in constant memory.

Reading, transforms and writing go on while the graph runs, each in a thread of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

from ortsep.base.arrays import F32
from ortsep.base.cancel import Cancel
from ortsep.base.threads import ahead, closed
from ortsep.engine.buffers import OverlapAdd, Window, reflected
from ortsep.engine.chunks import keep_from
from ortsep.engine.level import Level
from ortsep.engine.network import Network, Results, Work
from ortsep.engine.plan import ChunkRun

Progress = Callable[[int, int], None]
"""Called with the samples done and the samples in all."""


def separate_chunks(
    network: Network,
    run: ChunkRun,
    blocks: Iterable[F32],
    level: Level,
    progress: Progress | None = None,
    *,
    standard: Level | None = None,
    cancel: Cancel | None = None,
) -> Iterator[F32]:
    """Separate blocks [C, n] of a song, planned beforehand: blocks [S, C, n] in order, ``run.samples`` in all.

    ``level``: by what the song is standardised, and the stems are not; ``standard``: by what spectra are, where not
    each chunk's by its own. However it ends, ``cancel`` is set then: it is this run's alone.
    """
    cancel = cancel or Cancel()
    plan, channels = run.plan, network.spec.channels

    def mixture() -> Iterator[F32]:
        with closed(blocks) as given:
            for block in given:
                yield level.apply(block)

    def prepared() -> Iterator[Sequence[Work]]:
        keep = keep_from(network.reading(chunk, plan.segment).start for chunk in plan.chunks())
        bordered = run.chunks.border.fill == "reflect" and plan.before + plan.after > 0
        song = reflected(mixture(), plan.before, plan.after) if bordered else mixture()
        with closed(song) as given:
            window = Window(given, channels, start=-plan.before if bordered else 0)
            for chunk, earliest in zip(plan.chunks(), keep, strict=True):
                span = network.reading(chunk, plan.segment)
                window.drop(int(earliest))
                mix = window.read(span.start, span.length)
                yield network.prepare(mix, span, chunk, plan.segment, standard, run.variants)

    def inferred() -> Iterator[tuple[Sequence[Work], Results]]:
        with closed(ahead(prepared(), cancel=cancel)) as works:
            for work in works:
                yield work, network.infer(work, cancel)

    joined = OverlapAdd(len(network.wanted), channels)
    try:
        with closed(ahead(inferred(), on_close=cancel.cancel, cancel=cancel)) as results:
            following = chain((chunk.start for chunk in islice(plan.chunks(), 1, None)), (plan.samples,))
            for chunk, (work, outputs), until in zip(plan.chunks(), results, following, strict=True):
                joined.add(chunk.start, network.finish(work, outputs), plan.weights(chunk))
                done = joined.final(until)  # at once: a stream's first stems need not wait for the second chunk
                if done.shape[-1]:
                    yield level.undo(done)
                if progress is not None:
                    progress(chunk.stop, plan.samples)
    finally:
        cancel.end()
