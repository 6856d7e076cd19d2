"""Which VR network a checkpoint is: read off the names and shapes of its parameters, never off the file's size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ortsep.base.errors import WeightsError
from ortsep.models.contracts.vr import LAYOUTS, Edition

OLD, NEW = "stg1_low_band_net.enc1.conv1.conv.0.weight", "stg1_low_band_net.0.enc1.conv.0.weight"
"""A parameter that every old network has, and one that every network of VR 5.1 has."""


@dataclass(frozen=True)
class Architecture:
    """The hyper-parameters. ``bins`` are the rows of the stacked spectrum."""

    edition: Edition
    channels: int
    """Of the old ones' first level; VR 5.1's ``nout``."""
    bins: int
    branches: int = 5
    """Layers beside each other at the bottom: 5, or 6 or 7 in some of the old ones."""
    levels: int = 4
    lstm: int = 0
    """VR 5.1's ``nout_lstm``."""

    @property
    def dilations(self) -> tuple[tuple[int, int], ...]:
        """Of the bottom's third to fifth layer, over bins and frames."""
        return ((4, 4), (8, 8), (16, 16)) if self.edition == "5" else ((4, 2), (8, 4), (12, 6))

    @property
    def multiple(self) -> int:
        """What the frames must be a multiple of, and half the bins."""
        return 1 << self.levels


def read_architecture(shapes: Mapping[str, tuple[int, ...]], layout: str, where: str) -> Architecture:
    """The architecture of parameters of these ``shapes``, for the layout's bins. Raises WeightsError."""
    bins = LAYOUTS[layout].bins
    try:
        arch = _new(shapes, bins) if NEW in shapes else _old(shapes, bins)
    except (KeyError, IndexError) as error:
        raise WeightsError(f"{where} is no whole VR network: it has no {error}; take one that UVR loads") from error
    if arch.channels < 4 or arch.channels % 4 or arch.lstm % 4:
        raise WeightsError(
            f"{where} is a VR network of {arch.channels} channels, which UVR has none of; check the file"
        )
    if arch.bins != bins or (bins // 2) % arch.multiple:
        fitting = [name for name, other in LAYOUTS.items() if other.bins == arch.bins]
        known = f"those are {', '.join(fitting)}" if arch.bins != bins and fitting else "take another"
        raise WeightsError(
            f"{where} hears {arch.bins} bins and the layout {layout} has {bins}; give one that fits with "
            f"--set model_param=...: {known}"
        )
    return arch


def _old(shapes: Mapping[str, tuple[int, ...]], bins: int) -> Architecture:
    aspp, deep = "stg1_low_band_net.aspp", "stg1_low_band_net.enc5.conv1.conv.0.weight" in shapes
    channels = shapes[OLD][0]
    inner = shapes[f"{aspp}.conv2.conv.0.weight"][0]
    branches = shapes[f"{aspp}.bottleneck.0.conv.0.weight"][1] // max(1, inner)
    return Architecture("5", channels, bins, branches, 5 if deep else 4)


def _new(shapes: Mapping[str, tuple[int, ...]], bins: int) -> Architecture:
    heard, lstm = shapes["stg3_full_band_net.lstm_dec2.dense.0.weight"]
    return Architecture("5.1", shapes["out.weight"][1], 2 * heard, lstm=lstm)


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict's parameters."""
    return {name: tuple(map(int, value.shape)) for name, value in state.items()}
