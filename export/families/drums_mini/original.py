"""drums_mini: ortsep's own small drum separator, whose checkpoint lies in ``models/bundled``.

The network and its training are ours (``export/families/drums_mini/graph.py``, ``training/``); what is exported is what
torch computes, with the transform and the masks' product outside the graph like everywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from ortsep.base.arrays import F32
from ortsep.base.errors import WeightsError
from ortsep.export.families.drums_mini.graph import STEMS, Architecture, DrumsMini, build_graph
from ortsep.export.family import Choice, Complex, Float, Original, refuse_a_part, stereo
from ortsep.models.catalogue import BUNDLED, Card
from ortsep.models.spec import STFT, Blocks, Filter, ModelSpec, Weights

ROUTES: tuple[str, ...] = ()
CONFIG = ""
BLOCK, OVERLAP, WHOLE = 1292, 86, 2584
"""Frames: blocks of 15 s joined over 1 s, and up to 30 s in one piece. The LSTM hears all of a block."""


@dataclass(frozen=True)
class Mini(Original):
    """A loaded model: see ``ortsep.export.family.Original``. The original is the torch network, whole songs at once."""

    spec: ModelSpec
    model: DrumsMini

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """The graph has operators of the ONNX standard only, ``portable`` or not."""
        yield f"{self.spec.name}.onnx", build_graph(self.model, self.spec.name)

    def graphs_for(self, target: str) -> Iterator[tuple[str, onnx.ModelProto]]:
        yield f"{self.spec.name}.onnx", build_graph(self.model, self.spec.name, coreml=target == "coreml")

    def transform(self, mix: F32, member: int = 0) -> Complex:
        result: Complex = self._stft(torch.from_numpy(mix).double()).numpy()
        return result

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        result: F32 = self._istft(torch.from_numpy(spectrum).to(torch.complex128), samples).float().numpy()
        return result

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        with torch.inference_mode():
            masks = deepcopy(self.model).double()(torch.from_numpy(inputs["magnitude"]).double())
        return {"masks": masks.numpy()}

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """The first block or less."""
        magnitude = np.abs(self.transform(stereo(mix)))[None, ..., :BLOCK]
        return {"magnitude": magnitude.astype(np.float32)}

    def separate(self, mix: F32) -> F32:
        """[C, N] to [5, C, N], computed in float64; mono becomes two equal channels."""
        return self._separate(deepcopy(self.model).double(), torch.from_numpy(stereo(mix)).double())

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        def run(mix: F32) -> F32:
            return self._separate(self.model, torch.from_numpy(stereo(mix)))

        return "the torch network, eager", run

    def _separate(self, model: DrumsMini, mix: torch.Tensor) -> F32:
        with torch.inference_mode():
            spectrum = self._stft(mix)
            stems = model(spectrum.abs()[None])[0] * spectrum
            waves: F32 = torch.stack([self._istft(stem, mix.shape[-1]) for stem in stems]).float().numpy()
        return waves

    def _stft(self, mix: torch.Tensor) -> torch.Tensor:
        arch = self.model.arch
        window = torch.hann_window(arch.n_fft, dtype=mix.dtype)
        return torch.stft(mix, arch.n_fft, arch.hop, window=window, return_complex=True)

    def _istft(self, spectrum: torch.Tensor, samples: int) -> torch.Tensor:
        arch = self.model.arch
        window = torch.hann_window(arch.n_fft, dtype=spectrum.real.dtype)
        return torch.istft(spectrum, arch.n_fft, arch.hop, window=window, length=samples)


def load(card: Card, choice: Choice) -> Mini:
    """Load the bundled checkpoint, another of the same training (``--weights FILE.safetensors``), or a random one.

    Raises FileMissing, WeightsError for a file that is not a checkpoint of drums_mini, UsageError for ``--stems``: all
    masks come from one network.
    """
    refuse_a_part(card, choice.stems, "one network gives all its masks")
    model = DrumsMini(Architecture())
    if choice.seed is not None:
        from ortsep.export.weights.random_weights import randomise

        randomise(model, choice.seed)
        weights = Weights(f"random:{choice.seed}", random=True)
    else:
        path = choice.path or BUNDLED / card.name / f"{card.name}.safetensors"
        weights = _read(model, path, card, official=choice.path is None)
    return Mini(_spec(card, model, weights), model.eval())


def _read(model: DrumsMini, path: Path, card: Card, official: bool) -> Weights:
    from ortsep.export.weights.checkpoints import file_sha256, load_state, plain_state

    state = plain_state(load_state(path), path)
    wanted = {name: value.shape for name, value in model.state_dict().items() if value.is_floating_point()}
    found = {name: value.shape for name, value in state.items() if value.is_floating_point()}
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise WeightsError(
            f"{path} is not a checkpoint of {card.name}: {wrong[0]} and {len(wrong) - 1} more tensors are missing, "
            "unknown or of another shape; give what training/train_drums_mini.py wrote"
        )
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path} has values in {name} that are not finite; take another checkpoint")
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    licence = card.licence if official else f"{card.licence}, if these are the bundled weights"
    source = f"bundled:{path.name}" if official else path.name
    return Weights(source, file_sha256(path), licence, card.redistributable if official else None)


def _spec(card: Card, model: DrumsMini, weights: Weights) -> ModelSpec:
    arch = model.arch
    half = arch.n_fft // 2
    return ModelSpec(
        name=card.name,
        family=card.family,
        stems=STEMS,
        sample_rate=card.sample_rate,
        channels=card.channels,
        domain="magnitude",
        output="masks",
        stft=STFT(arch.n_fft, arch.hop, arch.bins, pad_left=half, pad_right=half),
        blocks=Blocks(frames=BLOCK, overlap=OVERLAP, padded=False, whole=WHOLE),
        filter=Filter(method="mask"),
        content="drums",
        weights=weights,
        parameters=sum(p.numel() for p in model.parameters()),
        notes=("drums only: feed it a drum track, or the drums stem of another model",),
    )
