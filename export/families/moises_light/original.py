"""Moises-Light: six presets and models of one's own, from checkpoints of either generation of the package.

"Moises-Light: Resource-efficient Band-split U-Net for Music Source Separation", in the implementation moises-light on
PyPI. Nobody publishes weights: a checkpoint is the user's own, as a training framework left it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ortsep.base.arrays import F32
from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.families.moises_light.architecture import (
    STEMS,
    Architecture,
    State,
    of_card,
    parameter_count,
    random_state,
)
from ortsep.export.families.moises_light.checkpoint import Found, recognise
from ortsep.export.families.moises_light.graph import build_graph
from ortsep.export.family import Choice, Complex, Float, Original, wanted_stems
from ortsep.export.weights.checkpoints import file_sha256, load_state
from ortsep.export.weights.plain_yaml import load_plain_yaml
from ortsep.models.catalogue import Card
from ortsep.models.spec import STFT, Chunks, Free, ModelSpec, Normalization, Weights

ROUTES: tuple[str, ...] = ()
CONFIG = "the constructor's arguments, yaml or json"
GRAPH = "moises_light.onnx"
CHUNK, WHOLE = 6, 12
"""Seconds of a chunk, and up to which a song runs in one piece as the original runs all: paper_large takes 0.54 GB for
6 s, 0.95 for 12 s, 1.8 for 24 s."""
EPS = 1e-5
"""Added to the deviation in ``MoisesLight.forward``."""


@dataclass(frozen=True)
class MoisesLight(Original):
    """A loaded checkpoint: see ``ortsep.export.family.Original``."""

    spec: ModelSpec
    arch: Architecture
    state: State
    rows: tuple[int, ...]
    """Which of the network's stems the spec's are."""

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        yield GRAPH, build_graph(self.arch, self.state, self.rows, portable)

    @cached_property
    def _network(self) -> Any:
        from ortsep.export.families.moises_light.network import load_network

        return load_network(self.arch, self.state)

    def _padded(self, samples: int) -> int:
        """Length with ``forward``'s zeros: at least one, to a hop, and until the frames are a multiple of 2^n_enc."""
        hop, stages = self.arch.hop_size, 1 << self.arch.n_enc
        hops = samples // hop + 1
        return (hops + -(hops + 1) % stages) * hop

    def transform(self, mix: F32, member: int = 0) -> Complex:
        import torch

        x = torch.zeros(mix.shape[0], self._padded(mix.shape[1]))
        x[:, : mix.shape[1]] = torch.from_numpy(np.ascontiguousarray(mix))
        network = self._network
        spectrum: Complex = torch.stft(
            x, **network.stft_config, window=network.stft_window, return_complex=True
        ).numpy()
        return spectrum[:, : self.arch.freq_dim]

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        import torch

        network, bins = self._network, self.arch.n_fft // 2 + 1
        whole = torch.zeros(len(spectrum), bins, spectrum.shape[-1], dtype=torch.complex64)
        whole[:, : spectrum.shape[1]] = torch.from_numpy(np.asarray(spectrum, np.complex64))
        length = self._padded(samples)
        wave: F32 = torch.istft(whole, **network.stft_config, window=network.stft_window, length=length).numpy()
        return wave[:, :samples]

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        import torch

        from ortsep.export.families.moises_light.network import load_network, masks

        double = load_network(self.arch, self.state).double()
        with torch.inference_mode():
            out = masks(double, torch.from_numpy(inputs["spectrum"]).double())
        return {"masks": out[:, list(self.rows)].numpy()}

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        spectrum = self.transform(mix[:, : CHUNK * self.spec.sample_rate])
        parts = np.stack([spectrum.real, spectrum.imag], axis=1).reshape(-1, *spectrum.shape[1:]).astype(np.float64)
        parts = (parts - parts.mean()) / (parts.std(ddof=1) + EPS)
        return {"spectrum": parts[None].astype(np.float32)}

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        """The package in chunks of 6 s one after the other: in one piece a song takes more memory than there is."""
        samples = 6 * self.spec.sample_rate

        def separate(mix: F32) -> F32:
            pieces = [self.separate(mix[:, at : at + samples]) for at in range(0, mix.shape[1], samples)]
            return np.concatenate(pieces, axis=-1)

        return "moises-light, torch eager, 6 s chunks", separate

    def separate(self, mix: F32) -> F32:
        """The whole clip in one piece, as the package does it, in float32 without its autocast attention."""
        import torch

        with torch.inference_mode():
            out: F32 = self._network(torch.from_numpy(np.ascontiguousarray(mix))[None])[0].numpy()
        return out[list(self.rows)]


