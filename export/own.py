"""Any torch network of one's own: the way in for architectures that no family here knows.

``MODULE:FACTORY`` names a network, or a function that makes one; a small toml or ``--set`` says what it is for
(``Own``). The network takes one tensor and gives one, in ortsep's layout (B batch, C channels, S stems, F bins,
T frames, N samples), with any transform outside:

    waveform   mix [B,C,N]             -> stems [B,S,C,N]
    magnitude  magnitude [B,C,F,T]     -> masks or stem_magnitudes [B,S,C,F,T]
    complex    spectrum [B,2C,F,T]     -> stem_spectra, masks or part_masks [B,S,2C,F,T]; L_re L_im R_re R_im
"""

import contextlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch

from ortsep.base.arrays import F32
from ortsep.base.decibels import in_words, snr
from ortsep.base.errors import FileMissing, ModelError, UsageError
from ortsep.export.family import OWN, Choice, Complex, Float, Original, stereo
from ortsep.export.graph.precision import GATES, run_graph
from ortsep.export.own_source import digest_of, load_into, network_of
from ortsep.export.passes import optimize
from ortsep.export.simplify import simplify
from ortsep.export.torch_graph import free_axes, graph_of
from ortsep.models.decode import decode
from ortsep.models.spec import (
    STFT,
    Blocks,
    Chunks,
    Figure,
    Filter,
    Fixed,
    Free,
    ModelSpec,
    Normalization,
    Stepped,
    Weights,
)

CHANCE = 6.0
"""dB that two float32 sums of one network may differ by."""
FLOOR = 60.0
"""dB below which no graph is written, however far the network is from itself: then it draws at random."""
_INPUT = {"waveform": "mix", "magnitude": "magnitude", "complex": "spectrum"}
_OUTPUTS = {
    "waveform": ("stems",),
    "magnitude": ("masks", "stem_magnitudes"),
    "complex": ("stem_spectra", "masks", "part_masks"),
}
_LEVELS = (50.0, 0.001)
"""Of the noise that a graph is compared on, beside 1."""
LONGEST = 3600.0
"""Seconds of a chunk."""
_BATCH = 2
"""Of the example: torch takes an axis of one for one that is always so."""


