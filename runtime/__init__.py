"""ortsep: music source separation from self-describing ONNX files, without a training framework.

>>> import ortsep
>>> separator = ortsep.Separator("htdemucs")          # doctest: +SKIP
>>> stems = separator.separate(mixture, 44100)        # doctest: +SKIP
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Separator": "ortsep.separator",
    "Options": "ortsep.options",
    "ModelSpec": "ortsep.models.spec",
    "OrtsepError": "ortsep.base.errors",
}
__all__ = ["ModelSpec", "Options", "OrtsepError", "Separator", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ortsep' has no attribute {name!r}")
