"""A model's graphs as one function: what goes in, what comes out, for each domain of the spec.

The three steps ``prepare``, ``infer`` and ``finish`` run in threads of their own, so that the transforms of one chunk
overlap with the graph of another. Only the graphs that the wanted stems need are loaded and run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ortsep.model import Model
from ortsep.models.errors import ModelError
from ortsep.models.spec import STFT, Member
from ortsep.session import Session
from ortsep.stft import as_channels, from_channels, istft, stft

F32 = npt.NDArray[np.float32]
C64 = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Work:
    """One chunk on its way: the graphs' inputs and what ``finish`` needs besides their outputs."""

    feeds: Mapping[str, F32]
    samples: int
    spectrum: C64 | None = None


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
        low_memory: bool = False,
    ) -> None:
        self.spec = model.spec
        self.wanted = tuple(wanted)
        needed = [m for m in model.members if any(m.weights[s] > 0 and s in m.rows for s in wanted)]
        if not needed:
            raise ModelError(f"no graph of {model.spec.name} gives {[model.stems[s] for s in wanted]}; export it again")
        self._members = [
            (m, Session(model.file(m), provider=provider, threads=threads, low_memory=low_memory)) for m in needed
        ]
        for member, session in self._members:
            _check_tensors(model, member, session)
        self.provider = self._members[0][1].provider
        self.reason = next((session.reason for _, session in self._members if session.reason), "")
        totals = {s: sum(m.weights[s] for m in needed if s in m.rows) for s in wanted}
        self._shares = [
            [(self.wanted.index(s), k, m.weights[s] / totals[s]) for k, s in enumerate(m.rows) if s in wanted]
            for m in needed
        ]

    def prepare(self, mix: F32) -> Work:
        """A chunk [C, N] as the graphs' inputs."""
        spec = self.spec
        if spec.domain == "waveform":
            return Work({"mix": mix[None]}, mix.shape[-1])
        transform = _stft_of(spec.stft)
        spectrum = stft(transform, mix)[:, : transform.bins]
        channels = as_channels(spectrum)
        if spec.domain == "hybrid":
            return Work({"mix": mix[None], "spectrum": channels[None]}, mix.shape[-1])
        if spec.normalization.kind == "spectrum":
            mean = np.mean(channels, dtype=np.float64)
            deviation = np.std(channels, dtype=np.float64, ddof=1) + spec.normalization.eps
            channels = (channels - np.float32(mean)) * np.float32(1 / deviation)
        return Work({"spectrum": channels[None]}, mix.shape[-1], spectrum)

    def infer(self, work: Work) -> list[F32]:
        """Run the graphs: for each of the outputs of the domain, [S wanted, ...], members weighted and summed."""
        combined: list[F32] = []
        for (_, session), shares in zip(self._members, self._shares, strict=True):
            names = {t.name for t in session.inputs}
            feeds = work.feeds
            if names != set(feeds) and len(names) == len(feeds) == 1:
                feeds = dict(zip(names, feeds.values(), strict=True))
            outputs = [o[0] for o in session.run(feeds, self._output_names(session))]
            if len(self._members) == 1 and _as_they_are(shares, len(outputs[0])):
                return outputs
            if not combined:
                combined = [np.zeros((len(self.wanted), *o.shape[1:]), np.float32) for o in outputs]
            for total, output in zip(combined, outputs, strict=True):
                for place, row, share in shares:
                    total[place] += output[row] if share == 1.0 else output[row] * np.float32(share)
        return combined

    def finish(self, work: Work, outputs: Sequence[F32]) -> F32:
        """The graphs' outputs as waveforms [S wanted, C, N]."""
        if self.spec.domain == "waveform":
            return outputs[0]
        transform = _stft_of(self.spec.stft)
        spectra = from_channels(outputs[-1])
        if work.spectrum is None:
            wave = istft(transform, spectra, work.samples)
            wave += outputs[0]
            return wave
        if self.spec.output == "masks":
            masked = np.empty_like(spectra)
            np.multiply(work.spectrum.real, spectra.real, out=masked.real)
            np.multiply(work.spectrum.imag, spectra.imag, out=masked.imag)
            spectra = masked
        return istft(transform, spectra, work.samples)

    def estimate(self, magnitude: F32) -> F32:
        """A magnitude graph's masks or stem magnitudes [B, S wanted, C, F, T] for [B, C, F, T]."""
        results = np.empty(0, np.float32)
        for (_, session), shares in zip(self._members, self._shares, strict=True):
            (output,) = session.run({session.inputs[0].name: magnitude})
            if len(self._members) == 1 and _as_they_are(shares, output.shape[1]):
                return output
            if not results.size:
                results = np.zeros((output.shape[0], len(self.wanted), *output.shape[2:]), np.float32)
            for place, row, share in shares:
                results[:, place] += output[:, row] if share == 1.0 else output[:, row] * np.float32(share)
        return results

    def cancel(self) -> None:
        """End the run in progress, from another thread; none begins until ``renew``."""
        for _, session in self._members:
            session.cancel()

    def renew(self) -> None:
        """Run again after a ``cancel``."""
        for _, session in self._members:
            session.renew()

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the first graph calls its inputs."""
        return tuple(tensor.name for tensor in self._members[0][1].inputs)

    def _output_names(self, session: Session) -> list[str] | None:
        return ["stems", "stem_spectra"] if self.spec.domain == "hybrid" else None


_INPUTS = {"waveform": ["mix"], "magnitude": ["magnitude"], "complex": ["spectrum"], "hybrid": ["mix", "spectrum"]}


def _as_they_are(shares: Sequence[tuple[int, int, float]], rows: int) -> bool:
    """Whether a lone graph's rows are the wanted stems, all of them and in order."""
    return [(place, row) for place, row, _ in shares] == [(k, k) for k in range(rows)]


def _check_tensors(model: Model, member: Member, session: Session) -> None:
    """The graph must be what its spec and stems.txt say."""
    if not model.described:
        return
    expected = _INPUTS[model.spec.domain]
    found = sorted(t.name for t in session.inputs)
    if found != expected:
        raise ModelError(
            f"{session.path} takes {', '.join(found)} where its spec ({model.spec.domain}) says {', '.join(expected)}; "
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
