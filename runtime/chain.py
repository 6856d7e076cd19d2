"""Two models one behind the other: a song's stem becomes the second model's mixture, at full precision, in one stream.

A drum model behind a song model, say: the song's drums become kick, snare, toms, hi-hat and cymbals, beside its bass,
other and vocals. Which stem is fed follows from the second model's spec (``content``), or from ``MODEL@STEM``.
"""

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ortsep.audio.sources import Source, complement
from ortsep.base.errors import ModelError, UsageError
from ortsep.engine.loops import Progress
from ortsep.models.spec import ModelSpec
from ortsep.options import Options
from ortsep.separator import Separator

F32 = npt.NDArray[np.float32]


class Chain:
    """``first`` separates the song, ``second`` its stem ``feed``; the interface is that of Separator.

    The stems are those of the first but the one that is fed, then those of the second. Raises UsageError where the
    second model does not say what to feed it, or the first has no such stem; ModelError where names meet.
    """

    def __init__(self, first: Separator, second: Separator, feed: str | None = None) -> None:
        self.first, self.second = first, second
        self.feed = feed or second.spec.content
        if feed is None and self.feed == "music":
            raise UsageError(
                f"{second.spec.name} separates whole songs: say which stem of {first.spec.name} it gets, as in "
                f"{second.spec.name}@{first.stems[-1]}"
            )
        if self.feed not in first.stems:
            raise UsageError(
                f"{first.spec.name} has no stem {self.feed!r} to feed {second.spec.name} with; it has "
                f"{', '.join(first.stems)}"
            )
        self.kept = tuple(stem for stem in first.stems if stem != self.feed)
        both = set(self.kept) & set(second.stems)
        if both:
            raise ModelError(
                f"{first.spec.name} and {second.spec.name} both give {', '.join(sorted(both))}; rename them in one "
                "model's stems.txt"
            )
        self.stems = self.kept + second.stems
        self.spec: ModelSpec = replace(
            first.spec, name=f"{first.spec.name}+{second.spec.name}", stems=self.stems, bag=()
        )

    @property
    def provider(self) -> str:
        """The providers that really run, the second's only where it differs."""
        return "+".join(dict.fromkeys((self.first.provider, self.second.provider)))

    @property
    def provider_reason(self) -> str:
        """As ``Separator.provider_reason``, of the first model that has one."""
        return self.first.provider_reason or self.second.provider_reason

    def cancel(self) -> None:
        """End the separation in progress, from another thread."""
        self.first.cancel()
        self.second.cancel()

    def names(self, options: Options) -> tuple[str, ...]:
        """The stems that ``stream`` gives with these options, in order."""
        if options.two_stems:
            raise UsageError("a chain of models has no --two-stems; name the stems with --stems")
        wanted = options.stems or self.stems
        for name in wanted:
            if name not in self.stems:
                raise UsageError(f"{self.spec.name} has no stem {name!r}; it has {', '.join(self.stems)}")
        return (*wanted, "residual") if options.residual else tuple(wanted)

    def stream(
        self,
        source: Source,
        options: Options | None = None,
        *,
        rate: int | None = None,
        progress: Progress | None = None,
    ) -> Generator[F32, None, None]:
        """As ``Separator.stream``. A second model that standardises its song runs the first twice."""
        for separator in (self.first, self.second):
            separator.renew()
        return self._stream(source, options or Options(), rate, progress)

    def _stream(
        self, source: Source, options: Options, rate: int | None, progress: Progress | None
    ) -> Generator[F32, None, None]:
        rate = rate or source.sample_rate
        names = self.names(options)
        wanted = names[: len(names) - options.residual]
        yield from (
            complement(self._stems(source, options, wanted, rate, progress), source, self.spec.channels, rate)
            if options.residual
            else self._stems(source, options, wanted, rate, progress)
        )

    def _stems(
        self, source: Source, options: Options, wanted: tuple[str, ...], rate: int, progress: Progress | None
    ) -> Iterator[F32]:
        kept = tuple(s for s in self.kept if s in wanted)
        parts = tuple(s for s in self.second.stems if s in wanted)
        of_first = _meant_for(self.first, replace(options, stems=(*kept, self.feed), residual=False))
        of_second = _meant_for(self.second, replace(options, stems=parts, residual=False))
        if not parts:
            order = [of_first.stems.index(s) for s in wanted]
            for block in self.first.substream(source, of_first, rate=rate, progress=progress):
                yield block[order]
            return
        fed = _Fed(self.first, source, of_first, rate, progress)
        order = [(kept + parts).index(s) for s in wanted]
        with closing(self.second.substream(fed, of_second, rate=rate)) as blocks:
            for block in blocks:
                beside = fed.take(block.shape[-1])
                yield np.concatenate([beside, block])[order]


@dataclass
class _Fed:
    """The fed stem as a source; the first model's other stems wait here until they are taken."""

    separator: Separator
    source: Source
    options: Options
    sample_rate: int
    progress: Progress | None

    def __post_init__(self) -> None:
        self.channels = 1 if self.source.channels == 1 else self.separator.spec.channels
        same = self.sample_rate == self.source.sample_rate
        self.samples = (
            self.source.samples if same else -(-self.source.samples * self.sample_rate // self.source.sample_rate)
        )
        self._waiting: deque[F32] = deque()

    def blocks(self) -> Iterator[F32]:
        self._waiting.clear()
        stream = self.separator.substream(self.source, self.options, rate=self.sample_rate, progress=self.progress)
        with closing(stream) as blocks:
            for block in blocks:
                self._waiting.append(block[:-1])
                yield block[-1]

    def take(self, count: int) -> F32:
        """The next ``count`` samples of the other stems [S, C, n]."""
        taken: list[F32] = []
        while count:
            head = self._waiting.popleft()
            taken.append(head[..., :count])
            if head.shape[-1] > count:
                self._waiting.appendleft(head[..., count:])
            count -= taken[-1].shape[-1]
        nothing = np.zeros((len(self.options.stems) - 1, self.channels, 0), np.float32)
        return np.concatenate([*taken, nothing], axis=-1)


def _meant_for(separator: Separator, options: Options) -> Options:
    """The options that mean something to this model: those of chunks or those of filters."""
    plain = Options(stems=options.stems, chunk=None)
    names: tuple[str, ...]
    if separator.spec.domain == "magnitude":
        names = ("niter", "softmask", "alpha", "wiener_window", "exponent", "mask_extension", "wiener")
    else:
        names = ("overlap", "shifts", "seed")
    return replace(plain, **{name: getattr(options, name) for name in names})
