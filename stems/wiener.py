"""The multichannel Wiener filter, refined by expectation-maximisation: from magnitudes to stem spectra.

Model and algorithm: Uhlich et al., ICASSP 2017; Nugraha, Liutkus and Vincent, TASLP 2016; Duong, Vincent and Gribonval,
TASLP 2010; scaling and regularisation as in ``openunmix.filtering.wiener`` (open-unmix 1.3) and ``norbert.wiener``.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.floating[Any]]
Complex = npt.NDArray[np.complexfloating[Any, Any]]

HEADROOM = 10.0
"""The EM runs on a mixture scaled down to at most this magnitude, which eps refers to (openunmix ``scale_factor``)."""
TILE = 1 << 14
"""Bins times frames that a thread works on at a time: some 10 MB, large enough to hide numpy's cost per call."""


def wiener(
    mixture: Complex,
    magnitudes: Real,
    iterations: int = 1,
    *,
    softmask: bool = False,
    alpha: float = 1.0,
    residual: bool = False,
    rest: bool = False,
    eps: float = 1e-10,
    window: int = 300,
    threads: int = 0,
    out: Complex | None = None,
) -> Complex:
    """Stem spectra from a mixture [C, F, T] and its stems' magnitudes [S, C or 1, F' <= F, T], zero above F'.

    Returns [S, C, F, T], with ``residual`` [S+1, C, F, T], complex64 or complex128 as the mixture is. Every ``window``
    frames (0: all) are filtered on their own, so that a song may come in pieces of a multiple of it. First estimates
    are the magnitudes with the mixture's phase or, with ``softmask``, the mixture times v^alpha / (eps + sum v^alpha).
    The residual, the mixture minus all of them, is one more source; with ``rest`` it takes part in the EM but is not
    returned. Each iteration takes from the estimates y a source's power p (mean over channels) and spatial covariance
    R = sum_t y y^H / (eps + sum_t p), and sets y = p R (sum p R + sqrt(eps) I)^-1 x. It is computed in float64 whatever
    the input: in float32, where the channels are nearly equal, the inverse leaves 60 dB.

    Where it departs from the original: a channel that is exactly zero has zero estimates, so that silence stays silent;
    and a lone source, which the EM would give the whole mixture (the original refuses it), is filtered against the
    residual. ``threads`` 0 means one per core, at most four; ``out`` may be any array of the result's shape.
    """
    channels, bins, frames = mixture.shape
    sources = len(magnitudes)
    if out is None:
        kind = np.complex128 if mixture.dtype == np.complex128 else np.complex64
        out = np.empty((sources + residual, channels, bins, frames), kind)
    seen = magnitudes.shape[2]
    out[:sources, :, seen:] = 0
    if residual:
        out[sources, :, seen:] = mixture[:, seen:]
    more = residual or (iterations > 0 and (rest or sources == 1))
    first = partial(_first_gains, softmask=softmask, alpha=alpha, rest=more, eps=eps)
    stereo = partial(_stereo_step, softmask=softmask, alpha=alpha, rest=more, eps=eps)

    def filter_tile(f: slice, t: slice, scale: float) -> None:
        if iterations == 1 and channels == 2:
            stereo(mixture[:, f, t], magnitudes[:, :, f, t], scale, out[:, :, f, t])
            return
        x = _planes(mixture[:, f, t], np.float64 if iterations else mixture.real.dtype)
        gains = first(_magnitudes(x), v=magnitudes[:, :, f, t])
        x /= scale
        y: Real = gains[:, :, None] * x[:, None]
        for _ in range(iterations):
            y = _em_step(x, y, eps)
        y *= scale
        for target, source in zip(out[:, :, f, t], y.swapaxes(0, 1), strict=False):
            target.real, target.imag = source.transpose(1, 2, 0, 3)

    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        for done in [pool.submit(filter_tile, *tile) for tile in _tiles(mixture, seen, window, bool(iterations))]:
            done.result()
    return out


