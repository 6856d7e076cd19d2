"""Separating a song: a source of samples through a model to named stems, as arrays or as a stream of blocks."""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.audio.resample import resample, resampled_length
from ortsep.audio.sources import ArraySource, Source, as_mixture, complement, fit_channels, narrowed, rerated
from ortsep.base.errors import UsageError
from ortsep.engine.chunks import make_plan
from ortsep.engine.loops import Level, Progress, Statistics, separate_chunks, separate_frames, spectrum_statistics
from ortsep.engine.network import Network
from ortsep.graphs.model import Model, load_model
from ortsep.graphs.session import Cancelled
from ortsep.models.contracts.plain import RATE as PLAIN_RATE
from ortsep.models.spec import ModelSpec
from ortsep.options import Options, change_blocks, change_chunks, change_filter, refuse_filter_options

F32 = npt.NDArray[np.float32]


class Separator:
    """A model, loaded once and used for any number of songs.

    ``model`` is a .onnx path, an exported folder or the name of an exported model; ``provider`` one of ``auto``,
    ``cpu``, ``cuda``, ``coreml``, ``openvino``, ``openvino-bf16``; ``threads`` the number of threads of a graph
    (default: one per physical core); ``sample_rate`` is assumed of a graph without a spec.

    Raises FileMissing, ModelError, ProviderError.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        sample_rate: int = PLAIN_RATE,
    ) -> None:
        self.model: Model = load_model(model, sample_rate)
        self._load = {"provider": provider, "threads": threads}
        self._networks: dict[tuple[int, ...], Network] = {}
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the model's stems, as stems.txt gives them."""
        return self.model.stems

    @property
    def provider(self) -> str:
        """The execution provider that really runs the graphs; loads them if none has run yet."""
        return self._loaded().provider

    @property
    def provider_reason(self) -> str:
        """Why the provider is not the one to be expected, as a sentence; empty where it is."""
        return self._loaded().reason

    def _loaded(self) -> Network:
        return next(iter(self._networks.values()), None) or self._network(range(len(self.stems)))

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

    def separate(
        self,
        mix: npt.ArrayLike,
        sample_rate: int | None = None,
        options: Options | None = None,
        *,
        progress: Progress | None = None,
        **changes: Any,
    ) -> dict[str, F32]:
        """Separate an array.

        ``mix`` is [N], [C, N] or [N, C] (the longer axis is time), float or integer (integers are scaled to +-1), at
        ``sample_rate`` (the model's by default). Gives float32 arrays of the same shape and rate by stem name.
        ``changes`` are fields of Options. Raises AudioError for an array that is empty, not finite or of another shape.
        """
        options = replace(options or Options(), **changes)
        data, back = as_mixture(mix)
        source = ArraySource(data, sample_rate or self.spec.sample_rate)
        names = self.names(options)
        stems = np.empty((len(names), *data.shape), np.float32)
        at = 0
        with closing(self.stream(source, options, progress=progress)) as blocks:
            for block in blocks:
                stems[:, :, at : at + block.shape[-1]] = block
                at += block.shape[-1]
        return {name: back(stem) for name, stem in zip(names, stems, strict=True)}

    def stream(
        self,
        source: Source,
        options: Options | None = None,
        *,
        rate: int | None = None,
        progress: Progress | None = None,
    ) -> Generator[F32, None, None]:
        """Separate a source block by block: [stems, channels, n] for the stems of ``names(options)``.

        Blocks come at ``rate`` (the source's by default) with its channels, as they become final; their samples add up
        to the source's (scaled to ``rate``) exactly. Memory does not grow with the song. ``progress`` is called with
        samples at the model's rate. A ``cancel`` ends it from this call on, even before its first block is asked for.
        """
        self.renew()
        return self.substream(source, options or Options(), rate, progress)

    def substream(
        self, source: Source, options: Options, rate: int | None = None, progress: Progress | None = None
    ) -> Generator[F32, None, None]:
        """As ``stream``, for a part of a longer separation: where that is cancelled already, so is this."""
        names = self.names(options)
        rate = rate or source.sample_rate
        rest = len(names) > (1 if options.two_stems else len(options.stems or self.stems))
        wanted = [self.stems.index(n) for n in names[: len(names) - rest]]
        model_samples = resampled_length(source.samples, source.sample_rate, self.spec.sample_rate)
        samples = resampled_length(source.samples, source.sample_rate, rate)
        raw = self._separated(source, model_samples, wanted, options, progress)
        channels = 1 if source.channels == 1 else self.spec.channels
        stems = rerated(narrowed(raw, channels), len(wanted), channels, self.spec.sample_rate, rate, samples)
        yield from complement(stems, source, self.spec.channels, rate) if rest else stems

    def _separated(
        self, source: Source, samples: int, wanted: Sequence[int], options: Options, progress: Progress | None
    ) -> Iterator[F32]:
        """The engine's blocks [S, C, n] at the model's rate, ``samples`` in all."""
        spec = self.spec

        def mixture() -> Iterator[F32]:
            blocks = resample(source.blocks(), source.channels, source.sample_rate, spec.sample_rate, samples)
            return (fit_channels(block, spec.channels) for block in blocks)

        if spec.blocks is not None and spec.filter is not None and spec.domain == "magnitude":
            filtering = change_filter(spec, options)
            together = filtering.method == "ratio" or (filtering.method == "mask" and filtering.alpha > 0)
            estimated = range(len(self.stems)) if together else wanted
            grouping = change_blocks(spec.blocks, options.chunk, spec)
            yield from separate_frames(
                self._begun(estimated),
                samples,
                mixture(),
                grouping,
                filtering,
                rows=[list(estimated).index(s) for s in wanted],
                residual=options.residual or options.two_stems is not None,
                progress=progress,
            )
            return
        assert spec.chunks is not None
        refuse_filter_options(spec, options)
        level = Level()
        if spec.normalization.kind == "track":
            statistics = Statistics()
            for block in mixture():
                self._check()
                statistics.add(block)
            level = statistics.level(spec.normalization.eps)
        chunks = change_chunks(spec.chunks, options.chunk, spec)
        plan = make_plan(samples, chunks, overlap=options.overlap, shifts=options.shifts, seed=options.seed)
        standard = None
        if spec.normalization.kind == "spectrum" and spec.stft is not None and len(list(islice(plan.chunks(), 2))) > 1:
            standard = spectrum_statistics(spec.stft, spec.channels, mixture(), spec.normalization.eps)
        yield from separate_chunks(self._begun(wanted), plan, mixture(), level, progress, standard=standard)

    def _network(self, wanted: Sequence[int]) -> Network:
        key = tuple(wanted)
        with self._lock:
            if key not in self._networks:
                self._networks.clear()
                self._networks[key] = Network(self.model, key, **self._load)  # type: ignore[arg-type]
            return self._networks[key]

    def _begun(self, wanted: Sequence[int]) -> Network:
        """The network, ready to run. Raises Cancelled where ``cancel`` came while it was loaded."""
        network = self._network(wanted)
        network.renew()
        self._check()
        return network

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled("the separation was cancelled")

    def cancel(self) -> None:
        """End the separation in progress, from another thread: it raises ``ortsep.graphs.session.Cancelled``."""
        self._cancelled.set()
        for network in list(self._networks.values()):
            network.cancel()

    def renew(self) -> None:
        """Forget a ``cancel``; ``stream`` does so by itself."""
        self._cancelled.clear()
