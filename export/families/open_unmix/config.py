"""What openunmix's training leaves beside its checkpoints: ``separator.json``, and a json for each target.

The first holds ``sample_rate``, ``nfft``, ``nhop`` and ``nb_channels``; the others keep the same names among their
``args`` (openunmix, ``scripts/train.py`` and ``utils.load_target_models``).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ortsep.base.errors import FileMissing, WeightsError

MOST = {"nfft": 1 << 16, "nhop": 1 << 15, "sample_rate": 768_000, "nb_channels": 64, "hidden_size": 1 << 14}
"""What is read, and the largest value of it; all are at least 1."""
LONGEST = 1 << 20
"""Bytes: a target's json has the losses of all epochs."""


def read_settings(path: Path) -> dict[str, int]:
    """The integers of ``MOST`` that a file has. Raises FileMissing, and WeightsError for one that is no such file."""
    if not path.is_file():
        raise FileMissing(f"there is no configuration at {path}; check the path given to --config")
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError("it is too long")
        data = json.loads(path.read_text(encoding="utf-8"))
        data = data.get("args", data)
        known = {key: data[key] for key in MOST if key in data}
        for key, value in known.items():
            if type(value) not in (int, float) or not 1 <= value <= MOST[key] or int(value) != value:
                raise ValueError(f"{key}: {str(value)[:20]}")
    except OSError as error:
        raise FileMissing(f"{path} can't be read ({error.strerror}); change its permissions") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not what openunmix's training writes ({str(error)[:160]}); mend or remove it"
        ) from error
    return {key: int(value) for key, value in known.items()}


def beside(folder: Path, targets: Mapping[str, Any]) -> dict[str, int]:
    """The settings that lie in a folder of checkpoints: of ``separator.json``, then of the first target's own json."""
    names = ("separator.json", f"{next(iter(targets))}.json")
    found: dict[str, int] = {}
    for path in (folder / name for name in names):
        found = {**read_settings(path), **found} if path.is_file() else found
    return found
