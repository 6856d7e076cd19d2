"""The VR networks as ONNX graphs, built from their architecture and parameters: one window of any number of frames.

What differs from the originals, and why:

- BatchNorm is folded into the convolution before it, in float64.
- A concatenation is never made: a convolution of several values is the sum of theirs, which ONNX Runtime computes in
  one go. The mean over the bins, which the bottom spreads over all of them again, is added to that sum as it is.
- Only the frames in the middle count, so the last network's decoders compute no others than these hear: the last one,
  the dearest layer of all, and of the old networks the others too. In those of 5.1 an LSTM hears what the others give.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from ortsep.export.families.vr.architecture import Architecture
from ortsep.export.families.vr.network import SLOPE
from ortsep.export.graph.algebra import affine_in, lstm_weights
from ortsep.export.graph.builder import Graph
from ortsep.models.contracts.vr import CONTEXT

State = dict[str, npt.NDArray[np.float32]]


class Builder:
    """Builds one network: ``build`` is the only entry. A value may be several tensors, joined along the channels."""

    def __init__(self, arch: Architecture, state: State) -> None:
        self.arch, self.state = arch, state
        self.graph = Graph("vr")
        self.margin = CONTEXT[arch.edition]
        """Frames at both ends that don't count."""

    # -- layers -------------------------------------------------------------------------------------------------------

    def layer(
        self,
        parts: Sequence[str],
        name: str,
        widths: Sequence[int] = (),
        *,
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        leaky: bool = False,
    ) -> str:
        """Convolution, BatchNorm and activation of a value whose parts have so many channels (``widths``)."""
        g, state = self.graph.scope(name), self.state
        apart = f"{name}.conv.2.weight" in state
        gain, shift = affine_in(state, f"{name}.conv.{2 if apart else 1}")
        weight = state[f"{name}.conv.{1 if apart else 0}.weight"].astype(np.float64) * gain[:, None, None, None]
        if apart:
            (x,) = parts
            depth = state[f"{name}.conv.0.weight"]
            x = g.conv(x, depth, stride=[1, 1], pads=_pads(depth, dilation), dilation=dilation, groups=len(depth))
            return self.activated(g.conv(x, weight, shift), leaky)
        total = ""
        for part, kernel in zip(
            parts, np.split(weight, np.cumsum(widths)[:-1], 1) if widths else [weight], strict=True
        ):
            y = g.conv(
                part,
                kernel,
                None if total else shift,
                stride=[stride, stride],
                pads=_pads(kernel, dilation),
                dilation=dilation,
            )
            total = g.add(total, y) if total else y
        return self.activated(total, leaky)

    def activated(self, x: str, leaky: bool) -> str:
        return self.graph.op("LeakyRelu", x, alpha=SLOPE) if leaky else self.graph.op("Relu", x)

    def pyramid(self, x: str, name: str) -> str:
        """The layers beside each other, and the one behind them."""
        g, arch = self.graph, self.arch
        old = arch.edition == "5"
        mean = self.layer([g.scope(name).mean(x, 2)], f"{name}.conv1.1")
        parts = [self.layer([x], f"{name}.conv2")]
        for k in range(3, min(arch.branches, 6) + 1):
            parts.append(self.layer([x], f"{name}.conv{k}", dilation=arch.dilations[min(k - 3, 2)]))
        last = f"{name}.bottleneck.0" if old else f"{name}.bottleneck"
        gain, shift = affine_in(self.state, f"{last}.conv.1")
        weight = self.state[f"{last}.conv.0.weight"].astype(np.float64) * gain[:, None, None, None]
        first, *others = np.split(weight, arch.branches, 1)
        if arch.branches == 7:  # the seventh layer is the sixth
            others = [*others[:-2], others[-2] + others[-1]]
        g.scope(last)
        total = g.conv(mean, first, shift)
        for part, kernel in zip(parts, others, strict=True):
            total = g.add(g.conv(part, kernel), total)
        return self.activated(total, leaky=False)

    def decoder(self, parts: Sequence[str], skip: str, name: str, widths: Sequence[int], cut: int = 0) -> str:
        """Twice the size of ``parts``, beside ``skip``, through one layer; less ``cut`` frames at both ends, of which
        the layer hears zeros, so that the next one is wrong too."""
        layer = "conv" if self.arch.edition == "5" else "conv1"
        scales = self.graph.const(np.array([1, 1, 2, 2], np.float32))
        g = self.graph.scope(name)
        heard = [
            g.op("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="align_corners") for x in parts
        ]
        heard.append(skip)
        if cut:
            heard = [g.slice(x, 3, cut, -cut) for x in heard]
        return self.layer(heard, f"{name}.{layer}", widths)

    # -- the old cascade ----------------------------------------------------------------------------------------------

    def old_net(self, x: str, name: str, channels: int, margin: int = 0) -> str:
        skips = []
        for level in range(1, self.arch.levels + 1):
            skips.append(self.layer([x], f"{name}.enc{level}.conv1", leaky=True))
            x = self.layer([skips[-1]], f"{name}.enc{level}.conv2", stride=2, leaky=True)
        x = self.pyramid(x, f"{name}.aspp")
        cuts = frames_to_cut(margin, self.arch.levels)
        for level in range(self.arch.levels, 0, -1):
            width, cut = channels << (level - 1), cuts[level - 1]
            x = self.decoder([x], skips.pop(), f"{name}.dec{level}", (2 * width, width), cut)
            if cut and level > 1:  # twice the size of it is to have its frames where they were
                x = self.graph.op("Pad", x, self.graph.ints(0, 0, 0, cut, 0, 0, 0, cut), mode="constant")
        return x

    def old_cascade(self, x: str) -> str:
        g, c = self.graph, self.arch.channels
        low, high = self.halves(x)
        first = g.concat([self.old_net(low, "stg1_low_band_net", c), self.old_net(high, "stg1_high_band_net", c)], 2)
        second = self.old_net(self.layer([x, first], "stg2_bridge", (2, c)), "stg2_full_band_net", c)
        third = self.layer([x, first, second], "stg3_bridge", (2, c, c))
        return self.old_net(third, "stg3_full_band_net", 2 * c, self.margin)

    # -- VR 5.1 -------------------------------------------------------------------------------------------------------

    def recurrent(self, x: str, name: str) -> str:
        """One channel of bins over the frames [1, 1, F, T], through the LSTM, to the same."""
        g = self.graph
        x = self.layer([x], f"{name}.conv")
        g.scope(name)
        x = g.reshape(g.transpose(x, 3, 0, 1, 2), 0, 1, -1)  # [T, 1, F]
        w, r, b = lstm_weights(self.state, 0, True, f"{name}.lstm.")
        hidden = r.shape[-1]
        (y,) = g.ops(
            "LSTM", x, g.const(w), g.const(r), g.const(b), outputs=1, direction="bidirectional", hidden_size=hidden
        )
        y = g.reshape(g.transpose(y, 0, 2, 1, 3), 0, 2 * hidden)
        gain, shift = affine_in(self.state, f"{name}.dense.1")
        weight, bias = self.state[f"{name}.dense.0.weight"], self.state[f"{name}.dense.0.bias"]
        y = g.op("Relu", g.linear(y, weight * gain[:, None], bias * gain + shift))
        return g.op("Unsqueeze", g.transpose(y, 1, 0), g.ints(0, 1))

    def new_net(self, parts: Sequence[str], name: str, widths: Sequence[int], margin: int = 0) -> str:
        n = len(self.state[f"{name}.enc1.conv.1.weight"])
        sizes = (n, 2 * n, 4 * n, 6 * n, 8 * n)
        skips = [self.layer(parts, f"{name}.enc1", widths)]
        for level in range(2, 6):
            x = self.layer([skips[-1]], f"{name}.enc{level}.conv1", stride=2, leaky=True)
            skips.append(self.layer([x], f"{name}.enc{level}.conv2", leaky=True))
        x = self.pyramid(skips.pop(), f"{name}.aspp")
        for level in (4, 3, 2):
            x = self.decoder([x], skips.pop(), f"{name}.dec{level}", (sizes[level], sizes[level - 1]))
        both = [x, self.recurrent(x, f"{name}.lstm_dec2")]
        return self.decoder(both, skips.pop(), f"{name}.dec1", (2 * n, 1, n), frames_to_cut(margin, 1)[0])

    def new_cascade(self, x: str) -> str:
        g, n = self.graph, self.arch.channels
        low, high = self.halves(x)
        low1 = self.layer([self.new_net([low], "stg1_low_band_net.0", ())], "stg1_low_band_net.1")
        high1 = self.new_net([high], "stg1_high_band_net", ())
        low2 = self.new_net([low, low1], "stg2_low_band_net.0", (2, n // 4))
        low2 = self.layer([low2], "stg2_low_band_net.1")
        high2 = self.new_net([high, high1], "stg2_high_band_net", (2, n // 4))
        first, second = g.concat([low1, high1], 2), g.concat([low2, high2], 2)
        return self.new_net([x, first, second], "stg3_full_band_net", (2, n // 4, n // 2), self.margin)

    # -- the whole ----------------------------------------------------------------------------------------------------

    def halves(self, x: str) -> tuple[str, str]:
        half = self.arch.bins // 2
        return self.graph.slice(x, 2, 0, half), self.graph.slice(x, 2, half, 2 * half)

    def build(self) -> onnx.ModelProto:
        g, bins = self.graph, self.arch.bins
        x = g.input("magnitude", [1, 2, bins, "T"])
        y = self.old_cascade(x) if self.arch.edition == "5" else self.new_cascade(x)
        g.scope("out")
        y = g.mask(g.conv(g.slice(y, 3, 1, -1), self.state["out.weight"]))
        g.output(g.op("Unsqueeze", y, g.ints(1)), "masks", [1, 1, 2, bins, "t"])
        return g.model()


def frames_to_cut(margin: int, levels: int) -> list[int]:
    """How many frames each level's decoder leaves out at both ends, the last decoder's first, where of what that gives
    the frames between ``margin`` at both ends count.

    A layer hears one frame more on each side. Frame i of 2T is between the frames i (T - 1) / (2T - 1) of T and the
    next one, which is less than half a frame below i / 2: floor((i - 1) / 2) and up. None where nothing is left.
    """
    cuts = []
    for _ in range(levels):
        cuts.append(max(0, margin - 1))
        margin = (cuts[-1] - 1) // 2
    return cuts


def _pads(kernel: npt.NDArray[np.floating], dilation: tuple[int, int]) -> list[int]:
    sides = [d * (size // 2) for d, size in zip(dilation, kernel.shape[2:], strict=True)]
    return [*sides, *sides]


def build_graph(arch: Architecture, state: State) -> onnx.ModelProto:
    """The network from ``magnitude`` [1, 2, F, T] to ``masks`` [1, 1, 2, F, T less the context on both sides].

    Operators of the ONNX standard only.
    """
    return Builder(arch, state).build()
