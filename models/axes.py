"""How the dimensions of a foreign graph's tensor hold ours: a notation, and what a shape says of the sizes.

A dimension is written as the letters of its axes, in row-major order: ``b cr f t`` is ortsep's own spectrum,
``b fc t r`` one with bins and channels in one dimension and real and imaginary part in the last.

    b batch   s stems   c audio channels   r real and imaginary part   f bins   t frames   n samples
"""

import math
from collections.abc import Mapping, Sequence

LETTERS = "bscrftn"

OURS = {
    "mix": "b c n",
    "spectrum": "b cr f t",
    "magnitude": "b c f t",
    "stems": "b s c n",
    "stem_spectra": "b s cr f t",
    "masks": "b s c f t",
    "stem_magnitudes": "b s c f t",
}
"""The tensors of ortsep's own graphs. Masks of a complex graph are ``b s cr f t``."""


def well_formed(axes: str) -> bool:
    """Whether ``axes`` is in this notation: known letters, none twice."""
    letters = axes.replace(" ", "")
    return bool(letters) and set(letters) <= set(LETTERS) and len(set(letters)) == len(letters) and "  " not in axes


def measure(axes: str, shape: Sequence[object], known: Mapping[str, int]) -> dict[str, int] | None:
    """The sizes of the axes in a tensor of ``shape``, ``known`` among them; None where the shape can't be these axes.

    Dimensions that are not positive numbers are free. Where a dimension of several axes leaves more than one of them
    unknown, those stay unknown.

    >>> measure("b fc t r", ["N", 2050, 801, 2], {"c": 2, "r": 2})
    {'c': 2, 'r': 2, 'f': 1025, 't': 801}
    >>> measure("b cr f t", [1, 6, 2048, 256], {"c": 2, "r": 2}) is None
    True
    """
    dimensions = axes.split()
    if len(dimensions) != len(shape):
        return None
    sizes = dict(known)
    for letters, size in zip(dimensions, shape, strict=True):
        if type(size) is not int or size <= 0:
            continue
        unknown = [letter for letter in letters if letter not in sizes]
        product = math.prod(sizes[letter] for letter in letters if letter in sizes)
        if len(unknown) == 1 and size % product == 0:
            sizes[unknown[0]] = size // product
        elif (not unknown and product != size) or (unknown and size % product):
            return None
    return sizes
