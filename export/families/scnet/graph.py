"""The SCNet network as an ONNX graph, built from its architecture and parameters.

Encoder and decoder are [1, C, F, T]; rows of F are not moved to the batch as the original does, since a convolution
(1, k) hears each row alone too. Between them stand the LSTMs, channels last: over F on [F, T, C], over T on [T, F, C],
as ONNX Runtime's LSTM wants them, so that what is moved are whole rows of channels. Further differences:

- A GroupNorm of one group is a mean and a variance, summed axis by axis: ONNX Runtime sums flat in float32, which costs
  20 dB. In front of an LSTM its scale and shift are folded into the LSTM's input weights and bias.
- What an LSTM gives of each direction goes into one linear layer as a product of its own. The directions are one node:
  OpenVINO 2026.4 computes two LSTMs of the same input wrongly (1 dB).
- The frames' Fourier transform is a product with a constant matrix.
- The input that the decoder repeats along the channels is not repeated: the halves of the weights are added.
- GLU as two convolutions, a * sigmoid(b): nothing is split, and the sigmoid is computed inside its convolution.
- Transposed convolutions of kernel = stride are convolutions 1x1 and a transposition; those of stride 1 convolutions.
"""

import numpy as np
import onnx

from ortsep.base.arrays import F64
from ortsep.export.families.scnet.architecture import EPS, Architecture, Band, State
from ortsep.export.graph.builder import Graph

GATES = (0, 3, 1, 2)
"""torch's gates i, f, g, o in the order of ONNX: i, o, f, g."""


