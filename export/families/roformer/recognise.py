"""Which RoFormer a checkpoint holds: sizes by the parameters' shapes, the rest by its yaml or its card."""

import re
from collections.abc import Mapping
from typing import Any

from ortsep.base.errors import WeightsError
from ortsep.export.families.roformer.architecture import (
    BS_BANDS,
    Architecture,
    Band,
    Kind,
    Shape,
    adjoining,
    mel_bands,
    parameters,
    rotary_frequencies,
)
from ortsep.export.weights.frontdoor import Checkpoint, check_names, missing_setting
from ortsep.export.weights.layouts import State

Model = Mapping[str, Any]


def recognise(checkpoint: Checkpoint, model: Model) -> tuple[Architecture, State]:
    """The architecture of a checkpoint and its parameters, complete. ``model``: the constructor's arguments.

    Raises WeightsError for parameters that are not a whole RoFormer's, for arguments that contradict them, and where
    nothing says the hop.
    """
    shapes = {name: tuple(map(int, array.shape)) for name, array in checkpoint.state.items()}
    arch = _read(checkpoint, shapes, model)
    state = dict(checkpoint.state)
    for name in (n for n in parameters(arch) if n.endswith("rotary_embed.freqs")):
        state.setdefault(name, rotary_frequencies(arch.dim_head).astype("float32"))
    check_names(checkpoint, parameters(arch), given=state)
    _contradictions(checkpoint, arch, model)
    return arch, state


