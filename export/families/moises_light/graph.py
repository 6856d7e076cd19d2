"""The Moises-Light network as an ONNX graph, built from its architecture and parameters, for both generations.

Layout: activations are [B, C, T, F] with the band's F bins innermost, so that the linear layers over frequency are
plain products, strided frames whole rows, and a convolution's rows long at every depth. BatchNorm is folded in float64.
Channels of a band are padded with zeros, or bands merged, until a group is a multiple of 16 channels wide: ONNX Runtime
has a blocked kernel for those, twice as fast as its im2col even with the products by zero. Between the upsamplings and
downsamplings of the U-Net stand the transformers, on tokens [sequences, positions, channels].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ortsep.base.arrays import F64
from ortsep.export.families.moises_light.architecture import Architecture
from ortsep.export.graph.algebra import affine_in
from ortsep.export.graph.builder import MICROSOFT, Graph

State = Mapping[str, npt.NDArray[Any]]

BLOCK = 16
"""Channels of ONNX Runtime's blocked layout with AVX-512 (8 with AVX2)."""
POSITIONS = 4096
"""Rows of the rotary table: the longest run is this many frames after downsampling, 12 minutes with three stages."""


@dataclass(frozen=True)
class Lanes:
    """Where the channels of each band lie among ``groups`` groups of ``width`` channels."""

    groups: int
    width: int
    index: npt.NDArray[np.int64]
    """[bands, channels of a band]"""

    @property
    def total(self) -> int:
        return self.groups * self.width


