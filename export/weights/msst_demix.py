"""How MSST cuts a song and joins it, twice: as what a spec says, and as the formula to compare with.

``utils.model_utils.demix`` with batch size 1: its join's window is made once a batch, so that with larger ones the
result depends on their size.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.arrays import F32
from ortsep.export.weights.msst_yaml import Settings
from ortsep.models.spec import Border, Chunks, Join, Normalization

Float = npt.NDArray[np.floating[Any]]

FADES = 10
"""A fade is a tenth of a chunk."""
HTDEMUCS = ("htdemucs", "hdemucs", "demucs")
"""What ``demix`` takes another way: boxcar joins, no border, a tail of zeros."""


def cuts(settings: Settings, *, boxcar: bool = False) -> Chunks:
    """``demix`` as a part of a spec; ``boxcar`` for ``HTDEMUCS``."""
    parts = settings.overlaps
    if boxcar:
        return Chunks(settings.chunk, overlap=1 - 1 / parts, parts=parts, join=Join("boxcar"), tail="zeros")
    return Chunks(
        length=settings.chunk,
        overlap=1 - 1 / parts,
        parts=parts,
        join=Join("fade", settings.chunk // FADES),
        border=Border(fill="reflect", overlapping=True),
        tail="reflect",
    )


def normalization(settings: Settings) -> Normalization:
    """``inference.normalize``: (x - mean) / deviation of the mono mix, with nothing added."""
    return Normalization("track", eps=0.0, ddof=0) if settings.normalize else Normalization()


def level(mix: F32, settings: Settings) -> tuple[float, float]:
    """Mean and deviation of the mono mix where the settings ask for them, else 0 and 1; silence deviates by 1."""
    if not settings.normalize:
        return 0.0, 1.0
    mono = mix.mean(axis=0, dtype=np.float64)
    return float(mono.mean()), float(mono.std()) or 1.0


def demix(mix: F32, settings: Settings, separate: Callable[[F32], Float], *, boxcar: bool = False) -> F32:
    """The stems [S, C, N] of a mixture [C, N], by a function from one chunk [C, length] to its stems [S, C, length].

    Sums are float32, as in MSST; a sample that no chunk weighs is 0.
    """
    mean, deviation = level(mix, settings)
    mix = ((mix - mean) / deviation).astype(np.float32) if settings.normalize else mix
    length, step = settings.chunk, settings.chunk // settings.overlaps
    border = 0 if boxcar else length - step
    bordered = border > 0 and mix.shape[1] > 2 * border
    song = np.pad(mix, ((0, 0), (border, border)), mode="reflect") if bordered else mix
    total: Any = 0.0
    weight = np.zeros(song.shape[1], np.float32)
    starts = range(0, song.shape[1], step)
    for start in starts:
        part = song[:, start : start + length]
        count = part.shape[1]
        missing = ((0, 0), (0, length - count))
        reflected = not boxcar and count > length // 2
        whole = np.pad(part, missing, mode="reflect") if reflected else np.pad(part, missing)
        window = np.ones(count, np.float32) if boxcar else _window(length, start == 0, start == starts[-1])[:count]
        stems = np.asarray(separate(whole), np.float32)[..., :count]
        if start == 0:
            total = np.zeros((*stems.shape[:2], song.shape[1]), np.float32)
        total[..., start : start + count] += stems * window
        weight[start : start + count] += window
    out: F32 = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    out = out[..., border:-border] if bordered else out
    return (out * deviation + mean).astype(np.float32) if settings.normalize else out


def _window(length: int, first: bool, last: bool) -> F32:
    """Ones with linear fades; a song's first chunk has none in, its last none out (the first is that alone)."""
    fade, window = length // FADES, np.ones(length, np.float32)
    if not first:
        window[:fade] = np.linspace(0, 1, fade)
    if first or not last:
        window[length - fade :] = np.linspace(1, 0, fade)
    return window
