"""Small VR networks with random weights, and a song that all their bands hear something of."""

from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch

from ortsep.export.families.vr.architecture import Architecture
from ortsep.export.families.vr.network import made_network
from ortsep.export.families.vr.original import LOUDER, Vr
from ortsep.export.weights.random_weights import randomise
from ortsep.models.contracts.vr import LAYOUTS, Entry, vr_spec
from ortsep.models.spec import Weights


def tiny(
    layout: str,
    edition: Literal["5", "5.1"],
    primary: str,
    *,
    branches: int = 5,
    levels: int = 4,
    window: int = 512,
) -> Vr:
    """An original of few channels for the layout's bins, with windows of so many frames."""
    bins = LAYOUTS[layout].bins
    channels, lstm = (4, 0) if edition == "5" else (8, 16)
    arch = Architecture(edition, channels, bins, branches, levels, lstm)
    network = made_network(arch)
    randomise(network, 1)
    with torch.no_grad():
        network.out.weight *= LOUDER  # type: ignore[operator, union-attr]
    spec = vr_spec(Entry("", layout, primary), edition, "tiny", multiple=arch.multiple)
    assert spec.bands is not None
    bands = replace(spec.bands, window=window)
    return Vr(replace(spec, bands=bands, weights=Weights("random:1", random=True)), arch, network)


@cache
def song(rate: int, seconds: float) -> Any:
    """[2, N]: white and brown noise, tones, silence in the middle."""
    rng = np.random.default_rng(3)
    count = round(rate * seconds)
    white = rng.standard_normal((2, count)) * [[0.05], [0.03]]
    tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(count) / rate)
    mix = white + 0.02 * np.cumsum(white, 1) + tone * (np.arange(count) % rate < rate // 2)
    mix[:, count // 3 : count // 2] = 0
    return mix.astype(np.float32)
