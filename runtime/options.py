"""What a caller may change about a separation, and what that makes of a model's own settings."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from ortsep.base.errors import UsageError
from ortsep.models.spec import Blocks, Chunks, Filter, Fixed, ModelSpec


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


def refuse_filter_options(spec: ModelSpec, options: Options) -> None:
    names = ("niter", "softmask", "alpha", "wiener_window", "exponent", "mask_extension", "wiener")
    for name in names:
        if getattr(options, name):
            raise UsageError(f"{name} is an option of magnitude models and {spec.name} is none; leave it out")


def change_chunks(chunks: Chunks, seconds: float | None, spec: ModelSpec) -> Chunks:
    if seconds is None:
        return chunks
    length = round(seconds * spec.sample_rate)
    if isinstance(chunks.takes, Fixed) and length != chunks.length:
        fixed = chunks.length / spec.sample_rate
        raise UsageError(f"the graph of {spec.name} takes chunks of {fixed:g} s only; leave --chunk out")
    length, takes = max(1, length), chunks.takes
    if not isinstance(takes, Fixed) and takes.whole:
        takes = replace(takes, whole=length)
    return replace(chunks, length=length, takes=takes)


def change_blocks(blocks: Blocks, seconds: float | None, spec: ModelSpec) -> Blocks:
    if seconds is None:
        return blocks
    assert spec.stft is not None
    if blocks.padded:
        raise UsageError(f"the graph of {spec.name} takes blocks of {blocks.frames} frames only; leave --chunk out")
    frames = max(8, round(seconds * spec.sample_rate / spec.stft.hop))
    return replace(blocks, frames=frames, whole=frames, overlap=min(blocks.overlap, frames // 4))