def _read(checkpoint: Checkpoint, shapes: Mapping[str, Shape], model: Model) -> Architecture:
    where = checkpoint.path

    def count(pattern: str) -> int:
        return len({m[1] for name in shapes if (m := re.match(pattern, name))})

    if not model:
        raise missing_setting(checkpoint, "hop, chunk and stems' names")
    if any(name.endswith(".temperature") for name in shapes):
        raise WeightsError(
            f"{where} has linear attention (linear_transformer_depth above 0), which ortsep can't export; "
            "take a model without it"
        )
    kind: Kind = "bs" if checkpoint.architecture.name == "bs_roformer" else "mel"
    try:
        heads = shapes["layers.0.0.layers.0.0.to_gates.weight"][0]
        gammas = [
            shapes[f"band_split.to_features.{b}.0.gamma"][0] for b in range(count(r"band_split\.to_features\.(\d+)\."))
        ]
        layers = count(r"mask_estimators\.0\.to_freqs\.0\.0\.(\d+)\.weight")
        n_fft = _number(checkpoint, model, "stft_n_fft", 2048)
        channels = _channels(checkpoint, kind, gammas, n_fft, model)
        return Architecture(
            kind=kind,
            dim=shapes["band_split.to_features.0.1.weight"][0],
            depth=count(r"layers\.(\d+)\."),
            bands=_bands(checkpoint, kind, tuple(g // (2 * channels) for g in gammas), n_fft, model),
            stems=count(r"mask_estimators\.(\d+)\."),
            channels=channels,
            heads=heads,
            dim_head=shapes["layers.0.0.layers.0.0.to_qkv.weight"][0] // (3 * heads),
            feed=shapes["layers.0.0.layers.0.1.net.1.weight"][0],
            time_depth=count(r"layers\.0\.0\.layers\.(\d+)\."),
            freq_depth=count(r"layers\.0\.1\.layers\.(\d+)\."),
            mask_layers=layers - 1,
            mask_hidden=shapes["mask_estimators.0.to_freqs.0.0.0.weight"][0] if layers > 1 else 0,
            n_fft=n_fft,
            hop=_hop(checkpoint, model, n_fft),
            normalized=_switch(checkpoint, model, "stft_normalized", False),
            zero_dc=_switch(checkpoint, model, "zero_dc", True),
            skip=_switch(checkpoint, model, "skip_connection", False),
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{where} is not a whole {checkpoint.architecture.title} ({error} is missing or of another shape); "
            "take the edition that loads in MSST"
        ) from error


def _switch(checkpoint: Checkpoint, model: Model, name: str, default: bool) -> bool:
    value = model.get(name, default)
    if type(value) is not bool:
        raise WeightsError(f"the configuration of {checkpoint.path} has {name} {value!r}, not true or false; mend it")
    return value


def _number(checkpoint: Checkpoint, model: Model, name: str, default: int) -> int:
    value = model.get(name, default)
    if type(value) is not int or not 1 <= value <= 1 << 16:
        raise WeightsError(f"the configuration of {checkpoint.path} has {name} {str(value)[:40]}; mend it")
    return value


def _hop(checkpoint: Checkpoint, model: Model, n_fft: int) -> int:
    """The constructor's, 512 by its own default; what a yaml says under ``audio`` is stale in many of them."""
    if _number(checkpoint, model, "stft_win_length", n_fft) != n_fft:
        raise WeightsError(f"{checkpoint.path} has a window shorter than its STFT, which ortsep can't export")
    hop = _number(checkpoint, model, "stft_hop_length", 512)
    if hop > n_fft // 2 or n_fft % 2:
        raise WeightsError(f"{checkpoint.path} can't have a hop of {hop} in an STFT of {n_fft}; mend its yaml")
    return hop


def _channels(checkpoint: Checkpoint, kind: Kind, gammas: list[int], n_fft: int, model: Model) -> int:
    """1 or 2, by the bins that all bands have together; mono models are told by what is left."""
    bins = n_fft // 2 + 1
    mel = () if kind == "bs" else _mel(checkpoint, len(gammas), n_fft, model)
    total = sum(stop - start for start, stop in mel) or bins
    for channels in (2, 1):
        if sum(gammas) == 2 * channels * total:
            return channels
    raise WeightsError(
        f"{checkpoint.path} has {sum(gammas)} inputs in its {len(gammas)} bands, which {bins} bins don't make; "
        "give the yaml that came with it"
    )


def _mel(checkpoint: Checkpoint, count: int, n_fft: int, model: Model) -> tuple[Band, ...]:
    try:
        return mel_bands(count, n_fft, _number(checkpoint, model, "sample_rate", 44100))
    except IndexError as error:
        raise WeightsError(
            f"{checkpoint.path} can't have {count} mel bands in an STFT of {n_fft}; give the yaml that came with it"
        ) from error


def _bands(checkpoint: Checkpoint, kind: Kind, widths: tuple[int, ...], n_fft: int, model: Model) -> tuple[Band, ...]:
    if kind == "bs":
        return adjoining(widths)
    bands = _mel(checkpoint, len(widths), n_fft, model)
    if tuple(stop - start for start, stop in bands) != widths:
        raise WeightsError(
            f"{checkpoint.path} has other mel bands than its sample rate and STFT make; give the yaml that came with it"
        )
    return bands


def _contradictions(checkpoint: Checkpoint, arch: Architecture, model: Model) -> None:
    """Refuse a yaml that describes another network than the parameters. Only what it says is compared."""
    own: dict[str, Any] = {
        "dim": arch.dim,
        "depth": arch.depth,
        "num_stems": arch.stems,
        "stereo": arch.channels == 2,
        "heads": arch.heads,
        "dim_head": arch.dim_head,
        "time_transformer_depth": arch.time_depth,
        "freq_transformer_depth": arch.freq_depth,
        "linear_transformer_depth": 0,
        "mask_estimator_depth": arch.mask_layers + (arch.kind == "bs"),
        "num_bands": len(arch.bands),
        "freqs_per_bands": tuple(stop - start for start, stop in arch.bands),
    }
    wrong = [
        f"{name} {model[name] if name != 'freqs_per_bands' else '(others)'} for {value}"
        for name, value in own.items()
        if name in model and (tuple(model[name]) if isinstance(model[name], list) else model[name]) != value
    ]
    if wrong:
        raise WeightsError(
            f"the configuration does not fit {checkpoint.path}: it says {', '.join(wrong[:6])}; "
            "give the yaml that came with it"
        )
    if model.get("use_pope") or model.get("use_shared_bias"):
        raise WeightsError(f"{checkpoint.path} is of a later edition by its configuration, which ortsep can't export")


def arguments_of(model: Model, rate: int) -> Architecture:
    """The architecture that a constructor's arguments make: ``num_bands`` mel bands, or those of every BS-RoFormer.

    For models of the catalogue; what they leave out is as usual, stereo and an STFT of 2048.
    """
    mel = "num_bands" in model
    return Architecture(
        kind="mel" if mel else "bs",
        dim=model["dim"],
        depth=model["depth"],
        bands=mel_bands(model["num_bands"], 2048, rate) if mel else adjoining(BS_BANDS),
        stems=model.get("num_stems", 1),
        mask_layers=model["mask_estimator_depth"] - (not mel),
        mask_hidden=model["dim"] * model.get("mlp_expansion_factor", 4),
        hop=model["stft_hop_length"],
    )
