"""Moises-Light's architecture: the constructor's arguments, the presets, and what parameters a network has.

The package moises-light exists in two generations that share a name and not a network: 0.1.0 to 0.1.3 ("legacy" here),
and 0.1.4 and later.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.models.catalogue import Card, catalogue

FAMILY = "moises_light"
STEMS = ("vocals", "drums", "bass", "other")
"""The presets' order (moises_light.configs)."""
ACTIVATIONS = ("ReLU", "GELU", "LeakyReLU", "Softplus", "SiLU", "Mish")
Shape = tuple[int, ...]
State = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Architecture:
    """The constructor's arguments (``moises_light.MoisesLight``), the transformer's among them, and the generation."""

    new: bool = True
    """Package 0.1.4 and later; otherwise 0.1.0 to 0.1.3."""
    sources: tuple[str, ...] = STEMS
    audio_channels: int = 2
    n_fft: int = 6144
    hop_size: int = 1024
    freq_dim: int = 2048
    n_bands: int = 4
    G: int = 56
    n_enc: int = 3
    n_dec: int = 1
    n_split_enc: int = 3
    n_split_dec: int = 1
    n_rope: int = 5
    bn_factor: int = 8
    edge_kernel_size: int = 3
    heads: int = 4
    dim_head: int = 32
    ff_mult: int = 2
    normalized: bool = True
    act_name: str = "ReLU"

    @property
    def freq_band(self) -> int:
        return self.freq_dim // self.n_bands

    @property
    def generation(self) -> str:
        return "0.1.4 and later" if self.new else "0.1.0 to 0.1.3"

    def constructor(self) -> dict[str, Any]:
        """Arguments for the package's class, of 0.1.5 for both generations."""
        kwargs = asdict(self)
        transformer = {name: kwargs.pop(name) for name in TRANSFORMER}
        dropouts = dict.fromkeys(("attn_dropout", "proj_dropout", "ff_dropout"), 0.0)
        del kwargs["new"]
        kwargs |= {"sources": list(self.sources), "win_size": self.n_fft, "use_mask": True, "norm_name": "BatchNorm"}
        return {**kwargs, "transformer_params": {**transformer, **dropouts, "flash_attn": False}}


TRANSFORMER = ("heads", "dim_head", "ff_mult")
LEGACY = {"new": False, "bn_factor": 4, "edge_kernel_size": 1}


def of_card(card: Card, new: bool = True, sources: tuple[str, ...] = STEMS) -> Architecture:
    """A preset's architecture."""
    own = {k: v for k, v in card.arguments.items() if not k.startswith("legacy")}
    return Architecture(**{**own, **({} if new else LEGACY), "sources": sources})


def presets() -> dict[str, Card]:
    """The family's cards by name."""
    return {name: card for name, card in catalogue().items() if card.family == FAMILY}


# -- what a network of an architecture holds --------------------------------------------------------------------------


def parameters(arch: Architecture) -> dict[str, Shape]:
    """Names and shapes of everything that the network needs, BatchNorm's statistics included."""
    return dict(_parameters(arch))


