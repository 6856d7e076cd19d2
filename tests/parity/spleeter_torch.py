"""Spleeter's U-Net in torch: what torch's exporter is tried on, and an oracle of the reference in numpy."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ortsep.export.families.spleeter.weights import EPSILON, Architecture, Conv, Norm, UNet


def double(array: Any) -> Any:
    return torch.from_numpy(np.array(array, np.float64))


def _same(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: before, behind."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _conv(x: Any, conv: Conv, stride: int = 1, dilation: int = 1) -> Any:
    kernel = double(conv.kernel.transpose(3, 2, 0, 1))
    rows = _same(x.shape[2], kernel.shape[2], stride, dilation)
    columns = _same(x.shape[3], kernel.shape[3], stride, dilation)
    padded = functional.pad(x, (*columns, *rows))
    return functional.conv2d(padded, kernel, double(conv.bias), stride=stride, dilation=dilation)


def _deconv(x: Any, conv: Conv) -> Any:
    """The gradient of a strided SAME convolution: all its outputs, cut where that convolution was padded."""
    rows, columns = 2 * x.shape[2], 2 * x.shape[3]
    whole = functional.conv_transpose2d(x, double(conv.kernel.transpose(3, 2, 0, 1)), double(conv.bias), stride=2)
    top, left = _same(rows, 5, 2)[0], _same(columns, 5, 2)[0]
    return whole[:, :, top : top + rows, left : left + columns]


def _norm(x: Any, norm: Norm) -> Any:
    mean, variance, gamma, beta = (
        double(v)[None, :, None, None] for v in (norm.mean, norm.variance, norm.gamma, norm.beta)
    )
    return (x - mean) / (variance + EPSILON).sqrt() * gamma + beta


def _activate(x: Any, activation: str) -> Any:
    if activation == "LeakyReLU":
        return functional.leaky_relu(x, 0.2)
    return functional.elu(x) if activation == "ELU" else functional.relu(x)


def unet_logits(x: Any, net: UNet, architecture: Architecture) -> Any:
    """One stem's network: torch float64 [B, 2, frames, bins] to the logits of its mask, of the same shape."""
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
