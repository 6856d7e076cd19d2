"""What MSST's networks from a spectrum to their stems' spectra have in common: transforms, cards, the song around.

How a song is cut and joined is ``ortsep.export.weights.msst_demix``; here is the rest of an ``Original``.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from ortsep.base.arrays import F32
from ortsep.base.errors import WeightsError
from ortsep.export.family import Choice, Complex, Float, Original, refuse_config, stereo, with_the_rest
from ortsep.export.weights.download import fetch
from ortsep.export.weights.frontdoor import Checkpoint, name_stems, open_checkpoint
from ortsep.export.weights.msst_demix import cuts, demix, normalization
from ortsep.export.weights.msst_yaml import Settings, settings
from ortsep.models.catalogue import Card, folder_name
from ortsep.models.spec import Derived, ModelSpec, Weights

if TYPE_CHECKING:
    import torch

    Forward = Callable[[torch.Tensor], torch.Tensor]

PACKAGE = "MSST's formula"
State = dict[str, npt.NDArray[Any]]
"""A network's parameters by name, arrays."""


@dataclass(frozen=True)
class Transform:
    """A network's own transform: torch's, centred and reflected, by the arguments that the network gives it."""

    n_fft: int
    hop: int
    bins: int
    hann: bool = True
    normalized: bool = False
    padded: Callable[[int], int] = lambda samples: samples
    """Samples, and how many they are with the network's own zeros behind them."""

    def _arguments(self) -> dict[str, Any]:
        import torch

        window = torch.hann_window(self.n_fft) if self.hann else torch.ones(self.n_fft)
        return {"n_fft": self.n_fft, "hop_length": self.hop, "window": window, "normalized": self.normalized}

    def forward(self, mix: F32) -> Complex:
        """[C, N] to [C, F, T]."""
        import torch

        x = torch.zeros(len(mix), self.padded(mix.shape[1]))
        x[:, : mix.shape[1]] = torch.from_numpy(np.ascontiguousarray(mix, np.float32))
        spectrum: Complex = torch.stft(x, **self._arguments(), return_complex=True)[:, : self.bins].numpy()
        return spectrum

    def inverse(self, spectrum: Complex, samples: int) -> F32:
        """[..., F, T] to [..., N]; bins that the network doesn't give are silent."""
        import torch

        shape = (int(np.prod(spectrum.shape[:-2])), self.n_fft // 2 + 1, spectrum.shape[-1])
        whole = torch.zeros(shape, dtype=torch.complex64)
        whole[:, : self.bins] = torch.from_numpy(np.asarray(spectrum, np.complex64)).flatten(0, -3)
        wave: F32 = torch.istft(whole, **self._arguments(), length=self.padded(samples)).numpy()
        return wave[:, :samples].reshape(*spectrum.shape[:-2], samples)


@dataclass(frozen=True)
class SpectralNetwork(Original):
    """A network from a spectrum to its stems' spectra, and MSST around it: see ``ortsep.export.family.Original``."""

    spec: ModelSpec
    file: str
    settings: Settings
    """With the chunk that the graph is made for."""
    transforms: Transform
    forward: Callable[["torch.dtype"], "Forward"]
    """The network in a precision: [B, 2C, F, T] to [B, S, 2C, F, T]."""
    build: Callable[[bool], onnx.ModelProto]
    """The graph, portable or not."""
    oracle: Callable[[Path], "Forward"] | None = None
    """MSST's own network out of a checkout, from a wave [B, C, N] to stems [B, S, C, N]."""
    theirs: "Forward | None" = None
    """That network, where it is wanted."""

    @property
    def package(self) -> str:
        return "MSST's own code" if self.theirs else PACKAGE

    def beside(self, oracle: Path) -> Original:
        return replace(self, theirs=self.oracle(oracle)) if self.oracle else super().beside(oracle)

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        yield self.file, self.build(portable)

    def transform(self, mix: F32, member: int = 0) -> Complex:
        return self.transforms.forward(mix)

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        return self.transforms.inverse(spectrum, samples)

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        import torch

        with torch.inference_mode():
            out = self.forward(torch.float64)(torch.from_numpy(inputs["spectrum"]).double())
        return {"stem_spectra": out.numpy()}

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """The first chunk; a shorter song fills it with zeros."""
        mix = stereo(mix) if self.spec.channels == 2 else mix
        chunk = np.zeros((len(mix), self.settings.chunk), np.float32)
        chunk[:, : mix.shape[1]] = mix[:, : self.settings.chunk]
        return {"spectrum": as_channels(self.transforms.forward(chunk))[None]}

    def separate(self, mix: F32) -> F32:
        """The whole song by MSST's formula, in float32; the stem that is left over last."""
        import torch

        mix = stereo(mix) if self.spec.channels == 2 else mix
        forward = self.forward(torch.float32)

        def run(chunk: F32) -> F32:
            if self.theirs is not None:
                with torch.inference_mode(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a transform without a window, as these networks have it
                    waves: F32 = self.theirs(torch.from_numpy(np.ascontiguousarray(chunk))[None])[0].numpy()
                return waves
            x = torch.from_numpy(as_channels(self.transforms.forward(chunk)))[None]
            with torch.inference_mode():
                spectra: F32 = forward(x)[0].numpy()
            pairs = spectra.reshape(len(spectra), -1, 2, *spectra.shape[-2:])
            return self.transforms.inverse(pairs[:, :, 0] + 1j * pairs[:, :, 1], chunk.shape[-1])

        stems = demix(mix, self.settings, run)
        rest = [mix - stems.sum(0)] if self.spec.derived else []
        return np.concatenate([stems, np.stack(rest)]) if rest else stems

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        return f"{PACKAGE}, torch eager", self.separate


def as_channels(spectrum: Complex) -> F32:
    """Complex [C, F, T] as [2C, F, T]: real and imaginary part of one channel, then of the next."""
    pairs = np.stack([spectrum.real, spectrum.imag], axis=1)
    return pairs.reshape(-1, *spectrum.shape[1:]).astype(np.float32)


# -- from a card or a recognised checkpoint ---------------------------------------------------------------------------

DRUMS = {"kick", "snare", "toms"}
"""A model that gives one of these hears drums."""


@dataclass(frozen=True)
class Source:
    """Whose network it is: what a spec says that the network doesn't."""

    name: str
    stems: tuple[str, ...]
    """All that the network gives, in its order."""
    settings: Settings
    weights: Weights

    @classmethod
    def of(cls, checkpoint: Checkpoint, stems: tuple[str, ...]) -> "Source":
        """A user's file."""
        path = checkpoint.path
        weights = Weights(path.name, checkpoint.sha256, "unknown: not the official files", None)
        return cls(folder_name(path.stem), stems, checkpoint.settings, weights)

    def wanted(self, choice: Choice) -> tuple[int, ...]:
        """The network's rows that are asked for, all of them by default; what is left over comes with a single one.

        Raises UsageError for a stem that isn't there, or not without another.
        """
        stems = with_the_rest(self.stems, self.settings.rest, choice.stems, self.name)
        return tuple(map(self.stems.index, stems))

    def facts(self, rows: tuple[int, ...]) -> dict[str, Any]:
        """Arguments of a spec."""
        stems = tuple(self.stems[row] for row in rows)
        derived = (Derived(self.settings.rest, stems),) if self.settings.rest and len(self.stems) == 1 else ()
        content = "drums" if DRUMS & set(self.stems) else "music"
        facts = {"name": self.name, "stems": stems, "derived": derived, "content": content}
        around = {"chunks": cuts(self.settings), "normalization": normalization(self.settings)}
        return {**facts, **around, "sample_rate": self.settings.sample_rate, "weights": self.weights}


def load_card(
    card: Card,
    choice: Choice,
    from_checkpoint: Callable[[Checkpoint, Choice], Any],
    random: Callable[[Source, int, Choice], Any],
) -> Any:
    """A model of the catalogue by its family's two functions; the card holds the yaml that was published with it.

    Raises WeightsError, DownloadError, FileMissing; UsageError for a stem that the model lacks.
    """
    read = settings(card.arguments["config"], f"the card of {card.name}")
    if choice.seed is not None:
        refuse_config(card, choice)
        weights = Weights(f"random:{choice.seed}", "", "none: random parameters, which give noise", True, True)
        return random(Source(card.name, read.stems, read, weights), choice.seed, choice)
    if choice.path is None and not card.sources:
        raise WeightsError(
            f"{card.name} can't be downloaded by a program; get it at {card.homepage} and give --weights"
        )
    path = choice.path or fetch(card.sources[0], progress=choice.downloading, offline=choice.offline)
    checkpoint = open_checkpoint(path, choice.config)
    if checkpoint.architecture.family != card.family:
        raise WeightsError(
            f"{path} is {checkpoint.architecture.title} and not {card.title}; export it by its own path: "
            f"ortsep export {path}"
        )
    if not checkpoint.config:
        checkpoint = replace(checkpoint, settings=read, config=card.arguments["config"])
    original = from_checkpoint(checkpoint, choice)
    spec = replace(original.spec, name=card.name)
    official = card.sources[0] if choice.path is None else None
    if official is not None:
        spec = replace(spec, weights=Weights(official.url, checkpoint.sha256, card.licence, card.redistributable))
    return replace(original, spec=spec)


@dataclass(frozen=True)
class Makers:
    """A family's own functions, and of them what its module gives to the table of families."""

    read: Callable[[Checkpoint], Any]
    """The architecture in a checkpoint. Raises WeightsError."""
    describe: Callable[[Settings, int, str], Any]
    """The architecture of a yaml, with so many stems, for a model of that name. Raises WeightsError."""
    outputs: Callable[[Any], int]
    """How many stems an architecture gives."""
    random_state: Callable[[Any, int], State]
    original: Callable[[Any, State, Source, tuple[int, ...]], SpectralNetwork]
    """From architecture and parameters, the rows that are wanted."""

    def load(self, card: Card, choice: Choice) -> SpectralNetwork:
        """A model of the catalogue: its official checkpoint, ``choice.path`` in its place, or random weights.

        Raises WeightsError, DownloadError, FileMissing; UsageError for a stem that the model lacks.
        """
        original: SpectralNetwork = load_card(card, choice, self.from_checkpoint, self._random)
        return original

    def from_checkpoint(self, checkpoint: Checkpoint, choice: Choice) -> SpectralNetwork:
        """A recognised checkpoint. Raises WeightsError; UsageError for a stem that it lacks."""
        arch = self.read(checkpoint)
        source = Source.of(checkpoint, name_stems(checkpoint, self.outputs(arch), choice.stems))
        return self.original(arch, checkpoint.state, source, source.wanted(choice))

    def _random(self, source: Source, seed: int, choice: Choice) -> SpectralNetwork:
        arch = self.describe(source.settings, len(source.stems), source.name)
        return self.original(arch, self.random_state(arch, seed), source, source.wanted(choice))
