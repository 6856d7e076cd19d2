"""Spleeter's U-Net as an ONNX graph, arranged for ONNX Runtime's blocked convolutions.

A strided transposed convolution is four ordinary ones, one for each parity (p, q) of output row and column, whose
results are interleaved: output 2i+p takes the kernel's row 1+p+2d from input i-d. The interleaving goes through
channels-last, where it moves runs of channels, and which ONNX Runtime joins with its own reordering. The last
transposed convolution has one channel and is not interleaved at all: a convolution of dilation 2 sees rows and
columns of one parity only, so that the mask convolution works on the four parities and the mask alone is interleaved.

Against ConvTranspose, LeakyReLU/ReLU, 2 cores, interleaved runs, minimum of 40: 77.5 ms a block and stem against 88.6.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ortsep.export.graph import Graph
from ortsep.export.spleeter_weights import EPSILON, FRAMES, Architecture, Conv, Norm, UNet

F32 = npt.NDArray[np.float32]
PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))
SAME_STRIDED = (1, 1, 2, 2)
"""What TensorFlow's SAME is for a 5x5 kernel of stride 2 over an even size: one before, two behind."""


def _activate(g: Graph, x: str, activation: str) -> str:
    if activation == "LeakyReLU":
        return g.op("LeakyRelu", x, alpha=0.2)
    return g.op({"ReLU": "Relu", "ELU": "Elu"}[activation], x)


def _normalise(g: Graph, x: str, norm: Norm, repeat: int = 1) -> str:
    vectors = (norm.gamma, norm.beta, norm.mean, norm.variance)
    return g.op("BatchNormalization", x, *(g.const(np.tile(v, repeat)) for v in vectors), epsilon=EPSILON)


def _onnx(kernel: F32) -> F32:
    """[frames, bins, a, b] as TensorFlow stores it to [b, a, bins, frames], for tensors [B, C, bins, frames]."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 1, 0))


def _parity_kernel(kernel: F32, p: int, q: int) -> tuple[F32, list[int]]:
    """The part of a transposed kernel [in, out, 5, 5] that makes outputs (2i+p, 2j+q), and the padding it needs."""
    rows, columns = slice(3, 0, -2) if p == 0 else slice(4, None, -2), slice(3, 0, -2) if q == 0 else slice(4, None, -2)
    part = np.ascontiguousarray(kernel[:, :, rows, columns].transpose(1, 0, 2, 3))
    return part, [1, 1, p, q]


def _upsample(g: Graph, x: str, conv: Conv, norm: Norm, activation: str, bins: int, frames: int) -> str:
    """Transposed convolution of [B, in, bins, frames], activation, normalisation: [B, out, 2*bins, 2*frames]."""
    kernel = _onnx(conv.kernel)
    outputs = kernel.shape[1]
    parts = []
    for p, q in PARITIES:
        part, pads = _parity_kernel(kernel, p, q)
        y = g.conv(x, part, conv.bias, pads=pads)
        parts.append(_normalise(g, g.op("Relu", y), norm) if activation == "ReLU" else y)
    y = g.transpose(g.concat(parts, 1), 0, 2, 3, 1)
    y = g.transpose(g.reshape(y, -1, bins, frames, 2, 2 * outputs), 0, 1, 3, 2, 4)
    y = g.reshape(y, -1, 2 * bins, 2 * frames, outputs)
    if activation == "ReLU":
        return g.transpose(y, 0, 3, 1, 2)
    # the blocked layout has no Elu and no LeakyRelu on its own: here they cost no further reordering
    return _normalise(g, g.transpose(_activate(g, y, activation), 0, 3, 1, 2), norm)


def _mask_logits(g: Graph, x: str, up: Conv, norm: Norm, mask: Conv, activation: str) -> str:
    """The last transposed convolution and the mask convolution, [B, 32, bins, frames] to [B, 2, 2*bins, 2*frames]."""
    kernel = _onnx(up.kernel)
    first = np.zeros((4, kernel.shape[0], 3, 3), np.float32)
    second = np.zeros((4, 2, 4, 5, 5), np.float32)
    taps = _onnx(mask.kernel)[:, 0]
    for n, (p, q) in enumerate(PARITIES):
        part, _ = _parity_kernel(kernel, p, q)
        first[n, :, : 2 + p, : 2 + q] = part[0]
        # rows 2i+p-3, -1, +1, +3 of the padded input have the other parity: they are its rows i+p-2 ... i+p+1
        second[n, :, 3 - n, p : p + 4, q : q + 4] = taps
    y = g.conv(x, first, np.repeat(up.bias, 4), pads=[1, 1, 1, 1])
    y = _normalise(g, _activate(g, y, activation), norm, repeat=4)
    y = g.conv(y, second.reshape(8, 4, 5, 5), np.tile(mask.bias, 4), pads=[2, 2, 2, 2])
    return g.op("DepthToSpace", y, blocksize=2, mode="DCR")


def spleeter_unet(g: Graph, x: str, net: UNet, architecture: Architecture) -> str:
    """One stem's network: magnitudes [B, 2, bins, 512], bins a multiple of 64, to its mask's logits of that shape."""
    skips: list[str] = []
    y = x
    for i, conv in enumerate(net.down):
        skips.append(g.conv(y, _onnx(conv.kernel), conv.bias, stride=[2, 2], pads=SAME_STRIDED))
        if i < len(net.down_norms):
            y = _activate(g, _normalise(g, skips[-1], net.down_norms[i]), architecture.conv_activation)
    y = skips.pop()
    size, activation = len(net.down), architecture.deconv_activation
    for i in range(5):
        bins, frames = architecture.bins >> (size - i), FRAMES >> (size - i)
        y = _upsample(g, y, net.up[i], net.up_norms[i], activation, bins, frames)
        y = g.concat([skips.pop(), y], 1)
    return _mask_logits(g, y, net.up[5], net.up_norms[5], net.mask, activation)


def spleeter_graph(name: str, nets: Sequence[UNet], architecture: Architecture) -> Graph:
    """All stems' networks: ``magnitude`` [B, 2, bins, 512] to ``stem_magnitudes`` [B, S, 2, bins, 512]."""
    g = Graph(name)
    shape = (2, architecture.bins, FRAMES)
    x = g.input("magnitude", ["B", *shape])
    masks = []
    for k, net in enumerate(nets):
        logits = spleeter_unet(g.scope(f"stem{k}"), x, net, architecture)
        masks.append(logits if architecture.softmax else g.op("Sigmoid", logits))
    g.scope("")
    scale = x
    if architecture.softmax:
        # five times as fast as Softmax, which over an axis that is not the last one works on a transposed copy
        largest = g.op("Max", *masks)
        masks = [g.op("Exp", g.sub(mask, largest)) for mask in masks]
        scale = g.div(x, g.op("Sum", *masks))
    stems = [g.reshape(g.mul(mask, scale), -1, 1, *shape) for mask in masks]
    g.output(g.concat(stems, 1), "stem_magnitudes", ["B", len(nets), *shape])
    return g
