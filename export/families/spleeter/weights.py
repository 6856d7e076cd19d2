"""The variables of a Spleeter checkpoint: their names and shapes, the networks they make, and random ones.

Names are those that Keras gave the layers of all stems' U-Nets, one after the other (spleeter,
model/functions/unet.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ortsep.base.arrays import F32, Array
from ortsep.base.errors import WeightsError

DOWN = (16, 32, 64, 128, 256, 512)
"""Output channels of the encoder's convolutions (Jansson et al., ISMIR 2017)."""
UP = (256, 128, 64, 32, 16, 1)
"""Output channels of the decoder's transposed convolutions."""
FRAMES = 512
"""Of a block, in every published model."""
EPSILON = 1e-3
"""Keras's default for batch normalisation."""

_GAINS: dict[tuple[int, ...], float] = {(5, 5, 2, 16): 1 / 256, (4, 4, 1, 2): 3.0}
_NOT_WEIGHTS = {"global_step", "beta1_power", "beta2_power"}


@dataclass(frozen=True)
class Architecture:
    """What tells Spleeter's models apart beside their stems (spleeter, resources/*.json); weights don't show it.

    Activations: ``LeakyReLU`` (slope 0.2), ``ReLU`` or ``ELU``. Masks are sigmoids, or a softmax over the stems.
    """

    bins: int
    conv_activation: str
    deconv_activation: str
    softmax: bool
    frames: int = FRAMES
    """Of a block, which is one network's input: a multiple of 64, as the bins are."""


@dataclass(frozen=True)
class Conv:
    """A convolution's kernel, [frames, bins, in, out] ([frames, bins, out, in] if transposed), and bias [out]."""

    kernel: F32
    bias: F32


@dataclass(frozen=True)
class Norm:
    """A batch normalisation at inference, four vectors [channels]."""

    gamma: F32
    beta: F32
    mean: F32
    variance: F32


@dataclass(frozen=True)
class UNet:
    """One stem's network. ``down_norms`` follow the first five encoder convolutions, ``up_norms`` each decoder step."""

    down: tuple[Conv, ...]
    down_norms: tuple[Norm, ...]
    up: tuple[Conv, ...]
    up_norms: tuple[Norm, ...]
    mask: Conv


def _layer(kind: str, index: int) -> str:
    return kind if index == 0 else f"{kind}_{index}"


def expected_shapes(stems: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every variable of a checkpoint for ``stems`` stems."""
    shapes: dict[str, tuple[int, ...]] = {}
    for k in range(stems):
        inputs = 2
        for i, outputs in enumerate(DOWN):
            name = _layer("conv2d", 7 * k + i)
            shapes |= {f"{name}/kernel": (5, 5, inputs, outputs), f"{name}/bias": (outputs,)}
            inputs = outputs
        name = _layer("conv2d", 7 * k + 6)
        shapes |= {f"{name}/kernel": (4, 4, 1, 2), f"{name}/bias": (2,)}
        for i, outputs in enumerate(UP):
            name = _layer("conv2d_transpose", 6 * k + i)
            shapes |= {f"{name}/kernel": (5, 5, outputs, inputs), f"{name}/bias": (outputs,)}
            inputs = 2 * outputs
        for i, channels in enumerate(DOWN + UP):
            name = _layer("batch_normalization", 12 * k + i)
            shapes |= {f"{name}/{v}": (channels,) for v in ("gamma", "beta", "moving_mean", "moving_variance")}
    return shapes


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def check(variables: Mapping[str, Array], stems: int, where: str) -> None:
    """Raise WeightsError with the differences unless these are the variables of ``stems`` U-Nets, all finite.

    What an optimiser leaves in a checkpoint of one's own training (counters, slots like ``.../Adam``) may be there.
    """
    shapes = expected_shapes(stems)
    missing = [name for name in shapes if name not in variables]
    extra = [
        name
        for name in variables
        if name not in shapes and name not in _NOT_WEIGHTS and name.rpartition("/")[0] not in shapes
    ]
    wrong = [
        f"{name} {variables[name].dtype}{list(variables[name].shape)} instead of float32{list(shape)}"
        for name, shape in shapes.items()
        if name in variables and (variables[name].shape != shape or variables[name].dtype != np.float32)
    ]
    found = sum(value.shape == (4, 4, 1, 2) for name, value in variables.items() if name.endswith("/kernel"))
    differences = []
    if found != stems:
        differences.append(f"it holds {found} networks and the model has {stems} stems")
    if missing:
        differences.append(f"missing {_some(missing)}")
    if extra:
        differences.append(f"unexpected {_some(extra)}")
    if wrong:
        differences.append(f"wrong shape: {_some(wrong)}")
    if not differences:
        bad = [name for name in shapes if not np.isfinite(variables[name]).all()]
        bad += [n for n in shapes if n.endswith("moving_variance") and n not in bad and (variables[n] < 0).any()]
        if bad:
            differences.append(f"values that can't be in {_some(bad)} (NaN, infinite, or a negative variance)")
    if differences:
        raise WeightsError(
            f"{where} is not a checkpoint of this model: {'; '.join(differences)}; choose the model it was made for"
        )


def networks(variables: Mapping[str, Array], stems: int) -> tuple[UNet, ...]:
    """The U-Nets of checked variables, in stem order."""

    def conv(kind: str, index: int) -> Conv:
        name = _layer(kind, index)
        return Conv(variables[f"{name}/kernel"], variables[f"{name}/bias"])

    def norm(index: int) -> Norm:
        name = _layer("batch_normalization", index)
        return Norm(*(variables[f"{name}/{v}"] for v in ("gamma", "beta", "moving_mean", "moving_variance")))

    return tuple(
        UNet(
            down=tuple(conv("conv2d", 7 * k + i) for i in range(6)),
            down_norms=tuple(norm(12 * k + i) for i in range(5)),  # the sixth is stored, and used by nothing
            up=tuple(conv("conv2d_transpose", 6 * k + i) for i in range(6)),
            up_norms=tuple(norm(12 * k + 6 + i) for i in range(6)),
            mask=conv("conv2d", 7 * k + 6),
        )
        for k in range(stems)
    )


def random_variables(stems: int, seed: int) -> dict[str, Array]:
    """Seeded variables under which every layer matters and the masks stay well away from 0 and 1.

    The first kernel is scaled for loud music, whose magnitudes at n_fft 4096 reach some hundreds: beyond logits of 18
    ONNX Runtime clamps its sigmoid, and a ratio of two masks of 1e-8 would tell nothing.
    """
    rng = np.random.default_rng(seed)
    variables: dict[str, Array] = {}
    for name, shape in expected_shapes(stems).items():
        value: Array
        if name.endswith("kernel"):
            fan_in = shape[0] * shape[1] * shape[2]
            if "transpose" in name:  # each output sees a quarter of a stride-2 kernel
                fan_in = shape[0] * shape[1] * shape[3] // 4
            gain = _GAINS.get(shape, 1.0)
            value = rng.standard_normal(shape) * gain / np.sqrt(fan_in)
        elif name.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.uniform(-0.3, 0.3, shape)
        variables[name] = value.astype(np.float32)
    variables["global_step"] = np.array(0, np.int64)
    return variables
