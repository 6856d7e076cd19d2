"""BS-RoFormer and Mel-Band RoFormer: the catalogue's models, and any checkpoint that MSST can load.

A network gives its stems' spectra; what a yaml calls the other one of two instruments is the mixture without the
network's stem. Songs are cut and joined as MSST does with batch size 1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.families.roformer.architecture import Architecture, State, parameter_count, random_state
from ortsep.export.families.roformer.recognise import of_arguments, recognise
from ortsep.export.family import F32, Choice, Complex, Float, Original, stereo
from ortsep.export.weights.frontdoor import Checkpoint, missing_setting, name_stems, open_checkpoint
from ortsep.export.weights.msst_demix import cuts, demix, normalization
from ortsep.export.weights.msst_yaml import Settings
from ortsep.models.catalogue import Card, catalogue, folder_name
from ortsep.models.spec import STFT, Derived, ModelSpec, Weights

FAMILY = "roformer"
ROUTES: tuple[str, ...] = ()
CONFIG = "the yaml of MSST or UVR that came with the checkpoint"

LARGEST = 1_900_000_000
"""Bytes of float32 parameters in one ONNX file, which may be 2 GB; larger networks are stored as float16."""
SHORTEST = 4
"""Frames of a chunk, as many as the graph's tiles."""


@dataclass(frozen=True)
class RoFormer(Original):
    """A loaded checkpoint: see ``ortsep.export.family.Original``."""

    spec: ModelSpec
    arch: Architecture
    state: State
    rows: tuple[int, ...]
    """Which of the network's stems the spec's are."""
    settings: Settings

    @property
    def package(self) -> str:
        return "MSST's formula, torch float32"

    @property
    def frames(self) -> int:
        """Of a chunk."""
        return self.settings.chunk // self.arch.hop + 1

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        from ortsep.export.families.roformer.graph import build_graph

        half = self.spec.precision == "fp16-weights"
        graph = build_graph(self.arch, self.state, self.rows, positions=2 * self.frames, portable=portable, half=half)
        yield f"{folder_name(self.spec.name)}.onnx", graph

    def _window(self, dtype: Any) -> dict[str, Any]:
        import torch

        arch = self.arch
        window = torch.hann_window(arch.n_fft, dtype=dtype)
        return {"n_fft": arch.n_fft, "hop_length": arch.hop, "window": window, "normalized": arch.normalized}

    def transform(self, mix: F32, member: int = 0) -> Complex:
        import torch

        x = torch.from_numpy(np.ascontiguousarray(mix)).double()
        spectrum: Complex = torch.stft(x, **self._window(torch.float64), return_complex=True).numpy()
        return spectrum

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        import torch

        x = torch.from_numpy(np.ascontiguousarray(spectrum)).to(torch.complex128)
        wave: F32 = torch.istft(x, **self._window(torch.float64), length=samples).float().numpy()
        return wave

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        from ortsep.export.families.roformer.network import run

        return {"stem_spectra": run(self.arch, self.state, inputs)[:, list(self.rows)]}

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """A chunk of the mixture, filled with zeros."""
        chunk = np.zeros((self.arch.channels, self.settings.chunk), np.float32)
        heard = self._heard(mix)[:, : self.settings.chunk]
        chunk[:, : heard.shape[1]] = heard
        spectrum = self.transform(chunk)
        parts = np.stack([spectrum.real, spectrum.imag], axis=1)
        return {"spectrum": parts.reshape(1, -1, *spectrum.shape[1:]).astype(np.float32)}

    def _heard(self, mix: F32) -> F32:
        return stereo(mix) if self.arch.channels == 2 else mix

    def separate(self, mix: F32) -> F32:
        """In float32, as MSST on a CPU; the stem that is left over last: [S, C, N]."""
        return self.separate_in(mix, "float32")

    def separate_in(self, mix: F32, precision: str) -> F32:
        """``separate`` with a network and STFT of ``float32`` or ``float64``."""
        import torch

        from ortsep.export.families.roformer.network import Network

        dtype = getattr(torch, precision)
        network, window = Network(self.arch, self.state, dtype), self._window(dtype)

        def chunk(part: F32) -> Float:
            x = torch.from_numpy(np.ascontiguousarray(part)).to(dtype)
            with torch.inference_mode():
                spectrum = torch.stft(x, **window, return_complex=True)
                stems = network.masked(spectrum[None])[0, list(self.rows)]
                waves = torch.istft(stems.flatten(0, 1), **window, length=part.shape[1])
            out: Float = waves.view(len(self.rows), *part.shape).numpy()
            return out

        heard = self._heard(mix)
        stems = demix(heard, self.settings, chunk)
        rest = [heard - stems[list(self.spec.stems).index(derived.minus[0])] for derived in self.spec.derived]
        return np.concatenate([stems, np.stack(rest)]) if rest else stems

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        return "the network in MSST's chunks, torch eager", self.separate


