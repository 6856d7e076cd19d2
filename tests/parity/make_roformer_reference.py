"""``python tests/parity/make_roformer_reference.py MSST``: what MSST's own modules answer, for test_roformer_parity.py.

MSST is a checkout of Music-Source-Separation-Training; its modules need einops, beartype, librosa and
rotary-embedding-torch. Computed in float64 on seeded weights and noise, stored as float32: [S, C, N] for each case.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from roformer_cases import CASES, HOP, N_FFT, STORED, noise

from ortsep.export.families.roformer.architecture import Architecture, random_state


def constructor(arch: Architecture) -> dict[str, Any]:
    """The arguments of MSST's classes."""
    bands: dict[str, Any] = {"num_bands": len(arch.bands), "sample_rate": 44100}
    if arch.kind == "bs":
        bands = {"freqs_per_bands": tuple(stop - start for start, stop in arch.bands)}
    return {
        **{
            key: value for key, value in asdict(arch).items() if key in ("dim", "depth", "heads", "dim_head", "zero_dc")
        },
        **bands,
        "stereo": arch.channels == 2,
        "num_stems": arch.stems,
        "time_transformer_depth": arch.time_depth,
        "freq_transformer_depth": arch.freq_depth,
        "linear_transformer_depth": 0,
        "dim_freqs_in": arch.bins,
        "stft_n_fft": N_FFT,
        "stft_win_length": N_FFT,
        "stft_hop_length": HOP,
        "stft_normalized": arch.normalized,
        "mask_estimator_depth": arch.mask_layers + (arch.kind == "bs"),
        "mlp_expansion_factor": arch.mask_width // arch.dim,
        "skip_connection": arch.skip,
    }


def answers(arch: Architecture) -> np.ndarray:
    from models.bs_roformer import BSRoformer, MelBandRoformer

    model = (BSRoformer if arch.kind == "bs" else MelBandRoformer)(**constructor(arch))
    state = random_state(arch, 0)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    model.stft_window_fn = lambda device: torch.hann_window(N_FFT, dtype=torch.float64, device=device)
    with torch.inference_mode():
        out: torch.Tensor = model.double().eval()(torch.from_numpy(noise(arch.channels)[None]).double())
    return out[0].reshape(arch.stems, arch.channels, -1).numpy().astype(np.float32)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv[1])))
    np.savez_compressed(STORED, **{name: answers(arch) for name, arch in CASES.items()})
    print(STORED, STORED.stat().st_size)
