"""Small RoFormers that between them have every feature, and the noise that they hear."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from places import ROOT

from ortsep.export.families.roformer.architecture import Architecture, adjoining, mel_bands

N_FFT, HOP, SAMPLES = 512, 128, 2560
STORED = ROOT / "tests" / "parity" / "data" / "roformer_msst.npz"

BS = Architecture(
    "bs", 16, 2, adjoining((2,) * 8 + (4,) * 8 + (12,) * 6 + (24, 24, 89)), 2, heads=2, dim_head=8, n_fft=N_FFT, hop=HOP
)
MEL = Architecture("mel", 16, 2, mel_bands(12, N_FFT, 44100), heads=2, dim_head=8, mask_layers=2, n_fft=N_FFT, hop=HOP)
CASES = {
    "bs": BS,
    "bs_skip": replace(BS, stems=1, skip=True, time_depth=2, mask_layers=2, zero_dc=False),
    "bs_mono": replace(BS, channels=1, mask_layers=0, normalized=True),
    "mel": MEL,
    "mel_skip": replace(MEL, stems=2, skip=True, freq_depth=2, mask_hidden=32),
    "mel_mono": replace(MEL, channels=1, stems=3, mask_layers=1, zero_dc=False, normalized=True),
}


def noise(channels: int, samples: int = SAMPLES, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((channels, samples)).astype(np.float32)
