"""The measure of equality: signal-to-noise ratio in dB."""

import numpy as np
import numpy.typing as npt

from ortsep.base.errors import ModelError

PERFECT = 999.0
"""What an infinite SNR is written as."""


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
    if noise == 0:
        return PERFECT
    return 10 * float(np.log10(power / noise)) if power else -PERFECT
