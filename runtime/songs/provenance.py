"""What stems were made from: a hidden JSON file beside them, by which a later run knows whether they are still right.

It is written last, after all stems have their names: stems without it count as not made.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.cache import sha256_of
from ortsep.base.whole import whole_file
from ortsep.graphs.model import Model
from ortsep.graphs.providers import runtime_packages
from ortsep.models.onnx_file import external_files
from ortsep.options import Options

FORMAT = 1
_COMPARED = ("format", "ortsep", "onnxruntime", "models", "options", "files", "input")


def provenance(models: list[Model], options: Options, files: Mapping[str, Any], song: Path) -> dict[str, Any]:
    """What decides how the stems of ``song`` sound: graphs by hash, names of stems, options, versions, the song.

    ``files`` are the options of reading and writing. The song is known by its size and time. Raises OSError.
    """
    status = song.stat()
    return {
        "format": FORMAT,
        "ortsep": __version__,
        "onnxruntime": runtime_packages(),
        "models": [_of_model(model) for model in models],
        "options": json.loads(json.dumps(asdict(options))),
        "files": dict(files),
        "input": {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns},
    }


def _of_model(model: Model) -> dict[str, Any]:
    graphs = [model.file(member) for member in model.members]
    hashes = {file.name: sha256_of(file) for graph in graphs for file in (graph, *external_files(graph))}
    return {"name": model.spec.name, "stems": list(model.stems), "rate": model.spec.sample_rate, "sha256": hashes}


def sidecar(targets: Mapping[str, Path]) -> Path:
    """Where the provenance of stems in ``targets`` lies: hidden, beside the first of them."""
    first = next(iter(targets.values()))
    return first.with_name(f".{first.name}.ortsep.json")


def still_right(targets: Mapping[str, Path], made: Mapping[str, Any]) -> bool:
    """Whether the stems in ``targets`` are there, untouched, and were made from what ``made`` says."""
    before = recorded(targets)
    try:
        same = all(before[key] == made[key] for key in _COMPARED)
        return same and before["stems"] == {name: _mark(path) for name, path in targets.items()}
    except (OSError, KeyError):
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
