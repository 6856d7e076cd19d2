"""The STFT and its inverse as nodes of a graph, for a signal of fixed length: reshapes and small products, no DFT node.

A transform of n = n1 * n2 points is done in two stages (Cooley and Tukey 1965): with n = a*n2 + b and k = c + n1*d,

    X[c, d] = sum_b e(-bd/n2) e(-bc/n) sum_a e(-ac/n1) x[a, b]        e(t) = exp(2 pi i t)

which takes n*(n1 + n2) products where one of all points takes n^2: for 4096 points a 32nd, and constants of kilobytes
where a matrix has 134 MB. Everything is float32 with exact tables.
"""

import math
from typing import Any

import numpy as np

from ortsep.base.arrays import F64
from ortsep.base.errors import ModelError
from ortsep.engine.stft import extended_length, frame_count
from ortsep.export.graph.builder import Graph
from ortsep.models.spec import STFT


def factors(points: int) -> tuple[int, int]:
    """Two factors of ``points`` as near to each other as can be, the smaller first."""
    first = max(f for f in range(1, math.isqrt(points) + 1) if points % f == 0)
    return first, points // first


def _window(spec: STFT) -> F64:
    n = np.arange(spec.n_fft)
    return np.ones(spec.n_fft) if spec.window == "ones" else 0.5 - 0.5 * np.cos(2 * np.pi * n / spec.n_fft)


def _turn(rows: int, columns: int, points: int) -> tuple[F64, F64]:
    """cos and sin of 2 pi r c / points, the angle reduced in integers: [rows, columns]."""
    angle = 2 * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % points) / points
    return np.cos(angle), np.sin(angle)