def _parameters(a: Architecture) -> Iterator[tuple[str, Shape]]:
    def conv(name: str, shape: Shape, outs: int = 0) -> Iterator[tuple[str, Shape]]:
        yield f"{name}.weight", shape
        yield f"{name}.bias", (outs or shape[0],)

    def norm(name: str, channels: int) -> Iterator[tuple[str, Shape]]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (channels,)

    def normed(name: str, shape: Shape, outs: int = 0) -> Iterator[tuple[str, Shape]]:
        yield from conv(f"{name}.conv", shape, outs)
        yield from norm(f"{name}.bn", outs or shape[0])

    def split_and_merge(name: str, channels: int, splits: int) -> Iterator[tuple[str, Shape]]:
        kernel = (3, 3) if a.new else (3, 1)
        inner = [f"{part}.{i}" for part in ("split1", "split2") for i in range(splits)]
        for part in ("res", *inner):
            yield from normed(f"{name}.{part}", (channels, channels // a.n_bands, *kernel))
        small = a.freq_band // a.bn_factor
        yield from conv(f"{name}.tdf.fc1", (small, a.freq_band))
        yield from conv(f"{name}.tdf.fc2", (a.freq_band, small))
        yield from norm(f"{name}.tdf.bn1", channels)
        yield from norm(f"{name}.tdf.bn2", channels)

    c, edge = 2 * a.audio_channels, (a.edge_kernel_size,) * 2
    yield from normed("first_conv", (a.G, c, *edge))
    for i in range(a.n_enc):
        yield from split_and_merge(f"encoder_blocks.{i}", (i + 1) * a.G, a.n_split_enc)
        yield from normed(f"ds.{i}", ((i + 2) * a.G, (i + 1) * a.G, 1, 2))
    deep = (a.n_enc + 1) * a.G
    yield from split_and_merge("bottleneck.split_merge", deep, a.n_split_enc)
    for i in range(a.n_rope):
        for kind in ("time", "freq"):
            name, inner = f"bottleneck.rope_blocks.{i}.{kind}_transformer.layers.0", a.heads * a.dim_head
            yield f"{name}.0.norm.gamma", (deep,)
            yield f"{name}.0.rotary_embed.freqs", (a.dim_head // 2,)
            yield f"{name}.0.to_qkv.weight", (3 * inner, deep)
            yield from conv(f"{name}.0.to_gates", (a.heads, deep))
            yield f"{name}.0.to_out.0.weight", (deep, inner)
            yield f"{name}.1.net.0.gamma", (deep,)
            yield from conv(f"{name}.1.net.1", (a.ff_mult * deep, deep))
            yield from conv(f"{name}.1.net.4", (deep, a.ff_mult * deep))
    if a.new:
        yield "bottleneck.final_norm.gamma", (deep,)
    for i in range(a.n_enc):
        name = f"dec_heavy_us.{i}" if i < a.n_dec else f"dec_light_us.{i - a.n_dec}"
        channels = (a.n_enc - i) * a.G
        yield from normed(name, (channels + a.G, channels, 1, 2), channels)
        if i < a.n_dec:
            yield from split_and_merge(f"dec_heavy_blocks.{i}", channels, a.n_split_dec)
    final = (c * a.n_bands, a.G // a.n_bands, *edge)
    yield from conv("final_conv", final) if a.new else normed("final_conv", final)
    if not a.new or len(a.sources) > 1:
        yield from conv("source_head", (len(a.sources) * c, c, 1, 1))


def parameter_count(arch: Architecture) -> int:
    """As ``sum(p.numel() for p in model.parameters())`` counts: without BatchNorm's statistics."""
    return sum(int(np.prod(s)) for name, s in _parameters(arch) if ".running_" not in name)


def random_state(arch: Architecture, seed: int) -> State:
    """Seeded values for everything in ``parameters``, such that no branch hides and activations stay in range.

    Weights have deviation 1.2/sqrt(fan_in), norms' scales are 0.5 to 1.2, variances 0.5 to 1.5; rotary frequencies
    are the right ones. The legacy network doubles its stream twice a transformer block: what block i adds grows by 4^i.
    """
    state = {}
    for name, shape in parameters(arch).items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("rotary_embed.freqs"):
            values = rotary_frequencies(arch)
        elif len(shape) > 1:
            values = rng.standard_normal(shape) * 1.2 / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(("weight", "gamma")):
            values = rng.uniform(0.5, 1.2, shape)
        else:
            values = rng.uniform(-0.3, 0.3, shape)
        if not arch.new and (block := re.search(r"rope_blocks\.(\d+)\..*(to_out\.0|net\.4)\.weight", name)):
            values = values * 4.0 ** int(block[1])
        state[name] = values.astype(np.float32)
    return state


def rotary_frequencies(arch: Architecture) -> npt.NDArray[np.float64]:
    """Of rotary-embedding-torch, theta 10000: [dim_head / 2]."""
    frequencies: npt.NDArray[np.float64] = 10000.0 ** (-np.arange(0, arch.dim_head, 2) / arch.dim_head)
    return frequencies
