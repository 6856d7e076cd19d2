"""A model's graphs as one function: what goes in, what comes out, for each domain of the spec.

The three steps ``prepare``, ``infer`` and ``finish`` run in threads of their own, so that the transforms of one chunk
overlap with the graph of another. Only the graphs that the wanted stems need are loaded and run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ortsep.base.errors import ModelError
from ortsep.base.threads import cores
from ortsep.engine.chunks import Chunk, Span, reading
from ortsep.engine.stft import as_channels, from_channels, istft, stft
from ortsep.graphs.foreign import open_session
from ortsep.graphs.model import Model
from ortsep.graphs.session import Session
from ortsep.models.spec import METADATA_KEY, STFT, Border, Join, Member, ModelSpec, from_json

F32 = npt.NDArray[np.float32]
C64 = npt.NDArray[np.complex64]
OWN = ("domain", "output", "stft", "inverse", "chunks", "tensors")
"""What a graph of a bag has for itself."""
Shares = tuple[tuple[int, int, float], ...]
"""(index in a group's places, row of a graph's output, weight)."""
Results = list[list[F32]]
"""For each view, its graphs' outputs [S, ...], weighted and summed."""


class Standard(NamedTuple):
    """Mean and deviation by which a spectrum is standardised."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Heard:
    """A chunk as the graphs of one view take it, and what else its way back needs."""

    feeds: Mapping[str, F32]
    samples: int
    spectrum: C64 | None = None
    standards: tuple[Standard, Standard] | None = None
    """Of the waveform and of the spectrum, where the graph's outputs have to be brought back from them."""


@dataclass(frozen=True)
class Work:
    """One chunk on its way, as each view hears it, and what of each view's waveform counts."""

    heard: tuple[Heard, ...]
    inside: tuple[slice, ...]


@dataclass(frozen=True)
class View:
    """How a graph hears a chunk and what its outputs mean, by its spec; graphs of a bag that agree share the work."""

    spec: ModelSpec

    @classmethod
    def of(cls, model: Model, session: Session) -> "View":
        """The model's own view, or for a bag that of the graph's own file."""
        spec, text = model.spec, session.metadata.get(METADATA_KEY)
        if len(model.members) > 1 and text is not None:
            own = from_json(text, str(session.path))
            spec = replace(spec, **{name: getattr(own, name) for name in OWN})
        return cls(spec)

    def hear(self, mix: F32, standard: Standard | None = None) -> Heard:
        """Samples [C, N] as the graph's inputs, standardised by ``standard`` or by their own statistics."""
        spec = self.spec
        if spec.domain == "waveform":
            return Heard({"mix": mix[None]}, mix.shape[-1])
        transform = _stft_of(spec.stft)
        spectrum = stft(transform, mix)[:, : transform.bins]
        channels = as_channels(spectrum)
        if spec.domain == "hybrid":
            standards = None
            if spec.normalization.kind == "chunk":
                standards = (_standard_of(mix, spec), _standard_of(channels, spec))
                mix, channels = (_standardised(x, by) for x, by in zip((mix, channels), standards, strict=True))
            return Heard({"mix": mix[None], "spectrum": channels[None]}, mix.shape[-1], standards=standards)
        if spec.normalization.kind == "spectrum":
            channels = _standardised(channels, standard or _standard_of(channels, spec))
        return Heard({"spectrum": channels[None]}, mix.shape[-1], spectrum)

    def sound(self, heard: Heard, outputs: Sequence[F32]) -> F32:
        """The graph's outputs [S, ...] as waveforms [S, C, N]."""
        if self.spec.domain == "waveform":
            return outputs[0]
        inverse = _stft_of(self.spec.inverse or self.spec.stft)
        if self.spec.output == "part_masks" and heard.spectrum is not None:
            masks = from_channels(outputs[-1])
            np.multiply(heard.spectrum.real, masks.real, out=masks.real)
            np.multiply(heard.spectrum.imag, masks.imag, out=masks.imag)
            return istft(inverse, masks, heard.samples)
        wave, spectra = outputs[0], outputs[-1]
        if heard.standards is not None:
            wave, spectra = (_brought_back(x, by) for x, by in zip((wave, spectra), heard.standards, strict=True))
        back = istft(inverse, spectra, heard.samples)
        if self.spec.domain == "hybrid":
            back += wave
        return back