def load(card: Card, choice: Choice) -> MoisesLight:
    """Load a user's checkpoint, or make a preset with random weights, of the new generation.

    ``choice.stems`` picks stems of a model that has several, and names the stem of one that has one. Raises
    FileMissing, WeightsError, UsageError.
    """
    if choice.seed is not None:
        return _random(card, choice)
    if choice.path is None:
        raise WeightsError(
            f"no weights are published for {card.name}; give a checkpoint of your own with --weights PATH, "
            "or --weights random for a test"
        )
    config = None if choice.config is None else read_config(choice.config)
    found = recognise(load_state(choice.path), str(choice.path), config)
    if found.card is not None and found.card.name != card.name:
        raise WeightsError(
            f"{choice.path} is {found.card.name} (moises-light {found.arch.generation}) and not {card.name}; "
            f"export {found.card.name}"
        )
    arch, rows = _stems(found.arch, choice, choice.path)
    name = card.name if found.card else f"{card.family}:{choice.config.stem if choice.config else choice.path.stem}"
    weights = Weights(source=choice.path.name, sha256=file_sha256(choice.path))
    return _original(name, replace(found, arch=arch), rows, weights)


def _random(card: Card, choice: Choice) -> MoisesLight:
    if choice.config is not None:
        raise UsageError("--config goes with a checkpoint; random weights are for the presets")
    assert choice.seed is not None
    arch = of_card(card, new=not card.arguments.get("legacy", False))
    found = Found(
        arch, card, random_state(arch, choice.seed), (f"random {card.name} of moises-light {arch.generation}",)
    )
    _, rows = _stems(arch, choice, Path(card.name))
    return _original(card.name, found, rows, Weights(source=f"random:{choice.seed}", random=True))


def read_config(path: Path) -> dict[str, Any]:
    """The constructor's arguments from yaml or json, alone or under ``model``, ``args`` or ``kwargs``."""
    import yaml

    if not path.is_file():
        raise FileMissing(f"there is no configuration at {path}; check the path given to --config")
    try:
        data = load_plain_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise WeightsError(
            f"{path} is neither yaml nor json ({' '.join(str(error).split())[:200]}); mend it"
        ) from error
    for key in ("model", "args", "kwargs"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data or not all(isinstance(k, str) for k in data):
        raise WeightsError(f"{path} holds no arguments by name; write those of MoisesLight, such as 'G: 56'")
    return data


def _stems(arch: Architecture, choice: Choice, path: Path) -> tuple[Architecture, tuple[int, ...]]:
    """The architecture with its sources named, and the rows that are wanted."""
    names = arch.sources
    if any(name.startswith("stem") for name in names):
        if len(names) == len(STEMS):
            names = STEMS
        elif len(names) == len(choice.stems):
            names = choice.stems
        else:
            said = [s for s in STEMS if re.search(rf"(?<![a-z]){s}(?![a-z])", path.stem.lower())]
            if len(names) > 1 or len(said) != 1:
                raise WeightsError(
                    f"{path} has {len(names)} {'stem' if len(names) == 1 else 'stems'} and does not say which; "
                    "name them in order with --stems, or as sources in --config FILE"
                )
            names = tuple(said)
    rows = tuple(names.index(stem) for stem in wanted_stems(names, choice.stems, path))
    return replace(arch, sources=names), rows


def _original(name: str, found: Found, rows: tuple[int, ...], weights: Weights) -> MoisesLight:
    arch, rate = found.arch, 44100
    half = arch.n_fft // 2
    limit = arch.freq_dim * rate / arch.n_fft
    spec = ModelSpec(
        name=name,
        family="moises_light",
        stems=tuple(arch.sources[row] for row in rows),
        sample_rate=rate,
        channels=arch.audio_channels,
        domain="complex",
        output="part_masks",
        stft=STFT(
            arch.n_fft,
            arch.hop_size,
            arch.freq_dim,
            pad_left=half,
            pad_right=half,
            normalized=arch.normalized,
            extend="next-hop",
            frame_multiple=2**arch.n_enc,
        ),
        chunks=Chunks(
            length=CHUNK * rate,
            overlap=0.25,
            takes=Free(whole=WHOLE * rate),
            align=arch.hop_size << arch.n_enc,
        ),
        normalization=Normalization("spectrum", EPS),
        bandwidth=limit if limit < rate / 2 - 100 else None,
        weights=weights,
        parameters=parameter_count(arch),
        notes=found.notes,
    )
    return MoisesLight(spec, arch, found.state, rows)
