"""Spleeter's U-Net as an ONNX graph, arranged for ONNX Runtime's blocked convolutions.

A strided transposed convolution is four ordinary ones, one for each parity (p, q) of output row and column, whose
results are interleaved: output 2i+p takes the kernel's row 1+p+2d from input i-d. The interleaving goes through
channels-last, where it moves runs of channels, and which ONNX Runtime joins with its own reordering. The last three
layers are not interleaved at all: the last transposed convolution takes the four parities as they are, a 2x2 kernel for
each, and makes tiles of 4x4 outputs as 16 channels, which the mask convolution reads and writes as they are.

Against the same graph from ConvTranspose, and what else was tried: benchmarks/notes_spleeter.md.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ortsep.base.arrays import F32
from ortsep.export.families.spleeter.weights import EPSILON, Architecture, Conv, Norm, UNet
from ortsep.export.graph.algebra import affine_of_batch_norm, phase_kernel
from ortsep.export.graph.builder import Graph

PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))
SAME_STRIDED = (1, 1, 2, 2)
"""What TensorFlow's SAME is for a 5x5 kernel of stride 2 over an even size: one before, two behind."""


def _activate(g: Graph, x: str, activation: str) -> str:
    if activation == "LeakyReLU":
        return g.op("LeakyRelu", x, alpha=0.2)
    return g.op({"ReLU": "Relu", "ELU": "Elu"}[activation], x)


def _normalise(g: Graph, x: str, norm: Norm, repeat: int = 1, factor: float = 1.0) -> str:
    """``factor`` times the normalisation, as a depthwise convolution: it takes and gives the blocked layout."""
    mean, variance, gamma, beta = (
        np.tile(np.asarray(v, np.float64), repeat) for v in (norm.mean, norm.variance, norm.gamma, norm.beta)
    )
    scale, shift = affine_of_batch_norm(gamma, beta, mean, variance, EPSILON)
    kernel = (factor * scale).astype(np.float32).reshape(-1, 1, 1, 1)
    return g.conv(x, kernel, (factor * shift).astype(np.float32), groups=len(scale))


def _normalise_activate(g: Graph, x: str, norm: Norm, activation: str) -> str:
    """Normalisation and activation of the encoder.

    LeakyReLU of v is 0.2 v + ReLU(0.8 v): both are blocked convolutions, the sum fused into one of them.
    """
    if activation == "LeakyReLU":
        return g.add(_normalise(g, x, norm, factor=0.2), g.op("Relu", _normalise(g, x, norm, factor=0.8)))
    return _activate(g, _normalise(g, x, norm), activation)