class Builder:
    """Builds one network: ``build`` is the only entry."""

    def __init__(self, arch: Architecture, state: State) -> None:
        self.arch, self.state = arch, state
        self.graph = Graph("scnet")

    def get(self, name: str) -> F64:
        return np.asarray(self.state[name], np.float64)

    def layer(self, name: str) -> tuple[F64, F64]:
        return self.get(f"{name}.weight"), self.get(f"{name}.bias")

    # -- parts --------------------------------------------------------------------------------------------------------

    def standardised(self, x: str, *axes: int, count: int) -> str:
        """(x - mean) / sqrt(variance + eps) over ``axes``, the first summed first; it has ``count`` values."""
        g = self.graph
        mean = x
        for axis in axes:
            mean = g.op("ReduceMean", mean, g.ints(axis), keepdims=1)
        x = g.sub(x, mean)
        square = g.op("ReduceSumSquare", x, g.ints(axes[0]), keepdims=1)
        for axis in axes[1:]:
            square = g.op("ReduceMean", square, g.ints(axis), keepdims=1)
        variance = g.add(g.mul(square, g.const(1 / count)), g.const(EPS))
        return g.mul(x, g.op("Reciprocal", g.op("Sqrt", variance)))

    def row_norm(self, x: str, name: str) -> str:
        """GroupNorm of each row of F of [1, C, F, T], over C and T."""
        g = self.graph
        weight, bias = (value[:, None, None] for value in self.layer(name))
        x = self.standardised(x, 3, 1, count=self.arch.frames)
        return g.add(g.mul(x, g.const(weight)), g.const(bias))

    def glu(self, x: str, weight: F64, bias: F64, pads: list[int]) -> str:
        """GLU(conv(x)), the halves of ``weight`` [2C, in, h, w] being two convolutions."""
        g, half = self.graph, len(weight) // 2
        gate = g.op("Sigmoid", g.conv(x, weight[half:], bias[half:], pads=pads))
        return g.mul(g.conv(x, weight[:half], bias[:half], pads=pads), gate)

    # -- encoder ------------------------------------------------------------------------------------------------------

    def band(self, x: str, name: str, b: int, band: Band) -> str:
        """One band of ``SDblock``."""
        g = self.graph.scope(f"{name}.{b}")
        weight, bias = self.layer(f"{name}.SDlayer.convs.{b}")
        x = g.slice(x, 2, band.start, band.stop)
        x = g.conv(x, weight, bias, stride=[band.stride, 1], pads=[band.pads[0], 0, band.pads[1], 0])
        pad = self.arch.conv_kernel // 2
        pads = [0, pad, 0, pad]
        for i in range(self.arch.conv_depths[b]):
            n = f"{name}.conv_modules.{b}.layers.{i}"
            wide, wide_bias = self.layer(f"{n}.1")
            y = self.glu(self.row_norm(x, f"{n}.0"), wide[:, :, None], wide_bias, pads)
            deep, deep_bias = self.layer(f"{n}.3")
            y = self.row_norm(g.conv(y, deep[:, :, None], deep_bias, pads=pads, groups=len(deep)), f"{n}.4")
            last, last_bias = self.layer(f"{n}.6")
            x = g.add(g.conv(g.mul(y, g.op("Sigmoid", y)), last[:, :, None], last_bias), x)
        return g.gelu(x)

    # -- the LSTMs ----------------------------------------------------------------------------------------------------

    def path(self, x: str, i: int, path: int, shape: tuple[int, int, int]) -> str:
        """One half of ``DualPathRNN`` on [sequence, batch, C], the shape of x."""
        name, (steps, batch, c) = f"separation_net.dp_modules.{i}", shape
        g = self.graph.scope(f"{name}.{path}")
        gain, shift = self.layer(f"{name}.norm_layers.{path}")
        y = self.standardised(x, 2, 1, 0, count=c)
        linear, bias = self.layer(f"{name}.linear_layers.{path}")
        hidden = linear.shape[1] // 2
        both = self.lstm(y, f"{name}.lstm_layers.{path}", gain, shift)
        total = g.const(bias)
        for way, part in enumerate(np.split(linear, 2, axis=1)):
            z = g.reshape(g.slice(both, 1, way, way + 1), steps * batch, hidden)
            total = g.op("Gemm", z, g.const(part), total, transB=1)
        return g.add(g.reshape(total, *shape), x)

    def lstm(self, x: str, name: str, gain: F64, shift: F64) -> str:
        """Both directions, [steps, 2, batch, hidden], of gain * x + shift."""
        g, ways = self.graph, []
        for way in ("", "_reverse"):
            inner, outer = self.get(f"{name}.weight_ih_l0{way}"), self.get(f"{name}.weight_hh_l0{way}")
            bias = self.get(f"{name}.bias_ih_l0{way}") + inner @ shift
            biases = np.concatenate([_gates(bias), _gates(self.get(f"{name}.bias_hh_l0{way}"))])
            ways.append((_gates(inner * gain), _gates(outer), biases))
        weights = (g.const(np.stack(pair)) for pair in zip(*ways, strict=True))
        return g.op("LSTM", x, *weights, hidden_size=outer.shape[1], direction="bidirectional")

    def dual_path(self, x: str, bins: int) -> str:
        """``SeparationNet`` on [1, C, F, T]."""
        g, t, c = self.graph, self.arch.frames, self.arch.dims[-1]
        half = t // 2 + 1
        forth, back = _fourier(t)
        x = g.transpose(g.reshape(x, c, bins, t), 1, 2, 0)
        for i in range(self.arch.num_dplayer):
            length, width = (half, 2 * c) if i % 2 else (t, c)
            x = self.path(x, i, 0, (bins, length, width))
            x = self.path(g.transpose(x, 1, 0, 2), i, 1, (length, bins, width))
            g.scope(f"separation_net.feature_conversion.{i}")
            if i % 2 == 0:
                y = g.op("MatMul", g.const(forth), g.reshape(x, t, bins * c))
                y = g.transpose(g.reshape(y, 2, half, bins, c), 2, 1, 0, 3)
                x = g.reshape(y, bins, half, 2 * c)
            else:
                y = g.transpose(g.reshape(x, half, bins, 2, c), 1, 2, 0, 3)
                x = g.op("MatMul", g.const(back), g.reshape(y, bins, 2 * half, c))
        return g.reshape(g.transpose(x, 2, 0, 1), 1, c, bins, t)

    # -- decoder ------------------------------------------------------------------------------------------------------

    def grow(self, x: str, name: str, band: Band) -> str:
        """A transposed convolution of ``SUlayer``, cropped."""
        g, bins = self.graph, band.stop - band.start
        weight, bias = self.layer(name)
        more = band.grown - bins - band.crop
        if band.stride == 1:
            end = band.kernel - 1
            flipped = weight.transpose(1, 0, 2, 3)[:, :, ::-1]
            return g.conv(x, flipped, bias, pads=[end - band.crop, 0, end - more, 0])
        if band.stride != band.kernel:
            return g.conv_transpose(x, weight, bias, stride=[band.stride, 1], pads=[band.crop, 0, more, 0])
        outs, frames = len(bias), self.arch.frames
        flat = weight[:, :, :, 0].reshape(len(weight), -1).T[:, :, None, None]
        y = g.reshape(g.conv(x, flat, np.repeat(bias, band.kernel)), outs, band.kernel, band.rows, frames)
        y = g.reshape(g.transpose(y, 0, 2, 1, 3), 1, outs, band.grown, frames)
        return y if band.grown == bins else g.slice(y, 2, band.crop, band.crop + bins)

    def up(self, x: str, skip: str, i: int, bands: list[Band]) -> str:
        """``FusionLayer`` and ``SUlayer``."""
        g = self.graph.scope(f"decoder.{i}")
        weight, bias = self.layer(f"decoder.{i}.0.conv")
        first, second = np.split(weight, 2, axis=1)
        x = self.glu(g.add(x, skip), first + second, bias, [1] * 4)
        at, grown = 0, []
        for b, band in enumerate(bands):
            grown.append(self.grow(g.slice(x, 2, at, at + band.rows), f"decoder.{i}.1.convtrs.{b}", band))
            at += band.rows
        return g.concat(grown, 2)

    def build(self) -> onnx.ModelProto:
        a, g, levels = self.arch, self.graph, self.arch.levels()
        x = g.input("spectrum", [1, a.dims[0], a.bins, a.frames])
        skips = []
        for i, bands in enumerate(levels):
            x = g.concat([self.band(x, f"encoder.{i}", b, band) for b, band in enumerate(bands)], 2)
            skips.append(x)
            weight, bias = self.layer(f"encoder.{i}.globalconv")
            x = g.conv(x, weight, bias, pads=[1] * 4)
        x = self.dual_path(x, sum(band.rows for band in levels[-1]))
        for i, bands in enumerate(reversed(levels)):
            x = self.up(x, skips.pop(), i, bands)
        shape = [1, a.sources, a.dims[0], a.bins, a.frames]
        g.output(g.reshape(x, *shape), "stem_spectra", shape)
        return g.model()


