"""A song through a magnitude graph's parts, each over the whole song: stem blocks from mixture blocks, in constant
memory, though the network remembers all of the song.

Three passes: the song through the parts that hear it, what they gave through the parts between, forward and backward,
and the song again, with that, through the last part and the filter. Blocks and graphs run on one thread each, as many
at a time as there are cores.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ortsep.base.arrays import C64, F32
from ortsep.base.cancel import Cancel
from ortsep.base.errors import ModelError
from ortsep.base.heap import trim
from ortsep.base.threads import abreast, ahead, closed, cores
from ortsep.engine.by_chunk import Progress
from ortsep.engine.by_frame import regroup
from ortsep.engine.domains import Magnitude, domain_of
from ortsep.engine.network import Graphs, joined, needed, shares_of, totals_of
from ortsep.engine.plan import FrameRun
from ortsep.engine.stft import Analyser, Synthesiser
from ortsep.engine.store import Store
from ortsep.graphs.session import Session
from ortsep.models.parts import Part
from ortsep.models.spec import Member
from ortsep.stems.masks import apply_filter

SPAN = 1024
"""Frames of a block that goes through the parts between."""
AT_ONCE = 4
"""Most blocks or graphs that run at a time: each takes some 60 MB."""
HEARD, REMEMBERED = 0.2, 0.6
"""How much of the work is done, about, after the first pass and after the second."""


class Parts:
    """The parts of the graphs that the ``wanted`` stems (indices into the model's stems) need, loaded.

    ``provider`` and ``reason`` are as of ``Network``.
    """

    def __init__(self, graphs: Graphs, wanted: Sequence[int]) -> None:
        model = graphs.model
        self.spec, self.wanted = model.spec, tuple(wanted)
        self.domain = domain_of(model.spec)
        self.members = needed(model, wanted)
        totals = totals_of(self.members, wanted)
        self.shares = [shares_of(member, self.wanted, totals) for member in self.members]
        self._sessions: dict[tuple[str, Part], Session] = {}
        for member in self.members:
            self._sessions |= {(member.file, part): graphs.session(member, part) for part in self.parts}
            trim()
        sessions = self._sessions.values()
        self.provider = "+".join(dict.fromkeys(session.provider for session in sessions))
        self.reason = "; ".join(dict.fromkeys(session.reason for session in sessions if session.reason))
        most = graphs.blocks or min(AT_ONCE, graphs.threads or cores())
        self.abreast = most if self.provider == "cpu" else 1

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.spec.parts

    def run(self, member: Member, part: Part, feeds: Mapping[str, F32], cancel: Cancel) -> list[F32]:
        """What a part gives, and the states that it leaves."""
        return self._sessions[member.file, part].run(
            feeds, (part.gives, *(state.left for state in part.states)), cancel
        )


def separate_parts(
    network: Parts,
    run: FrameRun,
    song: Callable[[], Iterable[F32]],
    progress: Progress | None = None,
    *,
    cancel: Cancel | None = None,
) -> Iterator[F32]:
    """Separate a song, whose blocks [C, n] are gone through twice: blocks [S, C, n], ``run.samples`` in all.

    However it ends, ``cancel`` is set then: it is this run's alone.
    """
    cancel = cancel or Cancel()
    steps = ahead(_steps(network, run, song, cancel), on_close=cancel.cancel, cancel=cancel)
    try:
        with closed(steps) as given:
            for done, block in given:
                if block.shape[-1]:
                    yield block
                if progress is not None:
                    progress(int(done * run.samples), run.samples)
    finally:
        cancel.end()


def _steps(
    network: Parts, run: FrameRun, song: Callable[[], Iterable[F32]], cancel: Cancel
) -> Iterator[tuple[float, F32]]:
    """How much of the work is done, with the samples [S, C, n] that are new, in order."""
    shape = len(run.rows), network.spec.channels
    nothing = np.zeros((*shape, 0), np.float32)
    synthesiser = Synthesiser(network.domain.inverse, shape, run.samples)
    with Store(run.frames) as store:
        for done in _heard(network, run, song, store, cancel):
            yield HEARD * done, nothing
        for done in _remembered(network, run.frames, store, cancel):
            yield HEARD + (REMEMBERED - HEARD) * done, nothing
        for done, stems in _filtered(network, run, song, store, cancel):
            yield REMEMBERED + (1 - REMEMBERED) * done, synthesiser.push(stems)
            del stems  # before the next is asked for: they are large
    yield 1.0, synthesiser.finish()


def _spectra(network: Parts, song: Callable[[], Iterable[F32]], size: int) -> Iterator[tuple[int, C64]]:
    """The frames [C, F, t] of the song's STFT in blocks of ``size``, each with its first frame."""
    analyser, at = Analyser(network.domain.transform, network.spec.channels), 0

    def parts() -> Iterator[C64]:
        with closed(song()) as given:
            for block in given:
                yield analyser.push(block)
        yield analyser.finish()

    with closed(ahead(parts())) as given:
        for spectrum in regroup(given, size):
            yield at, spectrum
            at += spectrum.shape[-1]


def _magnitude(network: Parts, spectrum: C64) -> F32:
    assert isinstance(network.domain, Magnitude)
    return network.domain.magnitude(spectrum[:, : network.domain.transform.bins])[None]


def _heard(
    network: Parts, run: FrameRun, song: Callable[[], Iterable[F32]], store: Store, cancel: Cancel
) -> Iterator[float]:
    """The song through the parts that read the graph's input alone; yields how much of it is done."""
    domain = network.domain
    first = [part for part in network.parts if part.reads == tuple(domain.inputs)]

    def hear(block: tuple[int, C64]) -> int:
        at, spectrum = block
        magnitude = _magnitude(network, spectrum)
        for member in network.members:
            for part in first:
                (given,) = network.run(member, part, {domain.inputs[0]: magnitude}, cancel)
                store.write((member.file, part.gives), at, _frames(given, spectrum.shape[-1], part))
        return at + int(spectrum.shape[-1])

    with closed(abreast(hear, _spectra(network, song, run.block), network.abreast)) as blocks:
        for done in blocks:
            yield done / run.frames


def _remembered(network: Parts, frames: int, store: Store, cancel: Cancel) -> Iterator[float]:
    """The parts between over the whole song, all at once that have what they read; yields how much of it is done."""
    cancel = Cancel(cancel)
    waiting = [part for part in network.parts[:-1] if network.domain.inputs[0] not in part.reads]
    count = len(waiting)
    while waiting:
        missing = {part.gives for part in waiting}
        ready = [part for part in waiting if not missing & set(part.reads)]
        tasks = ((member, part) for member in network.members for part in ready)
        with closed(_all(lambda task: _through(network, *task, frames, store, cancel), tasks, network, cancel)) as ran:
            for done, _ in enumerate(ran, 1):
                yield (count - len(waiting) + done / len(network.members)) / count
        waiting = [part for part in waiting if part not in ready]
        still = {name for part in (*waiting, network.parts[-1]) for name in part.reads}
        for name in {name for part in ready for name in part.reads} - still:
            for member in network.members:
                store.drop((member.file, name))


def _all(
    work: Callable[[tuple[Member, Part]], None], tasks: Iterable[tuple[Member, Part]], network: Parts, cancel: Cancel
) -> Iterator[None]:
    """``work`` of all tasks; where one fails, or the iterator is closed, ``cancel`` ends the others."""
    with ThreadPoolExecutor(network.abreast, thread_name_prefix="ortsep-part") as pool:
        running = [pool.submit(work, task) for task in tasks]
        try:
            for each in running:
                yield each.result()
        except BaseException:
            for each in running:
                each.cancel()
            cancel.cancel()
            raise


def _through(network: Parts, member: Member, part: Part, frames: int, store: Store, cancel: Cancel) -> None:
    """All of a song through one part, from what is stored to what is stored."""
    states: dict[str, F32] = {state.given: np.zeros(state.shape, np.float32) for state in part.states}
    starts = range(0, frames, SPAN)
    for start in starts if part.direction == "forward" else reversed(starts):
        stop = min(start + SPAN, frames)
        feeds = {name: store.read((member.file, name), start, stop)[:, None] for name in part.reads}
        given, *left = network.run(member, part, {**feeds, **states}, cancel)
        states = {state.given: value for state, value in zip(part.states, left, strict=True)}
        store.write((member.file, part.gives), start, _frames(given, stop - start, part))


def _frames(given: F32, frames: int, part: Part) -> F32:
    """A tensor [t, 1, width] of a part as [t, width]. Raises ModelError where it is not one."""
    _check(given.ndim == 3 and given.shape[:2] == (frames, 1), part.gives, given, frames)
    return given[:, 0]


def _filtered(
    network: Parts, run: FrameRun, song: Callable[[], Iterable[F32]], store: Store, cancel: Cancel
) -> Iterator[tuple[float, C64]]:
    """The song with what is stored through the last part and the filter: how much is done, and stem spectra."""
    domain, last = network.domain, network.parts[-1]

    def filtered(block: tuple[int, C64]) -> tuple[float, C64]:
        at, spectrum = block
        stop, heard = at + spectrum.shape[-1], _magnitude(network, spectrum)
        outputs = (_output(network, member, last, heard, store, at, stop, cancel) for member in network.members)
        estimates = joined(outputs, network.shares, len(network.wanted))[0]
        stems = apply_filter(
            run.filtering,
            spectrum,
            estimates,
            output="masks" if network.spec.output == "masks" else "stem_magnitudes",
            complete=not run.rest,
            threads=1,
        )
        stems = stems if list(run.rows) == list(range(len(stems))) else stems[list(run.rows)]
        stems[:, :, : domain.inverse.zero_after] = 0
        return stop / run.frames, stems

    with closed(abreast(filtered, _spectra(network, song, run.block), network.abreast)) as blocks:
        yield from blocks


def _output(
    network: Parts, member: Member, last: Part, heard: F32, store: Store, start: int, stop: int, cancel: Cancel
) -> F32:
    """One graph's estimates [1, S, C, F, t] of some frames."""
    stored = {name: store.read((member.file, name), start, stop)[:, None] for name in last.reads[1:]}
    (output,) = network.run(member, last, {last.reads[0]: heard, **stored}, cancel)
    _check(output.ndim == 5 and output.shape[2:] == heard.shape[1:], last.gives, output, stop - start)
    return output


def _check(fits: bool, name: str, given: F32, frames: int) -> None:
    if not fits:
        raise ModelError(
            f"the graph gives {name} of {list(given.shape)} for {frames} frames, which is not what its spec says; "
            "export it again"
        )
