"""ConvTDFNet in torch, as the reference, and from a checkpoint's parameters.

Kim, Choi, Chung, Lee, Jung, "KUIELab-MDX-Net: a two-stream neural network for music demixing" (2021); structure and
parameter names as in github.com/kuielab/mdx-net and UVR's lib_v5/mdxnet.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from ortsep.base.errors import WeightsError

CHANNELS = 4
"""Of the spectrum: real and imaginary part of left and right."""
IGNORED = ("window", "freq_pad")
"""Parameters of the checkpoints that are no weights: the STFT's window, and zeros above the network's bins."""


@dataclass(frozen=True)
class Shape:
    """The hyper-parameters, all of which show in the parameters' shapes."""

    dim_f: int
    growth: int
    levels: int
    layers: int
    """Convolutions of a block."""
    kernel: int
    bottleneck: int | None
    """By what the linear layers over frequency narrow: 0 for a single square one, None for none."""
    bias: bool
    batch_norm: bool
    """BatchNorm, or GroupNorm of two groups."""

    @property
    def multiple(self) -> int:
        """Bins and frames must be multiples of this."""
        return 1 << self.levels


class _Block(nn.Module):
    """``layers`` convolutions, then linear layers over frequency beside the identity: [B, C, T, F] to the same."""

    def __init__(self, channels: int, bins: int, shape: Shape) -> None:
        super().__init__()
        self.tfc = nn.Module()
        self.tfc.H = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, shape.kernel, padding=shape.kernel // 2),
                _norm(channels, shape),
                nn.ReLU(),
            )
            for _ in range(shape.layers)
        )
        self.tdf: nn.Sequential | None = None
        if shape.bottleneck is not None:
            widths = [bins, bins // shape.bottleneck, bins] if shape.bottleneck else [bins, bins]
            parts: list[nn.Module] = []
            for given, made in pairwise(widths):
                parts += [nn.Linear(given, made, bias=shape.bias), _norm(channels, shape), nn.ReLU()]
            self.tdf = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.tfc.H:
            x = layer(x)
        return x if self.tdf is None else x + self.tdf(x)


def _norm(channels: int, shape: Shape) -> nn.Module:
    return nn.BatchNorm2d(channels) if shape.batch_norm else nn.GroupNorm(2, channels)


class ConvTDFNet(nn.Module):
    """The stem's spectrum from the mixture's, both [B, 4, F, T]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        channels, bins = shape.growth, shape.dim_f
        self.first_conv = nn.Sequential(nn.Conv2d(CHANNELS, channels, 1), _norm(channels, shape), nn.ReLU())
        self.encoding_blocks, self.ds = nn.ModuleList(), nn.ModuleList()
        for _ in range(shape.levels):
            self.encoding_blocks.append(_Block(channels, bins, shape))
            wider = channels + shape.growth
            self.ds.append(nn.Sequential(nn.Conv2d(channels, wider, 2, stride=2), _norm(wider, shape), nn.ReLU()))
            channels, bins = wider, bins // 2
        self.bottleneck_block = _Block(channels, bins, shape)
        self.decoding_blocks, self.us = nn.ModuleList(), nn.ModuleList()
        for _ in range(shape.levels):
            narrower = channels - shape.growth
            up = nn.ConvTranspose2d(channels, narrower, 2, stride=2)
            self.us.append(nn.Sequential(up, _norm(narrower, shape), nn.ReLU()))
            channels, bins = narrower, bins * 2
            self.decoding_blocks.append(_Block(channels, bins, shape))
        self.final_conv = nn.Sequential(nn.Conv2d(channels, CHANNELS, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first_conv(x).transpose(-1, -2)
        skips = []
        for block, down in zip(self.encoding_blocks, self.ds, strict=True):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.bottleneck_block(x)
        for block, up in zip(self.decoding_blocks, self.us, strict=True):
            x = block(up(x) * skips.pop())
        y: torch.Tensor = self.final_conv(x.transpose(-1, -2))
        return y


def read_shape(state: Mapping[str, Any], where: str) -> Shape:
    """The hyper-parameters from the shapes of a state dict. Raises WeightsError where it is another network's."""
    try:
        growth, channels = state["first_conv.0.weight"].shape[:2]
        levels = len([k for k in state if k.startswith("ds.") and k.endswith(".0.weight")])
        layers = len([k for k in state if k.startswith("bottleneck_block.tfc.H.") and k.endswith(".0.weight")])
        kernel = state["bottleneck_block.tfc.H.0.0.weight"].shape[-1]
        linear = state.get("encoding_blocks.0.tdf.0.weight")
        if linear is None:
            raise WeightsError(f"{where} has no linear layers over frequency, so it doesn't say how many bins it has")
        dim_f = linear.shape[1]
        shape = Shape(
            dim_f,
            growth,
            levels,
            layers,
            kernel,
            0 if "encoding_blocks.0.tdf.3.weight" not in state else dim_f // linear.shape[0],
            "encoding_blocks.0.tdf.0.bias" in state,
            "first_conv.1.running_mean" in state,
        )
    except (KeyError, AttributeError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{where} is no ConvTDFNet: it has no {error}; check --weights") from error
    if channels != CHANNELS or not levels or dim_f % shape.multiple or kernel % 2 == 0:
        raise WeightsError(
            f"{where} is a ConvTDFNet that nobody published ({channels} channels, {levels} levels, {dim_f} bins "
            f"and kernels of {kernel}); check --weights"
        )
    return shape


def load_network(state: Mapping[str, Any], where: str) -> ConvTDFNet:
    """The network with a checkpoint's parameters, in float32. Every parameter must be there, finite, and no other."""
    state = {name: value for name, value in state.items() if name not in IGNORED}
    network = ConvTDFNet(read_shape(state, where))
    wanted = network.state_dict()
    absent, surplus = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if absent or surplus:
        what = f"lacks {', '.join(absent[:3])}" if absent else f"has also {', '.join(surplus[:3])}"
        raise WeightsError(f"{where} is no ConvTDFNet of {network.shape.levels} levels: it {what}; check --weights")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.shape != wanted[name].shape:
            shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise WeightsError(f"{where}: {name} is {shape}, not {list(wanted[name].shape)}; it is another network")
        if not torch.isfinite(value).all() or (name.endswith("running_var") and (value < 0).any()):
            raise WeightsError(
                f"{where}: {name} holds NaN, infinity or a negative variance; take an earlier checkpoint"
            )
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    network.eval()
    return network


def parameter_count(network: ConvTDFNet) -> int:
    return sum(math.prod(p.shape) for p in network.parameters())
