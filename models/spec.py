"""The model spec: the contract between export and runtime, carried inside every graph.

A spec is a tree of frozen dataclasses, stored as JSON in the ONNX file's ``metadata_props`` under the key ``ortsep``.
It holds all that the runtime knows about a model. Lengths are samples at the model's rate unless a name says frames.
Letters in shapes: B batch, C audio channels, S stems, F bins, T frames, N samples.
"""

import json
import math
import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, Union

from ortsep.base.errors import ModelError

FORMAT = 1
"""Raised when a runtime that ignores the new keys would give wrong audio. Keys it does not know are ignored."""

METADATA_KEY = "ortsep"

Domain = Literal["waveform", "magnitude", "complex", "hybrid"]

OUTPUTS = {
    "waveform": ("stems",),
    "magnitude": ("masks", "stem_magnitudes"),
    "complex": ("stem_spectra", "masks"),
    "hybrid": ("hybrid",),
}
"""What the graphs of each domain may give."""

MAX_SAMPLES = 1 << 26
"""Longest chunk, padding or block that a spec may ask for (25 minutes at 44.1 kHz): a bound against hostile files."""


def _check(ok: bool, what: str) -> None:
    if not ok:
        raise ModelError(f"the model's spec is not usable: {what}; export the model again")


@dataclass(frozen=True)
class STFT:
    """A short-time Fourier transform with a periodic Hann window, outside the graph.

    The signal [C, N] is first lengthened on the right with zeros (``extend``), then padded by ``pad_left`` and at least
    ``pad_right`` samples in ``pad_mode``, then cut into frames of ``n_fft`` every ``hop``. ``partial`` says whether a
    last frame that the padded signal only partly fills counts (the padding grows to fill it) or is dropped.

    ==================  ========  ==============  ==============  =======
    the original        pad_mode  pad_left        pad_right       partial
    ==================  ========  ==============  ==============  =======
    torch.stft, centre  reflect   n_fft/2         n_fft/2         no
    torch.stft          --        0               0               no
    Demucs ``_spec``    reflect   3*hop/2         3*hop/2         yes
    Spleeter            zero      n_fft           n_fft-hop       yes
    ==================  ========  ==============  ==============  =======
    """

    n_fft: int
    hop: int
    bins: int
    """Bins, from DC up, that the graph sees; the others are zero on the way back."""
    pad_left: int
    pad_right: int
    pad_mode: Literal["reflect", "zero"] = "reflect"
    partial: bool = False
    normalized: bool = False
    """Both ways scaled by 1/sqrt(n_fft) as ``torch.stft(normalized=True)`` does."""
    envelope: Literal["frames", "constant"] = "frames"
    """What the inverse divides by: the squared windows of the frames there are, or their sum far from the ends."""
    extend: Literal["no", "hop", "next-hop"] = "no"
    """Zeros appended first: none, up to a multiple of ``hop``, or up to the next multiple even if N is one."""
    frame_multiple: int = 1
    """With ``extend``, further hops of zeros until the number of frames is a multiple of this."""

    def __post_init__(self) -> None:
        _check(2 <= self.n_fft <= 1 << 16 and self.n_fft % 2 == 0, f"n_fft {self.n_fft}")
        _check(self.n_fft <= 64 * self.hop <= 64 * self.n_fft, f"hop {self.hop} of n_fft {self.n_fft}")
        _check(1 <= self.bins <= self.n_fft // 2 + 1, f"{self.bins} bins of {self.n_fft // 2 + 1}")
        _check(0 <= self.pad_left <= 4 * self.n_fft and 0 <= self.pad_right <= 4 * self.n_fft, "STFT padding")
        _check(1 <= self.frame_multiple <= MAX_SAMPLES // self.hop, f"frame_multiple {self.frame_multiple}")


@dataclass(frozen=True)
class Chunks:
    """How a song is cut in time for waveform, hybrid and complex graphs, and joined again.

    Chunks of ``length`` samples start every ``int((1 - overlap) * length)`` and are joined with triangular weights that
    sum to one (Demucs, ``demucs.apply.apply_model``). A last chunk shorter than ``length`` is centred in context from
    the song, zeros beyond it, of as many samples as the graph takes.
    """

    length: int
    overlap: float = 0.25
    fixed: bool = True
    """The graph takes chunks of exactly ``length``; otherwise a song of at most ``whole`` samples runs in one piece."""
    least: int = 0
    """The graph takes ``least``, ``least + step``, ... samples, and reads a chunk at the next of these: 1 means at its
    own length (HDemucs), 4778 and a step of 2048 at one that Demucs v3 calls valid. 0: always at ``length``."""
    step: int = 1
    whole: int = 0
    align: int = 1
    """Chunks begin at multiples of this in the song: what a network that halves its frames again and again gives
    depends on where its grid lies."""
    max_shift: int = 0
    """Largest random offset of the shift trick; 0 where the original has none."""

    def __post_init__(self) -> None:
        _check(1 <= self.length <= MAX_SAMPLES, f"chunk length {self.length}")
        _check(0 <= self.whole <= MAX_SAMPLES and 0 <= self.max_shift <= MAX_SAMPLES, "whole or max_shift")
        _check(0.0 <= self.overlap < 1.0, f"overlap {self.overlap}")
        _check(0 <= self.least <= MAX_SAMPLES and 1 <= self.step <= MAX_SAMPLES, f"least {self.least}, {self.step}")
        _check(1 <= self.align <= MAX_SAMPLES, f"align {self.align}")
        _check(not (self.fixed and self.least), "chunks of a fixed length and others")


@dataclass(frozen=True)
class Blocks:
    """How the frames of one continuous STFT are grouped for magnitude graphs.

    ``frames`` frames make a block, ``batch`` blocks a run. With ``overlap`` (frames) neighbouring blocks are joined
    with linear cross-fades of their outputs. ``padded``: a last, shorter block is filled with zero frames; where not,
    the graph takes any number of frames. A song of at most ``whole`` frames runs in one piece.
    """

    frames: int
    batch: int = 1
    overlap: int = 0
    padded: bool = True
    whole: int = 0

    def __post_init__(self) -> None:
        _check(1 <= self.frames <= MAX_SAMPLES // 512, f"{self.frames} frames a block")
        _check(0 <= self.whole <= MAX_SAMPLES // 512, f"whole {self.whole}")
        _check(1 <= self.batch <= MAX_SAMPLES // 512 // self.frames, f"batch {self.batch}")
        _check(0 <= self.overlap <= self.frames // 2, f"overlap {self.overlap} of {self.frames} frames")


@dataclass(frozen=True)
class Normalization:
    """Standardisation outside the graph.

    ``track``: the song by mean and standard deviation (ddof 1) of its mono mix, undone on the stems (Demucs).
    ``spectrum``: a graph's complex input by mean and standard deviation (ddof 1) over channel, bin and frame of the
    whole song (Moises-Light); the outputs are not touched. ``eps`` is added to the deviation.
    """

    kind: Literal["none", "track", "spectrum"] = "none"
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(0.0 <= self.eps <= 1.0, f"eps {self.eps}")


@dataclass(frozen=True)
class Filter:
    """From a magnitude graph's outputs to stem spectra: the defaults, which the caller may change.

    ``mask``: the mask times the mixture's STFT, by default; ``alpha`` > 0 makes it LarsNet's alpha-Wiener filter.
    ``ratio``: (v_s^p + eps/S) / (sum v^p + eps) with exponent ``p`` times the mixture's STFT (Spleeter).
    ``wiener``: magnitudes with the mixture's phase, or a softmask, then ``iterations`` of multichannel EM over windows
    of ``window`` frames (Open-Unmix; Uhlich et al. 2017, Nugraha et al. 2016).
    """

    method: Literal["mask", "ratio", "wiener"] = "mask"
    exponent: float = 2.0
    eps: float = 1e-10
    iterations: int = 0
    softmask: bool = False
    alpha: float = 0.0
    window: int = 300
    above: Literal["zeros", "average"] = "zeros"
    """What the masks are above the graph's bins: zero, or each frame's mean over the bins below (Spleeter)."""

    def __post_init__(self) -> None:
        _check(0.0 < self.exponent <= 16.0 and 0.0 <= self.alpha <= 16.0, f"exponents {self.exponent}, {self.alpha}")
        _check(0.0 <= self.eps <= 1.0, f"eps {self.eps}")
        _check(0 <= self.iterations <= 64, f"{self.iterations} iterations")
        _check(1 <= self.window <= MAX_SAMPLES // 512, f"window {self.window}")


@dataclass(frozen=True)
class Member:
    """One graph of a bag: its file beside the others, and a weight for each of the model's stems.

    A weight of zero means that the stem never needs this graph. A stem is the weighted mean over the members. Row k of
    a member's output is the model's stem ``rows[k]``.
    """

    file: str
    weights: tuple[float, ...]
    rows: tuple[int, ...]

    def __post_init__(self) -> None:
        plain = self.file not in ("", ".", "..") and not any(c in "/\\:" or c < " " for c in self.file)
        _check(plain, f"the member file {self.file!r} is not a plain file name")
        _check(all(0.0 <= w < 1e6 for w in self.weights), f"{self.file}: weights {self.weights}")
        _check(len(set(self.rows)) == len(self.rows), f"{self.file}: rows {self.rows}")


@dataclass(frozen=True)
class Weights:
    """Where the parameters came from, and what may be done with them."""

    source: str = ""
    """URL, file name, or ``random:SEED``."""
    sha256: str = ""
    licence: str = ""
    redistributable: bool | None = None
    """None where the publisher does not say."""
    random: bool = False


@dataclass(frozen=True)
class Figure:
    """One measured comparison: signal-to-noise ratio in dB of ``stage`` against the original, and its gate."""

    stage: str
    db: float
    gate: float
    against: str = ""


@dataclass(frozen=True)
class Timing:
    """What a graph's run takes against the float32 graph's: medians of interleaved runs, on one machine."""

    stage: str
    ratio: float
    """Median of the ratios of neighbouring runs; below 1 is faster."""
    seconds: float
    machine: str
    """What it was measured on, and with which runtime: the ratio is another elsewhere."""


@dataclass(frozen=True)
class ModelSpec:
    """All that the runtime knows about a model. See the module and the parts for shapes and units."""

    name: str
    family: str
    stems: tuple[str, ...]
    sample_rate: int
    channels: int
    domain: Domain
    output: Literal["stems", "stem_spectra", "masks", "stem_magnitudes", "hybrid"]
    """What the graph gives: ``masks`` multiply the input's STFT; ``hybrid`` is ``stems`` plus ``stem_spectra``."""
    stft: STFT | None = None
    inverse: STFT | None = None
    """The inverse transform where it is not that of ``stft``; a graph may then give more frames than it takes."""
    chunks: Chunks | None = None
    blocks: Blocks | None = None
    normalization: Normalization = Normalization()
    filter: Filter | None = None
    bag: tuple[Member, ...] = ()
    """Empty for a model of one graph; otherwise every file carries the whole bag, and ``domain``, ``output``, ``stft``,
    ``inverse`` and ``chunks`` of its own graph."""
    content: str = "music"
    """What to feed: ``music`` (a whole song), ``drums``, ``speech``. A chain feeds the stem of this name."""
    bandwidth: float | None = None
    """Hz above which stems are silent by construction; None for the full band."""
    weights: Weights = Weights()
    precision: str = "fp32"
    portable: bool = True
    """Only operators of the ONNX standard; otherwise com.microsoft operators too, which ONNX Runtime has."""
    parameters: int = 0
    validation: tuple[Figure, ...] = ()
    timing: tuple[Timing, ...] = ()
    exporter: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(len(self.stems) >= 1 and len(set(self.stems)) == len(self.stems), f"stems {self.stems}")
        _check(1000 <= self.sample_rate <= 768_000, f"sample rate {self.sample_rate}")
        _check(1 <= self.channels <= 64, f"{self.channels} channels")
        _check((self.stft is None) == (self.domain == "waveform"), f"domain {self.domain} and its STFT don't agree")
        _check(self.inverse is None or self.stft is not None, "an inverse STFT without an STFT")
        if self.domain == "magnitude":
            _check(self.blocks is not None and self.filter is not None, "a magnitude graph needs blocks and a filter")
        else:
            _check(self.chunks is not None, f"a {self.domain} graph needs chunks")
        for member in self.bag:
            _check(len(member.weights) == len(self.stems), f"{member.file}: a weight for each stem")
            _check(all(0 <= r < len(self.stems) for r in member.rows), f"{member.file}: rows {member.rows}")
            given = all(r in member.rows for r, weight in enumerate(member.weights) if weight)
            _check(given, f"{member.file}: a weight for a stem that it does not give")
        fed = not self.bag or all(any(member.weights[s] for member in self.bag) for s in range(len(self.stems)))
        _check(fed, "a stem that no member of the bag gives")
        _check(self.output in OUTPUTS[self.domain], f"a {self.domain} graph that gives {self.output}")
        _check(self.bandwidth is None or 0.0 < self.bandwidth <= 1e6, f"bandwidth {self.bandwidth}")
        _check(self.parameters >= 0, f"{self.parameters} parameters")

    def to_json(self) -> str:
        """The spec as one line of JSON, ``format`` first; equal specs give equal text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str, where: str = "the model") -> ModelSpec:
    """Read a spec. Raises ModelError for text that is not one, or is of a newer format than this runtime knows."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} carries a spec that is not JSON ({error}); export the model again") from error
    if not isinstance(data, dict) or type(data.get("format")) is not int or data["format"] < 1:
        raise ModelError(f"{where} carries a spec without a format number; export the model again")
    if data["format"] > FORMAT:
        raise ModelError(
            f"{where} has a spec of format {data['format']} and this ortsep reads up to {FORMAT}; "
            "upgrade ortsep (pip install -U ortsep) or export the model with this version"
        )
    try:
        spec = _decode(ModelSpec, data, "spec", where)
    except RecursionError as error:
        raise ModelError(f"{where} carries a spec that is nested too deeply; export the model again") from error
    assert isinstance(spec, ModelSpec)
    return spec


def _decode(kind: Any, value: Any, path: str, where: str) -> Any:
    """Build a value of the annotated type ``kind`` from parsed JSON, or raise ModelError naming the path."""

    def wrong() -> ModelError:
        return ModelError(f"{where}: {path} in the spec can't be {str(value)[:60]!r}; export the model again")

    origin = typing.get_origin(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise wrong()
        hints = typing.get_type_hints(kind)
        known = {f.name for f in fields(kind)}
        given = {k: _decode(hints[k], v, f"{path}.{k}", where) for k, v in value.items() if k in known}
        try:
            return kind(**given)
        except TypeError as error:
            raise ModelError(f"{where}: {path} in the spec is incomplete ({error}); export the model again") from error
    if origin in (Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        return _decode(next(o for o in options if o is not type(None)), value, path, where)
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise wrong()
        return value
    if origin is tuple:
        if not isinstance(value, list) or len(value) > 4096:
            raise wrong()
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, v, f"{path}[{i}]", where) for i, v in enumerate(value))
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if type(value) is not kind or (kind is float and math.isnan(value)):
        raise wrong()
    return value
