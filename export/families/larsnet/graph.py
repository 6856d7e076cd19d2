"""LarsNet's U-Net twice: in torch, as the reference, and as an ONNX graph that gives the same masks in less time.

Mezza, Giampiccolo, Bernardini, Sarti, "Toward deep drum source separation", Pattern Recognition Letters 183 (2024);
structure and parameter names as in github.com/polimi-ispl/larsnet, ``unet.UNet``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from ortsep.base.arrays import F64
from ortsep.base.errors import WeightsError
from ortsep.export.graph.algebra import affine_in, phase_kernel
from ortsep.export.graph.builder import Graph

AUDIO = 2
"""Audio channels."""
WIDTHS = (16, 32, 64, 128, 256, 512)
"""Output channels of the encoder's levels; the decoder mirrors them and ends in the audio channels."""
HALVINGS = 1 << len(WIDTHS)
"""Bins and frames must be multiples of this, or the decoder's sizes miss those of the skips."""
EPS = 1e-5
SLOPE = 0.2
TILE = (4, 2)
"""Rows and columns of full resolution that the graph's last layers keep as channels: with the two audio channels 16
channels, one full block of AVX-512's convolution kernels, where two would waste seven eighths of the work."""


class _Encoder(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)
        self.bn = nn.BatchNorm2d(outputs, eps=EPS)


