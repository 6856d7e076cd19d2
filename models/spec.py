"""The model spec: the contract between export and runtime, carried inside every graph.

A spec is a tree of frozen dataclasses, stored as JSON in the ONNX file's ``metadata_props`` under the key ``ortsep``.
It holds all that the runtime knows about a model. Lengths are samples at the model's rate unless a name says frames.
Letters in shapes: B batch, C audio channels, S stems, F bins, T frames, N samples.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ortsep.base.errors import ModelError
from ortsep.models.axes import OURS, well_formed
from ortsep.models.bands import Bands
from ortsep.models.cuts import MAX_SAMPLES, Blocks, Border, Chunks, Fixed, Free, Join, Stepped
from ortsep.models.decode import check, decode
from ortsep.models.formats import FORMAT, upgraded
from ortsep.models.parts import Part, State, check_parts

__all__ = [
    "FORMAT",
    "MAX_SAMPLES",
    "METADATA_KEY",
    "OUTPUTS",
    "STFT",
    "Blocks",
    "Border",
    "Chunks",
    "Derived",
    "Domain",
    "Figure",
    "Filter",
    "Fixed",
    "Free",
    "Join",
    "Member",
    "ModelSpec",
    "Normalization",
    "Part",
    "State",
    "Stepped",
    "Tensor",
    "Tensors",
    "Timing",
    "Weights",
    "from_json",
]

METADATA_KEY = "ortsep"

Domain = Literal["waveform", "magnitude", "complex", "hybrid", "bands"]

OUTPUTS = {
    "waveform": ("stems",),
    "magnitude": ("masks", "stem_magnitudes"),
    "complex": ("stem_spectra", "masks", "part_masks"),
    "hybrid": ("hybrid",),
    "bands": ("masks",),
}
"""What the graphs of each domain may give."""


@dataclass(frozen=True)
class STFT:
    """A short-time Fourier transform, outside the graph.

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
    window: Literal["hann", "ones"] = "hann"
    """A periodic Hann window, or none."""
    zero_before: int = 0
    """Bins from DC up that the graph hears as zero."""
    zero_after: int = 0
    """Bins from DC up that are zero in the stems, whatever the graph gave; of ``inverse``, where there is one."""

    def __post_init__(self) -> None:
        check(2 <= self.n_fft <= 1 << 16 and self.n_fft % 2 == 0, f"n_fft {self.n_fft}")
        check(self.n_fft <= 64 * self.hop <= 64 * self.n_fft, f"hop {self.hop} of n_fft {self.n_fft}")
        check(1 <= self.bins <= self.n_fft // 2 + 1, f"{self.bins} bins of {self.n_fft // 2 + 1}")
        check(0 <= self.pad_left <= 4 * self.n_fft and 0 <= self.pad_right <= 4 * self.n_fft, "STFT padding")
        check(0 <= self.zero_before <= self.bins and 0 <= self.zero_after <= self.bins, "bins that are zeroed")
        check(1 <= self.frame_multiple <= MAX_SAMPLES // self.hop, f"frame_multiple {self.frame_multiple}")


@dataclass(frozen=True)
class Normalization:
    """Standardisation outside the graph.

    ``track``: the song by mean and standard deviation of its mono mix, undone on the stems (Demucs, MSST).
    ``spectrum``: a graph's complex input by mean and standard deviation over channel, bin and frame of the whole song
    (Moises-Light); the outputs are not touched. ``chunk``: a chunk's waveform and its spectrum each by its own mean and
    standard deviation, undone on what the graph gives of each (Intel's HTDemucs). ``eps`` is added to the
    deviation; where that leaves 0, it counts as 1.
    """

    kind: Literal["none", "track", "spectrum", "chunk"] = "none"
    eps: float = 1e-8
    ddof: int = 1
    """What is taken off the number of values that the squares are divided by: 1 in Demucs and Moises-Light, 0 in
    MSST."""

    def __post_init__(self) -> None:
        check(self.ddof in (0, 1), f"ddof {self.ddof}")
        check(0.0 <= self.eps <= 1.0, f"eps {self.eps}")


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
        check(0.0 < self.exponent <= 16.0 and 0.0 <= self.alpha <= 16.0, f"exponents {self.exponent}, {self.alpha}")
        check(0.0 <= self.eps <= 1.0, f"eps {self.eps}")
        check(0 <= self.iterations <= 64, f"{self.iterations} iterations")
        check(1 <= self.window <= MAX_SAMPLES // 512, f"window {self.window}")


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
        check(plain, f"the member file {self.file!r} is not a plain file name")
        check(all(0.0 <= w < 1e6 for w in self.weights), f"{self.file}: weights {self.weights}")
        check(len(set(self.rows)) == len(self.rows), f"{self.file}: rows {self.rows}")


@dataclass(frozen=True)
class Derived:
    """A stem that no graph gives: the mixture less ``gain`` times the sum of the stems ``minus``."""

    name: str
    minus: tuple[str, ...]
    gain: float = 1.0

    def __post_init__(self) -> None:
        check(len(self.minus) >= 1 and len(set(self.minus)) == len(self.minus), f"{self.name}: less {self.minus}")
        check(0.0 < self.gain <= 16.0, f"{self.name}: gain {self.gain}")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph that is not as in ortsep's own: which of ours it is, and how it differs."""

    ours: str
    theirs: str
    """Its name in the graph."""
    axes: str = ""
    """Its axes in the notation of ``models.axes``; empty where they are ours."""
    rows: tuple[int, ...] = ()
    """Which of its stems count; empty for all."""

    def __post_init__(self) -> None:
        check(self.ours in OURS and bool(self.theirs), f"a tensor {self.theirs!r} for {self.ours!r}")
        check(not self.axes or well_formed(self.axes), f"axes {self.axes!r} of {self.theirs}")
        check(all(0 <= row < 4096 for row in self.rows), f"rows {self.rows} of {self.theirs}")


@dataclass(frozen=True)
class Tensors:
    """The inputs and outputs of other people's graphs, all of them where any differs from ours.

    Several outputs may be the same of ours: each gives further stems.
    """

    names: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        theirs = [t.theirs for t in self.names]
        check(len(set(theirs)) == len(theirs), f"tensors {theirs}")

    def only(self, rows: tuple[int, ...]) -> "Tensors":
        """The same, with only these ``rows`` of what is given."""
        return Tensors(tuple(replace(t, rows=rows) if "s" in (t.axes or OURS[t.ours]) else t for t in self.names))


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
    output: Literal["stems", "stem_spectra", "masks", "part_masks", "stem_magnitudes", "hybrid"]
    """What the graph gives: ``masks`` multiply the input's STFT, as complex numbers where they are, ``part_masks`` its
    real and imaginary parts apart (the graph calls these ``masks`` too); ``hybrid`` is ``stems`` plus
    ``stem_spectra``."""
    stft: STFT | None = None
    inverse: STFT | None = None
    """The inverse transform where it is not that of ``stft``; a graph may then give more frames than it takes."""
    chunks: Chunks | None = None
    blocks: Blocks | None = None
    parts: tuple[Part, ...] = ()
    """Of a magnitude graph that hears the whole song in constant memory, in the order in which they run; empty for one
    that runs as a whole, on ``blocks``. A runtime that doesn't know them does that too."""
    bands: Bands | None = None
    """What a graph of bands hears, whose one mask is for the first of two stems, and what it leaves for the second."""
    normalization: Normalization = Normalization()
    filter: Filter | None = None
    gains: tuple[float, ...] = ()
    """What each of ``stems`` is multiplied by (UVR's ``compensate``); empty for 1 throughout."""
    derived: tuple[Derived, ...] = ()
    """Stems that are the mixture less others; for who separates they are stems like the others, behind them."""
    tensors: Tensors = Tensors()
    bag: tuple[Member, ...] = ()
    """Empty for a model of one graph; otherwise every file carries the whole bag, and ``domain``, ``output``, ``stft``,
    ``inverse``, ``chunks`` and ``tensors`` of its own graph."""
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
    card: str = ""
    """The catalogue's entry that this is an export of, where its user gave it another name."""

    def __post_init__(self) -> None:
        check(len(self.stems) >= 1 and len(set(self.names)) == len(self.names), f"stems {self.names}")
        for derived in self.derived:
            check(set(derived.minus) <= set(self.stems), f"{derived.name}: the mixture less {derived.minus}")
        check(len(self.gains) in (0, len(self.stems)), "a gain for each stem")
        check(all(0.0 < gain <= 16.0 for gain in self.gains), f"gains {self.gains}")
        check(1000 <= self.sample_rate <= 768_000, f"sample rate {self.sample_rate}")
        check(1 <= self.channels <= 64, f"{self.channels} channels")
        plain = self.domain in ("waveform", "bands")
        check((self.stft is None) == plain, f"domain {self.domain} and its STFT don't agree")
        check(self.inverse is None or self.stft is not None, "an inverse STFT without an STFT")
        if self.domain == "magnitude":
            check(self.blocks is not None and self.filter is not None, "a magnitude graph needs blocks and a filter")
            check_parts(self.parts, "magnitude", self.output)
        elif self.domain == "bands":
            check(self.bands is not None and self.bands.rate == self.sample_rate, "a graph of bands needs the song's")
            check(len(self.stems) == 2 == self.channels and not self.bag, "a graph of bands gives two stems of two")
        else:
            check(self.chunks is not None and not self.parts, f"a {self.domain} graph needs chunks, and no parts")
        for member in self.bag:
            check(len(member.weights) == len(self.stems), f"{member.file}: a weight for each stem")
            check(all(0 <= r < len(self.stems) for r in member.rows), f"{member.file}: rows {member.rows}")
            given = all(r in member.rows for r, weight in enumerate(member.weights) if weight)
            check(given, f"{member.file}: a weight for a stem that it does not give")
        fed = not self.bag or all(any(member.weights[s] for member in self.bag) for s in range(len(self.stems)))
        check(fed, "a stem that no member of the bag gives")
        check(self.output in OUTPUTS[self.domain], f"a {self.domain} graph that gives {self.output}")
        check(self.bandwidth is None or 0.0 < self.bandwidth <= 1e6, f"bandwidth {self.bandwidth}")
        check(self.parameters >= 0, f"{self.parameters} parameters")

    @property
    def entry(self) -> str:
        """The catalogue's name of it, if it has one."""
        return self.card or self.name

    @property
    def given(self) -> tuple[int, ...]:
        """Which of ``stems`` a graph of the model gives, all but what a mask leaves."""
        return (0,) if self.domain == "bands" else tuple(range(len(self.stems)))

    @property
    def names(self) -> tuple[str, ...]:
        """The stems that one can ask for, in the order of stems.txt: those of the graphs, then those derived."""
        return (*self.stems, *(derived.name for derived in self.derived))

    def renamed(self, names: tuple[str, ...]) -> "ModelSpec":
        """The spec with other ``names``, as many as there are."""
        new = dict(zip(self.names, names, strict=True))
        derived = tuple(replace(d, name=new[d.name], minus=tuple(new[name] for name in d.minus)) for d in self.derived)
        return replace(self, stems=names[: len(self.stems)], derived=derived)

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
        spec = decode(ModelSpec, upgraded(data, where), "spec", where)
    except RecursionError as error:
        raise ModelError(f"{where} carries a spec that is nested too deeply; export the model again") from error
    assert isinstance(spec, ModelSpec)
    return spec
