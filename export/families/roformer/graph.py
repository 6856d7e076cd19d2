"""The RoFormers as an ONNX graph, built from their parameters.

Rows of the spectrum are gathered once into the bands, sorted by width: bands of a width are then one batched product,
both on the way in and for the masks. Tokens are [B, bands, T, dim] while transformers run over time and [B, T, bands,
dim] while they run over bands, and pass them in a few tiles, since the widest layer is four times the tokens' size.
Norms' scales lie in the linear layers behind them; q and k have their rotary pairs as halves; the bin at 0 Hz is
silenced by masks whose last layer gives zero there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ortsep.base.arrays import F32, F64
from ortsep.export.families.roformer.architecture import Architecture, transformers, uses
from ortsep.export.graph.builder import MICROSOFT, Graph

State = Mapping[str, npt.NDArray[Any]]

TILES = 4
"""Parts in which a transformer takes its sequences: memory for a few more nodes."""
ROWS = 800
"""Tokens of a part, about: ONNX Runtime's products go through all rows for each block of columns, at 80 GFLOP/s a core
where the rows stay in its cache and at 65 where they don't, from 3000 rows on (AMD EPYC, Zen 3)."""
SHORTEST = 1e-12
"""Of a vector that is brought to unit length (torch.nn.functional.normalize)."""
EPS = 1e-30
"""Inside a transformer's root mean square, where the original has next to nothing."""
HALF = 1024
"""Values from which an array is stored as float16, where all weights are."""


@dataclass(frozen=True)
class Group:
    """Bands of one width: their numbers, the width in bins, and where their rows begin among all gathered rows."""

    bands: tuple[int, ...]
    bins: int
    row: int