def _onnx(kernel: F32) -> F32:
    """[frames, bins, a, b] as TensorFlow stores it to [b, a, bins, frames], for tensors [B, C, bins, frames]."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 1, 0))


def _upsample(g: Graph, x: str, conv: Conv, norm: Norm, activation: str, bins: int, frames: int) -> str:
    """Transposed convolution of [B, in, bins, frames], activation, normalisation: [B, out, 2*bins, 2*frames]."""
    outputs = conv.kernel.shape[2]
    parts = _parities(g, x, conv, activation)
    y = g.transpose(g.concat(parts, 1), 0, 2, 3, 1)
    y = g.transpose(g.reshape(y, -1, bins, frames, 2, 2 * outputs), 0, 1, 3, 2, 4)
    y = g.reshape(y, -1, 2 * bins, 2 * frames, outputs)
    if activation != "ReLU":  # the blocked layout has no Elu: here it costs no further reordering
        y = _activate(g, y, activation)
    return _normalise(g, g.transpose(y, 0, 3, 1, 2), norm)


def _parities(g: Graph, x: str, conv: Conv, activation: str) -> list[str]:
    """Transposed convolution of [B, in, rows, columns] in four parts [B, out, rows, columns], one for each parity.

    Of activations only ReLU, which is fused into the convolutions, is applied.
    """
    kernel, parts = _onnx(conv.kernel), []
    for p, q in PARITIES:
        part, _ = phase_kernel(kernel, 2, 1, [(p,), (q,)])
        y = g.conv(x, part, conv.bias, pads=[1, 1, p, q])
        parts.append(g.op("Relu", y) if activation == "ReLU" else y)
    return parts


def _tile_kernels(up: F32, mask: F32) -> tuple[F32, F32]:
    """The last transposed convolution [in, 1, 5, 5] and the mask's [2, 1, 4, 4], on tiles of 4x4 outputs.

    The first is [16, in, 4, 4], of stride 2; the second [32, 16, 3, 3], channels (audio channel, row, column).
    """
    first = np.zeros((4, 4, up.shape[0], 4, 4), np.float32)
    second = np.zeros((2, 4, 4, 4, 4, 3, 3), np.float32)

    def taps() -> Iterator[tuple[int, int, int]]:
        """Output row of a tile, input row from the one before the tile's, and the kernel's row between them."""
        for r in range(4):
            for u in range(4):
                k = 1 + r % 2 + 2 * (r // 2 - u + 1)
                if 0 <= k < 5:
                    yield r, u, k

    for r, u, k in taps():
        for s, v, m in taps():
            first[r, s, :, u, v] = up[:, 0, k, m]
    for r, s, k, m in np.ndindex(4, 4, 4, 4):
        row, column = 4 + r - 3 + 2 * k, 4 + s - 3 + 2 * m
        second[:, r, s, row % 4, column % 4, row // 4, column // 4] = mask[:, 0, k, m]
    return first.reshape(16, -1, 4, 4), second.reshape(32, 16, 3, 3)


def _mask_logits(g: Graph, skip: str, parts: Sequence[str], up: Conv, norm: Norm, mask: Conv, activation: str) -> str:
    """The last two convolutions, of what concat(skip, interleaved parts) would be, to tiles of the mask's logits.

    ``skip``: [B, 16, 2*rows, 2*columns], ``parts``: four [B, 16, rows, columns]; logits [B, 32, rows, columns].
    """
    first, second = _tile_kernels(_onnx(up.kernel), _onnx(mask.kernel))
    half = first.shape[1] // 2
    y = g.conv(skip, first[:, :half], np.repeat(up.bias, 16), stride=[2, 2], pads=[1, 1, 1, 1])
    for (p, q), part in zip(PARITIES, parts, strict=True):
        own = first[:, half:, 1 - p :: 2, 1 - q :: 2]
        y = g.add(g.conv(part, own, pads=[p, q, 1 - p, 1 - q]), y)
    y = _normalise(g, _activate(g, y, activation), norm, repeat=16)
    return g.conv(y, second, np.repeat(mask.bias, 16), pads=[1, 1, 1, 1])


def spleeter_unet(g: Graph, x: str, net: UNet, architecture: Architecture) -> str:
    """One stem's network: magnitudes [B, 2, bins, frames], multiples of 64, to its mask's logits.

    They are [B, 32, bins/4, frames/4]; channels are (audio channel, row, column) of tiles of 4x4.
    """
    skips: list[str] = []
    y = x
    for i, conv in enumerate(net.down):
        skips.append(g.conv(y, _onnx(conv.kernel), conv.bias, stride=[2, 2], pads=SAME_STRIDED))
        if i < len(net.down_norms):
            y = _normalise_activate(g, skips[-1], net.down_norms[i], architecture.conv_activation)
    y = skips.pop()
    size, activation = len(net.down), architecture.deconv_activation
    for i in range(4):
        bins, frames = architecture.bins >> (size - i), architecture.frames >> (size - i)
        y = _upsample(g, y, net.up[i], net.up_norms[i], activation, bins, frames)
        y = g.concat([skips.pop(), y], 1)
    parts = []
    for part in _parities(g, y, net.up[4], activation):
        active = part if activation == "ReLU" else _activate(g, part, activation)
        parts.append(_normalise(g, active, net.up_norms[4]))
    return _mask_logits(g, skips.pop(), parts, net.up[5], net.up_norms[5], net.mask, activation)


def spleeter_graph(name: str, nets: Sequence[UNet], architecture: Architecture) -> Graph:
    """All stems' networks: ``magnitude`` [B, 2, bins, frames] to ``stem_magnitudes`` [B, S, 2, bins, frames]."""
    g = Graph(name)
    shape = (2, architecture.bins, architecture.frames)
    x = g.input("magnitude", ["B", *shape])
    masks = []
    for k, net in enumerate(nets):
        logits = spleeter_unet(g.scope(f"stem{k}"), x, net, architecture)
        masks.append(logits if architecture.softmax else g.mask(logits))
    g.scope("")
    if architecture.softmax:
        # five times as fast as Softmax, which over an axis that is not the last one works on a transposed copy
        largest = g.op("Max", *masks)
        masks = [g.op("Exp", g.sub(mask, largest)) for mask in masks]
        total = g.op("Sum", *masks)
        masks = [g.div(mask, total) for mask in masks]
    whole = g.op("DepthToSpace", g.concat(masks, 1), blocksize=4, mode="CRD")
    stems = g.mul(g.reshape(whole, -1, len(nets), *shape), g.reshape(x, -1, 1, *shape))
    g.output(stems, "stem_magnitudes", ["B", len(nets), *shape])
    return g
