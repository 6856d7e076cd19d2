"""From a magnitude graph's outputs to stem spectra: masks, ratio masks, and the one door to every filter.

C channels, F bins, T frames, S stems; F' <= F the bins that the graph sees. Masks and magnitudes are float32, spectra
complex64.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ortsep.models.spec import Filter
from ortsep.stems.wiener import wiener

Real = npt.NDArray[np.floating[Any]]
Complex = npt.NDArray[np.complexfloating[Any, Any]]
Above = Literal["zeros", "average"]


def mask_filter(mixture: Complex, masks: Real, above: Above = "zeros", out: Complex | None = None) -> Complex:
    """Masks [S, C or 1, F', T] times the mixture [C, F, T]: [S, C, F, T].

    From bin F' up a mask is zero or the ``average`` of its frame below (Spleeter, ``mask_extension``).
    """
    bins = masks.shape[2]
    if out is None:
        out = _stem_spectra(len(masks), mixture)
    _scale(mixture[:, :bins], masks, out[:, :, :bins])
    if above == "zeros":
        out[:, :, bins:] = 0
    elif bins < mixture.shape[1]:
        _scale(mixture[:, bins:], masks.mean(axis=2, keepdims=True, dtype=np.float64), out[:, :, bins:])
    return out


def _stem_spectra(count: int, mixture: Complex) -> Complex:
    """An empty [count, C, F, T] that lies frame by frame, as the inverse STFT reads it."""
    channels, bins, frames = mixture.shape
    return np.empty((count, channels, frames, bins), mixture.dtype).swapaxes(2, 3)


def _scale(spectrum: Complex, gains: Real, out: Complex) -> None:
    np.multiply(spectrum, gains, out=out, casting="same_kind")


def alpha_wiener(magnitudes: Real, alpha: float) -> Real:
    """Masks v_s^alpha / (sum v^alpha + 1e-7) from stem magnitudes [S, C, F, T] (LarsNet, arXiv 2312.09663)."""
    power = magnitudes**alpha
    power /= power.sum(axis=0) + power.dtype.type(1e-7)
    return power


def ratio_masks(magnitudes: Real, exponent: float = 2.0, eps: float = 1e-10) -> Real:
    """Masks (v_s^p + eps/S) / (sum v^p + eps) from stem magnitudes [S, C, F, T]; they sum to one (Spleeter)."""
    power = magnitudes**exponent
    total = power.sum(axis=0) + power.dtype.type(eps)
    power += eps / len(power)
    power /= total
    return power


def apply_filter(
    options: Filter,
    mixture: Complex,
    estimates: Real,
    *,
    output: Literal["masks", "stem_magnitudes"] = "stem_magnitudes",
    residual: bool = False,
    complete: bool = True,
    threads: int = 0,
    out: Complex | None = None,
) -> Complex:
    """Stem spectra [S, C, F, T] from a mixture [C, F, T] and a graph's ``output`` [S, C or 1, F', T].

    ``residual`` adds the mixture's rest as the last of S+1. With ``complete`` false the estimates are not all of the
    mixture's stems: the rest then takes part in the EM unseen, for without it they would share the whole mixture.
    A song may come in pieces of any number of frames, with iterations of a multiple of ``options.window``.
    """
    sources = len(estimates)
    if out is None:
        out = _stem_spectra(sources + residual, mixture)
    if output == "masks" and (options.method != "mask" or options.alpha):
        estimates = estimates * np.abs(mixture[:, : estimates.shape[2]])
    if options.method == "ratio":
        masks = ratio_masks(estimates, options.exponent, options.eps)
    elif options.method == "mask" and options.alpha:
        masks = alpha_wiener(estimates, options.alpha)
    elif options.method == "mask" and output == "masks":
        masks = estimates
    else:
        return wiener(
            mixture,
            estimates,
            options.iterations if options.method == "wiener" else 0,
            softmask=options.softmask,
            alpha=options.alpha or 1.0,
            residual=residual,
            rest=not complete,
            eps=options.eps,
            window=options.window,
            threads=threads,
            out=out,
        )
    mask_filter(mixture, masks, options.above, out[:sources])
    if residual:
        np.subtract(mixture, out[:sources].sum(axis=0), out=out[sources])
    return out
