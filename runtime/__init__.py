"""ortsep: music source separation from self-describing ONNX files, without a training framework.

>>> import ortsep
>>> separator = ortsep.Separator("drums_mini")
>>> separator.stems
('kick', 'snare', 'toms', 'hihat', 'cymbals')

Names are imported when they are first asked for. ``docs/python.md`` shows them all.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ortsep.base.cancel import Cancel
    from ortsep.base.errors import (
        AudioError,
        Cancelled,
        DownloadError,
        FileMissing,
        MissingDependency,
        ModelError,
        OrtsepError,
        OutputError,
        ProviderError,
        TimedOut,
        UsageError,
        WeightsError,
    )
    from ortsep.chain import Chain
    from ortsep.graphs.adopt import Adopted, adopt
    from ortsep.measure.score import Figures, figures
    from ortsep.measure.trial import Scores, score
    from ortsep.measure.tune import Tuned, tune
    from ortsep.models.contracts.contract import Wishes
    from ortsep.models.spec import ModelSpec
    from ortsep.options import Options
    from ortsep.separator import Separator
    from ortsep.songs.record import Files, SongReport, Stem
    from ortsep.songs.separate import separate_file

__version__ = "0.1.0"

_HOME = {
    "Adopted": "ortsep.graphs.adopt",
    "AudioError": "ortsep.base.errors",
    "Cancel": "ortsep.base.cancel",
    "Cancelled": "ortsep.base.errors",
    "Chain": "ortsep.chain",
    "DownloadError": "ortsep.base.errors",
    "Figures": "ortsep.measure.score",
    "FileMissing": "ortsep.base.errors",
    "Files": "ortsep.songs.record",
    "MissingDependency": "ortsep.base.errors",
    "ModelError": "ortsep.base.errors",
    "ModelSpec": "ortsep.models.spec",
    "Options": "ortsep.options",
    "OrtsepError": "ortsep.base.errors",
    "OutputError": "ortsep.base.errors",
    "ProviderError": "ortsep.base.errors",
    "Separator": "ortsep.separator",
    "Scores": "ortsep.measure.trial",
    "SongReport": "ortsep.songs.record",
    "Stem": "ortsep.songs.record",
    "TimedOut": "ortsep.base.errors",
    "Tuned": "ortsep.measure.tune",
    "UsageError": "ortsep.base.errors",
    "WeightsError": "ortsep.base.errors",
    "Wishes": "ortsep.models.contracts.contract",
    "adopt": "ortsep.graphs.adopt",
    "figures": "ortsep.measure.score",
    "score": "ortsep.measure.trial",
    "separate_file": "ortsep.songs.separate",
    "tune": "ortsep.measure.tune",
}
__all__ = [
    "Adopted",
    "AudioError",
    "Cancel",
    "Cancelled",
    "Chain",
    "DownloadError",
    "Figures",
    "FileMissing",
    "Files",
    "MissingDependency",
    "ModelError",
    "ModelSpec",
    "Options",
    "OrtsepError",
    "OutputError",
    "ProviderError",
    "Scores",
    "Separator",
    "SongReport",
    "Stem",
    "TimedOut",
    "Tuned",
    "UsageError",
    "WeightsError",
    "Wishes",
    "__version__",
    "adopt",
    "figures",
    "score",
    "separate_file",
    "tune",
]


if not TYPE_CHECKING:  # a type checker knows all names from above, and that there is no other

    def __getattr__(name: str) -> object:
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        raise AttributeError(f"module 'ortsep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