def lanes(channels: int, bands: int, block: int = BLOCK) -> Lanes:
    """The cheapest merging of bands and padding to multiples of ``block``; ``block`` 1 leaves the channels alone."""
    each = channels // bands

    def plan(merged: int) -> Lanes:
        width = ceil(merged * each / block) * block
        band = np.arange(bands)[:, None]
        return Lanes(bands // merged, width, band // merged * width + band % merged * each + np.arange(each))

    def cost(p: Lanes) -> int:  # per bin and frame: a 3x3 convolution, and what each channel costs elsewhere
        return p.groups * p.width**2 * 9 + 50 * p.total

    return plan(1) if block == 1 else min((plan(m) for m in range(1, bands + 1) if bands % m == 0), key=cost)


def widen(weight: F64, source: Lanes, target: Lanes) -> tuple[F64, int]:
    """A convolution's weight [out, in of a band, h, w], grouped by bands, between lanes: the weight and its groups."""
    bands, outs = target.index.shape
    dense = np.zeros((target.total, source.total, *weight.shape[2:]))
    for band in range(bands):
        dense[np.ix_(target.index[band], source.index[band])] = weight[band * outs : (band + 1) * outs]
    if source.groups != target.groups or source.width % BLOCK or target.width % BLOCK:
        return dense, 1
    o, i = target.width, source.width
    parts = [dense[g * o : (g + 1) * o, g * i : (g + 1) * i] for g in range(source.groups)]
    return np.concatenate(parts), source.groups


def spread(values: F64, target: Lanes) -> F64:
    """A vector over channels [C] to lanes, zeros between."""
    out = np.zeros(target.total)
    out[target.index.reshape(-1)] = values
    return out


class Builder:
    """Builds one network: ``build`` is the only entry."""

    def __init__(self, arch: Architecture, state: State, portable: bool) -> None:
        self.arch, self.state, self.portable = arch, state, portable
        self.graph = Graph("moises_light")

    def get(self, name: str) -> F64:
        return np.asarray(self.state[name], dtype=np.float64)

    def norm(self, name: str) -> tuple[F64, F64]:
        """BatchNorm in evaluation as scale and shift per channel."""
        return affine_in(self.state, name)

    def act(self, x: str) -> str:
        g = self.graph
        if self.arch.act_name == "SiLU":
            return g.mul(x, g.op("Sigmoid", x))
        kinds = {"ReLU": "Relu", "GELU": "Gelu", "LeakyReLU": "LeakyRelu", "Softplus": "Softplus", "Mish": "Mish"}
        return g.op(kinds[self.arch.act_name], x)

    # -- the U-Net ------------------------------------------------------------------------------------------------

    def grouped(self, x: str, name: str, source: Lanes, target: Lanes) -> str:
        """SplitModule: convolution grouped by bands, norm, activation."""
        return self.act(self.conv(x, *self.folded(f"{name}.conv", f"{name}.bn"), source, target))

    def folded(self, conv: str, bn: str) -> tuple[F64, F64]:
        scale, shift = self.norm(bn)
        return self.get(f"{conv}.weight") * scale[:, None, None, None], self.get(f"{conv}.bias") * scale + shift

    def conv(self, x: str, weight: F64, bias: F64, source: Lanes, target: Lanes) -> str:
        """``weight`` [out, in, f, t] as torch stores it; same size."""
        wide, groups = widen(weight.transpose(0, 1, 3, 2), source, target)
        t, f = wide.shape[2] // 2, wide.shape[3] // 2
        return self.graph.conv(x, wide, spread(bias, target), pads=[t, f, t, f], groups=groups)

    def tdf(self, x: str, name: str, at: Lanes) -> str:
        """Two linear layers over frequency with BatchNorm per channel, all scales and biases on the small side.

        Two more hidden features, constant one, carry the second layer's bias times its scale, and its shift.
        """
        g = self.graph
        w1, b1, w2, b2 = (self.get(f"{name}.{p}") for p in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"))
        (s1, t1), (s2, t2) = (tuple(spread(v, at)[:, None, None] for v in self.norm(f"{name}.bn{i}")) for i in (1, 2))
        one = np.ones((at.total, 1, 1))
        unit = {"ReLU": 1.0, "LeakyReLU": 1.0, "GELU": 0.8413447460685429, "Softplus": 1.3132616875182228}
        unit |= {"SiLU": 0.7310585786300049, "Mish": 0.8650983882673103}  # the activations of one
        back = 1.0 / unit[self.arch.act_name]
        h = g.op("MatMul", x, g.const(np.concatenate([w1.T, np.zeros((w1.shape[1], 2))], axis=1)))
        h = g.add(g.mul(h, g.const(s1)), g.const(np.concatenate([s1 * b1 + t1, one, one], axis=2)))
        scales = np.concatenate([s2 + 0 * b1, s2 * back, t2 * back], axis=2)
        h = g.mul(self.act(h), g.const(scales))
        return self.act(g.op("MatMul", h, g.const(np.concatenate([w2.T, b2[None], np.ones((1, len(b2)))]))))

    def split_and_merge(self, x: str, name: str, splits: int, at: Lanes) -> str:
        g = self.graph.scope(name)
        res = self.grouped(x, f"{name}.res", at, at)
        for i in range(splits):
            x = self.grouped(x, f"{name}.split1.{i}", at, at)
        x = g.add(x, self.tdf(x, f"{name}.tdf", at))
        for i in range(splits):
            x = self.grouped(x, f"{name}.split2.{i}", at, at)
        return g.add(x, res)

    def down(self, x: str, name: str, source: Lanes, target: Lanes) -> str:
        """Convolution (1, 2) of stride (1, 2), over frames."""
        self.graph.scope(name)
        weight, bias = self.folded(f"{name}.conv", f"{name}.bn")
        dense = np.zeros((target.total, source.total, 2, 1))
        dense[np.ix_(target.index.reshape(-1), source.index.reshape(-1))] = weight.transpose(0, 1, 3, 2)
        return self.act(self.graph.conv(x, dense, spread(bias, target), stride=[2, 1]))

    def up(self, x: str, name: str, source: Lanes, target: Lanes) -> str:
        """Transposed convolution (1, 2) of stride (1, 2): a 1x1 convolution to even and odd frames, interleaved."""
        g = self.graph.scope(name)
        scale, shift = self.norm(f"{name}.bn")
        weight = self.get(f"{name}.conv.weight")[:, :, 0].transpose(1, 2, 0) * scale[:, None, None]  # [out, 2, in]
        dense = np.zeros((target.total, 2, source.total))
        dense[np.ix_(target.index.reshape(-1), np.arange(2), source.index.reshape(-1))] = weight
        bias = np.repeat(spread(self.get(f"{name}.conv.bias") * scale + shift, target), 2)
        x = self.act(g.conv(x, dense.reshape(2 * target.total, source.total, 1, 1), bias))
        f = self.arch.freq_band
        # [B, (C, 2), T, F] -> [B, C, T, 2, F] -> [B, C, 2T, F]
        x = g.transpose(g.reshape(x, 0, target.total, 2, -1, f), 0, 1, 3, 2, 4)
        return g.reshape(x, 0, target.total, -1, f)

    # -- the transformers -----------------------------------------------------------------------------------------

    def rms_norm(self, x: str, gamma: str) -> str:
        """x / max(|x|, 1e-12) * sqrt(C) * gamma, in the form that ONNX Runtime fuses."""
        g = self.graph
        square = g.op("ReduceMean", g.op("Pow", x, g.const(2.0)), g.ints(-1), keepdims=1)
        return g.mul(g.div(x, g.op("Sqrt", g.add(square, g.const(1e-24)))), gamma)

    def transformer(self, x: str, name: str, positions: str) -> str:
        """RoPETransformer of depth one on [N, positions, C], without its output's norm (there is none)."""
        g = self.graph.scope(name)
        a, f = f"{name}.layers.0.0", f"{name}.layers.0.1.net"
        n = self.rms_norm(x, g.const(self.get(f"{a}.norm.gamma")))
        out = g.linear(self.attention(n, a, positions), self.get(f"{a}.to_out.0.weight"))
        gamma = g.const(self.get(f"{f}.0.gamma"))
        x = g.add(x, out)
        h = g.gelu(g.linear(self.rms_norm(x, gamma), self.get(f"{f}.1.weight"), self.get(f"{f}.1.bias")))
        return g.add(g.linear(h, self.get(f"{f}.4.weight"), self.get(f"{f}.4.bias")), x)

    def attention(self, n: str, name: str, positions: str) -> str:
        """Gated attention with rotary positions on the normed [N, positions, C]: [N, positions, heads * dim_head]."""
        g, heads, d = self.graph, self.arch.heads, self.arch.dim_head
        q, k, v = np.split(self.get(f"{name}.to_qkv.weight"), 3)
        freqs = self.get(f"{name}.rotary_embed.freqs")
        angles = np.arange(POSITIONS)[:, None] * freqs
        gates = g.op("Sigmoid", g.linear(n, self.get(f"{name}.to_gates.weight"), self.get(f"{name}.to_gates.bias")))
        if self.portable:
            q, k = (w.reshape(heads, d // 2, 2, -1).transpose(2, 0, 1, 3).reshape(heads * d, -1) for w in (q, k))
            table = [g.op("Slice", g.const(np.tile(f(angles), heads)), g.ints(0), positions) for f in (np.cos, np.sin)]
            turned = []
            for w in (q * d**-0.5, k):
                a, b = g.ops("Split", g.linear(n, w), outputs=2, axis=-1, num_outputs=2)
                cos, sin = table
                re, im = g.sub(g.mul(a, cos), g.mul(b, sin)), g.add(g.mul(a, sin), g.mul(b, cos))
                turned.append(g.reshape(g.concat([re, im], -1), 0, 0, 2, heads, d // 2))
            queries = self._fold(g.transpose(turned[0], 0, 3, 1, 2, 4), d)
            keys = g.transpose(self._fold(g.transpose(turned[1], 0, 3, 1, 2, 4), d), 0, 1, 3, 2)
            values = g.transpose(g.reshape(g.linear(n, v), 0, 0, heads, d), 0, 2, 1, 3)
            out = g.op("MatMul", g.op("Softmax", g.op("MatMul", queries, keys), axis=-1), values)
            out = g.transpose(out, 0, 2, 1, 3)
        else:
            where = [g.positions(n, POSITIONS), g.const(np.cos(angles)), g.const(np.sin(angles))]
            turn: dict[str, Any] = {"domain": MICROSOFT, "interleaved": 1, "num_heads": heads}
            turned = [g.op("RotaryEmbedding", g.linear(n, w), *where, **turn) for w in (q, k)]
            out = g.op("MultiHeadAttention", *turned, g.linear(n, v), domain=MICROSOFT, num_heads=heads)
            out = g.reshape(out, 0, 0, heads, d)
        return g.reshape(g.mul(out, g.reshape(gates, 0, 0, heads, 1)), 0, 0, heads * d)

    def _fold(self, x: str, d: int) -> str:
        return self.graph.reshape(x, 0, 0, 0, d)

    def bottleneck(self, x: str, channels: int, at: Lanes) -> str:
        """[B, lanes, T, F] to [B, channels, T, F] without padding."""
        arch, g, f = self.arch, self.graph, self.arch.freq_band
        x = self.split_and_merge(x, "bottleneck.split_merge", arch.n_split_enc, at)
        g.scope("bottleneck")
        if at.total != channels:
            x = g.op("Gather", x, g.const(at.index.reshape(-1), np.int64), axis=1)
        frames = g.op("Shape", x, start=2, end=3)
        any_, bins, wide = g.ints(-1), g.ints(f), g.ints(channels)
        # sequences, tokens in two dimensions, positions
        runs = {
            "time": (g.concat([any_, frames, wide], 0), g.concat([any_, bins, frames, wide], 0), frames),
            "freq": (g.ints(-1, f, channels), g.concat([any_, frames, bins, wide], 0), bins),
        }
        order = ("time", "freq") if arch.new else ("freq", "time")
        # Tokens as [B, T, F, C]. The reshape keeps ONNX Runtime from making one slow transpose of this and the next.
        if self.portable:  # CoreML takes no axis as long as T F
            x = g.transpose(x, 0, 2, 3, 1)
        else:
            x = g.op("Reshape", g.transpose(g.reshape(x, 0, channels, -1), 0, 2, 1), runs["freq"][1])
        at_hand = "freq"
        for i in range(arch.n_rope):
            for kind in order:
                inside, outside, positions = runs[kind]
                if kind != at_hand:
                    x, at_hand = g.transpose(x, 0, 2, 1, 3), kind
                x = g.op("Reshape", x, inside)
                y = self.transformer(x, f"bottleneck.rope_blocks.{i}.{kind}_transformer", positions)
                x = g.op("Reshape", y if arch.new else g.add(y, x), outside)
        g.scope("bottleneck")
        if arch.new:
            x = self.rms_norm(x, g.const(self.get("bottleneck.final_norm.gamma")))
        if at_hand == "time":
            x = g.transpose(x, 0, 2, 1, 3)
        return g.transpose(x, 0, 3, 1, 2)

    # -- the whole ------------------------------------------------------------------------------------------------

    def build(self, rows: tuple[int, ...]) -> onnx.ModelProto:
        """The graph with the stems ``rows`` only."""
        arch, g, bands, band = self.arch, self.graph, self.arch.n_bands, self.arch.freq_band
        c = 2 * arch.audio_channels
        x = g.input("spectrum", ["B", c, arch.freq_dim, "T"])
        # [B, c, bands * F, T] -> [B, (bands, c), T, F]
        x = g.transpose(g.reshape(x, 0, c, bands, band, -1), 0, 2, 1, 3, 4)
        x = g.transpose(g.reshape(x, 0, c * bands, band, -1), 0, 1, 3, 2)
        at = [lanes((i + 1) * arch.G, bands) for i in range(arch.n_enc + 1)]
        g.scope("first_conv")
        x = self.grouped(x, "first_conv", lanes(c * bands, bands, 1), at[0])
        skips = []
        for i in range(arch.n_enc):
            x = self.split_and_merge(x, f"encoder_blocks.{i}", arch.n_split_enc, at[i])
            skips.append(x)
            x = self.down(x, f"ds.{i}", at[i], at[i + 1])
        source = lanes((arch.n_enc + 1) * arch.G, bands, 1)
        x = self.bottleneck(x, source.total, at[-1])
        for i in range(arch.n_enc):
            heavy = i < arch.n_dec
            name = f"dec_heavy_us.{i}" if heavy else f"dec_light_us.{i - arch.n_dec}"
            target = at[arch.n_enc - 1 - i]
            x = g.mul(self.up(x, name, source, target), skips.pop())
            if heavy:
                x = self.split_and_merge(x, f"dec_heavy_blocks.{i}", arch.n_split_dec, target)
            source = target
        x = self.head(x, source, rows)
        # [B, (bands, S * c), T, F] -> [B, S, c, bands * F, T]
        x = g.reshape(g.transpose(x, 0, 1, 3, 2), 0, bands, len(rows) * c, band, -1)
        x = g.transpose(x, 0, 2, 1, 3, 4)
        x = g.reshape(x, 0, len(rows), c, arch.freq_dim, -1)
        g.output(x, "masks", ["B", len(rows), c, arch.freq_dim, "T"])
        return g.model()

    def head(self, x: str, at: Lanes, rows: tuple[int, ...]) -> str:
        """The last convolution with the fan-out to stems, one convolution where nothing stands between the two."""
        self.graph.scope("final_conv")
        arch, bands = self.arch, self.arch.n_bands
        c = 2 * arch.audio_channels
        if "source_head.weight" in self.state:
            fan = self.get("source_head.weight")[:, :, 0, 0].reshape(-1, c, c)[list(rows)].reshape(-1, c)
            fan_bias = self.get("source_head.bias").reshape(-1, c)[list(rows)].reshape(-1)
        else:
            fan, fan_bias = np.eye(c), np.zeros(c)
        fine = lanes(bands * len(fan), bands, 1)
        if arch.new:
            weight, bias = self.get("final_conv.weight"), self.get("final_conv.bias")
            weight = np.einsum("oi,bi...->bo...", fan, weight.reshape(bands, c, *weight.shape[1:]))
            bias = np.einsum("oi,bi->bo", fan, bias.reshape(bands, c)) + fan_bias
            wide = Lanes(at.groups, fine.total // at.groups, fine.index)
            return self.conv(x, weight.reshape(-1, *weight.shape[2:]), bias.reshape(-1), at, wide)
        small = lanes(bands * c, bands, 1)
        x = self.grouped(x, "final_conv", at, small)
        fans = np.tile(fan, (bands, 1))[:, :, None, None]
        return self.conv(x, fans, np.tile(fan_bias, bands), small, fine)


def build_graph(
    arch: Architecture, state: State, rows: tuple[int, ...] | None = None, portable: bool = False
) -> onnx.ModelProto:
    """The network from z-scored ``spectrum`` [B, 2C, F, T] to ``masks`` [B, S, 2C, F, T]; T a multiple of 2^n_enc.

    ``rows``: only these stems. ``portable``: operators of the ONNX standard only.
    """
    return Builder(arch, state, portable).build(rows or tuple(range(len(arch.sources))))
