"""What the page draws of a job's signals: outlines and spectrograms, small enough to be sent at once."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.audio.song import open_song
from ortsep.base.decibels import levels
from ortsep.report.overview import Gatherer, Overview, of_file

_BLOCK = 1 << 16
_FLOOR = -90.0
"""dB of a full-scale sine below which a spectrogram is black."""


def pictures(song: Path, stems: Mapping[str, Path], **part: Any) -> dict[str, Any]:
    """The mixture (``part``: what ``open_song`` is told of it) and the stems by name.

    Of each: ``seconds``, ``peak`` and ``rms`` (of full scale 1), ``low``, ``high`` and ``line`` (columns: least and
    greatest sample and RMS, each as signed or unsigned bytes of the loudest signal's peak, base64), and ``power``
    (bands from low to high, then columns: bytes from ``floor`` dB to 0 dB of a full-scale sine, base64).
    """
    source = open_song(song, **part)
    samples = source.samples or sum(block.shape[-1] for block in source.blocks())
    gatherer = Gatherer(max(1, samples), source.sample_rate, source.channels)
    for block in source.blocks(_BLOCK):
        gatherer.push(block)
    overviews = {"mixture": gatherer.finish(), **{name: of_file(path) for name, path in stems.items()}}
    scale = max(1e-9, *(overview.peak for overview in overviews.values()))
    return {"floor": _FLOOR, "scale": scale, "signals": {name: _packed(o, scale) for name, o in overviews.items()}}


def _packed(overview: Overview, scale: float) -> dict[str, Any]:
    loudness = levels(overview.power, 1e-12)
    shades = np.clip(np.rint((loudness - _FLOOR) * (255 / -_FLOOR)), 0, 255).astype(np.uint8)

    def signed(line: npt.NDArray[np.floating[Any]]) -> str:
        return _text(np.clip(np.rint(line * (127 / scale)), -127, 127).astype(np.int8))

    return {
        "seconds": round(overview.seconds, 6),
        "peak": overview.peak,
        "rms": overview.rms,
        "columns": len(overview.low),
        "low": signed(overview.low),
        "high": signed(overview.high),
        "line": signed(overview.rms_line),
        "bands": shades.shape[0],
        "power": _text(shades),
        "lowest_hz": float(overview.frequencies[0]),
        "highest_hz": float(overview.frequencies[-1]),
    }


def _text(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
