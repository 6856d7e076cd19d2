"""The MDX23C network as an ONNX graph, built from its architecture and parameters.

Layout: [1, C, T, F] from the first convolution to the last, as the original has it between them, so that the linear
layers over frequency are plain products. What differs from the original, and why:

- A norm's mean and variance are summed over F, then over T. ONNX Runtime sums flat in float32; over the 262144 values
  of a channel that costs 3 to 8 dB of the whole network.
- A decoder's concatenation of its input and the skip is never made: norms are per channel, and a convolution of both is
  the sum of two convolutions, which ONNX Runtime computes in one go. That saves four tensors of twice the size.
- The first convolution is computed again where its result multiplies the last tensor, as a product of matrices: 16
  channels to 128 is nothing, and the result need not be kept over the whole network.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from ortsep.export.families.mdx23c.architecture import EPS, Architecture, State
from ortsep.export.graph.builder import Graph


class Builder:
    """Builds one network: ``build`` is the only entry. A value may be several tensors, joined along the channels."""

    def __init__(self, arch: Architecture, state: State) -> None:
        self.arch, self.state = arch, state
        self.graph = Graph("mdx23c")

    # -- norm and activation ------------------------------------------------------------------------------------------

    def normed(self, parts: Sequence[str], name: str, width: int) -> list[str]:
        """Norm and activation of a value; ``width`` is its number of bins."""
        g, norm = self.graph, self.arch.norm
        if norm == "none":
            return [self.act(x) for x in parts]
        if norm == "BatchNorm":
            return [self.act(y) for y in self._batch_norm(parts, name)]
        channels = len(self.state[f"{name}.weight"])
        means = self._pooled([g.mean(x, 3, 2) for x in parts], channels)
        centred = [g.sub(x, mean) for x, mean in zip(parts, means, strict=True)]
        squares = [g.mean(g.op("ReduceSumSquare", x, g.ints(3), keepdims=1), 2) for x in centred]
        out = []
        gains, shifts = (np.split(self.state[f"{name}.{part}"], len(parts)) for part in ("weight", "bias"))
        for x, square, gain, shift in zip(centred, self._pooled(squares, channels), gains, shifts, strict=True):
            variance = g.add(g.mul(square, g.const(1 / width)), g.const(EPS))
            scale = g.div(g.const(gain[:, None, None]), g.op("Sqrt", variance))
            out.append(self.act(g.add(g.mul(x, scale), g.const(shift[:, None, None]))))
        return out

    def _pooled(self, values: list[str], channels: int) -> list[str]:
        """Means of each channel, [1, C, 1, 1] in parts, to means of each group where the norm has groups."""
        groups, g = self.arch.groups, self.graph
        if not groups:
            return values
        whole = g.concat(values, 1) if len(values) > 1 else values[0]
        rows = g.reshape(whole, 1, groups, channels // groups, 1)
        whole = g.reshape(g.op("Expand", g.mean(rows, 2), g.ints(1, groups, channels // groups, 1)), 1, channels, 1, 1)
        if len(values) == 1:
            return [whole]
        return g.ops("Split", whole, outputs=len(values), axis=1, num_outputs=len(values))

    def _batch_norm(self, parts: Sequence[str], name: str) -> list[str]:
        names = ("weight", "bias", "running_mean", "running_var")
        split = zip(*(np.split(self.state[f"{name}.{part}"], len(parts)) for part in names), strict=True)
        g = self.graph
        return [
            g.op("BatchNormalization", x, *map(g.const, values), epsilon=EPS)
            for x, values in zip(parts, split, strict=True)
        ]

    def act(self, x: str) -> str:
        if self.arch.act == "gelu":
            return self.graph.gelu(x)
        return self.graph.op("Relu", x) if self.arch.act == "relu" else self.graph.op("Elu", x, alpha=self.arch.alpha)

    # -- the U-Net ----------------------------------------------------------------------------------------------------

    def conv(self, parts: Sequence[str], name: str, pad: int = 0, stride: Sequence[int] = (1, 1)) -> str:
        """A convolution of a value: the sum of those of its parts, which are equally wide."""
        weights = np.split(self.state[f"{name}.weight"], len(parts), axis=1)
        done = [self.graph.conv(x, w, pads=[pad] * 4, stride=stride) for x, w in zip(parts, weights, strict=True)]
        return done[0] if len(done) == 1 else self.graph.add(*done)

    def blocks(self, parts: Sequence[str], name: str, width: int) -> str:
        """``TFC_TDF``: its blocks one after the other; ``width`` bins."""
        g = self.graph
        for i in range(self.arch.num_blocks_per_scale):
            n = f"{name}.blocks.{i}"
            g.scope(n)
            x = self.conv(self.normed(parts, f"{n}.tfc1.0", width), f"{n}.tfc1.2", pad=1)
            (y,) = self.normed([x], f"{n}.tdf.0", width)
            y = g.linear(y, self.state[f"{n}.tdf.2.weight"])
            (y,) = self.normed([y], f"{n}.tdf.3", width // self.arch.bottleneck_factor)
            x = g.add(g.linear(y, self.state[f"{n}.tdf.5.weight"]), x)
            y = self.conv(self.normed([x], f"{n}.tfc2.0", width), f"{n}.tfc2.2", pad=1)
            parts = [g.add(y, self.conv(parts, f"{n}.shortcut"))]
        return parts[0]

    def build(self) -> onnx.ModelProto:
        a, g = self.arch, self.graph
        channels, width = 2 * a.audio_channels, a.band
        spectrum = g.input("spectrum", [1, channels, a.dim_f, a.frames])
        # [1, 2C, k F, T] -> [1, 2C k, T, F]
        mix = g.transpose(g.reshape(spectrum, 1, a.inputs, width, a.frames), 0, 1, 3, 2)
        x = self.conv([mix], "first_conv")
        skips = []
        for i in range(a.num_scales):
            x = self.blocks([x], f"encoder_blocks.{i}.tfc_tdf", width)
            skips.append(x)
            down = f"encoder_blocks.{i}.downscale.conv"
            x = self.conv(self.normed([x], f"{down}.0", width), f"{down}.2", stride=a.scale)
            width //= a.scale[1]
        x = self.blocks([x], "bottleneck_block", width)
        for i in range(a.num_scales):
            up = f"decoder_blocks.{i}.upscale.conv"
            g.scope(up)
            (x,) = self.normed([x], f"{up}.0", width)
            x = g.conv_transpose(x, self.state[f"{up}.2.weight"], stride=a.scale)
            width *= a.scale[1]
            x = self.blocks([x, skips.pop()], f"decoder_blocks.{i}.tfc_tdf", width)
        y = self._end(x, mix)
        g.output(y, "stem_spectra", [1, a.outputs, channels, a.dim_f, a.frames])
        return g.model()

    def _end(self, x: str, mix: str) -> str:
        """The product with the first convolution, the last ones, and back to bins and frames."""
        a, g = self.arch, self.graph.scope("final_conv")
        flat = g.reshape(mix, a.inputs, -1)
        first = g.op("MatMul", g.const(self.state["first_conv.weight"][:, :, 0, 0]), flat)
        x = g.mul(x, g.reshape(first, 1, a.num_channels, a.frames, a.band))
        of_mix, of_x = np.split(self.state["final_conv.0.weight"], [a.inputs], axis=1)
        x = self.act(g.add(g.conv(x, of_x), g.conv(mix, of_mix)))
        x = g.transpose(self.conv([x], "final_conv.2"), 0, 1, 3, 2)
        return g.reshape(x, 1, a.outputs, 2 * a.audio_channels, a.dim_f, a.frames)


def build_graph(arch: Architecture, state: State) -> onnx.ModelProto:
    """The network from ``spectrum`` [1, 2C, F, T] to ``stem_spectra`` [1, S, 2C, F, T]; T is ``arch.frames``.

    Operators of the ONNX standard only.
    """
    return Builder(arch, state).build()
