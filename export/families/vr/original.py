"""UVR's VR networks (.pth): HP, HP2, SP, MGM, De-Echo, De-Noise, De-Reverb, BVE; one mask for two stems.

What a file is shows in the names and shapes of its parameters; its bands and its stem stand in no file, and are looked
up by UVR's key of it, by its name, or set. Around the network as UVR and python-audio-separator have it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from ortsep.base.arrays import F32
from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.families.vr.architecture import Architecture, read_architecture, shapes_of
from ortsep.export.families.vr.graph import build_graph
from ortsep.export.families.vr.network import made_network
from ortsep.export.families.vr.reference import Formula
from ortsep.export.family import Choice, Complex, Float, Original, refuse_a_part, stereo
from ortsep.export.weights.frontdoor import Checkpoint, check_names, open_checkpoint
from ortsep.models.bands import Bands
from ortsep.models.catalogue import Card, card_named, folder_name
from ortsep.models.contracts.contract import Unclear
from ortsep.models.contracts.read import file_key
from ortsep.models.contracts.vr import LAYOUTS, Entry, find_entry, vr_spec
from ortsep.models.spec import ModelSpec, Weights

ROUTES: tuple[str, ...] = ()
CONFIG = ""
SETTINGS = ("model_param", "primary")
COUNTED = ".num_batches_tracked"
"""What BatchNorm counts in training, and nobody reads."""
LOUDER = 16.0
"""What random weights of the last layer are multiplied with, so that masks are not all about one half."""


@dataclass(frozen=True)
class Vr(Original):
    """A loaded model: see ``ortsep.export.family.Original``."""

    spec: ModelSpec
    arch: Architecture
    net: nn.Module
    """In float32."""

    @property
    def package(self) -> str:
        return "UVR's formula in float64"

    @property
    def _bands(self) -> Bands:
        assert self.spec.bands is not None
        return self.spec.bands

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """The graph has operators of the ONNX standard only, ``portable`` or not."""
        state = {name: value.numpy() for name, value in self.net.state_dict().items()}
        yield f"{folder_name(self.spec.name)}.onnx", build_graph(self.arch, state)

    def transform(self, mix: F32, member: int = 0) -> Complex:
        """The stacked spectrum."""
        spectrum: Complex = Formula(self._bands).spectrum(torch.from_numpy(stereo(mix))).numpy()
        return spectrum

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        """As far as the formula has samples, and no further."""
        wave: F32 = Formula(self._bands).wave(torch.from_numpy(spectrum)).float().numpy()
        return wave[:, :samples]

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        context = self._bands.context
        with torch.inference_mode():
            masks = self._double()(torch.from_numpy(inputs["magnitude"]).double())
        return {"masks": masks[:, None, ..., context:-context].numpy()}

    def _double(self) -> nn.Module:
        network = made_network(self.arch)
        network.load_state_dict(self.net.state_dict())
        return network.double()

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """The first window of the song, by its own peak."""
        bands = self._bands
        size = Formula(bands).spectrum(torch.from_numpy(stereo(mix))).abs()[..., : bands.window - bands.context]
        heard = torch.zeros(1, 2, bands.bins, bands.window)
        heard[0, ..., bands.context : bands.context + size.shape[-1]] = size / (size.max() or 1.0)
        return {"magnitude": heard.numpy()}

    def separate(self, mix: F32) -> F32:
        return self._separated(mix, torch.float64, self._double())

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        return "UVR's formula, torch eager", lambda mix: self._separated(mix, torch.float32, self.net)

    def _separated(self, mix: F32, dtype: torch.dtype, network: nn.Module) -> F32:
        with torch.inference_mode():
            stems = Formula(self._bands, dtype).separate(torch.from_numpy(stereo(mix)), network)
        found: F32 = stems.float().numpy()
        return found


def load(card: Card, choice: Choice) -> Vr:
    """UVR's file, official or local, or a network of the card's sizes with random weights.

    Raises what ``fetch`` raises, FileMissing, WeightsError, UsageError.
    """
    refuse_a_part(card, choice.stems, "both are made of one mask")
    if choice.seed is not None:
        return _random(card, choice.seed)
    path = choice.path
    if path is None:
        from ortsep.export.weights.download import fetch

        path = fetch(card.sources[0], progress=choice.downloading, offline=choice.offline)
        key = card.arguments["key"]
        if key and file_key(path) != key:
            raise WeightsError(f"{path} has not the key {key} of {card.name}: it is cut short or another; delete it")
    checkpoint = open_checkpoint(path)
    if checkpoint.architecture.family != card.family:
        raise WeightsError(
            f"{path} is {checkpoint.architecture.title} and not a VR network; export it by its own path: "
            f"ortsep export {path}"
        )
    made = _made(checkpoint, _entry_of(card, choice.settings), card.name)
    if choice.path is not None:
        return made
    weights = Weights(card.sources[0].url, checkpoint.sha256, card.licence, card.redistributable)
    return replace(made, spec=replace(made.spec, weights=weights))


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> Vr:
    """The model in a recognised .pth, whose bands and stem are looked up. Raises WeightsError, UsageError."""
    if choice.stems:
        raise UsageError(f"{checkpoint.path} gives two stems of one mask; leave --stems out and choose when running it")
    path, card = checkpoint.path, card_named(checkpoint.path.stem)
    named = _entry_of(card, {}) if card is not None and card.family == "vr" else None
    try:
        entry, how = find_entry(file_key(path), named, choice.settings, _layouts(checkpoint))
    except Unclear as why:
        raise WeightsError(f"{path} is {checkpoint.architecture.title}, and {why}") from why
    made = _made(checkpoint, entry, folder_name(path.stem))
    return replace(made, spec=replace(made.spec, notes=(f"bands and stem {how}", *made.spec.notes)))


def _entry_of(card: Card, settings: Mapping[str, str]) -> Entry:
    entry = Entry(card.name, str(card.arguments["layout"]), str(card.arguments["primary"]))
    try:
        return find_entry("", entry, settings, tuple(LAYOUTS))[0]
    except Unclear as why:
        raise WeightsError(f"{card.name}: {why}") from why


def _layouts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Those that may be meant by the parameters: VR 5.1's say how many bins they hear."""
    dense = checkpoint.state.get("stg3_full_band_net.lstm_dec2.dense.0.weight")
    return tuple(n for n, layout in LAYOUTS.items() if dense is None or layout.bins == 2 * dense.shape[0])


