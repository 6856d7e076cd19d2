"""A model's graphs as one function: what goes in and what comes out of the graphs that the wanted stems need.

The three steps ``prepare``, ``infer`` and ``finish`` run in threads of their own, so that the transforms of one chunk
overlap with the graph of another. A network keeps nothing of a run: any number of them may run at a time.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ortsep.base.arrays import F32
from ortsep.base.cancel import Cancel
from ortsep.base.errors import ModelError
from ortsep.base.threads import cores
from ortsep.engine.chunks import Chunk, Span, reading, with_tail
from ortsep.engine.domains import Chunked, Domain, Heard, domain_of
from ortsep.engine.level import Level
from ortsep.engine.plan import PLAIN, Variant
from ortsep.engine.sizes import all_sizes
from ortsep.engine.stft import frame_count
from ortsep.graphs.foreign import open_session
from ortsep.graphs.model import Model
from ortsep.graphs.providers import choose_provider
from ortsep.graphs.session import Observer, Session
from ortsep.graphs.tuned import Setting
from ortsep.models.spec import METADATA_KEY, Chunks, Member, Part, from_json

OWN = ("domain", "output", "stft", "inverse", "chunks", "tensors")
"""What a graph of a bag has for itself."""
Shares = tuple[tuple[int, int, float], ...]
"""(index in a group's places, row of a graph's output, weight)."""
Results = list[list[F32]]
"""For each of the work's parts, its graphs' outputs [S, ...], weighted and summed."""


class Graphs:
    """A model's graphs, each loaded when it is first needed and kept from then on.

    ``provider``, ``threads`` and ``observer`` are as for ``Session``. Raises ProviderError and ModelError.
    """

    def __init__(
        self,
        model: Model,
        *,
        provider: str | Setting = "auto",
        threads: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.model = model
        self._provider, self._observer = provider, observer
        self.threads = threads
        self._sessions: dict[tuple[str, Part | None], Session] = {}
        self._locks = {member.file: threading.Lock() for member in model.members}

    @cached_property
    def blocks(self) -> int | None:
        """How many blocks of a song are to run at a time, where that was found out; None: as the engine thinks best."""
        return choose_provider(self._provider, self.model.file(self.model.members[0])).setting.blocks

    @property
    def abreast(self) -> int:
        """How many padded blocks of frames are to run at a time."""
        return _shared(self.model, self.threads, self.blocks)[0]

    def session(self, member: Member, part: Part | None = None) -> Session:
        """The session of a graph or of a part of it. Parts have a thread each: more run at a time."""
        key, path = (member.file, part), self.model.file(member)
        with self._locks[member.file]:
            if key not in self._sessions:
                self._sessions[key] = (
                    open_session(
                        path,
                        self.model.spec,
                        len(member.rows),
                        provider=self._provider,
                        threads=_shared(self.model, self.threads, self.blocks)[1],
                        observer=self._observer,
                        sizes=all_sizes(self.model.spec),
                    )
                    if part is None
                    else Session(path, provider=self._provider, threads=1, observer=self._observer, part=part)
                )
            return self._sessions[key]

    @property
    def loaded(self) -> list[Session]:
        """In the order of the model's members and of their parts."""
        every = ((m.file, part) for m in self.model.members for part in (None, *self.model.spec.parts))
        return [self._sessions[key] for key in every if key in self._sessions]


@dataclass(frozen=True)
class Work:
    """One group's work on a chunk: as its graphs hear it in one variant, and what of their waveform counts."""

    group: "_Group"
    variant: Variant
    heard: Heard
    inside: slice


@dataclass(frozen=True)
class _Group:
    """The graphs of one domain; ``places``: which of the wanted stems they give."""

    domain: Domain
    places: tuple[int, ...]
    graphs: tuple[tuple[Session, Shares], ...]

    @property
    def chunked(self) -> Chunked:
        assert isinstance(self.domain, Chunked)  # the plan of any other is of frames
        return self.domain

    @property
    def chunks(self) -> Chunks:
        assert self.domain.spec.chunks is not None  # ModelSpec checks that all but magnitude models have them
        return self.domain.spec.chunks


