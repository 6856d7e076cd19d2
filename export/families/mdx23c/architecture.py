"""MDX23C's architecture: the sizes and choices of a network, and what parameters one has.

The network is TFC-TDF, version 3 (Kim, Lee, Jung, "Sound Demixing Challenge 2023", KUIELab's entry), in the edition of
MSST (``models/mdx23c_tfc_tdf_v3.py``), whose parameters have the same names as those of UVR's. A published model is a
checkpoint and a configuration (.yaml); sizes follow from the checkpoint, the transform and the activation don't.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
State = dict[str, npt.NDArray[Any]]
EPS = 1e-5
"""Of every norm: torch's default."""


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of one network, by the names that MSST's configuration has for them where there are any."""

    outputs: int
    """Stems that the network gives."""
    num_channels: int = 128
    """Of the network at full resolution; ``growth`` more at each coarser scale."""
    growth: int = 128
    num_subbands: int = 4
    num_scales: int = 5
    num_blocks_per_scale: int = 2
    bottleneck_factor: int = 4
    scale: tuple[int, int] = (2, 2)
    """By which a scale is coarser in time and in frequency."""
    norm: str = "InstanceNorm"
    """InstanceNorm, BatchNorm, GroupNorm with a number, or none."""
    act: str = "gelu"
    """gelu, relu, or elu with its alpha behind it."""
    audio_channels: int = 2
    sample_rate: int = 44100
    n_fft: int = 8192
    hop: int = 1024
    dim_f: int = 4096
    """Bins that the network sees."""
    frames: int = 256
    """Of a chunk."""

    @property
    def inputs(self) -> int:
        """Channels that the network sees: real and imaginary part of each audio channel and subband."""
        return 2 * self.audio_channels * self.num_subbands

    @property
    def band(self) -> int:
        """Bins of a subband."""
        return self.dim_f // self.num_subbands

    @property
    def chunk(self) -> int:
        """Samples that make ``frames`` frames of the centred transform."""
        return self.hop * (self.frames - 1)

    @property
    def groups(self) -> int:
        """Groups of a GroupNorm; 0 for another norm."""
        return int(self.norm.removeprefix("GroupNorm") or 0) if self.norm.startswith("GroupNorm") else 0

    @property
    def alpha(self) -> float:
        """Of ELU."""
        return float(self.act.removeprefix("elu"))


# -- what a network of an architecture holds ---------------------------------------------------------------------------


def parameters(arch: Architecture) -> dict[str, Shape]:
    """Names and shapes of everything that the network needs, BatchNorm's statistics included."""
    return dict(_parameters(arch))


def _parameters(a: Architecture) -> Iterator[tuple[str, Shape]]:
    def norm(name: str, channels: int) -> Iterator[tuple[str, Shape]]:
        if a.norm != "none":
            parts = ("weight", "bias", "running_mean", "running_var")
            yield from ((f"{name}.{part}", (channels,)) for part in parts[: 4 if a.norm == "BatchNorm" else 2])

    def blocks(name: str, inside: int, c: int, f: int) -> Iterator[tuple[str, Shape]]:
        for i in range(a.num_blocks_per_scale):
            n = f"{name}.blocks.{i}"
            yield from norm(f"{n}.tfc1.0", inside)
            yield f"{n}.tfc1.2.weight", (c, inside, 3, 3)
            yield from norm(f"{n}.tdf.0", c)
            yield f"{n}.tdf.2.weight", (f // a.bottleneck_factor, f)
            yield from norm(f"{n}.tdf.3", c)
            yield f"{n}.tdf.5.weight", (f, f // a.bottleneck_factor)
            yield from norm(f"{n}.tfc2.0", c)
            yield f"{n}.tfc2.2.weight", (c, c, 3, 3)
            yield f"{n}.shortcut.weight", (c, inside, 1, 1)
            inside = c

    c, f = a.num_channels, a.band
    yield "first_conv.weight", (c, a.inputs, 1, 1)
    for i in range(a.num_scales):
        yield from blocks(f"encoder_blocks.{i}.tfc_tdf", c, c, f)
        yield from norm(f"encoder_blocks.{i}.downscale.conv.0", c)
        yield f"encoder_blocks.{i}.downscale.conv.2.weight", (c + a.growth, c, *a.scale)
        c, f = c + a.growth, f // a.scale[1]
    yield from blocks("bottleneck_block", c, c, f)
    for i in range(a.num_scales):
        yield from norm(f"decoder_blocks.{i}.upscale.conv.0", c)
        yield f"decoder_blocks.{i}.upscale.conv.2.weight", (c, c - a.growth, *a.scale)
        c, f = c - a.growth, f * a.scale[1]
        yield from blocks(f"decoder_blocks.{i}.tfc_tdf", 2 * c, c, f)
    yield "final_conv.0.weight", (c, c + a.inputs, 1, 1)
    yield "final_conv.2.weight", (a.outputs * a.inputs, c, 1, 1)


def parameter_count(arch: Architecture) -> int:
    """As ``sum(p.numel() for p in model.parameters())`` counts: without BatchNorm's statistics."""
    return sum(int(np.prod(shape)) for name, shape in _parameters(arch) if ".running_" not in name)


def random_state(arch: Architecture, seed: int) -> State:
    """Seeded values for everything in ``parameters``, such that no branch hides and activations stay in range.

    Weights have deviation 1/sqrt(fan_in), norms' scales are 0.5 to 1.2, their shifts -0.3 to 0.3, variances 0.5 to 1.5.
    """
    state = {}
    for name, shape in parameters(arch).items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if len(shape) > 1:
            fan_in = shape[0] if ".upscale." in name else int(np.prod(shape[1:]))
            state[name] = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(fan_in))
        elif name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            low, high = (0.5, 1.2) if name.endswith(".weight") else (-0.3, 0.3)
            state[name] = rng.uniform(low, high, shape).astype(np.float32)
    return state
