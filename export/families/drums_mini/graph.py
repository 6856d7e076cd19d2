"""The drums_mini network: in torch, as ``training/`` trains it and the export is compared with, and as an ONNX graph.

A U-Net over bands and frames, strided in frequency only, around a bidirectional LSTM over time. It sees the mixture's
power in 160 bands and gives each band, channel and frame a share for each stem.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ortsep.export.graph.algebra import affine_in, lstm_weights
from ortsep.export.graph.builder import Graph

STEMS = ("kick", "snare", "toms", "hihat", "cymbals")
EPS = 1e-3
"""Added to a band's power before its logarithm."""
LEVEL = 0.63
"""Mean power of the spectrum to which a block is brought before its bands are judged: -2 dB, the middle of what the
training hears (9 dB either way). So the masks don't depend on how loud a track is."""
FAINT = 1e-10
"""Added to a block's mean power: silence stays silence."""


@dataclass(frozen=True)
class Architecture:
    """Sizes; the state dict of a checkpoint fits one of these only."""

    n_fft: int = 2048
    hop: int = 512
    bands: int = 160
    single: int = 40
    """The lowest bins that are bands of their own; above, bands widen by a constant ratio."""
    widths: tuple[int, ...] = (16, 32, 48, 64)
    inner: int = 160
    hidden: int = 160

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1


def band_starts(bins: int, bands: int, single: int) -> list[int]:
    """First bin of each band: ``single`` bands of one bin, the others spaced geometrically, none empty."""
    starts = list(range(single))
    left = bands - single
    edge = float(single)
    for i in range(left):
        starts.append(round(edge))
        ratio = (bins / edge) ** (1 / (left - i))
        edge = max(edge * ratio, round(edge) + 1.0)
    return starts


def band_of_bin(arch: Architecture) -> Tensor:
    """The band of each bin: int64 [bins]."""
    starts = torch.tensor(band_starts(arch.bins, arch.bands, arch.single))
    return torch.bucketize(torch.arange(arch.bins), starts, right=True) - 1


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


class DrumsMini(nn.Module):
    """Magnitudes [B, 2, bins, T] to masks [B, 5, 2, bins, T] that sum to one over the stems."""

    def __init__(self, arch: Architecture = Architecture()) -> None:
        super().__init__()
        self.arch = arch
        self.register_buffer("band", band_of_bin(arch), persistent=False)
        self.scale = nn.Parameter(torch.full((arch.bands, 1), 0.25))
        self.shift = nn.Parameter(torch.zeros(arch.bands, 1))
        widths = arch.widths
        self.down = nn.ModuleList()
        for before, width in zip((2, *widths[:-1]), widths, strict=True):
            self.down.append(nn.Sequential(_conv(before, width, (5, 3), (2, 1)), _conv(width, width, (3, 3))))
        deep = widths[-1] * (arch.bands >> len(widths))
        self.into = nn.Linear(deep, arch.inner)
        self.lstm = nn.LSTM(arch.inner, arch.hidden, 2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * arch.hidden, deep)
        self.up = nn.ModuleList()
        for width, after in zip(widths[::-1], (*widths[-2::-1], widths[0]), strict=True):
            self.up.append(
                nn.Sequential(
                    _conv(2 * width, width, (3, 3)),
                    nn.ConvTranspose2d(width, after, (4, 3), (2, 1), (1, 1)),
                )
            )
        self.head = nn.Conv2d(widths[0], 2 * len(STEMS), 1)

    def logits(self, power: Tensor) -> Tensor:
        """Band powers, means over the band's bins, [B, 2, bands, T] to mask logits [B, 5, 2, bands, T]."""
        x, skips = torch.log(power + EPS) * self.scale + self.shift, []
        for block in self.down:
            x = block(x)
            skips.append(x)
        batch, width, bands, frames = x.shape
        rows = x.permute(0, 3, 1, 2).reshape(batch, frames, width * bands)
        rows = self.out(self.lstm(self.into(rows))[0])
        x = rows.view(batch, frames, width, bands).permute(0, 2, 3, 1).contiguous(memory_format=torch.channels_last)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([x, skip], 1))
        return self.head(x).unflatten(1, (len(STEMS), 2))

    def forward(self, magnitude: Tensor) -> Tensor:
        counts = torch.bincount(self.band, minlength=self.arch.bands).to(magnitude.dtype)
        whole = magnitude.square()
        power = magnitude.new_zeros(*magnitude.shape[:2], self.arch.bands, magnitude.shape[3])
        power = power.index_add(2, self.band, whole) / counts[:, None]
        power = power * (LEVEL / (whole.mean((1, 2, 3), keepdim=True) + FAINT))
        return torch.softmax(self.logits(power), 1)[:, :, :, self.band]


