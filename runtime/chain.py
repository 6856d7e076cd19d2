"""Models one behind the other: a song's stem becomes the next model's mixture, at full precision, in one stream.

A drum model behind a song model, say: the song's drums become kick, snare, toms, hi-hat and cymbals, beside its bass,
other and vocals. Which stem is fed follows from the second model's spec (``content``), or from ``MODEL@STEM``. A chain
is fed to a further model as a single one is.
"""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Union

import numpy as np

from ortsep.audio.heard import Known
from ortsep.audio.resample import resampled_length
from ortsep.audio.sources import At, Source, as_rate, as_source, completed
from ortsep.base.arrays import F32
from ortsep.base.cancel import Cancel, Cancels
from ortsep.base.errors import ModelError, UsageError
from ortsep.base.threads import closed
from ortsep.engine.by_chunk import Progress
from ortsep.engine.plan import Run
from ortsep.graphs.model import Model
from ortsep.models.spec import ModelSpec
from ortsep.options import TUNING, Options, usable
from ortsep.separator import Separator


class Chain:
    """``first``, a model or a chain, separates the song, ``second`` its stem ``feed``; the interface is Separator's.

    The stems are those of the first but the one that is fed, then those of the second. Raises UsageError where the
    second model does not say what to feed it, or the first has no such stem; ModelError where names meet.
    """

    def __init__(self, first: Union[Separator, "Chain"], second: Separator, feed: str | None = None) -> None:
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
        self.stems: tuple[str, ...] = self.kept + second.stems
        name = f"{first.spec.name}+{second.spec.name}"
        self.spec: ModelSpec = replace(first.spec, name=name, stems=self.stems, gains=(), derived=(), bag=())
        self._live = Cancels()

    @classmethod
    def of(cls, models: Sequence[Separator], feeds: Sequence[str | None]) -> Union[Separator, "Chain"]:
        """All of ``models`` one behind the other; ``feeds`` says what each but the first gets, None by its spec."""
        chain: Separator | Chain = models[0]
        for model, feed in zip(models[1:], feeds, strict=True):
            chain = cls(chain, model, feed)
        return chain

    def __enter__(self) -> "Chain":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Chain of {', '.join(repr(m.spec.name) for m in self.models)}: {', '.join(self.stems)}>"

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that a song goes through, in order."""
        return (*self.first.models, *self.second.models)

    def expected_providers(self) -> set[str]:
        """As ``Separator.expected_providers``, of all models."""
        return self.first.expected_providers() | self.second.expected_providers()

    @property
    def provider(self) -> str:
        """The providers that really run, those of later models only where they differ."""
        return "+".join(dict.fromkeys((*self.first.provider.split("+"), *self.second.provider.split("+"))))

    @property
    def provider_reason(self) -> str:
        """As ``Separator.provider_reason``, of the first model that has one."""
        return self.first.provider_reason or self.second.provider_reason

    def cancel(self) -> None:
        """End the separations of this chain that live now, from another thread."""
        self._live.cancel()

    def close(self) -> None:
        """End the separations that live now, and let go of the graphs."""
        self.cancel()
        self.first.close()
        self.second.close()

    def names(self, options: Options) -> tuple[str, ...]:
        """The stems that ``stream`` gives with these options, in order."""
        if options.two_stems:
            raise UsageError("a chain of models has no --two-stems; name the stems with --stems")
        wanted = options.stems or self.stems
        for name in wanted:
            if name not in self.stems:
                raise UsageError(f"{self.spec.name} has no stem {name!r}; it has {', '.join(self.stems)}")
        return (*wanted, "residual") if options.residual else tuple(wanted)

    def channels(self, given: int, options: Options) -> int:
        """How many channels the stems of a song of ``given`` channels have."""
        of_first, of_second = (usable(part.models, options) for part in (self.first, self.second))
        fed = self.first.channels(given, of_first)
        return max(fed, self.second.channels(fed, of_second))

    def plan(self, samples: int, sample_rate: int, options: Options | None = None) -> "Plans":
        """What separating a song of ``samples`` at ``sample_rate`` will do, model by model."""
        of_first, of_second, _ = self._parts(options or Options())
        runs: list[Run] = []
        for part, chosen in ((self.first, of_first), (self.second, of_second)):
            if chosen is not None:
                planned = part.plan(samples, sample_rate, chosen)
                runs.extend(planned.runs if isinstance(planned, Plans) else [planned])
        return Plans(tuple(runs))

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
        """As ``Separator.stream``. A later model that standardises its song runs those before it twice."""
        options = Options.of(options, {})
        song = as_source(source, sample_rate, self.spec.sample_rate)
        rate = song.sample_rate if rate is None else as_rate(rate)
        self.plan(song.samples, song.sample_rate, options)
        return self._stream(song, options, rate, progress, self._live.new(cancel))

    def _stream(
        self, source: Source, options: Options, rate: int, progress: Progress | None, cancel: Cancel
    ) -> Generator[F32, None, None]:
        try:
            stems = self._stems(source, options, rate, progress, cancel)
            if options.residual:
                mixture = At(source, rate, self.channels(source.channels, options))
                stems = completed(stems, mixture, range(len(self.names(options)) - 1), remainder=True)
            with closed(stems) as blocks:
                yield from blocks
        finally:
            cancel.end()

    def _parts(self, options: Options) -> tuple[Options, Options | None, list[int]]:
        """The options of either part, None where the second has nothing to do, and the order of the stems they give.

        Raises UsageError for one that no model can use.
        """
        names = self.names(options)
        wanted = names[: len(names) - options.residual]
        of_first, of_second = (usable(part.models, options) for part in (self.first, self.second))
        for name in TUNING:
            unused = getattr(of_first, name) == getattr(of_second, name) == getattr(Options(), name)
            if unused and getattr(options, name) != getattr(Options(), name):
                raise UsageError(f"{name} is an option that no model of {self.spec.name} can use; leave it out")
        kept = tuple(s for s in self.kept if s in wanted)
        parts = tuple(s for s in self.second.stems if s in wanted)
        first = replace(of_first, stems=(*kept, self.feed) if parts else kept)
        second = replace(of_second, stems=parts) if parts else None
        return first, second, [(kept + parts).index(s) for s in wanted]

    def _stems(
        self, source: Source, options: Options, rate: int, progress: Progress | None, cancel: Cancel
    ) -> Iterator[F32]:
        of_first, of_second, order = self._parts(options)
        if of_second is None:
            with closed(self.first.stream(source, of_first, rate=rate, progress=progress, cancel=cancel)) as blocks:
                for block in blocks:
                    yield block[order]
            return
        fed = _Fed(self.first, source, of_first, rate, progress, cancel)
        with closed(self.second.stream(fed, of_second, rate=rate, cancel=cancel)) as blocks:
            for block in blocks:
                yield np.concatenate([fed.take(block.shape[-1]), block])[order]


@dataclass(frozen=True)
class Plans:
    """What each model of a chain will do."""

    runs: tuple[Run, ...]

    def __str__(self) -> str:
        return "\n\n".join(str(run) for run in self.runs)


@dataclass
class _Fed(Known):
    """The fed stem, the last of ``options``, as a source; the other stems wait here until they are taken."""

    first: Separator | Chain
    source: Source
    options: Options
    sample_rate: int
    progress: Progress | None
    cancel: Cancel
    _waiting: deque[F32] = field(default_factory=deque)

    @property
    def channels(self) -> int:
        return self.first.channels(self.source.channels, self.options)

    @property
    def samples(self) -> int:
        return resampled_length(self.source.samples, self.source.sample_rate, self.sample_rate)

    def blocks(self) -> Iterator[F32]:
        waiting: deque[F32] = deque()
        self._waiting = waiting
        with closed(self._stream(self.options, self.progress)) as blocks:
            for block in blocks:
                if self._waiting is waiting:  # of two passes abreast, one for each channel, the later one's are taken
                    waiting.append(block[:-1])
                yield block[-1]

    def survey(self) -> Iterator[F32]:
        """The blocks again, for who measures them before: nothing waits, and nothing else is computed."""
        with closed(self._stream(replace(self.options, stems=self.options.stems[-1:]), None)) as blocks:
            for block in blocks:
                yield block[0]

    def _stream(self, options: Options, progress: Progress | None) -> Iterator[F32]:
        return self.first.stream(self.source, options, rate=self.sample_rate, progress=progress, cancel=self.cancel)

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
