"""Ideal ratio masks of true stems through LarsNet's pipeline, in numpy float64: nothing of ortsep or torch is used.

A test runs ortsep with ``blocks`` of ``ideal_masks`` in place of the network, and compares with ``separated``.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

N_FFT, HOP, BINS = 4096, 1024, 2048
F64 = npt.NDArray[np.float64]
WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


def analyse(x: F64) -> npt.NDArray[np.complex128]:
    """[..., N] to [..., 2049, T]: zeros up to a multiple of the hop, half a window reflected at both ends."""
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % HOP)])
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(N_FFT // 2, N_FFT // 2)], mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(x, N_FFT, axis=-1)[..., ::HOP, :]
    return np.swapaxes(np.fft.rfft(frames * WINDOW), -1, -2)


def synthesise(spectrum: npt.NDArray[np.complex128], samples: int) -> F64:
    """Its least-squares inverse, [..., 2049, T] to [..., samples]."""
    frames = np.fft.irfft(np.swapaxes(spectrum, -1, -2), N_FFT) * WINDOW
    length = HOP * (frames.shape[-2] - 1) + N_FFT
    out, weight = np.zeros((*frames.shape[:-2], length)), np.zeros(length)
    for t in range(frames.shape[-2]):
        out[..., t * HOP : t * HOP + N_FFT] += frames[..., t, :]
        weight[t * HOP : t * HOP + N_FFT] += WINDOW**2
    at = slice(N_FFT // 2, N_FFT // 2 + samples)
    result: F64 = out[..., at] / weight[at]
    return result


def ideal_masks(stems: F64, exponent: float = 1.0) -> F64:
    """|S_s|^p / sum |S|^p from true stems [S, C, N]: [S, C, 2048, T]; zero where all stems are silent."""
    power = np.abs(analyse(stems)[..., :BINS, :]) ** exponent
    total = power.sum(axis=0)
    return power / np.where(total > 0, total, 1.0)


def blocks(masks: F64, frames: int = 512) -> npt.NDArray[np.float32]:
    """One stem's masks [C, F, T] as a graph would give them: [B, 1, C, F, frames], ones beyond the last frame.

    Nothing may be heard of what is there, since the mixture has no frames there.
    """
    padded = np.pad(masks, [(0, 0), (0, 0), (0, -masks.shape[-1] % frames)], constant_values=1.0)
    split = padded.reshape(*masks.shape[:2], -1, frames).transpose(2, 0, 1, 3)
    return split[:, None].astype(np.float32)


def separated(mix: F64, masks: F64, alpha: float = 0.0) -> F64:
    """Stems [S, C, N] that masks [S, C, 2048, T] take from [C, N]; ``alpha`` > 0 with the alpha-Wiener filter."""
    spectrum = analyse(mix)
    gains = np.pad(masks, [(0, 0), (0, 0), (0, 1), (0, 0)])
    if alpha > 0:
        powers = (gains * np.abs(spectrum)) ** alpha
        gains = powers / (powers.sum(axis=0) + 1e-7)
    return synthesise(gains * spectrum, mix.shape[-1])


def sdr(stems: Any, estimates: Any) -> F64:
    """Signal-to-distortion ratio in dB of each stem, [S, C, N] against [S, C, N]."""
    true, noise = np.asarray(stems, np.float64), np.asarray(stems, np.float64) - np.asarray(estimates, np.float64)
    ratio: F64 = 10 * np.log10((true**2).sum((1, 2)) / (noise**2).sum((1, 2)))
    return ratio
