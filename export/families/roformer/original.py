"""BS-RoFormer and Mel-Band RoFormer: the catalogue's models, and any checkpoint that MSST can load.

A network gives its stems' spectra; what a yaml calls the other one of two instruments is the mixture without the
network's stem. Songs are cut and joined as MSST does with batch size 1.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.families.roformer.architecture import Architecture, State, parameter_count, random_state
from ortsep.export.families.roformer.recognise import arguments_of, recognise
from ortsep.export.family import Choice
from ortsep.export.msst import Source, SpectralNetwork, Transform, load_card
from ortsep.export.weights.frontdoor import Checkpoint, missing_setting, name_stems
from ortsep.export.weights.msst_yaml import Settings, settings
from ortsep.models.catalogue import Card, catalogue, folder_name
from ortsep.models.spec import STFT, ModelSpec, Weights

if TYPE_CHECKING:
    import torch

FAMILY = "roformer"
ROUTES: tuple[str, ...] = ()
CONFIG = "the yaml of MSST or UVR that came with the checkpoint"

LARGEST = 1_900_000_000
"""Bytes of float32 parameters in one ONNX file, which may be 2 GB; larger networks are stored as float16."""
SHORTEST = 4
"""Frames of a chunk, as many as the graph's tiles."""
OPPOSITES = {"vocals": "instrumental", "instrumental": "vocals"}


def load(card: Card, choice: Choice) -> SpectralNetwork:
    """Load a model of the catalogue: its official file, another file of the same network, or random weights.

    Raises FileMissing, WeightsError, DownloadError, UsageError.
    """
    original: SpectralNetwork = load_card(card, choice, from_checkpoint, _random)
    content = card.arguments.get("content", "music")
    return replace(original, spec=replace(original.spec, content=content))


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> SpectralNetwork:
    """The original in any checkpoint; without a yaml, a file of the catalogue is known by its hash.

    Raises WeightsError, UsageError.
    """
    cards = [card for card in catalogue().values() if card.family == FAMILY]
    card = next((card for card in cards if any(s.sha256 == checkpoint.sha256 for s in card.sources)), None)
    if card is not None and not checkpoint.config:
        config = card.arguments["config"]
        checkpoint = replace(checkpoint, settings=settings(config, f"the card of {card.name}"), config=config)
    read = checkpoint.settings
    arch, state = recognise(checkpoint, read.model)
    if not read.chunk:
        raise missing_setting(checkpoint, "chunk")
    source = Source.of(checkpoint, name_stems(checkpoint, arch.stems, choice.stems))
    if card is not None:
        licence = Weights(checkpoint.path.name, checkpoint.sha256, card.licence, card.redistributable)
        source = replace(source, name=card.name, weights=licence)
    return _original(arch, state, source, choice)


def _random(source: Source, seed: int, choice: Choice) -> SpectralNetwork:
    if choice.config is not None:
        raise UsageError(f"random weights of {source.name} take no configuration; leave --config out")
    arch = arguments_of(source.settings.model, source.settings.sample_rate)
    return _original(arch, random_state(arch, seed), source, choice)


def _original(arch: Architecture, state: State, source: Source, choice: Choice) -> SpectralNetwork:
    read = source.settings
    _check_chunk(arch, read, source.name)
    source = replace(source, settings=replace(read, rest=read.rest or opposite(source.stems)))
    rows = source.wanted(choice)
    half, large = arch.n_fft // 2, 4 * parameter_count(arch) > LARGEST
    spec = ModelSpec(
        **source.facts(rows),
        family=FAMILY,
        channels=arch.channels,
        domain="complex",
        output="stem_spectra",
        stft=STFT(arch.n_fft, arch.hop, arch.bins, pad_left=half, pad_right=half, normalized=arch.normalized),
        precision="fp16-weights" if large else "fp32",
        parameters=parameter_count(arch),
        notes=_notes(arch, large),
    )

    def build(portable: bool) -> onnx.ModelProto:
        from ortsep.export.families.roformer.graph import build_graph

        positions = 2 * (read.chunk // arch.hop + 1)
        return build_graph(arch, state, rows, positions=positions, portable=portable, half=large)

    def beside(checkout: Path) -> Callable[["torch.Tensor"], "torch.Tensor"]:
        from ortsep.export.families.roformer.oracle import oracle

        return oracle(arch, state, rows, read.sample_rate, checkout)

    transform = Transform(arch.n_fft, arch.hop, arch.bins, normalized=arch.normalized)
    return SpectralNetwork(
        spec=spec,
        file=f"{folder_name(source.name)}.onnx",
        settings=source.settings,
        transforms=transform,
        forward=lambda dtype: _network(arch, state, rows, dtype),
        build=build,
        oracle=beside,
    )


def _network(
    arch: Architecture, state: State, rows: tuple[int, ...], dtype: "torch.dtype"
) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """The network on channels [B, 2C, F, T], its wanted stems."""
    from ortsep.export.families.roformer.network import Network

    network = Network(arch, state, dtype)
    return lambda x: network.on_channels(x)[:, list(rows)]


def _notes(arch: Architecture, large: bool) -> tuple[str, ...]:
    kind = "BS-RoFormer" if arch.kind == "bs" else f"Mel-Band RoFormer of {len(arch.bands)} bands"
    what = f"{kind}, dim {arch.dim}, depth {arch.depth}, hop {arch.hop}"
    if not large:
        return (what,)
    return (what, "its float32 file would pass ONNX's 2 GB, so its large weights are stored as float16")


def _check_chunk(arch: Architecture, read: Settings, name: str) -> None:
    """A chunk is whole hops, since a Mel-Band RoFormer's is cut to them, and longer than what the STFT reflects."""
    least = max(SHORTEST - 1, arch.n_fft // 2 // arch.hop + 1)
    if read.chunk % arch.hop or read.chunk < least * arch.hop:
        near = max(round(read.chunk / arch.hop), least) * arch.hop
        raise WeightsError(
            f"{name} has chunks of {read.chunk} samples by its configuration, which hops of {arch.hop} don't make up; "
            f"write {near} there"
        )


def opposite(stems: tuple[str, ...]) -> str:
    """What python-audio-separator calls the mixture without a single stem, where no yaml has a name for it."""
    if len(stems) != 1:
        return ""
    (stem,) = stems
    known = OPPOSITES.get(stem.lower())
    if known is None:
        return stem[3:] if stem.lower().startswith("no ") else f"No {stem}" if stem[:1].isupper() else f"no {stem}"
    return known.capitalize() if stem[:1].isupper() else known
