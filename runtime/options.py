"""What a caller may change about a separation, and what that makes of a model's own settings."""

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ortsep.base.errors import UsageError
from ortsep.models.spec import MAX_SAMPLES, Blocks, Chunks, Filter, Fixed, ModelSpec

CHUNKED = ("overlap", "shifts", "seed", "tta", "denoise", "compensate")
"""The options of models that separate chunks in time."""
FILTERED = ("niter", "softmask", "alpha", "wiener_window", "exponent", "mask_extension", "wiener", "rest")
"""The options of magnitude models, whose stems a filter makes."""
MASKED = ("tta", "aggression", "post_process", "window", "high_end")
"""The options of UVR's VR models, whose stems one mask makes."""

TUNING = tuple(dict.fromkeys((*CHUNKED, *FILTERED, *MASKED, "chunk", "downmix")))
"""All but what is wanted."""


@dataclass(frozen=True)
class Options:
    """What to compute. None means the model's own default.

    Models of chunks (``CHUNKED``): ``overlap`` (fraction of a chunk), ``shifts`` and ``seed`` (Demucs's shift trick),
    ``tta`` (the mean of the song, its channels swapped and its polarity inverted, as MSST), ``denoise``
    (0.5 f(x) - 0.5 f(-x), as UVR), ``compensate`` (where the gain of UVR's MDX-Nets goes: ``stem``, as UVR, or
    ``residual``, as python-audio-separator: the stem stays as the network gives it).
    Magnitude models (``FILTERED``): ``niter``, ``softmask``, ``alpha``, ``wiener_window`` (frames), ``exponent``,
    ``mask_extension``, ``wiener`` (the family's multichannel or alpha-Wiener filter, where it is off by default),
    ``rest`` (the Wiener filter counts with one source more, for what is none of the stems asked for; Open-Unmix's does
    so for a single stem only, or with a residual).
    VR models (``MASKED``), all as UVR: ``tta`` (the mean with windows moved by half of what counts of one),
    ``aggression`` (percent), ``post_process`` (where a mask stays above this for long it becomes one), ``window``
    (frames the network is given at a time), ``high_end`` (the highest bins, which the network doesn't hear, get what
    it made of those below them, mirrored).
    An option that a model can't use is refused as soon as it is not the default.
    """

    stems: tuple[str, ...] = ()
    """The stems wanted, in this order, as a sequence or a single name; empty for all."""
    two_stems: str | None = None
    """This stem and everything else, as ``no_<stem>``."""
    residual: bool = False
    """Add ``residual``: the mixture less the stems."""
    downmix: bool = False
    """A model of one channel hears the mean of a song's channels and gives mono stems, where it would hear each."""
    chunk: float | None = None
    """Seconds a chunk, where the graph takes any length; for whole-song models the longest part run in one piece."""
    overlap: float | None = None
    shifts: int = 0
    seed: int = 0
    tta: bool = False
    denoise: bool = False
    compensate: Literal["stem", "residual"] = "stem"
    niter: int | None = None
    softmask: bool | None = None
    alpha: float | None = None
    wiener_window: int | None = None
    exponent: float | None = None
    mask_extension: Literal["zeros", "average"] | None = None
    wiener: bool | None = None
    rest: bool = False
    aggression: int | None = None
    post_process: float | None = None
    window: int | None = None
    high_end: bool = False

    def __post_init__(self) -> None:
        stems = (self.stems,) if isinstance(self.stems, str) else self.stems
        if not isinstance(stems, Iterable) or not all(isinstance(name, str) for name in stems):
            raise UsageError(f"stems {self.stems!r} are not names; give a name or a list of names")
        object.__setattr__(self, "stems", tuple(stems))
        for name, least, most, whole in _NUMBERS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, number(name, value, least, most, whole=whole))
        for name in ("residual", "downmix", "tta", "denoise", "softmask", "wiener", "rest", "high_end"):
            if getattr(self, name) not in (True, False, None):
                raise UsageError(f"{name} {getattr(self, name)!r} is neither true nor false; change that option")
        if self.mask_extension not in (None, "zeros", "average"):
            raise UsageError(f"mask_extension {self.mask_extension!r} is not zeros or average; change that option")
        if self.compensate not in ("stem", "residual"):
            raise UsageError(f"compensate {self.compensate!r} is not stem or residual; change that option")
        if not isinstance(self.two_stems, str | None):
            raise UsageError(f"two_stems {self.two_stems!r} is not the name of a stem; change that option")
        excluded = [
            (self.two_stems and self.stems, "two_stems and stems exclude each other"),
            (self.two_stems and self.residual, "with two_stems the residual is silent: leave one of them out"),
            (len(set(self.stems)) < len(self.stems), f"stems {self.stems} repeat themselves"),
            (self.tta and self.denoise, "tta runs the inverted song already, as denoise does: leave one of them out"),
        ]
        for wrong, message in excluded:
            if wrong:
                raise UsageError(f"{message}; change that option")

    @classmethod
    def of(cls, options: "Options | Mapping[str, Any] | None", changes: Mapping[str, Any]) -> "Options":
        """Options as they may be given to a function: whole, as a mapping, or field by field."""
        if options is not None and not isinstance(options, Options | Mapping):
            raise UsageError(f"options {options!r} are not Options; give ortsep.Options(...) or a dict of its fields")
        given = {**(options if isinstance(options, Mapping) else {}), **changes}
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise UsageError(f"there is no option {name!r}; the options are {', '.join(known)}")
        return replace(options if isinstance(options, Options) else cls(), **given)