class _Decoder(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_trans = nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)
        self.bn = nn.BatchNorm2d(outputs, eps=EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn(torch.relu(self.conv_trans(x)))
        return y


class UNet(nn.Module):
    """Masks from magnitudes, both [B, 2, F, T]; F = ``bins``.

    Dropout, which only training has, is left out. As in the original, the last encoder's batch norm is never used.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(bins, eps=EPS)
        for k, (i, o) in enumerate(zip((AUDIO, *WIDTHS), WIDTHS, strict=False), 1):
            self.add_module(f"enc{k}", _Encoder(i, o))
        inputs = (WIDTHS[-1], *(2 * w for w in reversed(WIDTHS[:-1])))
        for k, (i, o) in enumerate(zip(inputs, (*reversed(WIDTHS[:-1]), AUDIO), strict=True), 1):
            self.add_module(f"dec{k}", _Decoder(i, o))
        self.mask_layer = nn.Sequential(nn.Conv2d(AUDIO, AUDIO, 4, dilation=2, padding=3), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        modules: Any = dict(self.named_children())
        x = self.input_norm(x.transpose(1, 2)).transpose(1, 2)
        skips = []
        for k in range(1, len(WIDTHS)):
            encoder = modules[f"enc{k}"]
            skips.append(encoder.conv(x))
            x = nn.functional.leaky_relu(encoder.bn(skips[-1]), SLOPE)
        y = modules["dec1"](modules[f"enc{len(WIDTHS)}"].conv(x))
        for k in range(2, len(WIDTHS) + 1):
            y = modules[f"dec{k}"](torch.cat([skips.pop(), y], 1))
        masks: torch.Tensor = self.mask_layer(y)
        return masks


def load_network(state: Mapping[str, Any], where: str) -> UNet:
    """The U-Net with a checkpoint's parameters, in float32. Every parameter must be there, finite, and no other.

    Raises WeightsError, with ``where`` as the checkpoint's name.
    """
    norm = state.get("input_norm.weight")
    if not isinstance(norm, torch.Tensor) or norm.ndim != 1 or not 0 < len(norm) <= 1 << 15:
        raise WeightsError(f"{where} is no LarsNet U-Net: it has no input_norm.weight; check --weights")
    network = UNet(len(norm))
    wanted = network.state_dict()
    absent, surplus = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if absent or surplus:
        what = f"lacks {_some(absent)}" if absent else f"has also {_some(surplus)}"
        raise WeightsError(f"{where} is no LarsNet U-Net: it {what}; check --weights")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.shape != wanted[name].shape:
            shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise WeightsError(f"{where}: {name} is {shape}, not {list(wanted[name].shape)}; it is another network")
        if not torch.isfinite(value).all() or (name.endswith("running_var") and (value < 0).any()):
            raise WeightsError(f"{where}: {name} holds NaN, infinity or a negative variance; take an earlier one")
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    network.eval()
    return network


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def build_graph(network: UNet, frames: int, name: str) -> onnx.ModelProto:
    """The graph of a U-Net: ``magnitude`` [B,2,F,T] to ``masks`` [B,1,2,F,T], B free, T = ``frames``.

    All of it stays in the blocked layout of ONNX Runtime's CPU kernels: transposed convolutions become four plain ones
    (one per phase of the doubled grid, no multiplication more than before), their outputs are interleaved with whole
    channel vectors as units, and batch norms behind an activation are depthwise 1x1 convolutions. They can't be folded
    into the next layer, whose zero padding is no constant in front of them.
    """
    p = {key: value.double().numpy() for key, value in network.state_dict().items()}
    bins = len(p["input_norm.weight"])
    g = Graph(name)
    scale, shift = affine_in(p, "input_norm")
    x = g.input("magnitude", ("B", AUDIO, bins, frames))
    x = g.add(g.mul(x, g.const(scale.reshape(1, 1, -1, 1))), g.const(shift.reshape(1, 1, -1, 1)))
    skips: list[str] = []
    for k in range(1, len(WIDTHS) + 1):
        g.scope(f"enc{k}")
        weight, bias = p[f"enc{k}.conv.weight"], p[f"enc{k}.conv.bias"]
        skips.append(g.conv(x, weight, bias, stride=(2, 2), pads=(2, 2, 2, 2)))
        if k < len(WIDTHS):
            x = g.op("LeakyRelu", _norm(g, skips[-1], *affine_in(p, f"enc{k}.bn")), alpha=SLOPE)
    y = skips.pop()
    for k in range(1, len(WIDTHS)):
        g.scope(f"dec{k}")
        size = (bins * 2**k // HALVINGS, frames * 2**k // HALVINGS)
        x = y if k == 1 else g.concat([skips.pop(), y], 1)
        y = _up(g, x, p[f"dec{k}.conv_trans.weight"], p[f"dec{k}.conv_trans.bias"], size)
        y = _norm(g, y, *affine_in(p, f"dec{k}.bn"))
    masks = _tail(g, skips.pop(), y, p, (bins, frames))
    g.output(masks, "masks", ("B", 1, AUDIO, bins, frames))
    return g.model()


def _norm(g: Graph, x: str, scale: F64, shift: F64) -> str:
    return g.conv(x, scale.reshape(-1, 1, 1, 1), shift, groups=len(scale))


def _up(g: Graph, x: str, weight: F64, bias: F64, size: tuple[int, int]) -> str:
    """ReLU of the transposed convolution, [B, outputs, *size]."""
    (h, w), outputs = size, weight.shape[1]
    phases = []
    for row in (0, 1):
        for column in (0, 1):
            kernel, pads = phases_of(weight, (row,), (column,))
            phases.append(g.op("Relu", g.conv(x, kernel, bias, pads=pads)))
    y = g.transpose(g.concat(phases, 1), 0, 2, 3, 1)
    y = g.transpose(g.reshape(y, 0, h // 2, w // 2, 2, 2 * outputs), 0, 1, 3, 2, 4)
    return g.transpose(g.reshape(y, 0, h, w, outputs), 0, 3, 1, 2)


def _tail(g: Graph, skip: str, y: str, p: Mapping[str, F64], size: tuple[int, int]) -> str:
    """The last decoder level and the mask layer on tiles, put in place at the very end: [B, 1, 2, *size]."""
    (h, w), (rows, columns) = size, TILE
    g.scope("dec6")
    kernel, pads = phases_of(p["dec6.conv_trans.weight"], range(rows), range(columns))
    at = kernel.shape[1] // 2  # two convolutions, the sum fused into the second, spare the copy that Concat makes
    bias = np.repeat(p["dec6.conv_trans.bias"], rows * columns)
    steps = (rows // 2, columns // 2)
    x = g.conv(skip, kernel[:, :at], stride=steps, pads=pads)
    x = g.op("Relu", g.add(x, g.conv(y, kernel[:, at:], bias, stride=steps, pads=pads)))
    scale, shift = (np.repeat(v, rows * columns) for v in affine_in(p, "dec6.bn"))
    x = _norm(g, x, scale, shift)
    g.scope("mask")
    kernel, pads = tiled_mask_kernel(p["mask_layer.0.weight"])
    x = g.conv(x, kernel, np.repeat(p["mask_layer.0.bias"], rows * columns), pads=pads)
    # channels (c, a, p) of tile (j, i) go to c, rows*j + a, columns*i + p: two cheap moves, not one slow one
    x = g.reshape(g.transpose(x, 0, 2, 3, 1), 0, h // rows, w // columns, AUDIO * rows, columns)
    x = g.reshape(g.transpose(x, 0, 1, 3, 2, 4), 0, h // rows, AUDIO, rows * w)
    x = g.reshape(g.transpose(x, 0, 2, 1, 3), 0, 1, AUDIO, h, w)
    return g.mask(x)


def phases_of(weight: F64, rows: Sequence[int], columns: Sequence[int]) -> tuple[F64, tuple[int, ...]]:
    """A transposed convolution (5x5, stride 2, padding 2, output padding 1) as a plain one, for some phases of a tile.

    ``weight`` [in, out, 5, 5]. ``rows`` and ``columns`` are offsets from a tile's first output. Tiles start every
    len//2 (at least 1) input pixels, which is the stride to use. Returns the kernel [out*rows*columns, in,
    kh, kw] and its pads.
    """
    kernel, ((top, bottom), (left, right)) = phase_kernel(weight, 2, 2, [rows, columns])
    ends = (bottom + 1 - max(1, len(rows) // 2), right + 1 - max(1, len(columns) // 2))
    return kernel, (-top, -left, *ends)


def tiled_mask_kernel(weight: F64) -> tuple[F64, tuple[int, ...]]:
    """The mask convolution (4x4, dilation 2, padding 3), ``weight`` [out, in, 4, 4], on tiles kept as channels.

    Returns a kernel [out*tile, in*tile, 3, 5] and its pads. Output o hears inputs o-3, o-1, o+1 and o+3.
    """
    rows, columns = TILE
    outputs, inputs = weight.shape[:2]
    kernel = np.zeros((outputs, rows, columns, inputs, rows, columns, 3, 5))
    for a in range(rows):
        for b in range(columns):
            for r in range(4):
                for c in range(4):
                    (j, row), (i, column) = divmod(a + 2 * r - 3, rows), divmod(b + 2 * c - 3, columns)
                    kernel[:, a, b, :, row, column, j + 1, i + 2] = weight[:, :, r, c]
    tile = rows * columns
    return kernel.reshape(outputs * tile, inputs * tile, 3, 5), (1, 2, 1, 2)
