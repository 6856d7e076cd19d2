"""``ortsep models`` and ``ortsep inspect``: what there is, and what a file is."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.errors import OrtsepError
from ortsep.models.catalogue import BUNDLED, Card, catalogue, exported_home, folder_name, model_homes

_REDISTRIBUTABLE = {True: "yes", False: "no", None: "unstated"}


def models_command(*, as_json: bool) -> int:
    """The catalogue with what is exported here, exported models that are not in it, and other people's files."""
    from ortsep.graphs.library import loose_files, model_folders

    folders = model_folders([*model_homes(), BUNDLED])
    loose = loose_files(model_homes())
    rows = [_row(card, folders) for card in catalogue().values()]
    known = {folder_name(card.name) for card in catalogue().values()}
    others = [f for f in folders if f.name not in known]
    if as_json:
        extra = [{"name": f.name, "exported": str(f)} for f in others]
        files = [{**asdict(one), "path": str(one.path)} for one in loose]
        print(json.dumps({"version": __version__, "models": rows + extra, "files": files}))
        return 0
    width = max((len(r["name"]) for r in rows), default=4)
    family = None
    for row in rows:
        if row["family"] != family:
            family = row["family"]
            print(f"\n{family}")
        mark = "*" if row["exported"] else " "
        stems = ", ".join(row["stems"])
        print(
            f" {mark} {row['name']:<{width}}  {row['size_mb'] or '?':>5} MB  {row['sample_rate'] / 1000:g} kHz  {stems}"
        )
        print(f"   {'':<{width}}  {row['advice']}")
        print(f"   {'':<{width}}  weights: {row['licence']}")
    for folder in others:
        print(f" * {folder.name}  (not in the catalogue)  {folder}")
    for one in loose:
        what = f"{one.title}: {', '.join(one.stems)}" if not one.reason else f"can't run: {one.reason}"
        print(f" * {one.path.stem}  {what}")
    print(f"\n* exported here, in {exported_home()}. Export another with: ortsep export NAME")
    return 0


def _row(card: Card, folders: list[Path]) -> dict[str, Any]:
    place = next((f for f in folders if f.name == folder_name(card.name)), None)
    return {
        "name": card.name,
        "aliases": list(card.aliases),
        "family": card.family,
        "title": card.title,
        "stems": list(card.stems),
        "sample_rate": card.sample_rate,
        "channels": card.channels,
        "size_mb": card.size_mb,
        "parameters": card.parameters,
        "licence": card.licence,
        "redistributable": _REDISTRIBUTABLE[card.redistributable],
        "advice": card.advice,
        "homepage": card.homepage,
        "exported": str(place) if place else None,
    }


def inspect_command(reference: str, *, as_json: bool) -> int:
    """Spec, files, tensors and figures of a model; what a file without a spec seems to be."""
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
    sessions = {m.file: Session(model.file(m), provider="cpu") for m in model.members}
    document = {
        "name": spec.name,
        "folder": str(model.folder),
        "runnable": True,
        "size_mb": round(model.size() / 1e6, 1),
        "files": {file: _tensors(session) for file, session in sessions.items()},
        "bandwidth_hz": spec.bandwidth or spec.sample_rate / 2,
        "spec": asdict(spec),
    }
    _print(document, as_json)
    return 0


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
