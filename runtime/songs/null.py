"""How deep the written stems null against the mixture: their sum, read back from disk, less the song."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import soundfile

from ortsep.audio.sources import Source
from ortsep.base.arrays import F32, F64
from ortsep.base.decibels import ratio
from ortsep.base.threads import closed
from ortsep.stems.joined import Track

DEEPEST = 300.0
"""dB reported where nothing at all is left."""
Read = Callable[[int], F64]
"""The next so many samples [n, C] of a stem, fewer at its end."""


def null_depth(
    mixture: Source, stems: Iterable[Path | Track], gain: float = 1.0, heard: Callable[[F32], object] | None = None
) -> float:
    """dB by which the sum of the files ``stems``, less ``gain`` times the mixture, lies below that mixture.

    The mixture has the files' rate and channels. 0 or less for stems that are no parts of it. Energies are summed in
    float64. ``heard`` is given the mixture times ``gain``, block by block. Raises what decoding the mixture raises.
    """
    whole = left = 0.0
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(stem)) for stem in stems]
        for block in stack.enter_context(closed(mixture.blocks())):
            scaled = block * gain
            if heard is not None:
                heard(scaled)
            exact = scaled.astype(np.float64)
            total = np.zeros_like(exact)
            for read in files:
                part = read(exact.shape[1]).T
                total[:, : part.shape[1]] += part
            whole += float(np.sum(exact**2))
            left += float(np.sum((exact - total) ** 2))
    return ratio(whole, left, DEEPEST)


@contextmanager
def _opened(stem: Path | Track) -> Iterator[Read]:
    if isinstance(stem, Track):
        with stem:
            yield stem.read
        return
    with soundfile.SoundFile(stem) as file:
        yield lambda count: file.read(count, dtype="float64", always_2d=True)