_NUMBERS = (
    ("overlap", 0.0, 0.99, False),
    ("shifts", 0, 100, True),
    ("seed", 0, 1 << 63, True),
    ("niter", 0, 64, True),
    ("wiener_window", 1, 100_000, True),
    ("alpha", 1e-6, 16.0, False),
    ("exponent", 1e-6, 16.0, False),
    ("chunk", 1e-3, 36_000.0, False),
    ("aggression", -50, 100, True),
    ("post_process", 1e-3, 0.999, False),
    ("window", 16, 1 << 16, True),
)
"""Name, least, most, and whether it is a whole number."""


def number(name: str, value: Any, least: float, most: float, *, whole: bool) -> Any:
    """``value`` as an int or float from ``least`` to ``most``. Raises UsageError for anything else."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    good = good and least <= value <= most and not (whole and value != int(value))
    if not good:
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{name} {value!r} is not {kind} from {least:g} to {most:g}; change that option")
    return int(value) if whole else float(value)


def refuse_options(spec: ModelSpec, options: Options) -> None:
    """Raise UsageError for an option that differs from the default and means nothing to this model."""
    default, magnitude = Options(), spec.domain == "magnitude"
    own = _own(spec)

    def changed(name: str) -> bool:
        return bool(getattr(options, name) != getattr(default, name))

    for name in TUNING:
        if changed(name) and name not in (*own, "chunk", "downmix"):
            others = next((kind for kind, names in _KINDS if name in names), "others")
            raise UsageError(
                f"{name} is an option of {others} and {spec.name} is none; leave it out (its own are {', '.join(own)})"
            )
    if spec.bands is not None:
        _refuse_of_bands(spec, options)
    if changed("seed") and not options.shifts:
        raise UsageError("seed is of the shifts and there are none; leave it out or add shifts")
    if options.shifts and not magnitude and spec.chunks is not None and not spec.chunks.max_shift:
        raise UsageError(f"{spec.name} was not made for shifts, which are an option of Demucs models; leave them out")
    if changed("compensate") and (not spec.derived or len(set(spec.gains)) != 1):
        raise UsageError(
            f"compensate is of models of a stem with a gain and of a rest, unlike {spec.name}; leave it out"
        )
    if options.downmix and spec.channels != 1:
        raise UsageError(f"downmix is for models of one channel and {spec.name} hears {spec.channels}; leave it out")
    if options.tta and "shifts" in own and spec.channels != 2:
        raise UsageError(f"tta swaps the channels and {spec.name} hears {spec.channels}; leave it out")


_KINDS = (("models of chunks", CHUNKED), ("magnitude models", FILTERED), ("VR models", MASKED))


def _own(spec: ModelSpec) -> tuple[str, ...]:
    """The options of models of this kind."""
    return {"magnitude": FILTERED, "bands": MASKED}.get(spec.domain, CHUNKED)


def _refuse_of_bands(spec: ModelSpec, options: Options) -> None:
    bands = spec.bands
    assert bands is not None
    if options.chunk is not None:
        raise UsageError(f"{spec.name} hears frames; say how many with window (--window-size) in place of chunk")
    if options.window is not None and not bands.takes(options.window):
        raise UsageError(
            f"{spec.name} takes windows of a multiple of {bands.multiple} frames, and more than its context of twice "
            f"{bands.context}, not {options.window}; UVR has 320, 512 and 1024"
        )
    if options.high_end and not bands.mirrored:
        raise UsageError(f"{spec.name} hears all bins of the highest band, so high_end has none to fill; leave it out")


def takes(spec: ModelSpec) -> tuple[str, ...]:
    """The options that a model can use, beside those that say what is wanted, in the order of ``TUNING``."""
    names = set(_own(spec))
    if spec.chunks is not None and not spec.chunks.max_shift:
        names -= {"shifts", "seed"}
    names -= {"compensate"} if not spec.derived or len(set(spec.gains)) != 1 else set()
    names |= {"downmix"} if spec.channels == 1 else set()
    names -= {"tta"} if spec.channels != 2 else set()
    names -= {"high_end"} if spec.bands is not None and not spec.bands.mirrored else set()
    fixed = spec.chunks is None or isinstance(spec.chunks.takes, Fixed)
    free = not spec.blocks.padded if spec.blocks is not None else not fixed
    names |= {"chunk"} if free else set()
    return tuple(name for name in TUNING if name in names)


def usable(models: Iterable[Any], options: Options) -> Options:
    """The options that at least one of these models (``ortsep.graphs.model.Model``) can use; stems are left out."""
    default, keep = Options(), {}
    for spec in (model.spec for model in models):
        names = set(takes(spec))
        if spec.bands is not None and (options.window is None or not spec.bands.takes(options.window)):
            names.discard("window")
        keep.update({name: getattr(options, name) for name in names})
    return replace(default, **keep)


def change_filter(spec: ModelSpec, options: Options) -> Filter:
    """The model's filter with the caller's changes. Raises UsageError for one that means nothing to it."""
    base = spec.filter
    assert base is not None
    if options.wiener and base.method == "mask":
        base = replace(base, alpha=options.alpha or 1.0)
    elif options.wiener is False:
        base = replace(base, alpha=0.0, iterations=0)
    elif options.wiener and base.method == "ratio":
        base = replace(base, method="wiener", iterations=1, softmask=True, eps=_EPS, window=_WHOLE)
    changes: dict[str, Any] = {
        "iterations": options.niter,
        "softmask": options.softmask,
        "window": options.wiener_window,
        "exponent": options.exponent,
        "above": options.mask_extension,
        "alpha": options.alpha,
        "rest": options.rest or None,
    }
    made = replace(base, **{k: v for k, v in changes.items() if v is not None and k != "rest"})
    meant = {
        "mask": {"alpha"} if base.alpha else set(),
        "ratio": {"exponent", "above"},
        "wiener": {"iterations", "softmask"}
        | ({"window", "rest"} if made.iterations else set())
        | ({"alpha"} if made.softmask else set()),
    }[base.method]
    for name, value in changes.items():
        if value is not None and name not in meant:
            needs = {"window": "iterations (niter)", "rest": "iterations (niter)", "alpha": "a softmask"}.get(name)
            why = f" without {needs}" if base.method == "wiener" and needs else ""
            raise UsageError(
                f"{_OURS.get(name, name)} means nothing to the {base.method} filter of {spec.name}{why}; "
                "leave that option out"
            )
    return made


_EPS, _WHOLE = 2.0**-23, MAX_SAMPLES // 512
"""``spleeter --mwf`` is ``norbert.wiener(v, x)``: a softmask, float32's eps, and all frames of the track at once."""
_OURS = {"iterations": "niter", "window": "wiener_window", "above": "mask_extension"}


