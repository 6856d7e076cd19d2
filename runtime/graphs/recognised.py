"""Files without a spec of ours as models: recognised by the table of contracts, or by the spec.json of an ``adopt``."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ortsep.base.errors import FileMissing, ModelError
from ortsep.models.contracts.contract import Wishes
from ortsep.models.contracts.plain import RATE
from ortsep.models.contracts.read import read_file
from ortsep.models.contracts.recognise import Recognised, recognise, together
from ortsep.models.onnx_file import external_files
from ortsep.models.spec import Member, ModelSpec, from_json
from ortsep.stems.manifest import FILE_NAME as MANIFEST
from ortsep.stems.manifest import read_manifest

SIDECAR = "spec.json"
"""The spec of files that carry none, beside them; its bag names the files that it is for."""


def recognised(path: Path, wishes: Wishes | None = None) -> Recognised:
    """What a file without a spec is, its stems named by the stems.txt beside it. Raises ModelError with the reasons.

    ``wishes`` are what somebody says who adopts the file; without any the reasons say how to.
    """
    adopting, wishes = wishes is not None, wishes or Wishes()
    if not wishes.stems and (path.parent / MANIFEST).exists():
        wishes = replace(wishes, stems=read_manifest(path.parent / MANIFEST, None))
    made = recognise(read_file(path), wishes)
    if not isinstance(made, Recognised):
        once = f" (these are options of: ortsep adopt {path})" * (not adopting and "--" in str(made))
        raise ModelError(f"{path} carries no ortsep spec, and {made}{once}; docs/foreign.md tells what runs")
    for file in external_files(path):
        if not file.exists():
            raise FileMissing(f"{path} keeps weights in {file.name}, which is not beside it; put it there")
    return made


def with_members(spec: ModelSpec, file: str) -> ModelSpec:
    """A spec that names its files: a bag of one where it has a single graph."""
    if spec.bag:
        return spec
    rows = tuple(range(len(spec.stems)))
    return replace(spec, bag=(Member(file, (1.0,) * len(rows), rows),))


def foreign_spec(path: Path, sample_rate: int = RATE) -> ModelSpec:
    """The spec of a file that carries none, by its sidecar or by what it is; its bag names its files."""
    spec = read_sidecar(path)
    if spec is not None:
        return spec
    wishes = Wishes(settings={"sample_rate": str(sample_rate)}) if sample_rate != RATE else None
    return with_members(recognised(path, wishes).spec, path.name)


def foreign_folder(folder: Path, graphs: Sequence[Path], sample_rate: int = RATE) -> tuple[Path, ModelSpec]:
    """The model that a folder's ``graphs``, none of which carries a spec, are together: its first file and its spec.

    Raises ModelError where they are several models.
    """
    specs = [foreign_spec(graph, sample_rate) for graph in graphs] if len(graphs) == 1 else []
    if not specs:
        found = _described_together(folder, graphs, sample_rate)
        if found is not None:
            specs = [found]
    if not specs:
        raise ModelError(f"{folder} holds {len(graphs)} graphs without a spec; name the one to run")
    spec = specs[0]
    return folder / spec.bag[0].file, spec


def _described_together(folder: Path, graphs: Sequence[Path], sample_rate: int) -> ModelSpec | None:
    names = {graph.name for graph in graphs}
    sidecars = (read_sidecar(graph) for graph in graphs)
    described = next((spec for spec in sidecars if spec is not None), None)
    if described is not None:
        return described
    parts = []
    for graph in graphs:
        made = recognise(read_file(graph), Wishes())
        if not isinstance(made, Recognised):
            return None
        if {member.file for member in made.spec.bag} == names:
            return foreign_spec(graph, sample_rate)
        parts.append((graph.name, made))
    return together(parts)


def read_sidecar(path: Path) -> ModelSpec | None:
    """The spec that spec.json holds for this file; None where there is none, or it is for others."""
    sidecar = path.parent / SIDECAR
    if not sidecar.is_file():
        return None
    try:
        if sidecar.stat().st_size > 1 << 20:
            raise ModelError(f"{sidecar} is larger than any spec; take it away, or adopt {path.name} again")
        text = sidecar.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{sidecar} can't be read ({error}); take it away, or adopt {path.name} again") from error
    spec = from_json(text, str(sidecar))
    return spec if any(member.file == path.name for member in spec.bag) else None


def sidecar_text(spec: ModelSpec) -> str:
    """A spec as the text of its spec.json: the same JSON as in a file's metadata, on many lines."""
    return json.dumps(json.loads(spec.to_json()), ensure_ascii=False, indent=2) + "\n"