def _gates(values: F64) -> F64:
    """The four gates along the first axis in the order of ONNX."""
    return np.concatenate([np.split(values, 4)[gate] for gate in GATES])


def _fourier(frames: int) -> tuple[F64, F64]:
    """rfft and irfft of ``frames`` (even) with norm ortho: [2K, T] to real and imaginary parts, and [T, 2K] back.

    irfft takes the bins between the first and the last twice, and does not hear the imaginary part of those two.
    """
    k = np.arange(frames // 2 + 1)[:, None]
    turns = k * np.arange(frames) % frames  # exact, so that the angles are
    angles = 2 * np.pi * turns / frames
    forth = np.concatenate([np.cos(angles), -np.sin(angles)]) / np.sqrt(frames)
    twice = np.where((k == 0) | (k == frames // 2), 1.0, 2.0)
    back = np.concatenate([twice * np.cos(angles), -twice * np.sin(angles)]) / np.sqrt(frames)
    return forth, np.ascontiguousarray(back.T)


def build_graph(arch: Architecture, state: State) -> onnx.ModelProto:
    """The network from ``spectrum`` [1, 2C, F, T] to ``stem_spectra`` [1, S, 2C, F, T]; T is ``arch.frames``.

    Operators of the ONNX standard only.
    """
    return Builder(arch, state).build()
