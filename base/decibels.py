"""Decibels: ratios of energies, levels of amplitudes, and the measure of equality, the signal-to-noise ratio."""

import math

import numpy as np
import numpy.typing as npt

from ortsep.base.arrays import F64
from ortsep.base.errors import ModelError

PERFECT = 999.0
"""What an infinite SNR is written as."""


def ratio(energy: float, other: float, most: float = PERFECT) -> float:
    """10 log10(energy / other) in dB, no further from 0 than ``most``: that is what nothing at all counts as."""
    if other == 0 or energy == 0:
        return most if other == 0 else -most
    return max(-most, min(most, 10 * (math.log10(energy) - math.log10(other))))


def level(amplitude: float) -> float:
    """20 log10 of an amplitude: dB of full scale 1, minus infinity for silence."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def levels(power: F64, floor: float) -> F64:
    """10 log10 of powers, each at least ``floor``."""
    found: F64 = 10 * np.log10(np.maximum(power, floor))
    return found


def snr(reference: npt.ArrayLike, estimate: npt.ArrayLike) -> float:
    """Signal-to-noise ratio in dB, in float64; PERFECT where the two are equal, -PERFECT where one is not finite."""
    ref, est = np.asarray(reference), np.asarray(estimate)
    if ref.shape != est.shape:
        raise ModelError(
            f"the original gives shape {list(ref.shape)} and the export {list(est.shape)}; export it again"
        )
    kind = np.complex128 if np.iscomplexobj(ref) else np.float64
    ref, est = ref.astype(kind), est.astype(kind)
    if not np.isfinite(est).all():
        return -PERFECT
    noise = float(np.sum(np.abs(ref - est) ** 2))
    power = float(np.sum(np.abs(ref) ** 2))
    return ratio(power, noise)


def in_words(db: float, digits: int = 1) -> str:
    """A signal-to-noise ratio as it is told: PERFECT is no number of decibels."""
    return "no difference" if db >= PERFECT else "not finite" if db <= -PERFECT else f"{db:.{digits}f} dB"
