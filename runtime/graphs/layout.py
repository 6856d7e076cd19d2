"""Arrays from one order of axes to another, in the notation of ``models.axes``."""

from collections.abc import Mapping

from ortsep.base.arrays import Array
from ortsep.base.errors import ModelError
from ortsep.models.axes import measure


def rearranged(array: Array, source: str, target: str, known: Mapping[str, int]) -> Array:
    """``array`` of the axes ``source`` with the axes ``target``; an axis that is in one of them only has size 1.

    A view where that is possible. ``known`` are the sizes that the shape doesn't say. Raises ModelError for an array
    whose axes can't be these.

    >>> import numpy as np
    >>> spectrum = np.zeros((1, 4, 1025, 801), np.float32)
    >>> rearranged(spectrum, "b cr f t", "b fc t r", {"c": 2, "r": 2}).shape
    (1, 2050, 801, 2)
    """
    if source == target:
        return array
    sizes = measure(source, array.shape, known)
    atoms = source.replace(" ", "")
    if sizes is None or not set(atoms) <= sizes.keys():
        raise ModelError(f"the graph gives {list(array.shape)} where its spec says [{source.replace(' ', ', ')}]")
    wanted = target.replace(" ", "")
    if any(sizes.get(letter, 1) != 1 for letter in set(atoms) ^ set(wanted)):
        raise ModelError(f"a tensor of the axes {source} and the sizes {list(array.shape)} has no axes {target}")
    apart = array.reshape([sizes[letter] for letter in atoms])
    kept = [letter for letter in atoms if letter in wanted]
    apart = apart.reshape([sizes[letter] for letter in kept])
    turned = apart.transpose([kept.index(letter) for letter in wanted if letter in kept])
    dimensions = [[sizes[letter] if letter in kept else 1 for letter in part] for part in target.split()]
    return turned.reshape([_product(part) for part in dimensions])


def _product(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
