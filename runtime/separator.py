"""Separating a song: a source of samples through a model to named stems, as arrays or as a stream of blocks."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.audio.heard import Heard, Known
from ortsep.audio.resample import resampled_length
from ortsep.audio.sources import (
    ArraySource,
    At,
    Channel,
    Rest,
    Source,
    as_mixture,
    as_rate,
    as_source,
    completed,
    narrowed,
    rerated,
    stereo,
    tell,
)
from ortsep.base.arrays import F32
from ortsep.base.cancel import Cancel, Cancels
from ortsep.base.errors import AudioError, ModelError, UsageError
from ortsep.base.threads import ahead, closed
from ortsep.engine.bands import band_peak
from ortsep.engine.by_band import separate_bands
from ortsep.engine.by_chunk import Progress, separate_chunks
from ortsep.engine.by_frame import separate_frames
from ortsep.engine.by_part import Parts, separate_parts
from ortsep.engine.level import Level, Statistics, spectrum_level
from ortsep.engine.needs import refuse_larger_than_memory
from ortsep.engine.network import Graphs, Network
from ortsep.engine.plan import BandRun, ChunkRun, FrameRun, Run, plan_run
from ortsep.graphs.model import Model, find_model, load_model
from ortsep.graphs.providers import choose_provider
from ortsep.graphs.session import Observer
from ortsep.graphs.tuned import Setting
from ortsep.models.contracts.plain import RATE as PLAIN_RATE
from ortsep.models.spec import ModelSpec
from ortsep.options import Options, number


class Separator:
    """A model, loaded once and used for any number of songs, by any number of threads at a time.

    ``model`` is a .onnx path, an exported folder or the name of an exported model; ``provider`` one of ``auto``,
    ``cpu``, ``cuda``, ``coreml`` (or ``mps``), ``openvino``, ``openvino-bf16``, or a whole setting
    (``ortsep.graphs.tuned.Setting``); ``threads`` the number of threads of a graph (default: one per physical core);
    ``sample_rate`` is assumed of a graph without a spec. ``observer`` sees what the graphs do.

    A graph is loaded when stems are first asked for that need it, and stays: all choices of stems share it, and at most
    the model's own graphs are held, one or those of its bag. ``close``, or the end of a ``with``, lets go of them. A
    pickled Separator loads again where it arrives. Raises FileMissing, ModelError, ProviderError, UsageError.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        provider: str | Setting = "auto",
        threads: int | None = None,
        sample_rate: int = PLAIN_RATE,
        observer: Observer | None = None,
    ) -> None:
        threads = None if threads is None else number("threads", threads, 1, 1024, whole=True)
        path, rate = find_model(model), as_rate(sample_rate)
        self._made: dict[str, Any] = {
            "model": path.resolve(),
            "provider": provider,
            "threads": threads,
            "sample_rate": rate,
        }
        self._observer = observer
        self.model: Model = load_model(path, rate)
        self._live = Cancels()
        self._graphs = self._new_graphs()

    def _new_graphs(self) -> Graphs:
        made = self._made
        return Graphs(self.model, provider=made["provider"], threads=made["threads"], observer=self._observer)

    def __getstate__(self) -> dict[str, Any]:
        return self._made

    def __setstate__(self, made: dict[str, Any]) -> None:
        self.__init__(**made)  # type: ignore[misc]

    def __enter__(self) -> "Separator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"on {self.provider}" if self._graphs.loaded else "not loaded"
        return f"<Separator {self.spec.name}: {', '.join(self.stems)}; {self.spec.sample_rate} Hz; {state}>"

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the model's stems, as stems.txt gives them."""
        return self.model.stems

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that a song goes through: this one."""
        return (self.model,)

    def expected_providers(self) -> set[str]:
        """The execution providers that its graphs would run on; none is loaded for that."""
        graphs = [self.model.file(member) for member in self.model.members]
        return {choose_provider(self._made["provider"], graph).provider for graph in graphs}

    @property
    def provider(self) -> str:
        """The execution providers that really run the graphs loaded so far, joined by + where there are several.

        Loads all graphs if none has run yet.
        """
        return "+".join(dict.fromkeys(session.provider for session in self._loaded()))

    @property
    def provider_reason(self) -> str:
        """Why a provider is not the one to be expected, as a sentence; empty where all are."""
        return "; ".join(dict.fromkeys(session.reason for session in self._loaded() if session.reason))

    def _loaded(self) -> Sequence[Any]:
        if not self._graphs.loaded:
            every = self.spec.given
            Parts(self._graphs, every) if self.spec.parts else self._network(every)
        return self._graphs.loaded

    def _network(self, rows: Sequence[int]) -> Network:
        return Network(self._graphs, rows)

    def names(self, options: Options) -> tuple[str, ...]:
        """The stems that ``separate`` gives with these options. Raises UsageError for one that the model lacks."""
        wanted = (options.two_stems,) if options.two_stems else options.stems or self.stems
        for name in wanted:
            if name not in self.stems:
                raise UsageError(f"{self.spec.name} has no stem {name!r}; it has {', '.join(self.stems)}")
        extra = f"no_{options.two_stems}" if options.two_stems else "residual" if options.residual else None
        if extra in wanted:
            raise UsageError(f"a stem is already called {extra}; rename it in stems.txt")
        return tuple(wanted) if extra is None else (*wanted, extra)

    def channels(self, given: int, options: Options) -> int:
        """How many channels the stems of a song of ``given`` channels have."""
        if self.spec.channels == 1:
            return 1 if options.downmix else given
        return 1 if given == 1 else self.spec.channels

    def plan(self, samples: int, sample_rate: int, options: Options | None = None) -> Run:
        """What separating a song of ``samples`` at ``sample_rate`` will do; loads nothing, and ``str`` of it tells."""
        options = options or Options()
        rows, _ = self._rows(options)
        return plan_run(self.spec, options, resampled_length(samples, sample_rate, self.spec.sample_rate), rows)

    def separate(
        self,
        mix: npt.ArrayLike,
        sample_rate: int | None = None,
        options: Options | Mapping[str, Any] | None = None,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **changes: Any,
    ) -> dict[str, F32]:
        """Separate an array.

        ``mix`` is [N], [C, N] or [N, C] (the longer axis is time), or a batch [B, C, N] of songs, float or integer
        (integers are scaled to +-1), at ``sample_rate`` (the model's by default). Gives float32 arrays of the same
        shape and rate by stem name; of more than two channels the first two, which a UserWarning says, as it says where
        a model of drums was given other music. ``changes`` are
        fields of Options. Raises AudioError for an array that is empty, not finite or of another shape; Cancelled once
        ``cancel`` is.
        """
        options = Options.of(options, changes)
        rate = self.spec.sample_rate if sample_rate is None else as_rate(sample_rate)
        names = self.names(options)
        if getattr(mix, "ndim", 0) == 3:
            batch = np.asarray(mix)
            if not len(batch):
                raise AudioError("the batch has no songs; give at least one")
            songs = [self.separate(song, rate, options, progress=progress, cancel=cancel) for song in batch]
            return {name: np.stack([song[name] for song in songs]) for name in names}
        data, back = as_mixture(mix)
        source = stereo(ArraySource(data, rate))
        stems = np.empty((len(names), self.channels(source.channels, options), source.samples), np.float32)
        at = 0
        with closed(self.stream(source, options, progress=progress, cancel=cancel)) as blocks:
            for block in blocks:
                stems[:, :, at : at + block.shape[-1]] = block
                at += block.shape[-1]
        return {name: back(stem) for name, stem in zip(names, stems, strict=True)}

    def stream(
        self,
        source: Any,
        options: Options | Mapping[str, Any] | None = None,
        *,
        sample_rate: int | None = None,
        rate: int | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Generator[F32, None, None]:
        """Separate a source block by block: [stems, channels, n] for the stems of ``names(options)``.

        ``source`` is a path, an open ``soundfile.SoundFile``, an array, an iterator of blocks [C, n] (both at
        ``sample_rate``, by default the model's), or any ``ortsep.audio.sources.Source``. Blocks come at ``rate`` (the
        source's by default) with its channels, as they become final; their samples add up to the source's (scaled to
        ``rate``) exactly. Memory does not grow with the song. ``progress`` is called with samples at the model's rate.
        A UserWarning says at the end where a model of drums was given other music. ``cancel``, and
        ``Separator.cancel``, ends it from this call on, even before its first block is asked for.
        """
        options = Options.of(options, {})
        song = as_source(source, sample_rate, self.spec.sample_rate)
        if self.spec.content == "drums" and not isinstance(song, Known):
            song = Heard(song)
        rate = song.sample_rate if rate is None else as_rate(rate)
        refuse_larger_than_memory(self.spec, self.plan(song.samples, song.sample_rate, options))
        told = song if song is not source and isinstance(song, Heard) else None
        return self._stream(song, options, rate, progress, self._live.new(cancel), told)

    def _stream(
        self,
        source: Source,
        options: Options,
        rate: int,
        progress: Progress | None,
        cancel: Cancel,
        told: Heard | None = None,
    ) -> Generator[F32, None, None]:
        rows, outputs = self._rows(options)
        channels = self.channels(source.channels, options)
        samples = resampled_length(source.samples, source.sample_rate, rate)
        try:
            raw = self._finished(self._separated(source, rows, options, progress, cancel), rows, options)
            stems = rerated(narrowed(raw, channels), len(rows), channels, self.spec.sample_rate, rate, samples)
            remainder = options.residual or options.two_stems is not None
            if remainder or outputs != list(range(len(rows))):
                stems = completed(stems, At(source, rate, channels), outputs, remainder=remainder)
            with closed(stems) as blocks:
                yield from blocks
            if told is not None and told.warning:
                tell([told.warning])
        finally:
            cancel.end()

    def _rows(self, options: Options) -> tuple[list[int], list[int | Rest]]:
        """The stems that the graphs have to give, as indices of the spec's, and how the wanted ones come of them."""
        names, graphs = self.names(options), self.spec.stems
        derived = {d.name: d for d in self.spec.derived}
        wanted = names[: len(names) - (options.residual or options.two_stems is not None)]
        needed = [n for n in wanted if n in graphs]
        needed += [m for n in wanted if n in derived for m in derived[n].minus]
        needed = list(dict.fromkeys(needed))

        def output(name: str) -> int | Rest:
            if name in derived:
                gain = self.spec.gains[0] if options.compensate == "residual" else 1.0
                return Rest(tuple(needed.index(m) for m in derived[name].minus), derived[name].gain * gain)
            return needed.index(name)

        return [graphs.index(name) for name in needed], [output(name) for name in wanted]

    def _separated(
        self, source: Source, rows: Sequence[int], options: Options, progress: Progress | None, cancel: Cancel
    ) -> Iterator[F32]:
        """The engine's blocks [S, C, n] at the model's rate: of one run, or of one for each channel side by side."""
        if self.spec.channels > 1 or source.channels == 1 or options.downmix:
            yield from self._run(source, rows, options, progress, cancel)
            return
        with ExitStack() as stack:
            parts = []
            for index in range(source.channels):
                told = progress if index == source.channels - 1 else None
                blocks = self._run(Channel(source, index), rows, options, told, Cancel(cancel))
                parts.append(stack.enter_context(closed(blocks)))
            for blocks_of_all in zip(*parts, strict=True):
                yield np.concatenate(blocks_of_all, axis=1)

    def _run(
        self, source: Source, rows: Sequence[int], options: Options, progress: Progress | None, cancel: Cancel
    ) -> Iterator[F32]:
        spec = self.spec
        mixture = At(source, spec.sample_rate, spec.channels)
        run = plan_run(spec, options, mixture.samples, rows)
        if isinstance(run, FrameRun) and run.parts:
            parts = Parts(self._graphs, run.estimated)
            cancel.check()
            yield from separate_parts(parts, run, mixture.blocks, progress, cancel=cancel)
            return
        if isinstance(run, FrameRun):
            network = self._network(run.estimated)
            cancel.check()
            yield from separate_frames(network, run, mixture.blocks(), progress, cancel=cancel)
            return
        if isinstance(run, BandRun) and spec.bands is not None:
            peak = band_peak(spec.bands, _checked(mixture, cancel))
            network = self._network(spec.given)
            cancel.check()
            yield from separate_bands(network, run, mixture.blocks(), peak, progress, cancel=cancel)
            return
        assert isinstance(run, ChunkRun)
        level, standard = Level(), None
        if run.levels == "track":
            statistics = Statistics()
            for block in _checked(mixture, cancel):
                statistics.add(block)
            level = statistics.level(spec.normalization.eps, spec.normalization.ddof)
        if run.levels == "spectrum" and spec.stft is not None:
            standard = spectrum_level(spec.stft, spec.channels, _checked(mixture, cancel), spec.normalization)
        network = self._network(rows)
        cancel.check()
        yield from separate_chunks(network, run, mixture.blocks(), level, progress, standard=standard, cancel=cancel)

    def _finished(self, blocks: Iterator[F32], rows: Sequence[int], options: Options) -> Iterator[F32]:
        """Stem blocks times the spec's gains. Raises ModelError where the graphs gave what is no number."""
        given_gains = self.spec.gains if options.compensate == "stem" else ()
        gains = np.array([given_gains[row] for row in rows if given_gains], np.float32)
        at = 0
        with closed(blocks) as given:
            for block in given:
                if not np.isfinite(block).all():
                    raise ModelError(
                        f"{self.spec.name} gave values that are not finite, {at / self.spec.sample_rate:.1f} s into "
                        "the song; scale the song to full scale 1, or run it with provider cpu, or export it again"
                    )
                at += block.shape[-1]
                yield block * gains[:, None, None] if len(gains) else block

    def cancel(self) -> None:
        """End the separations that live now, from another thread: each raises ``ortsep.base.errors.Cancelled``."""
        self._live.cancel()

    def close(self) -> None:
        """End the separations that live now, and let go of the graphs; a later one loads them again."""
        self.cancel()
        self._graphs = self._new_graphs()


def _checked(source: At, cancel: Cancel) -> Iterator[F32]:
    """The source's blocks, to be measured, until ``cancel``."""
    with closed(ahead(source.survey(), cancel=cancel)) as blocks:
        yield from blocks
