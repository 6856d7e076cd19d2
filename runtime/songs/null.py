"""How deep the written stems null against the mixture: their sum, read back from disk, less the song."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from ortsep.audio.resample import resample, resampled_length
from ortsep.audio.sources import Source, fit_channels
from ortsep.base.arrays import F32
from ortsep.stems.joined import Track

DEEPEST = 300.0
"""dB reported where nothing at all is left."""
Read = Callable[[int], npt.NDArray[np.float64]]
"""The next so many samples [n, C] of a stem, fewer at its end."""


def null_depth(
    source: Source,
    stems: Iterable[Path | Track],
    channels: int,
    rate: int,
    gain: float = 1.0,
    heard: Callable[[F32], object] | None = None,
) -> float:
    """dB by which the sum of the files ``stems``, less ``gain`` times the mixture, lies below that mixture.

    The files have ``channels`` and ``rate`` (Hz); the mixture is brought there. 0 or less for stems that are no parts
    of the mixture. Energies are summed in float64. ``heard`` is given the mixture times ``gain``, block by block.
    Raises AudioError where a file can't be read.
    """
    samples = resampled_length(source.samples, source.sample_rate, rate)
    whole = left = 0.0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_opened(stem)) for stem in stems]
        for block in resample(source.blocks(), source.channels, source.sample_rate, rate, samples):
            mixture = fit_channels(block, channels) * gain
            if heard is not None:
                heard(mixture)
            mixture = mixture.astype(np.float64)
            total = np.zeros_like(mixture)
            for file in files:
                part = file(mixture.shape[1]).T
                total[:, : part.shape[1]] += part
            whole += float(np.sum(mixture**2))
            left += float(np.sum((mixture - total) ** 2))
    if left == 0.0:
        return DEEPEST
    return min(DEEPEST, 10 * math.log10(max(whole, 1e-300) / left))


@contextlib.contextmanager
def _opened(stem: Path | Track) -> Iterator[Read]:
    if isinstance(stem, Track):
        with stem:
            yield stem.read
        return
    with soundfile.SoundFile(stem) as file:
        yield lambda count: file.read(count, dtype="float64", always_2d=True)
