"""Spleeter in float64, from its definition and independent of the graph: the oracle where TensorFlow is not installed.

Numpy throughout: a convolution is one product over the points of its kernel, with TensorFlow's SAME padding worked out
and applied explicitly; what is before and after them follows spleeter's model/__init__.py and utils/tensor.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.arrays import F64
from ortsep.export.families.spleeter.weights import EPSILON, Architecture, Conv, Norm, UNet

N_FFT, HOP = 4096, 1024
RATIO_EPS = 1e-10

C128 = npt.NDArray[np.complex128]
Complexes = npt.NDArray[np.complexfloating[Any, Any]]
Floats = npt.NDArray[np.floating[Any]]


def _same(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis (tf.nn, "Notes on padding"): before, behind."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _conv(x: F64, conv: Conv, stride: int = 1, dilation: int = 1) -> F64:
    """[B, in, H, W] to [B, out, H/stride, W/stride]: one product over all points of the kernel and channels."""
    high, wide, inputs, outputs = conv.kernel.shape
    batch, _, *sizes = x.shape
    rows, columns = (_same(size, kernel, stride, dilation) for size, kernel in zip(sizes, (high, wide), strict=True))
    padded = np.pad(x, ((0, 0), (0, 0), rows, columns))
    height, width = (-(-size // stride) for size in sizes)
    seen = np.empty((batch, high, wide, inputs, height, width))
    for i, j in np.ndindex(high, wide):
        part = padded[:, :, i * dilation :: stride, j * dilation :: stride]
        seen[:, i, j] = part[:, :, :height, :width]
    kernel = conv.kernel.reshape(-1, outputs).T.astype(np.float64)
    made = kernel @ seen.reshape(batch, high * wide * inputs, -1) + conv.bias[:, None]
    return made.reshape(batch, outputs, height, width)


def _deconv(x: F64, conv: Conv) -> F64:
    """The gradient of a strided SAME convolution: all its outputs, cut where that convolution was padded."""
    high, wide, outputs, inputs = conv.kernel.shape
    batch, _, height, width = x.shape
    made = conv.kernel.reshape(-1, inputs).astype(np.float64) @ x.reshape(batch, inputs, -1)
    parts = made.reshape(batch, high, wide, outputs, height, width)
    whole = np.zeros((batch, outputs, 2 * height + high - 2, 2 * width + wide - 2))
    for i, j in np.ndindex(high, wide):
        whole[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2] += parts[:, i, j]
    top, left = _same(2 * height, high, 2)[0], _same(2 * width, wide, 2)[0]
    return whole[:, :, top : top + 2 * height, left : left + 2 * width] + conv.bias[:, None, None]


def _norm(x: F64, norm: Norm) -> F64:
    mean, variance, gamma, beta = (
        v.astype(np.float64)[:, None, None] for v in (norm.mean, norm.variance, norm.gamma, norm.beta)
    )
    return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta


def _activate(x: F64, activation: str) -> F64:
    if activation == "ELU":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return np.maximum(x, 0.2 * x if activation == "LeakyReLU" else 0.0)


def unet_logits(x: F64, net: UNet, architecture: Architecture) -> F64:
    """One stem's network: [B, 2, frames, bins] to the logits of its mask, of the same shape."""
    skips: list[F64] = []
    y = x
    for i, conv in enumerate(net.down):
        skips.append(_conv(y, conv, stride=2))
        if i < 5:
            y = _activate(_norm(skips[-1], net.down_norms[i]), architecture.conv_activation)
    y = skips.pop()
    for conv, norm in zip(net.up, net.up_norms, strict=True):
        y = _norm(_activate(_deconv(y, conv), architecture.deconv_activation), norm)
        if skips:
            y = np.concatenate([skips.pop(), y], 1)
    return _conv(y, net.mask, dilation=2)


def network(magnitude: Floats, nets: Sequence[UNet], architecture: Architecture) -> F64:
    """All networks on magnitudes [B, 2, bins, frames]: stem magnitudes [B, S, 2, bins, frames]."""
    x = np.swapaxes(magnitude, 2, 3).astype(np.float64)
    logits = np.stack([unet_logits(x, net, architecture) for net in nets], 1)
    if architecture.softmax:
        raised = np.exp(logits - logits.max(1, keepdims=True))
        masks = raised / raised.sum(1, keepdims=True)
    else:
        masks = 0.5 * (1 + np.tanh(0.5 * logits))
    return np.swapaxes(masks * x[:, None], 3, 4)


def _window() -> F64:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


def stft(mix: Floats) -> C128:
    """[C, N] to [C, 2049, T]: 4096 zeros in front, as many behind as the last of ceil((N+4096)/1024) frames needs."""
    channels, samples = mix.shape
    frames = -(-(samples + N_FFT) // HOP)
    padded = np.zeros((channels, (frames - 1) * HOP + N_FFT))
    padded[:, N_FFT : N_FFT + samples] = mix
    cut = np.lib.stride_tricks.sliding_window_view(padded, N_FFT, axis=1)[:, ::HOP]
    return np.swapaxes(np.fft.rfft(cut * _window()), 1, 2)


def istft(spectrum: C128, samples: int) -> F64:
    """[C, F, T] to [C, samples]; bins above F are silent. Hann again, overlap-add, 2/3, without the zeros in front."""
    pieces = np.fft.irfft(np.swapaxes(spectrum, 1, 2), N_FFT) * _window()
    out = np.zeros((len(spectrum), (pieces.shape[1] - 1) * HOP + N_FFT))
    for t in range(pieces.shape[1]):
        out[:, t * HOP : t * HOP + N_FFT] += pieces[:, t]
    return out[:, N_FFT : N_FFT + samples] * (2 / 3)


def blocks(spectrum: Complexes, length: int) -> F64:
    """Magnitudes of [C, F, T] in blocks of ``length`` frames, the last filled with zeros: [B, C, F, length]."""
    channels, bins, frames = spectrum.shape
    count = -(-frames // length)
    magnitude = np.zeros((channels, bins, count * length))
    magnitude[:, :, :frames] = np.abs(spectrum)
    return magnitude.reshape(channels, bins, count, length).transpose(2, 0, 1, 3)


def unblock(stem_magnitudes: Floats, frames: int) -> Floats:
    """[B, S, C, F, length] to [S, C, F, frames]."""
    joined = stem_magnitudes.transpose(1, 2, 3, 0, 4)
    return joined.reshape(*joined.shape[:3], -1)[..., :frames]


def ratio_masks(stem_magnitudes: Floats) -> F64:
    """[S, ...] to masks [S, ...] that sum to one: exponent 2, epsilon 1e-10 shared among the stems."""
    power = np.asarray(stem_magnitudes, np.float64) ** 2
    masks: F64 = (power + RATIO_EPS / len(power)) / (power.sum(0) + RATIO_EPS)
    return masks
