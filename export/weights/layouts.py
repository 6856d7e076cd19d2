"""Where the parameters lie in a file of a training framework, whatever it put round them.

Bare tensors by name; below ``state`` (demucs), ``state_dict``, ``model_state_dict``, ``model`` and the like; below
names with prefixes (``module.``, ``_orig_mod.``, ``model.``, ``ema_model.``); a model beside its moving average.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.errors import WeightsError

State = dict[str, npt.NDArray[Any]]
Tensors = dict[str, Any]

AVERAGED = re.compile(r"(?<![a-z])(ema|shadow|averaged?|swa|best)(?![a-z])")
"""Of the sets that a file keeps, the one to take: an average, or the best of the training (demucs)."""
CURRENT = "current_model_state"
"""Where Lightning's WeightAveraging keeps the model as it is trained, beside ``state_dict``, the average."""
DEEPEST = 4


def groups(held: Mapping[str, Any], anchors: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Tensors]]:
    """Every set of tensors with a name that ends in one of ``anchors``, by where it lies, its prefix taken away."""
    names = [name for name in held if isinstance(name, str)]
    taken: set[str] = set()
    prefixes = {
        name.removesuffix(anchor)
        for anchor in anchors
        for name in names
        if name == anchor or name.endswith(f".{anchor}")
    }
    for prefix in sorted(prefixes, key=len, reverse=True):
        own = [n for n in names if n.startswith(prefix) and n not in taken and hasattr(held[n], "shape")]
        taken |= set(own)
        yield path + prefix, {name.removeprefix(prefix): held[name] for name in own}
    for name in names:
        if isinstance(held[name], Mapping) and path.count("/") < DEEPEST:
            yield from groups(held[name], anchors, f"{path}{name}/")


def pick(found: Mapping[str, Tensors], where: str) -> tuple[str, Tensors]:
    """Of several sets the one that is meant: a moving average before its model, equal ones as one.

    Raises WeightsError where the names don't settle it.
    """
    if len(others := {name: tensors for name, tensors in found.items() if not name.startswith(CURRENT)}) < len(found):
        found = others or found
    averaged = [name for name in found if AVERAGED.search(name.lower())]
    raw = [name for name in found if name not in averaged]
    if len(averaged) == 1 and all(found[averaged[0]].keys() >= found[name].keys() for name in raw):
        return averaged[0], found[averaged[0]]
    first = next(iter(found))
    if all(_same(found[first], tensors) for tensors in found.values()):
        return first, found[first]
    raise WeightsError(
        f"{where} holds {len(found)} different networks, under {', '.join(map(repr, found))}; "
        "save the one that is meant to a file of its own"
    )


def network_in(held: Mapping[str, Any], anchors: tuple[str, ...], where: str) -> Mapping[str, Any]:
    """The parameters of the one network that has an anchor, wherever it lies; ``held`` as it is where there is none.

    Raises WeightsError for several that nothing tells apart.
    """
    found = dict(groups(held, anchors))
    return pick(found, where)[1] if found else held


def _same(a: Tensors, b: Tensors) -> bool:
    return a is b or (a.keys() == b.keys() and all(np.array_equal(_array(a[name]), _array(b[name])) for name in a))


def arrays(tensors: Tensors, where: str) -> tuple[State, str]:
    """The tensors as numpy, floats as float32, and the name of what most of them were stored as.

    Raises WeightsError for values that are not finite.
    """
    state = {name: _array(tensor) for name, tensor in tensors.items()}
    for name, array in state.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WeightsError(f"{where} has values in {name} that are not finite; take an earlier checkpoint")
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        kind = str(tensor.dtype).removeprefix("torch.")
        sizes[kind] = sizes.get(kind, 0) + int(np.prod(tensor.shape))
    return state, max(sizes, key=lambda kind: sizes[kind], default="")


def _array(tensor: Any) -> npt.NDArray[Any]:
    if isinstance(tensor, np.ndarray):
        return tensor.astype(np.float32, copy=False) if tensor.dtype.kind == "f" else tensor
    tensor = tensor.detach().cpu()
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array