def _standard_of(values: F32, spec: ModelSpec) -> Standard:
    """Mean and deviation of a chunk's values."""
    normalization = spec.normalization
    deviation = np.std(values, dtype=np.float64, ddof=normalization.ddof) + normalization.eps
    return Standard(float(np.mean(values, dtype=np.float64)), float(deviation) or 1.0)


def _standardised(values: F32, by: Standard) -> F32:
    result: F32 = (values - np.float32(by.mean)) * np.float32(1 / by.deviation)
    return result


def _brought_back(values: F32, by: Standard) -> F32:
    result: F32 = values * np.float32(by.deviation) + np.float32(by.mean)
    return result


@dataclass(frozen=True)
class _Group:
    """The graphs of one view; ``places``: which of the wanted stems they give."""

    view: View
    places: tuple[int, ...]
    graphs: tuple[tuple[Session, Shares], ...]


class Network:
    """The graphs that the ``wanted`` stems (indices into the model's stems) need, loaded.

    ``provider`` is the execution provider that really runs them. Raises ProviderError and ModelError.
    """

    def __init__(
        self,
        model: Model,
        wanted: Sequence[int],
        *,
        provider: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.spec = model.spec
        self.wanted = tuple(wanted)
        needed = [m for m in model.members if any(m.weights[s] > 0 and s in m.rows for s in wanted)]
        if not needed:
            raise ModelError(f"no graph of {model.spec.name} gives {[model.stems[s] for s in wanted]}; export it again")
        count, threads = _shared(model, threads)
        sessions = [
            open_session(model.file(m), model.spec, len(m.rows), provider=provider, threads=threads) for m in needed
        ]
        self._sessions = sessions
        self.provider = sessions[0].provider
        self.abreast = count if self.provider == "cpu" else 1
        """How many blocks of frames ``estimate`` is best given at a time, each from a thread of its own."""
        self.reason = next((session.reason for session in sessions if session.reason), "")
        totals = {s: sum(m.weights[s] for m in needed if s in m.rows) for s in wanted}
        groups: dict[View, list[tuple[Member, Session]]] = {}
        for member, session in zip(needed, sessions, strict=True):
            view = View.of(model, session)
            _refuse_unready(view.spec)
            if model.described:
                _check_tensors(view.spec, member, session)
            groups.setdefault(view, []).append((member, session))
        self._groups = [self._group(view, graphs, totals) for view, graphs in groups.items()]

    def _group(self, view: View, graphs: Sequence[tuple[Member, Session]], totals: Mapping[int, float]) -> _Group:
        given = [s for s in self.wanted if any(s in m.rows and m.weights[s] > 0 for m, _ in graphs)]

        def shares(m: Member) -> Shares:
            return tuple((given.index(s), k, m.weights[s] / totals[s]) for k, s in enumerate(m.rows) if s in given)

        places = tuple(self.wanted.index(s) for s in given)
        return _Group(view, places, tuple((session, shares(member)) for member, session in graphs))

    def reading(self, chunk: Chunk, segment: int) -> Span:
        """All samples that the graphs read for a chunk."""
        spans = [_reading(group.view, chunk, segment) for group in self._groups]
        start = min(span.start for span in spans)
        return Span(start, max(span.stop for span in spans) - start)

    def prepare(self, mix: F32, span: Span, chunk: Chunk, segment: int, standard: Standard | None = None) -> Work:
        """The samples [C, N] of ``span``, which ``reading`` asked for, as the graphs' inputs."""
        heard, inside = [], []
        for group in self._groups:
            own = _reading(group.view, chunk, segment)
            heard.append(group.view.hear(mix[:, own.start - span.start : own.stop - span.start], standard))
            inside.append(slice(chunk.start - own.start, chunk.stop - own.start))
        return Work(tuple(heard), tuple(inside))

    def infer(self, work: Work) -> Results:
        """Run the graphs."""
        return [_run(group, heard.feeds) for group, heard in zip(self._groups, work.heard, strict=True)]

    def finish(self, work: Work, results: Results) -> F32:
        """The graphs' outputs as what counts of the chunk: [S wanted, C, n]."""
        total = np.empty(0, np.float32)
        for group, heard, inside, outputs in zip(self._groups, work.heard, work.inside, results, strict=True):
            wave = group.view.sound(heard, outputs)[..., inside]
            outputs.clear()
            if len(group.places) == len(self.wanted) and not total.size:
                total = wave
                continue
            if not total.size:
                total = np.zeros((len(self.wanted), *wave.shape[1:]), np.float32)
            total[list(group.places)] += wave
        return total

    def estimate(self, magnitude: F32) -> F32:
        """A magnitude graph's masks or stem magnitudes [B, S wanted, C, F, T] for [B, C, F, T]."""
        (group,) = self._groups
        results = np.empty(0, np.float32)
        for session, shares in group.graphs:
            (output,) = session.run({session.inputs[0].name: magnitude})
            if len(group.graphs) == 1 and _unchanged(shares, output.shape[1]):
                return output
            if not results.size:
                results = np.zeros((output.shape[0], len(self.wanted), *output.shape[2:]), np.float32)
            for place, row, share in shares:
                results[:, place] += output[:, row] if share == 1.0 else output[:, row] * np.float32(share)
            del output  # before the next graph runs
        return results

    def cancel(self) -> None:
        """End the run in progress, from another thread; none begins until ``renew``."""
        for session in self._sessions:
            session.cancel()

    def renew(self) -> None:
        """Run again after a ``cancel``."""
        for session in self._sessions:
            session.renew()

    def example(self, mix: F32) -> dict[str, F32]:
        """The first graph's inputs, by its own names, for the samples [C, N] of one chunk."""
        group = self._groups[0]
        session, _ = group.graphs[0]
        return _named(group.view.hear(mix).feeds, session)


def _refuse_unready(spec: ModelSpec) -> None:
    """What the spec can say and this engine doesn't do yet is never ignored."""
    chunks, transforms = spec.chunks, [t for t in (spec.stft, spec.inverse) if t is not None]
    asked = {
        "joins": chunks is not None
        and replace(chunks, join=Join(), border=Border(), tail="centred", parts=0) != chunks,
        "windows of ones": any(t.window != "hann" for t in transforms),
        "zeroed bins": any(t.zero_before or t.zero_after for t in transforms),
        "deviations": spec.normalization.ddof != 1,
        "gains": bool(spec.gains) or bool(spec.derived),
        "complex masks": spec.domain == "complex" and spec.output == "masks",
    }
    for name, present in asked.items():
        if present:
            raise ModelError(f"{spec.name} needs {name} that this ortsep does not do yet; upgrade ortsep")


def _shared(model: Model, threads: int | None) -> tuple[int, int | None]:
    """How many blocks to run at a time, and the threads of a session (None: one a physical core), of ``threads``.

    Two threads that share a convolution wait for each other, spinning, wherever a transform holds a core up; two that
    run a block each do not. Of both runs' threads one is the caller's own, not the session's.
    """
    blocks = model.spec.blocks
    if blocks is None or not blocks.padded or threads == 1 or cores() == 1:
        return 1, threads
    threads = threads or (2 if cores() == 2 else None)
    return 2, threads and threads - 1


def _run(group: _Group, feeds: Mapping[str, F32]) -> list[F32]:
    combined: list[F32] = []
    for session, shares in group.graphs:
        wanted = ["stems", "stem_spectra"] if group.view.spec.domain == "hybrid" else None
        outputs = [o[0] for o in session.run(_named(feeds, session), wanted)]
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


def _reading(view: View, chunk: Chunk, segment: int) -> Span:
    assert view.spec.chunks is not None  # ModelSpec checks that all but magnitude models have them
    return reading(chunk, view.spec.chunks, segment)


_INPUTS = {"waveform": ["mix"], "magnitude": ["magnitude"], "complex": ["spectrum"], "hybrid": ["mix", "spectrum"]}


def _check_tensors(spec: ModelSpec, member: Member, session: Session) -> None:
    """The graph must be what its spec and stems.txt say."""
    expected = _INPUTS[spec.domain]
    found = sorted(t.name for t in session.inputs)
    if found != expected:
        raise ModelError(
            f"{session.path} takes {', '.join(found)} where its spec ({spec.domain}) says {', '.join(expected)}; "
            "export it again"
        )
    for tensor in session.outputs:
        rows = tensor.shape[1] if len(tensor.shape) > 1 else None
        if isinstance(rows, int) and rows != len(member.rows):
            raise ModelError(
                f"{session.path} gives {rows} stems and its spec names {len(member.rows)}; export it again"
            )


def _stft_of(transform: STFT | None) -> STFT:
    assert transform is not None  # ModelSpec checks that only waveform models have none
    return transform
