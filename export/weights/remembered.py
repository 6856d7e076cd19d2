"""Where the checkpoints of exports lie on this machine, so that ``ortsep validate`` finds them again.

A file beside the caches, by the checkpoint's hash: an exported file itself tells nobody's folders.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ortsep.base.cache import cache_folder
from ortsep.base.errors import OrtsepError
from ortsep.base.whole import whole_file
from ortsep.models.spec import ModelSpec

FILE = "checkpoints.json"
MOST = 500
"""Checkpoints that are remembered; the oldest are forgotten."""
LONGEST = 1 << 20
"""Bytes of the file that are read."""


@dataclass(frozen=True)
class Made:
    """What an export was asked for: the name or path, ``--weights``, ``--config``, ``--stems`` and ``--set``, paths
    absolute."""

    name: str
    weights: str | None = None
    config: Path | None = None
    stems: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def remember(spec: ModelSpec, made: Made) -> None:
    """Note what ``spec`` was made from. Where the note can't be written, nothing is remembered."""
    if not spec.weights.sha256:
        return
    notes = _read()
    notes.pop(_key(spec), None)
    notes[_key(spec)] = {
        "name": made.name,
        "weights": made.weights,
        "config": str(made.config) if made.config else None,
        "stems": list(made.stems),
        "settings": dict(made.settings),
    }
    kept = dict(list(notes.items())[-MOST:])
    with contextlib.suppress(OrtsepError, OSError), whole_file(cache_folder() / FILE) as partial:
        partial.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def recall(spec: ModelSpec) -> Made | None:
    """What this model was made from, as far as it was made here and its files are still there."""
    note = _read().get(_key(spec))
    if not isinstance(note, dict):
        return None
    name, weights, config, stems = (note.get(key) for key in ("name", "weights", "config", "stems"))
    if not isinstance(name, str) or not isinstance(stems, list) or not all(isinstance(s, str) for s in stems):
        return None
    source = name.removeprefix("torch:").partition(";")[0].rpartition(":")[0] if name.startswith("torch:") else name
    paths = [Path(path) for path in (weights, config, source if "/" in source or "\\" in source else None) if path]
    settings = note.get("settings", {})
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        return None
    if not all(path.exists() for path in paths):
        return None
    return Made(name, weights, Path(config) if config else None, tuple(stems), settings)


def _key(spec: ModelSpec) -> str:
    return f"{spec.name} {','.join(spec.stems)} {spec.weights.sha256}"


def _read() -> dict[str, Any]:
    path = cache_folder() / FILE
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= LONGEST:
            held = json.loads(path.read_text(encoding="utf-8"))
            return held if isinstance(held, dict) else {}
    return {}