def change_chunks(chunks: Chunks, seconds: float | None, spec: ModelSpec) -> Chunks:
    """Chunks of ``seconds``, with fades in proportion. Raises UsageError where the graph takes one length only."""
    if seconds is None:
        return chunks
    length = round(seconds * spec.sample_rate)
    if isinstance(chunks.takes, Fixed) and length != chunks.length:
        fixed = chunks.length / spec.sample_rate
        raise UsageError(f"the graph of {spec.name} takes chunks of {fixed:g} s only; leave --chunk out")
    length, takes, join = max(1, length), chunks.takes, chunks.join
    if not isinstance(takes, Fixed) and takes.whole:
        takes = replace(takes, whole=length)
    if join.fade:
        join = replace(join, fade=max(1, join.fade * length // chunks.length))
        length = max(length, 2 * join.fade)
    return replace(chunks, length=length, takes=takes, join=join, parts=min(chunks.parts, length))


def change_blocks(blocks: Blocks, seconds: float | None, spec: ModelSpec) -> Blocks:
    """Blocks of ``seconds``. Raises UsageError where the graph takes one number of frames only."""
    if seconds is None:
        return blocks
    assert spec.stft is not None
    if blocks.padded:
        raise UsageError(f"the graph of {spec.name} takes blocks of {blocks.frames} frames only; leave --chunk out")
    frames = max(8, round(seconds * spec.sample_rate / spec.stft.hop))
    return replace(blocks, frames=frames, whole=frames, overlap=min(blocks.overlap, frames // 4))
