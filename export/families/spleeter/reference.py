"""Spleeter in float64, from its definition and independent of the graph: the oracle where TensorFlow is not installed.

The network is torch's ordinary convolutions with TensorFlow's SAME padding worked out and applied explicitly; what is
before and after it is numpy (spleeter, model/__init__.py and utils/tensor.py).
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


def _double(array: Floats) -> Any:
    import torch

    return torch.from_numpy(np.array(array, np.float64))


def _conv(x: Any, conv: Conv, stride: int = 1, dilation: int = 1) -> Any:
    from torch.nn import functional

    kernel = _double(conv.kernel.transpose(3, 2, 0, 1))
    rows = _same(x.shape[2], kernel.shape[2], stride, dilation)
    columns = _same(x.shape[3], kernel.shape[3], stride, dilation)
    padded = functional.pad(x, (*columns, *rows))
    return functional.conv2d(padded, kernel, _double(conv.bias), stride=stride, dilation=dilation)


def _deconv(x: Any, conv: Conv) -> Any:
    """The gradient of a strided SAME convolution: all its outputs, cut where that convolution was padded."""
    from torch.nn import functional

    rows, columns = 2 * x.shape[2], 2 * x.shape[3]
    whole = functional.conv_transpose2d(x, _double(conv.kernel.transpose(3, 2, 0, 1)), _double(conv.bias), stride=2)
    top, left = _same(rows, 5, 2)[0], _same(columns, 5, 2)[0]
    return whole[:, :, top : top + rows, left : left + columns]


def _norm(x: Any, norm: Norm) -> Any:
    mean, variance, gamma, beta = (
        _double(v)[None, :, None, None] for v in (norm.mean, norm.variance, norm.gamma, norm.beta)
    )
    return (x - mean) / (variance + EPSILON).sqrt() * gamma + beta


def _activate(x: Any, activation: str) -> Any:
    from torch.nn import functional

    if activation == "LeakyReLU":
        return functional.leaky_relu(x, 0.2)
    return functional.elu(x) if activation == "ELU" else functional.relu(x)


def unet_logits(x: Any, net: UNet, architecture: Architecture) -> Any:
    """One stem's network: torch float64 [B, 2, frames, bins] to the logits of its mask, of the same shape."""
    import torch

    skips = []
    y = x
    for i, conv in enumerate(net.down):
        skips.append(_conv(y, conv, stride=2))
        if i < 5:
            y = _activate(_norm(skips[-1], net.down_norms[i]), architecture.conv_activation)
    y = skips.pop()
    for conv, norm in zip(net.up, net.up_norms, strict=True):
        y = _norm(_activate(_deconv(y, conv), architecture.deconv_activation), norm)
        if skips:
            y = torch.cat([skips.pop(), y], 1)
    return _conv(y, net.mask, dilation=2)


def network(magnitude: Floats, nets: Sequence[UNet], architecture: Architecture) -> F64:
    """All networks on magnitudes [B, 2, bins, frames]: stem magnitudes [B, S, 2, bins, frames]."""
    import torch

    with torch.inference_mode():
        x = _double(np.swapaxes(magnitude, 2, 3))
        logits = torch.stack([unet_logits(x, net, architecture) for net in nets], 1)
        masks = torch.softmax(logits, 1) if architecture.softmax else torch.sigmoid(logits)
        stems: F64 = (masks * x[:, None]).numpy()
    return np.swapaxes(stems, 3, 4)


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