def stft_nodes(g: Graph, x: str, spec: STFT, channels: int, samples: int) -> tuple[str, str]:
    """``engine.stft.stft`` of [C, samples]: real and imaginary parts [C, bins, T], heard bins zeroed."""
    frames = _frames(g, _padded(g, x, spec, samples), spec, channels, frame_count(spec, samples))
    scale = 1 / math.sqrt(spec.n_fft) if spec.normalized else 1.0
    frames = g.mul(frames, g.const(_window(spec) * scale))
    first, second = factors(spec.n_fft)
    count = frame_count(spec, samples)
    x = g.reshape(frames, channels, count, first, second)
    cos, sin = _turn(first, first, first)
    x = g.op("MatMul", g.const(np.concatenate([cos, -sin])), x)  # [C, T, 2 n1, n2]
    real, imag = g.slice(x, 2, 0, first), g.slice(x, 2, first, 2 * first)
    real, imag = _rotated(g, real, imag, *_turn(first, second, spec.n_fft), sign=-1)
    columns = -(-spec.bins // first)
    cos, sin = _turn(second, columns, second)
    matrix = np.block([[cos, -sin], [sin, cos]])
    y = g.op("MatMul", g.concat([real, imag], 3), g.const(matrix))  # [C, T, n1, 2 columns]
    parts = []
    for k in (0, 1):
        part = g.transpose(g.slice(y, 3, k * columns, (k + 1) * columns), 0, 3, 2, 1)  # [C, columns, n1, T]
        part = g.slice(g.reshape(part, channels, columns * first, count), 1, 0, spec.bins)
        parts.append(_zeroed(g, part, spec.bins, spec.zero_before))
    return parts[0], parts[1]


def istft_nodes(g: Graph, real: str, imag: str, spec: STFT, rows: int, frames: int, samples: int) -> str:
    """``engine.stft.istft`` of real and imaginary parts [R, bins, frames]: [R, samples]."""
    n_fft, bins = spec.n_fft, spec.bins
    first, second = factors(n_fft)
    columns = -(-bins // first)
    scale = np.full(bins, 2.0)
    scale[0] = 1.0
    if bins == n_fft // 2 + 1:
        scale[-1] = 1.0
    scale[: spec.zero_after] = 0.0
    scale = scale / n_fft * (math.sqrt(n_fft) if spec.normalized else 1.0)
    parts = []
    for part in (real, imag):
        part = g.mul(part, g.const(scale[:, None]))
        part = g.op("Pad", part, g.ints(0, 0, 0, 0, columns * first - bins, 0))
        part = g.transpose(g.reshape(part, rows, columns, first, frames), 0, 3, 2, 1)  # [R, T, n1, columns]
        parts.append(part)
    cos, sin = _turn(columns, second, second)
    matrix = np.block([[cos, sin], [-sin, cos]])
    y = g.op("MatMul", g.concat(parts, 3), g.const(matrix))  # [R, T, n1, 2 n2]
    real, imag = g.slice(y, 3, 0, second), g.slice(y, 3, second, 2 * second)
    real, imag = _rotated(g, real, imag, *_turn(first, second, n_fft), sign=1)
    cos, sin = _turn(first, first, first)
    wave = g.op("MatMul", g.const(np.concatenate([cos, -sin], 1)), g.concat([real, imag], 2))  # [R, T, n1, n2]
    wave = g.mul(g.reshape(wave, rows, frames, n_fft), g.const(_window(spec)))
    return _overlapped(g, wave, spec, rows, frames, samples)


def _rotated(g: Graph, real: str, imag: str, cos: F64, sin: F64, sign: int) -> tuple[str, str]:
    """Times e(sign * angle): complex multiplication by a table."""
    c, s = g.const(cos), g.const(sign * sin)
    return g.sub(g.mul(real, c), g.mul(imag, s)), g.add(g.mul(real, s), g.mul(imag, c))


def _zeroed(g: Graph, part: str, bins: int, count: int) -> str:
    return g.mul(part, g.const((np.arange(bins) >= count).astype(float)[:, None])) if count else part


def _padded(g: Graph, x: str, spec: STFT, samples: int) -> str:
    """Extended and padded, [C, M]: as ``engine.stft`` does for a signal long enough to be reflected."""
    extended, count = extended_length(spec, samples), frame_count(spec, samples)
    length = max(extended + spec.pad_left + spec.pad_right, (count - 1) * spec.hop + spec.n_fft)
    right = length - spec.pad_left - extended
    if spec.pad_mode == "zero":
        return g.op("Pad", x, g.ints(0, spec.pad_left, 0, length - spec.pad_left - samples))
    if max(spec.pad_left, right) >= extended:
        raise ModelError(f"a signal of {samples} samples is too short for a graph with its transform inside")
    x = g.op("Pad", x, g.ints(0, 0, 0, extended - samples)) if extended > samples else x
    return g.op("Pad", x, g.ints(0, spec.pad_left, 0, right), mode="reflect")


def _frames(g: Graph, x: str, spec: STFT, channels: int, count: int) -> str:
    """[C, M] as frames [C, T, n_fft]: hops side by side."""
    phases = -(-spec.n_fft // spec.hop)
    needed = (count - 1 + phases) * spec.hop
    x = g.op("Pad", x, g.ints(0, 0, 0, spec.hop * phases))  # at least what the last frame's last hop lacks
    hops = g.reshape(g.slice(x, 1, 0, needed), channels, count - 1 + phases, spec.hop)
    side = g.concat([g.slice(hops, 1, p, p + count) for p in range(phases)], 2)
    return side if phases * spec.hop == spec.n_fft else g.slice(side, 2, 0, spec.n_fft)


def _overlapped(g: Graph, wave: str, spec: STFT, rows: int, frames: int, samples: int) -> str:
    """Overlap-add of windowed frames [R, T, n_fft], divided by the envelope, cut to the signal."""
    phases, hop = -(-spec.n_fft // spec.hop), spec.hop
    wave = g.op("Pad", wave, g.ints(0, 0, 0, 0, 0, phases * hop - spec.n_fft))
    total = ""
    for p in range(phases):
        part = g.op("Pad", g.slice(wave, 2, p * hop, (p + 1) * hop), g.ints(0, p, 0, 0, phases - 1 - p, 0))
        total = g.add(total, part) if total else part
    flat = g.reshape(total, rows, (frames + phases - 1) * hop)
    inverse, length = _inverse_envelope(spec, frames), (frames + phases - 1) * hop
    lacking = spec.pad_left + samples - length
    flat = g.mul(flat, g.const(inverse))
    flat = g.op("Pad", flat, g.ints(0, 0, 0, lacking)) if lacking > 0 else flat
    return g.slice(flat, 1, spec.pad_left, spec.pad_left + samples)


def _inverse_envelope(spec: STFT, frames: int) -> F64:
    """One over the sum of squared windows, zero where that is nothing: as ``engine.stft`` divides."""
    phases, hop = -(-spec.n_fft // spec.hop), spec.hop
    squares = np.zeros(phases * hop)
    squares[: spec.n_fft] = _window(spec) ** 2
    if spec.envelope == "constant":
        total = np.tile(squares.reshape(phases, hop).sum(0), frames + phases - 1)
    else:
        total = np.zeros((frames + phases - 1, hop))
        for p in range(phases):
            total[p : p + frames] += squares.reshape(phases, hop)[p]
        total = total.reshape(-1)
    inverse: F64 = np.divide(1.0, total, out=np.zeros_like(total), where=total > 1e-11)
    return inverse


def channels_of(g: Graph, real: str, imag: str, channels: int, bins: int, frames: int) -> str:
    """Parts [C, F, T] as [1, 2C, F, T] in the order L_re, L_im, R_re, R_im."""
    both = g.op("Concat", *(g.op("Unsqueeze", part, g.ints(1)) for part in (real, imag)), axis=1)
    return g.reshape(both, 1, 2 * channels, bins, frames)


def parts_of(g: Graph, spectra: str, shape: tuple[Any, ...]) -> tuple[str, str]:
    """[..., 2C, F, T] of ``shape`` (R, 2, F, T) as two of [R, F, T]."""
    rows, _, bins, frames = shape
    apart = g.reshape(spectra, rows, 2, bins, frames)
    real, imag = (g.op("Squeeze", g.slice(apart, 1, k, k + 1), g.ints(1)) for k in (0, 1))
    return real, imag
