"""Which MDX23C a configuration describes, and whether a checkpoint is that one."""

import re
from typing import Any

from ortsep.base.errors import WeightsError
from ortsep.export.families.mdx23c.architecture import Architecture, parameters
from ortsep.export.weights.frontdoor import Checkpoint, check_names
from ortsep.export.weights.msst_yaml import Settings

BATCHES = ".num_batches_tracked"
"""What BatchNorm counts in training, and nobody reads."""


def read_architecture(checkpoint: Checkpoint) -> Architecture:
    """The architecture of a recognised checkpoint. Raises WeightsError for one that its configuration doesn't fit."""
    last, first = (checkpoint.state.get(f"{name}.weight") for name in ("final_conv.2", "first_conv"))
    outputs = 0 if last is None or first is None else len(last) // first.shape[1]
    if not outputs:
        raise WeightsError(
            f"{checkpoint.where} has no last convolution of an MDX23C; take the edition that loads in MSST"
        )
    arch = described(checkpoint.settings, outputs, checkpoint.where)
    counted = [name for name in checkpoint.state if name.endswith(BATCHES)] if arch.norm == "BatchNorm" else []
    check_names(checkpoint, {**parameters(arch), **dict.fromkeys(counted, ())})
    return arch


def described(settings: Settings, outputs: int, where: str) -> Architecture:
    """The architecture that a configuration describes, of so many stems. Raises WeightsError for what can't be."""
    audio, model = settings.audio, settings.model

    def number(section: Any, name: str, most: int, least: int = 1) -> int:
        value = section.get(name)
        if value is None:
            raise WeightsError(f"nothing says the {name} of {where}; give the yaml that came with it with --config")
        if type(value) is not int or not least <= value <= most:
            raise WeightsError(f"the yaml of {where} has {name} {str(value)[:40]}, not {least} to {most}; mend it")
        return value

    if (channels := audio.get("num_channels", 2)) != 2:
        raise WeightsError(f"the yaml of {where} has num_channels {channels}, and MDX23C hears two; mend it")
    hop = number(audio, "hop_length", 1 << 16)
    chunk = settings.chunk or hop * (number(audio, "dim_t", 1 << 14) - 1)
    arch = Architecture(
        outputs=outputs,
        num_channels=number(model, "num_channels", 1 << 12),
        growth=number(model, "growth", 1 << 12, 0),
        num_subbands=number(model, "num_subbands", 64),
        num_scales=number(model, "num_scales", 12),
        num_blocks_per_scale=number(model, "num_blocks_per_scale", 16),
        bottleneck_factor=number(model, "bottleneck_factor", 256),
        scale=_scale(model.get("scale"), where),
        norm=_norm(model.get("norm"), where),
        act=_act(model.get("act"), where),
        sample_rate=settings.sample_rate,
        n_fft=number(audio, "n_fft", 1 << 16),
        hop=hop,
        dim_f=number(audio, "dim_f", 1 << 15),
        frames=chunk // hop + 1,
    )
    _check(arch, chunk, where)
    return arch


def _check(a: Architecture, chunk: int, where: str) -> None:
    """Refuse what the network can't run: sizes that its scales don't divide."""
    time, bins = (step**a.num_scales for step in a.scale)
    if not (a.hop <= a.n_fft <= 64 * a.hop and a.n_fft % 2 == 0 and a.n_fft // 2 < chunk):
        raise WeightsError(f"the yaml of {where} has n_fft {a.n_fft} and hop_length {a.hop}, which can't be; mend it")
    if chunk != a.chunk or a.frames % time:
        near = a.hop * (max(1, round(a.frames / time)) * time - 1)
        raise WeightsError(
            f"the yaml of {where} has chunks of {chunk} samples, {chunk / a.hop + 1:g} frames, and the network takes "
            f"multiples of {time}; write a chunk_size such as {near} there"
        )
    if a.dim_f % (a.num_subbands * bins) or a.dim_f > a.n_fft // 2 + 1 or a.band // bins < a.bottleneck_factor:
        raise WeightsError(
            f"the yaml of {where} has dim_f {a.dim_f} with n_fft {a.n_fft}, {a.num_subbands} subbands, {a.num_scales} "
            "scales, which can't be; give the one that came with this checkpoint"
        )
    if a.groups and any((a.num_channels + i * a.growth) % a.groups for i in range(a.num_scales + 1)):
        raise WeightsError(f"the yaml of {where} has {a.norm}, which doesn't divide its channels; mend it")


def _act(value: object, where: str) -> str:
    """gelu, relu, or elu with its alpha, as ``get_act`` takes them."""
    if value in ("gelu", "relu") or (isinstance(value, str) and re.fullmatch(r"elu(\d+\.?\d*|\.\d+)", value)):
        return str(value)
    raise WeightsError(
        f"the yaml of {where} has the activation {str(value)[:40]!r}, and MDX23C knows gelu, relu and elu with a "
        "number; mend it"
    )


def _norm(value: object, where: str) -> str:
    """InstanceNorm, BatchNorm, GroupNorm with a number; for any other word ``get_norm`` makes none."""
    if isinstance(value, str) and (value in ("InstanceNorm", "BatchNorm") or re.fullmatch(r"GroupNorm[1-9]\d*", value)):
        return value
    if value is None or (isinstance(value, str) and "Norm" not in value):
        return "none"
    raise WeightsError(
        f"the yaml of {where} has the norm {str(value)[:40]!r}, and MDX23C knows InstanceNorm, BatchNorm, GroupNorm "
        "with a number, and none; mend it"
    )


def _scale(value: object, where: str) -> tuple[int, int]:
    fits = isinstance(value, list | tuple) and len(value) == 2 and all(type(v) is int and 1 <= v <= 8 for v in value)
    if not fits:
        raise WeightsError(f"the yaml of {where} has scale {str(value)[:40]}, not two numbers from 1 to 8; mend it")
    assert isinstance(value, list | tuple)
    return (value[0], value[1])