def load(card: Card, choice: Choice) -> RoFormer:
    """Load a model of the catalogue: its official file, another file of the same network, or random weights.

    Raises FileMissing, WeightsError, DownloadError, UsageError.
    """
    arch, content = of_arguments(card.arguments, card.sample_rate), card.arguments.get("content", "music")
    if choice.seed is not None:
        if choice.config is not None:
            raise UsageError(f"random weights of {card.name} take no configuration; leave --config out")
        found = _Found(card.name, arch, random_state(arch, choice.seed), _card_settings(card), content=content)
        return _original(found, choice, Weights(f"random:{choice.seed}", random=True))
    path = choice.path
    if path is None and not card.sources:
        raise WeightsError(
            f"nobody publishes {card.name} where ortsep could fetch it; give its file with --weights PATH"
        )
    if path is None:
        from ortsep.export.weights.download import fetch

        path = fetch(card.sources[0], progress=choice.downloading)
    checkpoint = open_checkpoint(path, choice.config)
    settings = checkpoint.settings if checkpoint.config else _card_settings(card)
    checkpoint = replace(checkpoint, settings=settings)
    read, state = recognise(checkpoint, settings.model)
    if (other := replace(read, hop=arch.hop)) != replace(arch, feed=other.feed, mask_hidden=other.mask_hidden):
        raise WeightsError(
            f"{path} is not the network of {card.name}: {_sizes(read)} for {_sizes(arch)}; "
            "export it by its own path with its yaml"
        )
    source = card.sources[0].url if choice.path is None else path.name
    weights = Weights(source, checkpoint.sha256, card.licence, card.redistributable)
    return _original(_Found(card.name, read, state, settings, checkpoint, content), choice, weights)


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> RoFormer:
    """The original in any checkpoint; without a yaml, a file of the catalogue is known by its hash.

    Raises WeightsError, UsageError.
    """
    card = next((c for c in _cards() if any(s.sha256 == checkpoint.sha256 for s in c.sources)), None)
    name = folder_name(checkpoint.path.stem)
    if card is not None and not checkpoint.config:
        name, checkpoint = card.name, replace(checkpoint, settings=_card_settings(card))
    arch, state = recognise(checkpoint, checkpoint.settings.model)
    weights = Weights(checkpoint.path.name, checkpoint.sha256)
    if card is not None:
        weights = replace(weights, licence=card.licence, redistributable=card.redistributable)
    return _original(_Found(name, arch, state, checkpoint.settings, checkpoint), choice, weights)


def _cards() -> list[Card]:
    return [card for card in catalogue().values() if card.family == FAMILY]


def _card_settings(card: Card) -> Settings:
    """What a yaml would say. The network's stems come first among a card's; one that follows is what is left over."""
    own = card.arguments
    count = own.get("stems", 1)
    rest = card.stems[count] if len(card.stems) > count else ""
    model = {"stft_hop_length": own["hop"]}
    return Settings(card.stems[:count], rest, own["chunk"], own["overlaps"], card.sample_rate, False, model)


def _sizes(arch: Architecture) -> str:
    return f"{arch.kind} dim {arch.dim}, depth {arch.depth}, {arch.stems} stems"