def _tiles(mixture: Complex, seen: int, window: int, scaled: bool) -> Iterator[tuple[slice, slice, float]]:
    """Bins and frames of [C, F, T] below ``seen`` in pieces of some ``TILE``, and by how much the EM scales them down:
    alike for all bins of a window."""
    frames = mixture.shape[2]
    step = min(window or frames, frames)
    tall = max(1, TILE // max(1, step))
    for start in range(0, frames, max(1, step)):
        t = slice(start, start + step)
        scale = max(1.0, _peak(mixture[..., t]) / HEADROOM) if scaled else 1.0
        yield from ((slice(low, min(low + tall, seen)), t, scale) for low in range(0, seen, tall))


def _peak(x: Complex) -> float:
    """The largest magnitude of [C, F, T]."""
    peak = 0.0
    for low in range(0, x.shape[1], 64):
        part = x[:, low : low + 64]
        peak = max(peak, float(np.max(np.square(part.real) + np.square(part.imag))))
    return float(np.sqrt(peak))


def _planes(x: Complex, kind: npt.DTypeLike) -> Real:
    """[C, f, t] complex as real and imaginary planes [f, 2, C, t]."""
    planes = np.empty((x.shape[1], 2, x.shape[0], x.shape[2]), kind)
    planes[:, 0] = x.real.swapaxes(0, 1)
    planes[:, 1] = x.imag.swapaxes(0, 1)
    return planes


def _magnitudes(x: Real) -> Real:
    """|x| [f, C, t] of planes [f, 2, C, t]."""
    magnitudes: Real = np.sqrt(np.square(x).sum(axis=1))
    return magnitudes


def _first_gains(magnitude: Real, v: Real, softmask: bool, alpha: float, rest: bool, eps: float) -> Real:
    """Real gains [f, S(+1), C, t] on the mixture, of this ``magnitude`` [f, C, t], from magnitudes ``v`` [S, C, f, t].

    ``magnitude`` is written to.
    """
    count = len(v)
    bins, channels, frames = magnitude.shape
    gains = np.empty((bins, count + rest, channels, frames), magnitude.dtype)
    known = gains[:, :count]
    known[...] = np.moveaxis(v, 2, 0)
    if softmask:
        if alpha != 1:
            np.power(known, alpha, out=known)
        known /= eps + known.sum(axis=1, keepdims=True)
    else:
        np.divide(1, magnitude, out=magnitude, where=magnitude > 0)
        known *= magnitude[:, None]
    if rest:
        np.subtract(1, known.sum(axis=1), out=gains[:, count])
    return gains


def _stereo_step(
    mixture: Complex, v: Real, scale: float, out: Complex, *, softmask: bool, alpha: float, eps: float, rest: bool
) -> None:
    """One iteration from first estimates on two channels: [2, f, t] and magnitudes [S, 2 or 1, f, t] into ``out``.

    First estimates have the mixture's phases, so they need not be made. With m their magnitudes (of the rest negative
    where the others are more than the mixture) and u the phases' difference, unit complex numbers, |y|^2 is m^2 and
    y_0 y_1* is m_0 m_1 u. Powers are sums of channels, covariances are halved for it; instead of scaling what is heard
    down, ``scale`` squared goes into eps and the floor.
    """
    x = np.empty((2, 2, *mixture.shape[1:]))  # of each channel the real and the imaginary part
    for channel, planes in zip(mixture, x, strict=True):
        planes[0], planes[1] = channel.real, channel.imag
    m, unit = _first_magnitudes(x, v, softmask, alpha, rest, eps)
    cross = m[0] * m[1] @ unit.swapaxes(1, 2)
    m *= m
    sums = m.sum(axis=3)
    power = m[0]
    power += m[1]
    weight = 2 * (eps * scale * scale) + sums[0] + sums[1]
    # R of each bin and source as r00, r11 and the parts of r01, [f, S, 4]
    covariance = np.stack([sums[0], sums[1], cross[..., 0], cross[..., 1]], axis=2) / weight[..., None]
    z = _stereo_whiten(x, covariance, power, np.sqrt(eps) * scale * scale)
    y = (_as_real(covariance[:, : len(out)]) @ z.swapaxes(0, 1)).astype(out.real.dtype, copy=False)
    power = power.astype(out.real.dtype, copy=False)
    for s, c in product(range(len(out)), range(2)):
        row = 4 * s + 2 * c
        np.multiply(y[:, row], power[:, s], out=out.real[s, c])
        np.multiply(y[:, row + 1], power[:, s], out=out.imag[s, c])


def _first_magnitudes(x: Real, v: Real, softmask: bool, alpha: float, rest: bool, eps: float) -> tuple[Real, Real]:
    """Magnitudes m [2, f, S(+1), t] of first estimates from ``v`` [S, 2 or 1, f, t], with the mixture's planes
    [2, 2, f, t]; and the difference of its channels' phases [f, 2, t], unit, or zero where a channel is."""
    power = np.square(x[:, 0])
    power += np.square(x[:, 1])
    count, _, bins, frames = v.shape
    m = np.empty((2, bins, count + rest, frames))
    known = m[:, :, :count]
    known[...] = v.transpose(1, 2, 0, 3)
    heard = np.sqrt(power) if softmask or rest else power
    if softmask:
        if alpha != 1:
            np.power(known, alpha, out=known)
        known /= eps + known.sum(axis=2, keepdims=True)
        known *= heard[:, :, None]
    if silent := not power.all():
        known *= (power > 0)[:, :, None]
    if rest:
        np.subtract(heard, known.sum(axis=2), out=m[:, :, count])
    norm = power[0]
    norm *= power[1]
    np.sqrt(norm, out=norm)
    if silent:
        norm[norm == 0] = np.inf
    np.divide(1, norm, out=norm)
    unit, part = np.empty((bins, 2, frames)), np.empty_like(norm)
    (a, b), (c, d) = x
    _combined(unit[:, 0], part, a, c, np.add, b, d)
    _combined(unit[:, 1], part, b, c, np.subtract, a, d)
    unit *= norm[:, None]
    return m, unit


def _stereo_whiten(x: Real, covariance: Real, power: Real, floor: float) -> Real:
    """(C + floor I)^-1 x as real planes [4, f, t] of the two channels, C being ``covariance`` [f, S, 4] times ``power``
    [f, S, t], summed over the sources."""
    sums = np.empty((4, *x.shape[2:]))
    np.matmul(covariance.swapaxes(1, 2), power, out=sums.swapaxes(0, 1))
    sums[:2] += floor
    c00, c11, r, i = sums
    determinant = c00 * c11
    determinant -= r * r
    determinant -= i * i
    sums /= determinant
    (x0, y0), (x1, y1) = x
    z, part = np.empty_like(sums), np.empty_like(r)
    for row, (own, x_own, x_other, y_other, sign) in zip(
        z,
        (
            (c11, x0, x1, y1, np.add),
            (c11, y0, y1, x1, np.subtract),
            (c00, x1, x0, y0, np.subtract),
            (c00, y1, y0, x0, np.add),
        ),
        strict=True,
    ):
        _combined(row, part, own, x_own, np.subtract, r, x_other)
        np.multiply(i, y_other, out=part)
        sign(row, part, out=row)
    return z


def _combined(out: Real, part: Real, a: Real, b: Real, sign: np.ufunc, c: Real, d: Real) -> None:
    """a b plus or minus c d into ``out``, with ``part`` for what is between: no memory is asked for."""
    np.multiply(a, b, out=out)
    np.multiply(c, d, out=part)
    sign(out, part, out=out)


def _as_real(covariance: Real) -> Real:
    """Covariances [f, S, 4] as matrices [f, 4 S, 4] on real planes: of both channels the real and imaginary part."""
    r00, r11, re, im = np.moveaxis(covariance, 2, 0)
    none = np.zeros_like(re)
    rows = [[r00, none, re, -im], [none, r00, im, re], [re, im, r11, none], [-im, re, none, r11]]
    return np.stack([np.stack(row, axis=2) for row in rows], axis=2).reshape(len(covariance), -1, 4)


def _em_step(x: Real, y: Real, eps: float) -> Real:
    """New sources [f, S, 2, C, t] from the old ones and the mixture's planes [f, 2, C, t]."""
    bins, sources, _, channels, frames = y.shape
    y = y.reshape(bins, sources, 2 * channels, frames)
    power = np.square(y).sum(axis=2)
    power /= channels
    gram = y @ y.swapaxes(2, 3)
    a, b = slice(0, channels), slice(channels, None)
    re = gram[..., a, a] + gram[..., b, b]
    im = gram[..., b, a] - gram[..., a, b]
    weight = eps + np.trace(re, axis1=2, axis2=3) / channels
    re /= weight[..., None, None]
    im /= weight[..., None, None]
    z = _whiten(x, power, re, im, np.sqrt(eps)).reshape(bins, 2 * channels, frames)
    # R acting on stacked real and imaginary parts
    real = np.concatenate([np.concatenate([re, -im], axis=3), np.concatenate([im, re], axis=3)], axis=2)
    new = (real.reshape(bins, sources * 2 * channels, 2 * channels) @ z).reshape(y.shape)
    new *= power[:, :, None]
    return new.reshape(bins, sources, 2, channels, frames)


def _whiten(x: Real, power: Real, re: Real, im: Real, floor: float) -> Real:
    """(sum_s p_s R_s + floor I)^-1 x as planes [f, 2, C, t]: closed forms for one and two channels.

    ``power`` [f, S, t]; ``re`` and ``im`` [f, S, C, C] make up R.
    """
    bins, _, channels, frames = x.shape
    if channels == 1:
        return x / (re[:, None, :, 0, 0] @ power + floor)[:, None]
    if channels == 2:
        cov = np.stack([re[..., 0, 0], re[..., 1, 1], re[..., 0, 1], im[..., 0, 1]], axis=1) @ power
        cov[:, :2] += floor
        c00, c11, r, i = cov.swapaxes(0, 1)
        cov /= (c00 * c11 - r * r - i * i)[:, None]
        (x0, x1), (y0, y1) = x[:, 0].swapaxes(0, 1), x[:, 1].swapaxes(0, 1)
        z = np.empty_like(x)
        z[:, 0, 0] = c11 * x0 - r * x1 + i * y1
        z[:, 1, 0] = c11 * y0 - r * y1 - i * x1
        z[:, 0, 1] = c00 * x1 - r * x0 - i * y0
        z[:, 1, 1] = c00 * y1 - r * y0 + i * x0
        return z
    sums = power.swapaxes(1, 2) @ (re + 1j * im).reshape(bins, -1, channels * channels)
    cov = sums.reshape(bins, frames, channels, channels) + floor * np.eye(channels)
    solved = np.linalg.solve(cov, (x[:, 0] + 1j * x[:, 1]).swapaxes(1, 2)[..., None])[..., 0].swapaxes(1, 2)
    return np.stack([solved.real, solved.imag], axis=1)
