"""Giving somebody else's ONNX file its spec: spec.json and stems.txt beside it, its own bytes untouched."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ortsep.base.errors import ModelError, UsageError
from ortsep.base.whole import whole_file
from ortsep.graphs.recognised import SIDECAR, read_sidecar, recognised, sidecar_text, with_members
from ortsep.models.contracts.contract import Wishes
from ortsep.models.onnx_file import external_files, read_metadata
from ortsep.models.spec import METADATA_KEY, ModelSpec
from ortsep.stems.manifest import FILE_NAME as MANIFEST
from ortsep.stems.manifest import write_manifest

MEND = "choose another folder with -o"


@dataclass(frozen=True)
class Adopted:
    """A file with its spec: the folder that holds both, and which contract it is of."""

    folder: Path
    contract: str
    title: str
    spec: ModelSpec


def adopt(path: Path, wishes: Wishes | None = None, output: Path | None = None) -> Adopted:
    """Write the spec and the stems of a recognised file beside it, or into ``output`` together with the file.

    A file of a pair or a bag takes the others with it. In ``output`` files are hard links where that is possible, else
    copies. Raises FileMissing, ModelError for a file that is not recognised or has a spec already, UsageError where the
    folder is not the model's own, OutputError.
    """
    path = Path(path)
    if METADATA_KEY in read_metadata(path):
        raise ModelError(f"{path} carries an ortsep spec already; run it as it is")
    made = recognised(path, wishes)
    spec = with_members(made.spec, path.name)
    files = [path.parent / member.file for member in spec.bag]
    spec = replace(spec, weights=replace(spec.weights, sha256=" ".join(map(_sha256, files))))
    folder = output or path.parent
    if output is None:
        _check_own(folder, files)
    else:
        _bring(files, folder)
    with whole_file(folder / SIDECAR, MEND) as partial:
        partial.write_text(sidecar_text(spec), encoding="utf-8", newline="\n")
    write_manifest(folder / MANIFEST, spec.names)
    return Adopted(folder, made.contract, made.title, spec)


def _check_own(folder: Path, files: Sequence[Path]) -> None:
    """A stems.txt and a spec.json are for the whole folder: other models may not lie there."""
    others = sorted(p.name for p in folder.glob("*.onnx") if p.name not in {file.name for file in files})
    if others or ((folder / SIDECAR).exists() and read_sidecar(files[0]) is None):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        what = f"{others[0]}{more}" if others else f"the {SIDECAR} of another model"
        raise UsageError(
            f"{folder} holds {what} beside {files[0].name}, and a folder has one {SIDECAR}; give the model a folder of "
            f"its own with -o {folder / files[0].stem}"
        )


def _bring(files: Sequence[Path], folder: Path) -> None:
    extra = [part for file in files for part in external_files(file)]
    for file in [*files, *extra]:
        target = folder / file.name
        if target.exists() and target.samefile(file):
            continue
        with whole_file(target, MEND) as partial:
            try:
                partial.unlink()
                partial.hardlink_to(file)
            except OSError:
                shutil.copyfile(file, partial)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
