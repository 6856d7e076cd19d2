"""The algebra under graph builders and passes: numpy in, numpy out, in the precision of what comes in.

Whoever folds, splits or rearranges a layer computes its new weights here, and adds the nodes itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ortsep.base.arrays import F64, Array

LONG = 1 << 14
"""Elements of an axis from which ONNX Runtime's flat float32 sums are taken in two steps."""
GATES = (0, 3, 1, 2)
"""torch keeps an LSTM's gates as input, forget, cell, output; ONNX as input, output, forget, cell."""


def affine_of_batch_norm(gamma: Array, beta: Array, mean: Array, variance: Array, eps: float) -> tuple[F64, F64]:
    """A batch norm at rest as gain and shift per channel, float64: gamma (x - mean) / sqrt(variance + eps) + beta."""
    gain: F64 = np.asarray(gamma, np.float64) / np.sqrt(np.asarray(variance, np.float64) + eps)
    return gain, np.asarray(beta, np.float64) - gain * np.asarray(mean, np.float64)


def affine_in(state: Mapping[str, Array], name: str, eps: float = 1e-5) -> tuple[F64, F64]:
    """The same of the norm ``name`` in a state dict with torch's names; ``eps`` is torch's default."""
    gamma, beta = state[f"{name}.weight"], state[f"{name}.bias"]
    return affine_of_batch_norm(gamma, beta, state[f"{name}.running_mean"], state[f"{name}.running_var"], eps)


def onnx_gates(array: Array) -> Array:
    """An LSTM's weights or biases [4H, ...] as torch has them, in ONNX's order of gates."""
    return np.concatenate([np.split(array, 4)[k] for k in GATES])


def lstm_weights(
    state: Mapping[str, Array], layer: int, bidirectional: bool, name: str = "lstm."
) -> tuple[Array, Array, Array]:
    """ONNX's W [D, 4H, I], R [D, 4H, H] and B [D, 8H] of one layer of torch's LSTM, D directions."""

    def gates(kind: str, end: str) -> Array:
        return onnx_gates(state[f"{name}{kind}_l{layer}{end}"])

    ends = ("", "_reverse") if bidirectional else ("",)
    w, r = (np.stack([gates(kind, end) for end in ends]) for kind in ("weight_ih", "weight_hh"))
    b = np.stack([np.concatenate([gates("bias_ih", end), gates("bias_hh", end)]) for end in ends])
    return w, r, b


def largest_divisor(length: int) -> int:
    """The largest divisor of ``length`` up to its square root."""
    return next(d for d in range(math.isqrt(length), 0, -1) if length % d == 0)


def two_step(length: int) -> tuple[int, int] | None:
    """How to sum a long axis in two steps, as [parts, length of one]; None where one step has to do.

    ONNX Runtime's sums are flat in float32: over 86 thousand samples the relative error is 1e-6, in two steps 1e-7.
    """
    parts = largest_divisor(length) if length >= LONG else 1
    return (parts, length // parts) if parts > 1 else None


def phase_taps(size: int, stride: int, pad: int, phase: int) -> list[tuple[int, int]]:
    """What one phase of a transposed convolution hears: pairs of input offset and tap, offsets ascending.

    With a kernel of ``size`` taps and outputs cropped by ``pad`` in front, output stride * j + phase is the sum over
    these pairs of input j + offset times tap phase + pad - stride * offset. ``phase`` may go beyond the stride.
    """
    at = phase + pad
    offsets = range(-((size - 1 - at) // stride), at // stride + 1)
    return [(offset, at - stride * offset) for offset in offsets]


def phase_kernel(
    weight: Array, stride: int, pad: int, phases: Sequence[Sequence[int]]
) -> tuple[Array, tuple[tuple[int, int], ...]]:
    """A transposed convolution as a plain one that gives some of its phases as channels (Shi et al. 2016, sub-pixel).

    ``weight`` [in, out, *kernel] as torch and ONNX store it; ``phases`` are the wanted ones along its first spatial
    axes, along further ones it stays as it is. Returns the kernel [out * phases, in, *reach], channels (out, phase of
    the first axis, of the second), and for each axis the offsets of the first and the last input that it hears.
    """
    rank = len(phases)
    taps = [
        [phase_taps(size, stride, pad, phase) for phase in wanted]
        for size, wanted in zip(weight.shape[2 : 2 + rank], phases, strict=True)
    ]
    offsets = [[offset for some in along for offset, _ in some] for along in taps]
    reach = tuple((min(some), max(some)) for some in offsets)
    counts, sizes = tuple(map(len, phases)), tuple(last - first + 1 for first, last in reach)
    inputs, outputs, *_ = weight.shape
    kernel = np.zeros((outputs, *counts, inputs, *sizes, *weight.shape[2 + rank :]), weight.dtype)
    whole = slice(None)
    for which in np.ndindex(*counts):
        for chosen in product(*(along[k] for along, k in zip(taps, which, strict=True))):
            at = (offset - first for (offset, _), (first, _) in zip(chosen, reach, strict=True))
            heard = weight[(whole, whole, *(tap for _, tap in chosen))]
            kernel[(whole, *which, whole, *at)] = heard.swapaxes(0, 1)
    return kernel.reshape(-1, *kernel.shape[1 + rank :]), reach


@dataclass(frozen=True)
class Expansion:
    """A pointwise convolution W [C, H], b [C] and the norm over all its channels, from its H inputs alone.

    With m the mean of the input over the positions and g' = input - m, the output's mean is ``mean`` [m, 1], and its
    variance mean over positions of |W g'|^2 / C, plus |``centred`` [m, 1]|^2 / C: both centred, so nothing cancels.
    With s = 1 / sqrt(variance + eps), the normalised output is ``matrix`` [input s, s, mean s] plus the norm's beta.
    """

    mean: F64
    """[H + 1]: the mean row of W, and of b."""
    centred: F64
    """[C, H + 1]: W and b beside it, less their mean."""
    matrix: F64
    """[C, H + 2]: gamma W, gamma b, -gamma."""


def expansion_factors(weight: Array, bias: Array, gamma: Array) -> Expansion:
    """The factors of a group norm of one group behind a pointwise convolution; ``weight`` [C, H], float64."""
    whole: F64 = np.column_stack([weight, bias]).astype(np.float64)
    mean = whole.mean(0)
    matrix = np.column_stack([gamma[:, None] * weight, gamma * bias, -gamma]).astype(np.float64)
    return Expansion(mean, whole - mean, matrix)