@dataclass(frozen=True)
class _Found:
    """What there is to make an original of; ``checkpoint`` None for random weights."""

    name: str
    arch: Architecture
    state: State
    settings: Settings
    checkpoint: Checkpoint | None = None
    content: str = "music"


def _original(found: _Found, choice: Choice, weights: Weights) -> RoFormer:
    arch, settings = found.arch, found.settings
    stems = settings.stems
    if found.checkpoint is not None:
        stems = name_stems(found.checkpoint, arch.stems, choice.stems)
        _check_chunk(found.checkpoint, arch, settings)
    rows, derived = _wanted(stems, settings.rest or _opposite(stems), choice.stems, found.name)
    half = arch.n_fft // 2
    large = 4 * parameter_count(arch) > LARGEST
    spec = ModelSpec(
        name=found.name,
        family=FAMILY,
        stems=tuple(stems[row] for row in rows),
        derived=derived,
        sample_rate=settings.sample_rate,
        channels=arch.channels,
        domain="complex",
        output="stem_spectra",
        stft=STFT(arch.n_fft, arch.hop, arch.bins, pad_left=half, pad_right=half, normalized=arch.normalized),
        chunks=cuts(settings),
        normalization=normalization(settings),
        content=found.content,
        weights=weights,
        precision="fp16-weights" if large else "fp32",
        parameters=parameter_count(arch),
        notes=_notes(arch, large),
    )
    return RoFormer(spec, arch, found.state, rows, settings)


def _notes(arch: Architecture, large: bool) -> tuple[str, ...]:
    kind = "BS-RoFormer" if arch.kind == "bs" else f"Mel-Band RoFormer of {len(arch.bands)} bands"
    what = f"{kind}, dim {arch.dim}, depth {arch.depth}, hop {arch.hop}"
    if not large:
        return (what,)
    return (what, "its float32 file would pass ONNX's 2 GB, so its large weights are stored as float16")


def _check_chunk(checkpoint: Checkpoint, arch: Architecture, settings: Settings) -> None:
    if not settings.chunk:
        raise missing_setting(checkpoint, "chunk")
    if settings.chunk % arch.hop or settings.chunk < (SHORTEST - 1) * arch.hop or settings.chunk <= arch.n_fft // 2:
        near = max(round(settings.chunk / arch.hop), SHORTEST, arch.n_fft // 2 // arch.hop + 1) * arch.hop
        raise WeightsError(
            f"the configuration of {checkpoint.path} has chunks of {settings.chunk} samples, which hops of {arch.hop} "
            f"don't make up; write {near} there"
        )
    if settings.overlaps > settings.chunk:
        raise WeightsError(f"the configuration of {checkpoint.path} has num_overlap {settings.overlaps}; mend it")


OPPOSITES = {"vocals": "instrumental", "instrumental": "vocals"}


def _opposite(stems: tuple[str, ...]) -> str:
    """What python-audio-separator calls the mixture without a single stem, where no yaml has a name for it."""
    if len(stems) != 1:
        return ""
    (stem,) = stems
    known = OPPOSITES.get(stem.lower())
    if known is None:
        return stem[3:] if stem.lower().startswith("no ") else f"No {stem}" if stem[:1].isupper() else f"no {stem}"
    return known.capitalize() if stem[:1].isupper() else known


def _wanted(
    stems: tuple[str, ...], rest: str, wanted: tuple[str, ...], name: str
) -> tuple[tuple[int, ...], tuple[Derived, ...]]:
    """The network's stems that are exported, and what is left over by one stem alone."""
    known = (*stems, rest) if len(stems) == 1 else stems
    if unknown := [stem for stem in wanted if stem not in known]:
        raise UsageError(f"{name} has no stem {' or '.join(unknown)}; it has {', '.join(known)}")
    rows = tuple(row for row, stem in enumerate(stems) if not wanted or stem in wanted or len(stems) == 1)
    left = len(stems) == 1 and (not wanted or rest in wanted)
    if left and wanted and stems[0] not in wanted:
        raise UsageError(f"{rest} of {name} is the mixture without {stems[0]}, so it can't be exported alone")
    return rows, (Derived(rest, stems),) if left else ()
