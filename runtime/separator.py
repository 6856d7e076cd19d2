"""Separating a song: a source of samples through a model to named stems, as arrays or as a stream of blocks."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ortsep.chunks import make_plan
from ortsep.engine import Level, Progress, Statistics, separate_chunks, separate_frames, spectrum_statistics
from ortsep.model import PLAIN_RATE, Model, load_model
from ortsep.models.errors import AudioError, UsageError
from ortsep.models.spec import Blocks, Chunks, Filter, ModelSpec
from ortsep.network import Network
from ortsep.resample import resample, resampled_length
from ortsep.session import Cancelled

F32 = npt.NDArray[np.float32]
BLOCK = 1 << 16


@dataclass(frozen=True)
class Options:
    """What to compute. None means the model's own default.

    Chunked models: ``overlap`` (fraction of a chunk), ``shifts`` and ``seed`` (Demucs's shift trick), ``chunk``
    (seconds, where the graph takes any length; for whole-song models the longest part run in one piece).
    Magnitude models: ``niter``, ``softmask``, ``alpha``, ``wiener_window`` (frames), ``exponent``, ``mask_extension``,
    ``wiener`` (the family's multichannel or alpha-Wiener filter, where it is off by default).
    """

    stems: tuple[str, ...] = ()
    """The stems wanted, in this order; empty for all."""
    two_stems: str | None = None
    """This stem and everything else, as ``no_<stem>``."""
    residual: bool = False
    """Add ``residual``: the mixture less the stems."""
    overlap: float | None = None
    shifts: int = 0
    seed: int = 0
    chunk: float | None = None
    niter: int | None = None
    softmask: bool | None = None
    alpha: float | None = None
    wiener_window: int | None = None
    exponent: float | None = None
    mask_extension: Literal["zeros", "average"] | None = None
    wiener: bool | None = None

    def __post_init__(self) -> None:
        checks = [
            (self.overlap is None or 0 <= self.overlap <= 0.99, f"overlap {self.overlap} is not from 0 to 0.99"),
            (0 <= self.shifts <= 100, f"shifts {self.shifts} is not from 0 to 100"),
            (self.niter is None or 0 <= self.niter <= 64, f"niter {self.niter} is not from 0 to 64"),
            (
                self.wiener_window is None or 0 < self.wiener_window <= 100_000,
                f"a Wiener window of {self.wiener_window} frames",
            ),
            (self.alpha is None or 0 < self.alpha <= 16, f"alpha {self.alpha} is not above 0 and up to 16"),
            (self.exponent is None or 0 < self.exponent <= 16, f"exponent {self.exponent} is not above 0 and up to 16"),
            (self.chunk is None or self.chunk > 0, f"a chunk of {self.chunk} s"),
            (not (self.two_stems and self.stems), "two_stems and stems exclude each other"),
            (not (self.two_stems and self.residual), "with two_stems the residual is silent: leave one of them out"),
            (len(set(self.stems)) == len(self.stems), f"stems {self.stems} repeat themselves"),
        ]
        for ok, message in checks:
            if not ok:
                raise UsageError(f"{message}; change that option")


class Source(Protocol):
    """Where a mixture comes from: decoded anew at each call of ``blocks``."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def samples(self) -> int: ...
    def blocks(self) -> Iterator[F32]:
        """Blocks [channels, n] float32, ``samples`` in all."""


@dataclass(frozen=True)
class ArraySource:
    """A mixture [C, N] in memory."""

    data: F32
    sample_rate: int

    @property
    def channels(self) -> int:
        return int(self.data.shape[0])

    @property
    def samples(self) -> int:
        return int(self.data.shape[1])

    def blocks(self) -> Iterator[F32]:
        for at in range(0, self.samples, BLOCK):
            yield self.data[:, at : at + BLOCK]


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
        stems = _rerated(_narrowed(raw, channels), len(wanted), channels, self.spec.sample_rate, rate, samples)
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
            grouping = _change_blocks(spec.blocks, options.chunk, spec)
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
        _refuse_filter_options(spec, options)
        level = Level()
        if spec.normalization.kind == "track":
            statistics = Statistics()
            for block in mixture():
                self._check()
                statistics.add(block)
            level = statistics.level(spec.normalization.eps)
        chunks = _change_chunks(spec.chunks, options.chunk, spec)
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
        """End the separation in progress, from another thread: it raises ``ortsep.session.Cancelled``."""
        self._cancelled.set()
        for network in list(self._networks.values()):
            network.cancel()

    def renew(self) -> None:
        """Forget a ``cancel``; ``stream`` does so by itself."""
        self._cancelled.clear()


def as_mixture(mix: npt.ArrayLike) -> tuple[F32, Callable[[F32], F32]]:
    """An array as [C, N] float32, and the way back from [C, N] to the shape that was given. See ``separate``."""
    array = np.asarray(mix)
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        middle = 0 if info.min < 0 else (info.max + 1) // 2
        array = (array.astype(np.float64) - middle) / (info.max + 1 - middle)
    elif array.dtype.kind not in "fb" or array.dtype.kind == "b":
        raise AudioError(f"a mixture of type {array.dtype} is not audio; give float or integer samples")
    array = array.astype(np.float32, copy=False)
    if array.ndim == 1:
        data, back = array[None], lambda y: y[0]
    elif array.ndim == 2 and array.shape[0] <= array.shape[1]:
        data, back = array, lambda y: y
    elif array.ndim == 2:
        data, back = np.ascontiguousarray(array.T), lambda y: y.T
    else:
        raise AudioError(f"a mixture of shape {list(array.shape)} is not [samples] or [channels, samples]; reshape it")
    if data.size == 0:
        raise AudioError("the mixture has no samples; give at least one")
    if data.shape[0] > 2:
        raise AudioError(f"the mixture has {data.shape[0]} channels; mix it down to mono or stereo first")
    if not np.isfinite(data).all():
        channel, at = np.argwhere(~np.isfinite(data))[0]
        raise AudioError(f"the mixture is not finite at sample {at} of channel {channel}; mend it first")
    return data, back


def fit_channels(block: F32, channels: int) -> F32:
    """A block [c, n] as [channels, n]: mono is repeated, a mono model hears the mean of the channels."""
    if block.shape[0] == channels:
        return block
    if block.shape[0] == 1:
        return np.repeat(block, channels, axis=0)
    if channels == 1:
        mean: F32 = block.mean(axis=0, keepdims=True, dtype=np.float32)
        return mean
    raise AudioError(f"{block.shape[0]} channels don't fit a model of {channels}; mix the song down to stereo first")


def change_filter(spec: ModelSpec, options: Options) -> Filter:
    """The model's filter with the caller's changes. Raises UsageError for one that means nothing to it."""
    base = spec.filter
    assert base is not None
    if options.wiener and base.method == "mask":
        base = replace(base, alpha=options.alpha or 1.0)
    elif options.wiener is False:
        base = replace(base, alpha=0.0, iterations=0)
    elif options.wiener and base.method == "ratio":
        base = replace(base, method="wiener", iterations=1, softmask=False)
    changes: dict[str, Any] = {
        "iterations": options.niter,
        "softmask": options.softmask,
        "window": options.wiener_window,
        "exponent": options.exponent,
        "above": options.mask_extension,
        "alpha": options.alpha,
    }
    meant = {
        "mask": {"alpha"} if base.alpha else set(),
        "ratio": {"exponent", "above"},
        "wiener": {"iterations", "softmask", "window", "alpha"},
    }[base.method]
    for name, value in changes.items():
        if value is not None and name not in meant:
            raise UsageError(f"{name} means nothing to the {base.method} filter of {spec.name}; leave that option out")
    return replace(base, **{name: value for name, value in changes.items() if value is not None})


def _refuse_filter_options(spec: ModelSpec, options: Options) -> None:
    names = ("niter", "softmask", "alpha", "wiener_window", "exponent", "mask_extension", "wiener")
    for name in names:
        if getattr(options, name):
            raise UsageError(f"{name} is an option of magnitude models and {spec.name} is none; leave it out")


def _change_chunks(chunks: Chunks, seconds: float | None, spec: ModelSpec) -> Chunks:
    if seconds is None:
        return chunks
    length = round(seconds * spec.sample_rate)
    if chunks.fixed and length != chunks.length:
        fixed = chunks.length / spec.sample_rate
        raise UsageError(f"the graph of {spec.name} takes chunks of {fixed:g} s only; leave --chunk out")
    return replace(chunks, length=max(1, length), whole=max(1, length) if chunks.whole else 0)


def _change_blocks(blocks: Blocks, seconds: float | None, spec: ModelSpec) -> Blocks:
    if seconds is None:
        return blocks
    assert spec.stft is not None
    if blocks.padded:
        raise UsageError(f"the graph of {spec.name} takes blocks of {blocks.frames} frames only; leave --chunk out")
    frames = max(8, round(seconds * spec.sample_rate / spec.stft.hop))
    return replace(blocks, frames=frames, whole=frames, overlap=min(blocks.overlap, frames // 4))


def _narrowed(blocks: Iterator[F32], channels: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] with ``channels``: a mono song gets mono stems."""
    for block in blocks:
        yield block if block.shape[1] == channels else block.mean(axis=1, keepdims=True, dtype=np.float32)


def _rerated(blocks: Iterator[F32], stems: int, channels: int, rate: int, wanted: int, samples: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] resampled to ``wanted`` Hz, ``samples`` in all."""
    flat = (block.reshape(stems * channels, -1) for block in blocks)
    for block in resample(flat, stems * channels, rate, wanted, samples):
        yield block.reshape(stems, channels, -1)


def complement(stems: Iterator[F32], source: Source, model_channels: int, rate: int) -> Iterator[F32]:
    """Stem blocks [S, C, n] at ``rate`` with one stem more: the source, decoded again, less their sum."""
    channels = 1 if source.channels == 1 else model_channels
    samples = resampled_length(source.samples, source.sample_rate, rate)
    mixture = resample(source.blocks(), source.channels, source.sample_rate, rate, samples)
    held = np.zeros((source.channels, 0), np.float32)
    for block in stems:
        count = block.shape[-1]
        while held.shape[-1] < count:
            held = np.concatenate([held, next(mixture)], axis=-1)
        rest = fit_channels(held[:, :count], channels) - block.sum(axis=0, dtype=np.float32)
        held = held[:, count:]
        yield np.concatenate([block, rest[None]])
