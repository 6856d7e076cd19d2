"""What stems were made from: a hidden JSON file beside them, by which a later run knows whether they are still right.

It is written last, after all stems have their names: stems without it count as not made.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from ortsep import __version__
from ortsep.base.cache import content_hash, sha256_of
from ortsep.base.whole import whole_file
from ortsep.chain import Chain
from ortsep.graphs.model import Model
from ortsep.graphs.providers import runtime_packages
from ortsep.models.onnx_file import external_files
from ortsep.options import Options
from ortsep.separator import Separator

FORMAT = 2
_COMPARED = ("format", "versions", "models", "options", "files", "input")


def provenance(
    separator: Separator | Chain, options: Options, files: Mapping[str, Any], song: Path | Mapping[str, Any]
) -> dict[str, Any]:
    """What decides how the stems of ``song`` sound: its bytes, graphs by hash, names of stems, options, versions.

    ``files`` are the options of reading and writing; ``song`` the file, or what else tells its content from another's.
    Raises OSError.
    """
    return {
        "format": FORMAT,
        "versions": _versions(),
        "models": [_of_model(model) for model in separator.models],
        "providers": sorted(separator.expected_providers()),
        "options": json.loads(json.dumps(asdict(options))),
        "files": dict(files),
        "input": content_hash(song) if isinstance(song, Path) else dict(song),
    }


def _versions() -> dict[str, str]:
    return {
        "ortsep": __version__,
        "numpy": np.__version__,
        "soxr": soxr.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        **runtime_packages(),
    }


def _of_model(model: Model) -> dict[str, Any]:
    hashes = {file.name: sha256_of(file) for graph in _graphs(model) for file in (graph, *external_files(graph))}
    return {"name": model.spec.name, "stems": list(model.stems), "rate": model.spec.sample_rate, "sha256": hashes}


def _graphs(model: Model) -> list[Path]:
    return [model.file(member) for member in model.members]


def sidecar(targets: Mapping[str, Path]) -> Path:
    """Where the provenance of stems in ``targets`` lies: hidden, beside the first of them."""
    first = next(iter(targets.values()))
    return first.with_name(f".{first.name}.ortsep.json")


def still_right(targets: Mapping[str, Path], made: Mapping[str, Any]) -> bool:
    """Whether the stems in ``targets`` are there, untouched, and were made from what ``made`` says.

    What counts of providers is which ones really ran: those that would run now, or some of them.
    """
    before = recorded(targets)
    try:
        same = all(before[key] == made[key] for key in _COMPARED)
        ran = set(before["provider"].split("+"))
        return (
            same
            and ran <= set(made["providers"])
            and before["stems"] == {name: _mark(path) for name, path in targets.items()}
        )
    except (OSError, KeyError, AttributeError):
        return False


def recorded(targets: Mapping[str, Path]) -> dict[str, Any]:
    """What ``write_sidecar`` left beside the stems in ``targets``; empty where there is nothing that can be read."""
    try:
        with sidecar(targets).open(encoding="utf-8") as file:
            before = json.loads(file.read(1 << 20))
    except (OSError, ValueError, RecursionError):
        return {}
    return before if isinstance(before, dict) else {}


def write_sidecar(targets: Mapping[str, Path], made: Mapping[str, Any], **more: Any) -> None:
    """Write the provenance of finished stems, complete or not at all; ``more`` is told, not compared. OutputError."""
    with whole_file(sidecar(targets), "make room there") as partial:
        stems = {name: _mark(target) for name, target in targets.items()}
        partial.write_text(json.dumps({**made, **more, "stems": stems}, indent=1) + "\n", encoding="utf-8")


def _mark(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"file": path.name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