def build_graph(network: DrumsMini, name: str, *, coreml: bool = False) -> onnx.ModelProto:
    """``magnitude`` [B, 2, F, T] -> ``masks`` [B, 5, 2, F, T], B and T free, normalisations folded in float64.

    ``coreml``: with GatherND in place of Gather, which ONNX Runtime's provider for CoreML has not.
    """
    arch = network.arch
    state = {k: v.double().numpy() for k, v in network.state_dict().items() if v.is_floating_point()}
    g = Graph(name)
    mix = g.input("magnitude", ["batch", 2, arch.bins, "frames"])

    band = network.band.numpy()
    pool = (band[None] == np.arange(arch.bands)[:, None]) / np.bincount(band)[:, None]
    power = g.scope("bands").mul(mix, mix)
    gain = g.op("Div", g.const(LEVEL), g.add(g.mean(power, 1, 2, 3), g.const(FAINT)))
    x = g.mul(g.op("MatMul", g.const(pool), power), gain)
    x = g.op("Log", g.add(x, g.const(EPS)))
    x = g.add(g.mul(x, g.const(state["scale"])), g.const(state["shift"]))

    def block(x: str, name: str, stride: int = 1) -> str:
        weight = state[f"{name}.0.weight"]
        gain, shift = affine_in(state, f"{name}.1")
        pads = [k // 2 for k in weight.shape[2:]] * 2
        x = g.conv(x, weight * gain[:, None, None, None], shift, stride=(stride, 1), pads=pads)
        return g.mul(x, g.op("Sigmoid", x))

    skips = []
    for level in range(len(arch.widths)):
        g.scope(f"down{level}")
        x = block(block(x, f"down.{level}.0", stride=2), f"down.{level}.1")
        skips.append(x)

    deep = arch.bands >> len(arch.widths)
    x = g.scope("lstm").reshape(g.transpose(x, 3, 0, 1, 2), 0, 0, arch.widths[-1] * deep)
    x = g.linear(x, state["into.weight"], state["into.bias"])
    for layer in range(2):
        w, r, b = lstm_weights(state, layer, True)
        x = g.op("LSTM", x, g.const(w), g.const(r), g.const(b), hidden_size=arch.hidden, direction="bidirectional")
        x = g.reshape(g.transpose(x, 0, 2, 1, 3), 0, 0, 2 * arch.hidden)
    x = g.linear(x, state["out.weight"], state["out.bias"])
    x = g.transpose(g.reshape(x, 0, 0, arch.widths[-1], deep), 1, 2, 3, 0)

    for level, skip in enumerate(reversed(skips)):
        x = block(g.scope(f"up{level}").concat([x, skip], 1), f"up.{level}.0")
        weight, bias = state[f"up.{level}.1.weight"], state[f"up.{level}.1.bias"]
        x = g.conv_transpose(x, weight, bias, stride=(2, 1), pads=(1, 1, 1, 1))
    x = g.scope("masks").conv(x, state["head.weight"], state["head.bias"])
    x = g.op("Softmax", g.reshape(x, 0, len(STEMS), 2, arch.bands, -1), axis=1)
    if coreml:
        x = g.op("GatherND", g.transpose(x, 3, 0, 1, 2, 4), g.const(band[:, None], np.int64))
        x = g.transpose(x, 1, 2, 3, 0, 4)
    else:
        x = g.op("Gather", x, g.const(band, np.int64), axis=3)
    g.output(x, "masks", ["batch", len(STEMS), 2, arch.bins, "frames"])
    return g.model()