class Builder:
    """Builds one network: ``build`` is the only entry."""

    def __init__(self, arch: Architecture, state: State, positions: int, portable: bool, half: bool) -> None:
        self.arch, self.state, self.portable, self.half = arch, state, portable, half
        self.graph = Graph("roformer")
        self.positions = max(positions, len(arch.bands))
        self.groups = self._grouped()

    def _grouped(self) -> list[Group]:
        sizes = [stop - start for start, stop in self.arch.bands]
        groups, row = [], 0
        for bins in sorted(set(sizes)):
            bands = tuple(b for b, size in enumerate(sizes) if size == bins)
            groups.append(Group(bands, bins, row))
            row += len(bands) * bins * 2 * self.arch.channels
        return groups

    def get(self, name: str) -> F32:
        return np.asarray(self.state[name], np.float32)

    def weight(self, value: npt.NDArray[Any]) -> str:
        """A constant, stored as float16 and widened where the model asks for that."""
        value = np.asarray(value, np.float32)
        if not self.half or value.size < HALF or value.ndim < 2:
            return self.graph.const(value)
        return self.graph.half(value)

    def scaled(self, weight: str, gamma: str) -> F32:
        """A linear layer's weight [out, in] with the norm before it: sqrt(in) * gamma in its columns; transposed."""
        scale = self.get(gamma).astype(np.float64) * len(self.get(gamma)) ** 0.5
        scaled: F32 = (self.get(weight) * scale).T.astype(np.float32)
        return scaled

    # -- bands ----------------------------------------------------------------------------------------------------

    def rows(self, group: Group) -> npt.NDArray[np.int64]:
        """Rows of the spectrum [2C * F] for a group's bands, in the order of a band's inputs: bin, channel, part."""
        channels = np.arange(2 * self.arch.channels) * self.arch.bins
        starts = np.array([self.arch.bands[b][0] for b in group.bands])
        bins = starts[:, None, None] + np.arange(group.bins)[:, None] + channels
        return bins.reshape(-1)

    def split(self, rows: str) -> str:
        """Rows of the spectrum [B, 2C * F, T] to tokens [B, bands, T, dim]."""
        g = self.graph.scope("band_split")
        order = np.concatenate([self.rows(group) for group in self.groups])
        gathered = g.op("Gather", rows, g.const(order, np.int64), axis=1)
        sizes = [len(self.rows(group)) for group in self.groups]
        parts = self._parts(gathered, sizes)
        tokens = []
        for group, part in zip(self.groups, parts, strict=True):
            n, width = len(group.bands), group.bins * 2 * self.arch.channels
            x = g.transpose(g.reshape(part, 0, n, width, -1), 0, 1, 3, 2)
            length = g.op("ReduceL2", x, g.ints(-1), keepdims=1)
            x = g.div(x, g.op("Max", length, g.const(SHORTEST)))
            names = [f"band_split.to_features.{b}" for b in group.bands]
            weight = np.stack([self.scaled(f"{name}.1.weight", f"{name}.0.gamma") for name in names])
            bias = np.stack([self.get(f"{name}.1.bias") for name in names])[:, None]
            tokens.append(g.add(g.op("MatMul", x, self.weight(weight)), g.const(bias)))
        return self._ordered(g.concat(tokens, 1) if len(tokens) > 1 else tokens[0], np.argsort(self._bands()))

    def _bands(self) -> npt.NDArray[np.int64]:
        """Numbers of the bands, in the groups' order."""
        return np.array([band for group in self.groups for band in group.bands])

    def _ordered(self, tokens: str, order: npt.NDArray[np.int64]) -> str:
        if (order == np.arange(len(order))).all():
            return tokens
        return self.graph.op("Gather", tokens, self.graph.const(order, np.int64), axis=1)

    def _parts(self, x: str, sizes: Sequence[int]) -> list[str]:
        """Parts of ``sizes`` along axis 1."""
        if len(sizes) == 1:
            return [x]
        return self.graph.ops("Split", x, self.graph.ints(*sizes), outputs=len(sizes), axis=1)

    def masks(self, parts: list[str], stem: int) -> str:
        """Tokens by group [B, n, T, dim] to masks [B, 2C * F, T], a bin's mean over the bands that it lies in."""
        arch, g = self.arch, self.graph.scope(f"mask_estimators.{stem}")
        rows = []
        for group, x in zip(self.groups, parts, strict=True):
            names = [f"mask_estimators.{stem}.to_freqs.{b}.0" for b in group.bands]
            for k in range(arch.mask_layers):
                x = g.op("Tanh", self.batched(x, [f"{name}.{2 * k}" for name in names]))
            last = [f"{name}.{2 * arch.mask_layers}" for name in names]
            a = self.batched(x, last, (0, 2))
            b = g.op("Sigmoid", self.batched(x, last, (1, 2)))
            product = g.transpose(g.mul(a, b), 0, 1, 3, 2)
            rows.append(g.reshape(product, 0, len(names) * group.bins * 2 * arch.channels, -1))
        return self.averaged(g.concat(rows, 1) if len(rows) > 1 else rows[0])

    def batched(self, x: str, names: list[str], part: tuple[int, int] = (0, 1)) -> str:
        """Linear layers of several bands [n, T, in] in one product; of their outputs the part ``(k, of)``."""
        k, of = part
        weight = np.stack([np.split(self.get(f"{name}.weight"), of)[k].T for name in names])
        bias = np.stack([np.split(self.get(f"{name}.bias"), of)[k] for name in names])
        if of == 2 and k == 0 and self.arch.zero_dc:
            self._silence(names, weight, bias)
        return self.graph.add(self.graph.op("MatMul", x, self.weight(weight)), self.graph.const(bias[:, None]))

    def _silence(self, names: list[str], weight: F32, bias: F32) -> None:
        """Zeros for the masks' values of the bin at 0 Hz, which every band that begins there has first."""
        for i, name in enumerate(names):
            if self.arch.bands[int(name.split(".")[3])][0] == 0:
                weight[i, :, : 2 * self.arch.channels] = 0
                bias[i, : 2 * self.arch.channels] = 0

    def averaged(self, rows: str) -> str:
        """Masks' rows in the groups' order to [B, 2C * F, T]: sums of as many gathered rows as a bin has bands."""
        arch, g = self.arch, self.graph
        order = np.concatenate([self.rows(group) for group in self.groups])
        count = np.tile(uses(arch), 2 * arch.channels)
        where = np.argsort(order, kind="stable")
        first = np.concatenate(([0], np.cumsum(count)[:-1]))
        out = ""
        for k in range(int(count.max())):
            index = where[np.minimum(first + k, first + count - 1)]
            term = g.op("Gather", rows, g.const(index, np.int64), axis=1)
            if count.max() > 1:
                term = g.mul(term, g.const(np.where(k < count, 1.0 / count, 0.0)[:, None]))
            out = g.add(out, term) if out else term
        return out

    # -- transformers ---------------------------------------------------------------------------------------------

    def unit(self, x: str) -> str:
        """x over its root mean square, in the form that ONNX Runtime makes one node of."""
        g = self.graph
        square = g.op("ReduceMean", g.op("Pow", x, g.const(2.0)), g.ints(-1), keepdims=1)
        return g.div(x, g.op("Sqrt", g.add(square, g.const(EPS))))

    def norm(self, x: str, gamma: str) -> str:
        return self.graph.mul(self.unit(x), self.graph.const(self.get(gamma)))

    def gemm(self, x: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None = None) -> str:
        """[tokens, in] with [in, out]."""
        more = [] if bias is None else [self.graph.const(bias)]
        return self.graph.op("Gemm", x, self.weight(np.ascontiguousarray(weight)), *more)

    def transformer(self, x: str, name: str, depth: int, shape: str, length: str) -> str:
        """[tokens, dim] to the same; ``shape``: [-1, positions, heads * d], ``length``: [positions]."""
        g = self.graph.scope(name)
        for k in range(depth):
            x = g.add(x, self.attention(x, f"{name}.layers.{k}.0", shape, length))
            f = f"{name}.layers.{k}.1.net"
            h = self.gemm(self.norm(x, f"{f}.0.gamma"), self.get(f"{f}.1.weight").T, self.get(f"{f}.1.bias"))
            x = g.add(x, self.gemm(g.gelu(h), self.get(f"{f}.4.weight").T, self.get(f"{f}.4.bias")))
        return self.norm(x, f"{name}.norm.gamma") if self.arch.normed else x

    def attention(self, x: str, name: str, shape: str, length: str) -> str:
        g, heads, d = self.graph, self.arch.heads, self.arch.dim_head
        n = self.norm(x, f"{name}.norm.gamma")
        gates = g.op("Sigmoid", self.gemm(n, self.get(f"{name}.to_gates.weight").T, self.get(f"{name}.to_gates.bias")))
        q, k, v = np.split(self.get(f"{name}.to_qkv.weight"), 3)
        q, k = (w.reshape(heads, d // 2, 2, -1).transpose(0, 2, 1, 3).reshape(heads * d, -1) for w in (q, k))
        queries, keys, values = (g.op("Reshape", self.gemm(n, w.T), shape) for w in (q, k, v))
        angles = np.arange(self.positions)[:, None] * self.get(f"{name}.rotary_embed.freqs").astype(np.float64)
        attend = self._attend_portable if self.portable else self._attend
        out = attend(queries, keys, values, np.cos(angles), np.sin(angles), length)
        gated = g.mul(g.reshape(out, -1, heads, d), g.reshape(gates, -1, heads, 1))
        return self.gemm(g.reshape(gated, -1, heads * d), self.get(f"{name}.to_out.0.weight").T)

    def _attend(self, q: str, k: str, v: str, cos: F64, sin: F64, length: str) -> str:
        g, heads = self.graph, self.arch.heads
        tables = [g.positions(q, self.positions), g.const(cos), g.const(sin)]
        q, k = (g.op("RotaryEmbedding", x, *tables, domain=MICROSOFT, interleaved=0, num_heads=heads) for x in (q, k))
        return g.op("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=heads)

    def _attend_portable(self, q: str, k: str, v: str, cos: F64, sin: F64, length: str) -> str:
        """The same of standard operators: [sequences, positions, heads * d] to [sequences, positions, heads, d]."""
        g, heads, d = self.graph, self.arch.heads, self.arch.dim_head
        table = [g.op("Slice", g.const(part), g.ints(0), length, g.ints(0)) for part in (cos, sin)]
        turned = []
        for x in (q, k):
            x = g.transpose(g.reshape(x, 0, 0, heads, d), 0, 2, 1, 3)
            a, b = g.ops("Split", x, outputs=2, axis=-1, num_outputs=2)
            re = g.sub(g.mul(a, table[0]), g.mul(b, table[1]))
            turned.append(g.concat([re, g.add(g.mul(a, table[1]), g.mul(b, table[0]))], -1))
        scores = g.op("MatMul", g.mul(turned[0], g.const(d**-0.5)), g.transpose(turned[1], 0, 1, 3, 2))
        values = g.transpose(g.reshape(v, 0, 0, heads, d), 0, 2, 1, 3)
        return g.transpose(g.op("MatMul", g.op("Softmax", scores, axis=-1), values), 0, 2, 1, 3)

    def parted(self, x: str, name: str, depth: int, positions: str) -> str:
        """A transformer over axis 2 of [B, sequences, positions, dim], a part of the sequences at a time."""
        return (self._tiled if self.portable else self._scanned)(x, name, depth, positions)

    def _shape(self, positions: str) -> str:
        """[-1, positions, heads * d]."""
        return self.graph.concat(
            [self.graph.ints(-1), positions, self.graph.ints(self.arch.heads * self.arch.dim_head)], 0
        )

    def _tiled(self, x: str, name: str, depth: int, positions: str) -> str:
        """In a few parts, each with nodes of its own: other runtimes take no loops."""
        g = self.graph.scope(name)
        out = []
        shape = self._shape(positions)
        for part in g.ops("Split", x, self.shares(x), outputs=TILES, axis=1):
            self.graph.scope(name)
            back = g.op("Shape", part)
            tokens = self.transformer(g.reshape(part, -1, self.arch.dim), name, depth, shape, positions)
            out.append(g.op("Reshape", tokens, back))
        return g.concat(out, 1)

    def _scanned(self, x: str, name: str, depth: int, positions: str) -> str:
        """In parts of about ``ROWS`` tokens, the last filled up with sequences of zeros."""
        g, dim = self.graph.scope(name), self.arch.dim
        around = g.op("Shape", x)
        count = g.op("ReduceProd", g.op("Slice", around, g.ints(0), g.ints(2)), g.ints(0), keepdims=1)
        parts = g.op("Max", g.div(g.mul(count, positions), g.ints(ROWS)), g.ints(1))
        size = self._ceiling(count, parts)
        parts = self._ceiling(count, size)
        pads = g.concat([g.ints(0, 0, 0), g.sub(g.mul(parts, size), count), g.ints(0, 0)], 0)
        rows = g.op("Reshape", x, g.concat([g.ints(-1), positions, g.ints(dim)], 0))
        rows = g.op("Reshape", g.op("Pad", rows, pads), g.concat([parts, g.ints(-1, dim)], 0))
        shape = self._shape(positions)
        done = g.scan(rows, lambda tokens: self.transformer(tokens, name, depth, shape, positions))
        done = g.op("Reshape", done, g.concat([g.ints(-1), positions, g.ints(dim)], 0))
        return g.op("Reshape", g.op("Slice", done, g.ints(0), count, g.ints(0)), around)

    def _ceiling(self, a: str, b: str) -> str:
        """a / b rounded up."""
        g = self.graph
        return g.div(g.sub(g.add(a, b), g.ints(1)), b)

    def shares(self, x: str) -> str:
        """Sizes of the tiles of axis 1, equal within one: Split's own could leave the last one less than nothing."""
        g, steps = self.graph, np.arange(TILES + 1)
        count = g.op("Shape", x, start=1, end=2)
        ends = [g.div(g.mul(count, g.ints(*steps[a:b])), g.ints(TILES)) for a, b in ((1, None), (0, -1))]
        return g.sub(*ends)

    def tokens(self, x: str, frames: str) -> str:
        """[B, bands, T, dim] through all transformers."""
        g, bands = self.graph, self.graph.ints(len(self.arch.bands))
        earlier = ""
        for name, over_time, depth in transformers(self.arch):
            if over_time and earlier:
                x = g.add(x, earlier)
            if over_time:
                x = self.parted(x, name, depth, frames)
            else:
                x = g.transpose(self.parted(g.transpose(x, 0, 2, 1, 3), name, depth, bands), 0, 2, 1, 3)
                if self.arch.skip:
                    earlier = g.add(earlier, x) if earlier else x
        g.scope("final_norm")
        return x if self.arch.normed else self.norm(x, "final_norm.gamma")

    # -- the whole ------------------------------------------------------------------------------------------------

    def build(self, rows: Sequence[int]) -> onnx.ModelProto:
        """The graph with the stems ``rows`` only."""
        arch, g = self.arch, self.graph
        c, bins = arch.channels, arch.bins
        spectrum = g.input("spectrum", ["B", 2 * c, bins, "T"])
        frames = g.op("Shape", spectrum, start=3, end=4)
        x = self.tokens(self.split(g.reshape(spectrum, 0, 2 * c * bins, -1)), frames)
        g.scope("masks")
        parts = self._parts(self._ordered(x, self._bands()), [len(group.bands) for group in self.groups])
        re, im = g.ops("Split", g.reshape(spectrum, 0, c, 2, bins, -1), outputs=2, axis=2, num_outputs=2)
        stems = []
        for stem in rows:
            mask = g.reshape(self.masks(parts, stem), 0, c, 2, bins, -1)
            a, b = g.ops("Split", mask, outputs=2, axis=2, num_outputs=2)
            product = [g.sub(g.mul(re, a), g.mul(im, b)), g.add(g.mul(re, b), g.mul(im, a))]
            stems.append(g.reshape(g.concat(product, 2), 0, 1, 2 * c, bins, -1))
        g.scope("")
        out = g.concat(stems, 1) if len(stems) > 1 else stems[0]
        g.output(out, "stem_spectra", ["B", len(stems), 2 * c, bins, "T"])
        kind = "BS" if arch.kind == "bs" else "Mel-Band"
        return g.model(f"{kind} RoFormer: complex spectrum to the stems' spectra")


def build_graph(
    arch: Architecture,
    state: State,
    rows: Sequence[int] = (),
    *,
    positions: int = 2048,
    portable: bool = False,
    half: bool = False,
) -> onnx.ModelProto:
    """The network as a graph: ``spectrum`` [B, 2C, F, T] to ``stem_spectra`` [B, S, 2C, F, T].

    T is any number from 4 to ``positions``. ``rows``: the stems wanted, all by default. ``portable``: operators of the
    ONNX standard only. ``half``: large weights stored as float16.
    """
    return Builder(arch, state, positions, portable, half).build(rows or range(arch.stems))