class Network:
    """The graphs that the ``wanted`` stems (indices into the model's stems) need, loaded.

    ``provider`` is the execution provider that really runs them, all that do where they differ.
    """

    def __init__(self, graphs: Graphs, wanted: Sequence[int]) -> None:
        model = graphs.model
        self.spec = model.spec
        self.wanted = tuple(wanted)
        members = needed(model, wanted)
        sessions = [graphs.session(m) for m in members]
        self.provider = "+".join(dict.fromkeys(session.provider for session in sessions))
        self.abreast = graphs.abreast if self.provider == "cpu" else 1
        """How many blocks of frames ``estimate`` is best given at a time, each from a thread of its own."""
        self.reason = "; ".join(dict.fromkeys(session.reason for session in sessions if session.reason))
        totals = totals_of(members, wanted)
        groups: dict[Domain, list[tuple[Member, Session]]] = {}
        for member, session in zip(members, sessions, strict=True):
            domain = _domain(model, session)
            _check_tensors(domain, member, session, described=model.described)
            groups.setdefault(domain, []).append((member, session))
        self._groups = [self._group(domain, graphs, totals) for domain, graphs in groups.items()]

    def _group(self, domain: Domain, graphs: Sequence[tuple[Member, Session]], totals: Mapping[int, float]) -> _Group:
        given = [s for s in self.wanted if any(s in m.rows and m.weights[s] > 0 for m, _ in graphs)]
        places = tuple(self.wanted.index(s) for s in given)
        return _Group(domain, places, tuple((session, shares_of(m, given, totals)) for m, session in graphs))

    @property
    def domain(self) -> Domain:
        """That of the first graph, and of all in a model whose stems a filter makes."""
        return self._groups[0].domain

    def reading(self, chunk: Chunk, segment: int) -> Span:
        """All samples that the graphs read for a chunk."""
        spans = [reading(chunk, group.chunks, segment) for group in self._groups]
        start = min(span.start for span in spans)
        return Span(start, max(span.stop for span in spans) - start)

    def prepare(
        self,
        mix: F32,
        span: Span,
        chunk: Chunk,
        segment: int,
        level: Level | None = None,
        variants: Sequence[Variant] = (PLAIN,),
    ) -> list[Work]:
        """The samples [C, N] of ``span``, which ``reading`` asked for, as the graphs' inputs in each variant."""
        parts = []
        for group in self._groups:
            own = reading(chunk, group.chunks, segment)
            heard = with_tail(mix[:, own.start - span.start : own.stop - span.start], chunk, group.chunks)
            inside = slice(chunk.start - own.start, chunk.stop - own.start)
            for variant in variants:
                standard = level if level is None or variant.sign > 0 else level.turned()
                parts.append(Work(group, variant, group.chunked.hear(variant.of(heard), standard), inside))
        return parts

    def infer(self, work: Sequence[Work], cancel: Cancel | None = None) -> Results:
        """Run the graphs."""
        return [_run(part.group, part.heard.feeds, cancel) for part in work]

    def finish(self, work: Sequence[Work], results: Results) -> F32:
        """The graphs' outputs as what counts of the chunk: [S wanted, C, n]."""
        total = np.empty(0, np.float32)
        for part, outputs in zip(work, results, strict=True):
            self._check_outputs(part, outputs)
            wave = part.variant.back(part.group.chunked.sound(part.heard, outputs)[..., part.inside])
            outputs.clear()
            if len(part.group.places) == len(self.wanted) and not total.size:
                total = wave
                continue
            if not total.size:
                total = np.zeros((len(self.wanted), *wave.shape[1:]), np.float32)
            total[list(part.group.places)] += wave
        return total

    def _check_outputs(self, part: Work, outputs: Sequence[F32]) -> None:
        """Raise ModelError where the graphs gave arrays of another shape than the spec says."""
        domain, channels = part.group.chunked, self.spec.channels
        names = domain.outputs or (domain.spec.output,)
        for name, output in zip(names, outputs, strict=True):
            found = list(output.shape[1:])
            if name == "stems":
                expected = [channels, part.heard.samples]
                fits = found == expected
            else:
                bins = domain.inverse.n_fft // 2 + 1
                expected = [2 * channels, domain.inverse.bins, frame_count(domain.inverse, part.heard.samples)]
                fits = len(found) == 3 and found[0] == expected[0] and found[1] <= bins and found[2] >= expected[2]
                fits = fits and (domain.spec.output not in ("masks", "part_masks") or found[1:] == expected[1:])
            if not fits:
                session = part.group.graphs[0][0]
                raise ModelError(
                    f"{session.path.name} gives {name} of {found} a stem where its spec says {expected}; "
                    "export it again"
                )

    def estimate(self, magnitude: F32, cancel: Cancel | None = None) -> F32:
        """A magnitude graph's masks or stem magnitudes [B, S wanted, C, F, T] for [B, C, F, T]; a graph of bands gives
        those of the frames in the middle."""
        (group,) = self._groups

        def outputs() -> Iterator[F32]:
            for session, _ in group.graphs:
                (output,) = session.run(_named({"magnitude": magnitude}, session), None, cancel)
                self._check_estimate(output, magnitude, session)
                yield output
                del output  # before the next graph runs

        return joined(outputs(), [shares for _, shares in group.graphs], len(self.wanted))

    def _check_estimate(self, output: F32, magnitude: F32, session: Session) -> None:
        """Raise ModelError for estimates of other bins or frames than were heard, or than count of them."""
        context = self.spec.bands.context if self.spec.bands is not None else 0
        bins, frames = magnitude.shape[-2:]
        if output.ndim != 5 or output.shape[-2:] != (bins, frames - 2 * context) or len(output) != len(magnitude):
            raise ModelError(
                f"{session.path.name} gives {list(output.shape)} for {list(magnitude.shape)}, where its spec says "
                f"{bins} bins and {frames - 2 * context} frames; export it again"
            )

    def example(self, mix: F32) -> dict[str, F32]:
        """The first graph's inputs, by its own names, for the samples [C, N] of one chunk."""
        session, _ = self._groups[0].graphs[0]
        return _named(self.domain.example(mix), session)


