"""A Demucs model as its authors ship it, and bags of them, as files: read without running any code of theirs.

``.th`` as ``demucs.states.serialize_model`` makes, ``.safetensors`` as ``demucs.hf`` reads, ``.yaml`` as
``demucs.repo`` reads.
"""

import json
import math
import pickle
import re
import reprlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml

from ortsep.base.errors import FileMissing, WeightsError
from ortsep.export.families.demucs.training import trained_state
from ortsep.export.weights.checkpoints import (
    NETWORKS,
    existing_file,
    file_sha256,
    fraction,
    load_any,
    plain_state,
    read_safetensors,
)
from ortsep.export.weights.plain_yaml import load_plain_yaml

State = dict[str, torch.Tensor]

MEND = "take the file as demucs wrote it"


@dataclass(frozen=True)
class Package:
    """A Demucs model as its authors ship it: class name, constructor arguments, and parameters by name.

    The parameters have the file's own dtype, float16 in the official files; ``None`` as network: a bare state dict.
    """

    network: str | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: State
    sha256: str


@dataclass(frozen=True)
class Bag:
    """A Demucs bag: its members' files in order, a weight per member and stem (None: all one), and a segment in s."""

    files: tuple[Path, ...]
    weights: tuple[tuple[float, ...], ...] | None
    segment: float | None


def load_demucs_package(path: Path) -> Package:
    """Read a Demucs model: ``.th`` as ``demucs.states.serialize_model`` makes, ``.safetensors`` as ``demucs.hf`` reads.

    A file with nothing but named tensors comes back with network None. Raises FileMissing, WeightsError.
    """
    if existing_file(path).suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        if "klass" not in metadata:
            return Package(None, (), {}, trained_state(tensors, path), file_sha256(path))
        if "structure" in metadata:
            raise WeightsError(f"{path} holds quantised (diffq) parameters; take the model that is not quantised")
        held: dict[str, Any] = {"klass": metadata["klass"].rsplit(".", 1)[-1], "state": tensors}
        for key, empty in (("args", "[]"), ("kwargs", "{}")):
            try:
                held[key] = json.loads(metadata.get(key, empty), object_hook=_fraction_from_json)
            except (ValueError, RecursionError) as error:
                raise WeightsError(f"{path} has broken metadata ({key}: {str(error)[:160]}); {MEND}") from error
    else:
        held = load_any(path)
        if "klass" not in held:
            return Package(None, (), {}, trained_state(held, path), file_sha256(path))
        held["klass"] = getattr(held["klass"], "network", held["klass"])
    args, kwargs, state = held.get("args", ()), held.get("kwargs", {}), held.get("state")
    if isinstance(state, dict) and "__quantized" in state:
        raise WeightsError(f"{path} holds quantised (diffq) parameters; take the model that is not quantised")
    fits = held["klass"] in NETWORKS and isinstance(args, list | tuple) and isinstance(kwargs, dict)
    if not fits or not all(isinstance(key, str) for key in kwargs) or not isinstance(state, dict):
        raise WeightsError(
            f"{path} is not laid out like a Demucs model; take an official file or export it with demucs"
        )
    _plausible([*args, *kwargs.values()], path)
    return Package(held["klass"], tuple(args), kwargs, plain_state(state, path), file_sha256(path))


def bag_yaml(path: Path) -> Bag:
    """Read a Demucs bag: ``models: [SIGNATURE]``, ``weights``, ``segment``; its members lie beside it.

    A member is ``SIGNATURE-HASH.th``, ``SIGNATURE.th`` or either with ``.safetensors``; HASH, the beginning of the
    file's sha256, is checked (demucs.repo). Raises FileMissing, WeightsError.
    """
    if existing_file(path).stat().st_size > 1 << 16:
        raise WeightsError(f"{path} is too long for a Demucs bag; check the path")
    try:
        data = load_plain_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not YAML ({' '.join(str(error).split())[:200]}); mend it") from error
    signatures = data.get("models") if isinstance(data, dict) else None
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= 64:
        raise WeightsError(f"{path} has no list of models; a Demucs bag says 'models: [SIGNATURE, ...]'")
    weights, segment = data.get("weights"), data.get("segment")
    if weights is not None:
        rows = isinstance(weights, list) and all(isinstance(row, list) and 1 <= len(row) <= 64 for row in weights)
        if not rows or len(weights) != len(signatures) or not all(_number(w, 0) for row in weights for w in row):
            raise WeightsError(f"{path} needs, under weights, a list of numbers for each of its models; mend it")
        weights = tuple(tuple(float(w) for w in row) for row in weights)
    if segment is not None and not (_number(segment, 0) and 0 < segment <= 3600):
        raise WeightsError(f"{path} has a segment that is not a number of seconds; mend it")
    return Bag(tuple(find_member(path.parent, str(s)) for s in signatures), weights, segment)


def find_member(folder: Path, signature: str) -> Path:
    """The file of one model in a folder, its hash checked where the name has one. Raises FileMissing, WeightsError."""
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", signature):
        raise WeightsError(f"{signature[:64]!r} in {folder} can't be the signature of a Demucs model; mend the bag")
    pattern = re.compile(rf"{signature}(?:-([0-9a-f]{{8,64}}))?\.(?:th|safetensors)")
    found = sorted(
        (p for p in folder.iterdir() if pattern.fullmatch(p.name)), key=lambda p: (p.suffix != ".th", p.name)
    )
    if not found:
        raise FileMissing(
            f"{folder} has no {signature}-HASH.th, {signature}.th or {signature}.safetensors; put it there"
        )
    if len(found) > 1 and found[0].suffix == found[1].suffix:
        raise WeightsError(f"{folder} has both {found[0].name} and {found[1].name}; keep one of them")
    match = pattern.fullmatch(found[0].name)
    promised = (match and match[1]) or ""
    actual = file_sha256(found[0])
    if not actual.startswith(promised):
        raise WeightsError(
            f"{found[0]} is damaged: its sha256 begins with {actual[: len(promised)]} and not {promised}; "
            "download it again, or take the hash out of the name of a file of your own"
        )
    return found[0]


def _fraction_from_json(value: dict[str, Any]) -> Any:
    if value.get("_type") != "fraction":
        return value
    try:
        return fraction(value.get("numerator"), value.get("denominator"))
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error


def _number(value: object, least: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and least <= value <= 1e6


def _plausible(values: list[Any], path: Path) -> None:
    """Constructor arguments are built with: keep them to what a network can be made of.

    A pickle can put the same list into itself or into others a thousand times: each is looked at once.
    """
    todo, seen = list(values), set()
    while todo:
        value = todo.pop()
        if isinstance(value, list | tuple) and len(value) <= 64:
            if id(value) not in seen:
                seen.add(id(value))
                todo += value
        elif not (value is None or isinstance(value, bool | str) or _number_like(value)):
            raise WeightsError(f"{path} asks for a network with {reprlib.repr(value)[:60]}, which none has; {MEND}")


def _number_like(value: object) -> bool:
    return isinstance(value, int | float | Fraction) and -1e5 <= value <= 1e5
