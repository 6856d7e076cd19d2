"""MSST's own RoFormers with a checkpoint's parameters, out of a checkout of it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ortsep.base.errors import UsageError
from ortsep.export.families.roformer.architecture import Architecture, State
from ortsep.export.weights.msst_code import msst_module


def oracle(
    arch: Architecture, state: State, rows: tuple[int, ...], rate: int, checkout: Path
) -> Callable[[torch.Tensor], torch.Tensor]:
    """MSST's ``BSRoformer`` or ``MelBandRoformer``: a wave [B, C, N] to the stems ``rows``, [B, S, C, N], float32.

    Raises UsageError where the checkout lacks it, what it imports is not installed, or it can't hold these parameters.
    """
    attend = msst_module(checkout, "models/bs_roformer/attend.py")
    room = SimpleNamespace(attend=attend)
    names = {"models": SimpleNamespace(bs_roformer=room), "models.bs_roformer": room}
    file = "mel_band_roformer" if arch.kind == "mel" else "bs_roformer"
    module = msst_module(checkout, f"models/bs_roformer/{file}.py", {**names, "models.bs_roformer.attend": attend})
    if arch.kind == "mel":
        network = module.MelBandRoformer(**_arguments(arch), num_bands=len(arch.bands), sample_rate=rate)
    else:
        bands = tuple(stop - start for start, stop in arch.bands)
        network = module.BSRoformer(**_arguments(arch), freqs_per_bands=bands)
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    except RuntimeError as error:
        raise UsageError(f"MSST's code of {checkout} can't hold these parameters; leave --oracle out") from error
    network.eval()

    def run(wave: torch.Tensor) -> torch.Tensor:
        stems: torch.Tensor = network(wave)  # without an axis for the stems where there is one
        return (stems[:, None] if arch.stems == 1 else stems)[:, list(rows)]

    return run


def _arguments(arch: Architecture) -> dict[str, Any]:
    """What both constructors take. ``mask_estimator_depth`` counts the last layer in the one kind alone."""
    return {
        "dim": arch.dim,
        "depth": arch.depth,
        "stereo": arch.channels == 2,
        "num_stems": arch.stems,
        "time_transformer_depth": arch.time_depth,
        "freq_transformer_depth": arch.freq_depth,
        "dim_head": arch.dim_head,
        "heads": arch.heads,
        "dim_freqs_in": arch.bins,
        "stft_n_fft": arch.n_fft,
        "stft_hop_length": arch.hop,
        "stft_win_length": arch.n_fft,
        "stft_normalized": arch.normalized,
        "zero_dc": arch.zero_dc,
        "mask_estimator_depth": arch.mask_layers + (arch.kind == "bs"),
        "mlp_expansion_factor": arch.mask_width // arch.dim,
        "skip_connection": arch.skip,
    }