def needed(model: Model, wanted: Sequence[int]) -> list[Member]:
    """The graphs that the ``wanted`` stems (indices into the model's stems) need."""
    members = [m for m in model.members if any(m.weights[s] > 0 and s in m.rows for s in wanted)]
    if not members:
        raise ModelError(f"no graph of {model.spec.name} gives {[model.stems[s] for s in wanted]}; export it again")
    return members


def totals_of(members: Sequence[Member], wanted: Sequence[int]) -> dict[int, float]:
    """The sum of each wanted stem's weights."""
    return {s: sum(m.weights[s] for m in members if s in m.rows) for s in wanted}


def shares_of(member: Member, given: Sequence[int], totals: Mapping[int, float]) -> Shares:
    """What a graph's rows are of the stems ``given``."""
    return tuple((given.index(s), k, member.weights[s] / totals[s]) for k, s in enumerate(member.rows) if s in given)


def joined(outputs: Iterable[F32], shares: Sequence[Shares], stems: int) -> F32:
    """Graphs' outputs [B, rows, ...], weighted and summed: [B, stems, ...]. Each is let go before the next is asked."""
    results, fresh = np.empty(0, np.float32), set(range(stems))
    given = iter(outputs)
    for each in shares:
        output = next(given)
        if len(shares) == 1 and _unchanged(each, output.shape[1]):
            return output
        if not results.size:
            results = np.empty((output.shape[0], stems, *output.shape[2:]), np.float32)
        for place, row, share in each:
            weighted = output[:, row] if share == 1.0 else output[:, row] * np.float32(share)
            if place in fresh:
                results[:, place] = weighted
                fresh.remove(place)
            else:
                results[:, place] += weighted
        del output, weighted
    results[:, list(fresh)] = 0
    return results


def _domain(model: Model, session: Session) -> Domain:
    """The model's own domain, or for a bag that of the graph's own file."""
    spec, text = model.spec, session.metadata.get(METADATA_KEY)
    if len(model.members) > 1 and text is not None:
        own = from_json(text, str(session.path))
        spec = replace(spec, **{name: getattr(own, name) for name in OWN})
    return domain_of(spec)


def _shared(model: Model, threads: int | None, count: int | None) -> tuple[int, int | None]:
    """How many blocks to run at a time (``count`` where given), and the threads of a session (None: one a physical
    core), of ``threads``.

    Two threads that share a convolution wait for each other, spinning, wherever a transform holds a core up; two that
    run a block each do not. Of both runs' threads one is the caller's own, not the session's.
    """
    blocks = model.spec.blocks
    if blocks is None or not blocks.padded or threads == 1 or cores() == 1 or count == 1:
        return 1, threads
    if count is not None:
        return count, max(1, (threads or cores()) - count + 1)
    threads = threads or (2 if cores() == 2 else None)
    return 2, threads and threads - 1


def _run(group: _Group, feeds: Mapping[str, F32], cancel: Cancel | None) -> list[F32]:
    combined: list[F32] = []
    for session, shares in group.graphs:
        outputs = [o[0] for o in session.run(_named(feeds, session), group.domain.outputs or None, cancel)]
        if len(group.graphs) == 1 and _unchanged(shares, len(outputs[0])):
            return outputs
        if not combined:
            combined = [np.zeros((len(group.places), *o.shape[1:]), np.float32) for o in outputs]
        for total, output in zip(combined, outputs, strict=True):
            for place, row, share in shares:
                total[place] += output[row] if share == 1.0 else output[row] * np.float32(share)
    return combined


def _named(feeds: Mapping[str, F32], session: Session) -> dict[str, F32]:
    """Inputs by the graph's own names: those of a plain graph may be any."""
    names = {t.name for t in session.inputs}
    if names != set(feeds) and len(names) == len(feeds) == 1:
        return dict(zip(names, feeds.values(), strict=True))
    return dict(feeds)


def _unchanged(shares: Shares, rows: int) -> bool:
    """Whether all ``rows`` are wanted as they are and in their order."""
    return list(shares) == [(k, k, 1.0) for k in range(rows)]


def _check_tensors(domain: Domain, member: Member, session: Session, *, described: bool) -> None:
    """The graph must be what its spec and stems.txt say."""
    if not described:
        return
    expected, found = sorted(domain.inputs), sorted(t.name for t in session.inputs)
    if found != expected:
        raise ModelError(
            f"{session.path} takes {', '.join(found)} where its spec ({domain.spec.domain}) says "
            f"{', '.join(expected)}; export it again"
        )
    for tensor in session.outputs:
        rows = tensor.shape[1] if len(tensor.shape) > 1 else None
        if isinstance(rows, int) and rows != len(member.rows):
            raise ModelError(
                f"{session.path} gives {rows} stems and its spec names {len(member.rows)}; export it again"
            )
