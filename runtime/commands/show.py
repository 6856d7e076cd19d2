"""``ortsep inspect``: what a model is, and what a file without a spec seems to be."""

import json
import sys
from dataclasses import asdict
from typing import Any

from ortsep import __version__
from ortsep.base.errors import MissingDependency, OrtsepError


def inspect_command(reference: str, *, as_json: bool, targets: bool = False) -> int:
    """Spec, files, tensors and figures of a model; what a file without a spec seems to be. ``targets``: how its graphs
    fit accelerators instead."""
    if targets:
        return _targets(reference, as_json)
    from ortsep.graphs.model import find_model, load_model
    from ortsep.graphs.session import Session

    try:
        model = load_model(reference)
    except OrtsepError as error:
        path = find_model(reference)
        if path.is_dir():
            raise
        session = Session(path, provider="cpu")
        document: dict[str, Any] = {"file": str(path), "runnable": False, "reason": str(error)}
        document["tensors"] = _tensors(session)
        document["metadata"] = {k: v[:200] for k, v in session.metadata.items()}
        _print(document, as_json)
        return 0
    spec = model.spec
    unfit = _why_not(reference)
    sessions = {m.file: Session(model.file(m), provider="cpu") for m in model.members}
    document = {
        "name": spec.name,
        "folder": str(model.folder),
        "runnable": not unfit,
        **({"reason": unfit} if unfit else {}),
        "size_mb": round(model.size() / 1e6, 1),
        "files": {file: _tensors(session) for file, session in sessions.items()},
        "bandwidth_hz": spec.bandwidth or spec.sample_rate / 2,
        "spec": asdict(spec),
    }
    _print(document, as_json)
    return 0


def _targets(reference: str, as_json: bool) -> int:
    from ortsep.graphs.model import load_model

    model = load_model(reference)
    try:
        from ortsep.export.targets import describe, fits
    except ImportError as error:
        raise MissingDependency(
            f"telling what targets take of a graph needs {error.name or error}, which the lean runtime leaves out; "
            "pip install 'ortsep[onnx]'",
            name=error.name,
        ) from error
    found = fits(model)
    if as_json:
        told = {file: [{**asdict(fit), "share": fit.share} for fit in each] for file, each in found.items()}
        print(json.dumps({"version": __version__, "name": model.spec.name, "targets": told}))
    else:
        print("\n".join(describe(found)))
    return 0


def _why_not(reference: str) -> str:
    """What keeps the model from running, found by running each of its graphs once; empty where nothing does."""
    import numpy as np

    from ortsep.separator import Separator

    try:
        with Separator(reference, provider="cpu") as separator:
            separator.separate(np.random.default_rng(0).uniform(-0.1, 0.1, (min(2, separator.spec.channels), 64)))
    except OrtsepError as error:
        return str(error)
    return ""


def _tensors(session: Any) -> dict[str, list[str]]:
    return {
        "inputs": [f"{t.name} {list(t.shape)}" for t in session.inputs],
        "outputs": [f"{t.name} {list(t.shape)}" for t in session.outputs],
    }


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"version": __version__, **document}))
        return
    _tree(document, "")


def _tree(value: dict[str, Any], indent: str) -> None:
    for key, item in value.items():
        if item in (None, "", (), [], {}):
            continue
        if isinstance(item, dict):
            print(f"{indent}{key}:")
            _tree(item, indent + "  ")
        elif isinstance(item, list | tuple) and item and isinstance(item[0], dict):
            print(f"{indent}{key}:")
            for part in item:
                print(f"{indent}  - " + ", ".join(f"{k} {v}" for k, v in part.items() if v not in (None, "")))
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list | tuple) else str(item)
            print(f"{indent}{key}: {text}", file=sys.stdout)