def _made(checkpoint: Checkpoint, entry: Entry, name: str) -> Vr:
    shapes = shapes_of(checkpoint.state)
    arch = read_architecture(shapes, entry.layout, checkpoint.where)
    network = made_network(arch)
    wanted = shapes_of(network.state_dict())
    counted = {name for name in wanted if name.endswith(COUNTED)}
    check_names(
        checkpoint,
        {name: shape for name, shape in wanted.items() if name not in counted},
        {name: value for name, value in checkpoint.state.items() if name not in counted},
    )
    if any((v < 0).any() for name, v in checkpoint.state.items() if name.endswith("running_var")):
        raise WeightsError(f"{checkpoint.where} holds negative variances; take the file that loads in UVR")
    network.load_state_dict(
        {name: torch.from_numpy(np.asarray(v)) for name, v in checkpoint.state.items() if name not in counted},
        strict=False,
    )
    return _original(network, arch, entry, name, Weights(checkpoint.path.name, checkpoint.sha256))


def _original(network: nn.Module, arch: Architecture, entry: Entry, name: str, weights: Weights) -> Vr:
    spec = vr_spec(entry, arch.edition, name, multiple=arch.multiple)
    count = sum(parameter.numel() for parameter in network.parameters())
    return Vr(replace(spec, weights=weights, parameters=count), arch, network)


def _random(card: Card, seed: int) -> Vr:
    from ortsep.export.weights.random_weights import randomise

    entry, sizes = _entry_of(card, {}), dict[str, Any](card.arguments["sizes"])
    network = made_network(arch := Architecture(bins=LAYOUTS[entry.layout].bins, **sizes))
    randomise(network, seed)
    with torch.no_grad():
        last = network.out.weight
        assert isinstance(last, torch.Tensor)
        last *= LOUDER
    weights = Weights(f"random:{seed}", licence="none: random parameters, which give noise", random=True)
    return _original(network, arch, entry, card.name, weights)