@dataclass(frozen=True)
class Own:
    """What a network is for, as its toml says it."""

    domain: Literal["waveform", "magnitude", "complex"]
    stems: tuple[str, ...] = ()
    name: str = ""
    sample_rate: int = 44100
    channels: int = 2
    output: str = ""
    """What the network gives; by default the first of its domain."""
    chunk: float = 8.0
    """Seconds of a chunk, or of a block of frames."""
    multiple: int = 1
    """Samples (waveform) or frames that the network's length is a multiple of."""
    free: bool = False
    """The network takes any length, not just that of a chunk."""
    overlap: float = 0.25
    n_fft: int = 4096
    hop: int = 1024
    bins: int = 0
    """Bins from DC up that the network sees; all by default."""
    normalized: bool = False
    """As ``torch.stft(normalized=True)``."""
    normalization: Literal["none", "track", "spectrum", "chunk"] = "none"
    filter: Literal["ratio", "wiener"] = "ratio"
    """What makes stems of ``stem_magnitudes``."""
    iterations: int = 0
    """Of the Wiener filter's EM."""
    licence: str = ""
    content: str = "music"
    simplify: bool = False
    """Try onnxsim, and keep what it makes where that gains."""

    def spec(self, name: str) -> ModelSpec:
        """Raises ModelError for settings that don't fit together, UsageError without stems."""
        if not self.stems:
            raise UsageError("a network doesn't say what its stems are; name them in order with --stems A,B")
        self._check()
        outputs, domain = _OUTPUTS[self.domain], self.domain
        if self.output and self.output not in outputs:
            raise UsageError(f"a {domain} network gives {' or '.join(outputs)}, not {self.output}; change output")
        output: Any = self.output or outputs[0]
        basic: dict[str, Any] = {"name": self.name or name, "family": "own", "stems": self.stems}
        basic |= {"sample_rate": self.sample_rate, "channels": self.channels, "content": self.content}
        basic |= {"domain": domain, "output": output, "normalization": Normalization(self.normalization)}
        if domain == "waveform":
            return ModelSpec(**basic, chunks=self._samples())
        bins = self.bins or self.n_fft // 2 + 1
        frames = _up(max(2, round(self.chunk * self.sample_rate / self.hop)), self.multiple)
        cut = bins * self.sample_rate / self.n_fft
        basic["bandwidth"] = cut if bins < self.n_fft // 2 else None
        half = self.n_fft // 2
        stft = STFT(self.n_fft, self.hop, bins, half, half, normalized=self.normalized)
        if domain == "magnitude":
            overlap = min(frames // 2, round(self.overlap * frames))
            blocks = Blocks(frames, overlap=overlap, padded=not self.free or self.multiple > 1)
            method: Any = "mask" if output == "masks" else self.filter
            how = Filter(method, exponent=1.0 if method == "ratio" else 2.0, iterations=self.iterations)
            return ModelSpec(**basic, stft=stft, blocks=blocks, filter=how)
        if self.free and self.multiple > 1:
            stft = replace(stft, extend="hop", frame_multiple=self.multiple)
        takes = Free() if self.free else Fixed()
        chunks = Chunks((frames - 1) * self.hop, self.overlap, takes=takes, align=self.hop)
        return ModelSpec(**basic, stft=stft, chunks=chunks)

    def _check(self) -> None:
        """Raise UsageError for numbers that nothing can be computed with."""
        ranges = {"chunk": (1e-3, LONGEST), "overlap": (0, 0.99), "n_fft": (2, 1 << 20), "hop": (1, 1 << 20)}
        ranges |= {"multiple": (1, 1 << 24), "sample_rate": (1000, 768_000)}
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} = {getattr(self, name):g} is not from {least:g} to {most:g}; change it")

    def _samples(self) -> Chunks:
        length = _up(max(1, round(self.chunk * self.sample_rate)), self.multiple)
        takes: Any = Fixed()
        if self.free:
            takes = Free() if self.multiple == 1 else Stepped(self.multiple, self.multiple)
        return Chunks(length, self.overlap, takes=takes)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def open_own(name: str, choice: Choice) -> "OwnNetwork":
    """The network ``torch:MODULE:FACTORY;NAME=VALUE``, with the settings of ``choice.config`` (toml) beneath.

    ``choice.path`` is a checkpoint for it, ``choice.seed`` seeds torch before the factory is called. Raises UsageError,
    FileMissing, WeightsError, ModelError.
    """
    source, *settings = name.removeprefix(OWN).split(";")
    data = _table(choice.config)
    for text in settings:
        key, _, value = text.partition("=")
        data[key] = _value(value)
    if choice.stems:
        data["stems"] = list(choice.stems)
    if unknown := set(data) - set(Own.__dataclass_fields__):
        known = ", ".join(Own.__dataclass_fields__)
        raise UsageError(f"a network has no setting {sorted(unknown)[0]!r}; the settings are {known}")
    if "domain" not in data:
        raise UsageError("say what the network hears: --set domain=waveform, magnitude or complex, or in --config FILE")
    own: Own = decode(Own, data, "settings", str(choice.config or "--set"))
    if choice.seed is not None:
        torch.manual_seed(choice.seed)
    network = network_of(source)
    if choice.path is not None:
        load_into(network, choice.path)
    module, _, factory = source.rpartition(":")
    spec = own.spec(f"{Path(module).stem.rpartition('.')[2]}-{factory}")
    weights = choice.path.name if choice.path else f"{OWN}{Path(module).name}:{factory}"
    random = choice.seed is not None
    told = Weights(f"random:{choice.seed}" if random else weights, digest_of(network), own.licence, random=random)
    return OwnNetwork(network.eval().float(), replace(spec, weights=told), own, choice.say)


def _table(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileMissing(f"there is no configuration at {path}; check the path given to --config") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read as toml ({error}); mend it") from error


def _value(text: str) -> Any:
    """A value as toml writes it; what is none is a word."""
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(f"x = {text}")["x"]
    return text


class OwnNetwork(Original):
    """A network of the user's as an original: it is compared with itself in float64."""

    def __init__(self, network: torch.nn.Module, spec: ModelSpec, own: Own, say: Callable[[str], None]) -> None:
        count = sum(p.numel() for p in network.parameters())
        self.spec = replace(spec, parameters=count)
        self._network, self._own, self._say = network, own, say

    @property
    def package(self) -> str:
        return "torch.stft"

    @property
    def _names(self) -> tuple[str, str]:
        output = "masks" if self.spec.output == "part_masks" else self.spec.output
        return _INPUT[self.spec.domain], output

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """The one graph, optimised; refused where it is further from the network than float32 itself is."""
        noise = np.random.default_rng(0).standard_normal((self.spec.channels, self._length)) * 0.1
        inputs = self.example(0, noise.astype(np.float32))
        (given,) = inputs.values()
        self._check_shape(given)
        axes = {0: "batch", **({given.ndim - 1: "length"} if self._own.free else {})}
        example = torch.from_numpy(np.repeat(given, _BATCH, axis=0))
        made = graph_of(self._network, example, axes, self._names, self._say)
        if stuck := set(axes) - free_axes(made):
            what = " and ".join(axes[axis] for axis in sorted(stuck))
            if 0 not in stuck or len(axes) > 1:
                raise ModelError(
                    f"the graph has a fixed {what}, since the network computes with that size as a Python number; make "
                    "it depend on the tensor's shape alone, or leave free out of the settings"
                )
            made = graph_of(self._network, torch.from_numpy(given), {}, self._names, self._say)
        before = len(made.graph.node)
        made, _ = optimize(made, portable=portable)
        self._say(f"ortsep's passes: {before} -> {len(made.graph.node)} nodes")
        if self._own.simplify:
            made, _ = simplify(made, inputs, gate=GATES["fp32"], portable=portable, say=self._say)
        figure = self._worst(made)
        self._say(f"{figure.stage}: {in_words(figure.db)} (gate {figure.gate:.0f}, {figure.against})")
        if not figure.db >= figure.gate:
            raise ModelError(
                f"the graph keeps {figure.db:.1f} dB of the network, below {figure.gate:.0f}: something in it was "
                "frozen while it was traced; look for Python numbers, conditions and random values in forward"
            )
        self.spec = replace(self.spec, validation=(figure,))
        yield f"{self.spec.name}.onnx", made

    def _probe(self) -> dict[str, F32]:
        """Other noise than what was traced, louder and, where that may be, shorter: what was frozen shows itself."""
        noise = np.random.default_rng(1).standard_normal((self.spec.channels, self._length)) * 0.2
        ((name, given),) = self.example(0, noise.astype(np.float32)).items()
        if self._own.free:
            step = self._own.multiple
            given = given[..., : max(step, given.shape[-1] * 2 // 3 // step * step)]
        return {name: np.ascontiguousarray(given)}

    def _check_shape(self, given: F32) -> None:
        stems, channels = len(self.spec.stems), self.spec.channels
        wanted = (1, stems, *given.shape[1:])
        with torch.no_grad():
            try:
                out = self._network(torch.from_numpy(given))
            except Exception as error:  # the user's own code
                cause = (str(error).splitlines() or [""])[0][:200]
                raise ModelError(
                    f"the network fails on {self._names[0]} {list(given.shape)} ({type(error).__name__}: {cause}); "
                    "check channels, n_fft, bins, chunk and multiple of its settings"
                ) from error
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        if got != wanted:
            raise ModelError(
                f"the network gives {got} for {list(given.shape)}, and {stems} stems of {channels} channels are "
                f"{wanted}; change its forward or the settings"
            )

    def _worst(self, model: onnx.ModelProto) -> Figure:
        """The figure nearest to its gate: for noise as loud as music, and far louder and quieter where float32 does it.

        A condition on what tensors hold, frozen by a trace, shows itself where it would decide otherwise.
        """
        ((name, given),) = self._probe().items()
        figure = self._compared(model, {name: given})
        if figure is None:
            raise ModelError(
                "the network gives numbers that are not finite for noise; look for a division by zero, or the "
                "logarithm or root of what is negative, in forward and in its weights"
            )
        others = (self._compared(model, {name: given * np.float32(scale)}) for scale in _LEVELS)
        return min([figure, *(f for f in others if f and f.gate > FLOOR)], key=lambda f: f.db - f.gate)

    def _compared(self, model: onnx.ModelProto, inputs: Mapping[str, F32]) -> Figure | None:
        """The graph against the network in float64; what the network in float32 has against it bounds the gate.

        None where the network itself gives what is not finite.
        """
        (reference,) = self.network(0, inputs).values()
        (result,) = run_graph(model, inputs).values()
        with torch.no_grad():
            single = self._network(torch.from_numpy(next(iter(inputs.values())))).numpy()
        if not (np.isfinite(reference).all() and np.isfinite(single).all()):
            return None
        gate = max(FLOOR, min(GATES["fp32"], snr(reference, single) - CHANCE))
        return Figure(f"graph: {self._names[1]}, noise", snr(reference, result), gate, self.against)

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        (given,) = inputs.values()
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # for tensors that forward makes
        try:
            with torch.no_grad():
                out = deepcopy(self._network).double()(torch.from_numpy(given).double())
        except RuntimeError as error:
            raise ModelError(
                f"the network can't compute in float64 ({(str(error).splitlines() or [''])[0][:200]}), with which its "
                "graph is compared; leave types out of forward"
            ) from error
        finally:
            torch.set_default_dtype(before)
        return {self._names[1]: out.numpy()}

    @property
    def _length(self) -> int:
        """Samples of an example."""
        spec = self.spec
        if spec.chunks is not None:
            return spec.chunks.length
        assert spec.blocks is not None and spec.stft is not None
        return (spec.blocks.frames - 1) * spec.stft.hop

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        spec = self.spec
        x = stereo(mix) if spec.channels == 2 else mix
        x = np.resize(x, (len(x), self._length)) if x.shape[1] < self._length else x[:, : self._length]
        if spec.normalization.kind == "track":
            mono = x.mean(axis=0)
            x = (x - mono.mean()) / (mono.std(ddof=1) + spec.normalization.eps)
        if spec.domain == "waveform":
            return {"mix": np.ascontiguousarray(x[None], np.float32)}
        spectrum = self.transform(x.astype(np.float32))
        assert spectrum is not None
        if spec.domain == "magnitude":
            return {"magnitude": np.abs(spectrum)[None].astype(np.float32)}
        parts = np.stack([spectrum.real, spectrum.imag], axis=1).reshape(-1, *spectrum.shape[1:]).astype(np.float64)
        if spec.normalization.kind == "spectrum":
            parts = (parts - parts.mean()) / (parts.std(ddof=1) + spec.normalization.eps)
        return {"spectrum": parts[None].astype(np.float32)}

    def _transforming(self) -> tuple[STFT, dict[str, Any]]:
        stft = self.spec.stft
        assert stft is not None
        shape = {"n_fft": stft.n_fft, "hop_length": stft.hop, "normalized": stft.normalized}
        return stft, {**shape, "window": torch.hann_window(stft.n_fft), "center": True}

    def transform(self, mix: F32, member: int = 0) -> Complex | None:
        if self.spec.stft is None:
            return None
        stft, how = self._transforming()
        hops = -(-mix.shape[1] // stft.hop)
        hops += -(hops + 1) % stft.frame_multiple
        samples = hops * stft.hop if stft.extend != "no" else mix.shape[1]
        x = np.pad(mix, ((0, 0), (0, samples - mix.shape[1])))
        spectrum: Complex = torch.stft(torch.from_numpy(x), **how, return_complex=True).numpy()
        return spectrum[:, : stft.bins]

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32 | None:
        if self.spec.stft is None:
            return None
        stft, how = self._transforming()
        whole = torch.zeros(len(spectrum), stft.n_fft // 2 + 1, spectrum.shape[-1], dtype=torch.complex64)
        whole[:, : stft.bins] = torch.from_numpy(np.asarray(spectrum, np.complex64))
        wave: F32 = torch.istft(whole, **how, length=samples).numpy()
        return wave

    def separate(self, mix: F32) -> F32 | None:
        """None: nobody else separates with this network."""
        return None

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        raise UsageError("a network of one's own has no separation of its own to be timed; leave --against out")
