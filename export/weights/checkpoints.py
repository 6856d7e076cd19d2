"""Checkpoints in, tensors out, and no code of the checkpoint's ever runs.

torch files are read with ``weights_only`` and an allow-list of inert stand-ins; what else a pickle asks for is refused
by name. Declared sizes are compared with the size of the file before anything of that size is allocated.
"""

import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ortsep.base.errors import WeightsError
from ortsep.export.weights.files import existing_file as existing_file
from ortsep.export.weights.files import file_sha256 as file_sha256

State = dict[str, torch.Tensor]

NETWORKS = ("HTDemucs", "HDemucs", "Demucs")
"""The classes that a Demucs package may name, by their name in ``demucs.{htdemucs,hdemucs,demucs}``."""

SHARING = 4
"""How many times its own size a file may describe: tied parameters store a tensor once and name it twice."""
SLACK = 1 << 20
"""Bytes that a tiny file may describe beyond its size."""


def load_state(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: tensors by name, perhaps nested as its training script left it, on the CPU.

    .safetensors, or a torch file of tensors, numbers, text and a training framework's settings, of which a Namespace
    becomes a dict and others nothing. Raises FileMissing, WeightsError.
    """
    if existing_file(path).suffix == ".safetensors":
        return dict(read_safetensors(path)[0])
    held = torch_load(path, _settings())
    if not isinstance(held, dict):
        raise WeightsError(
            f"{path} holds a {type(held).__name__} and not parameters by name; it is another kind of file"
        )
    return held


def load_any(path: Path) -> dict[str, Any]:
    """``load_state``, for a Demucs package too: its class becomes inert, its parameters lie under ``state``."""
    if existing_file(path).suffix == ".safetensors":
        return dict(read_safetensors(path)[0])
    held = torch_load(path, [*_settings(), *stand_ins()])
    if not isinstance(held, dict):
        raise WeightsError(f"{path} holds a {type(held).__name__} and not parameters by name; check the path")
    return held


def plain_state(held: Mapping[str, Any], path: Path) -> State:
    """The tensors by name in a training script's checkpoint, which may keep them under a key of their own."""
    for key in ("state", "state_dict", "model_state_dict", "model"):
        if isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not held or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in held.items()):
        raise WeightsError(f"{path} does not hold parameters by name; it is another kind of file")
    return dict(held)


class Inert:
    """Stands in for a class that a pickle names and that nobody needs: takes anything, does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@cache
def stand_ins() -> list[tuple[Any, str]]:
    """What a Demucs pickle may name: its own classes (never called), Fraction, and numbers logged while training."""
    names = {"HTDemucs": "demucs.htdemucs", "HDemucs": "demucs.hdemucs", "Demucs": "demucs.demucs"}
    networks = [(type(n, (Inert,), {"network": n}), f"{names[n]}.{n}") for n in NETWORKS]
    logged = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
    return [*networks, (fraction, "fractions.Fraction"), *((type("_Logged", (Inert,), {}), name) for name in logged)]


class _Attributes(dict[str, Any]):
    """Stands in for objects that are their attributes, or items, and no more."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)


@cache
def _settings() -> list[tuple[Any, str]]:
    """What training frameworks keep beside the parameters: argparse's and OmegaConf's settings, paths, numbers."""
    kinds = ("dictconfig.DictConfig", "listconfig.ListConfig", "base.Metadata", "base.ContainerMetadata")
    nodes = [f"nodes.{kind}Node" for kind in ("Any", "Integer", "Float", "String", "Boolean", "Path", "Enum")]
    names = [f"omegaconf.{name}" for name in (*kinds, *nodes)]
    names += [f"pathlib.{at}{kind}Path" for at in ("", "_local.") for kind in ("Posix", "Windows")]
    names += ["typing.Any", "builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str"]
    names += ["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"]
    held = ("argparse.Namespace", "collections.defaultdict")
    return [(type("_Setting", (kind,), {}), n) for kind, some in ((Inert, names), (_Attributes, held)) for n in some]


def fraction(*args: object) -> Fraction:
    """Fraction from what a pickle gives it; ``Fraction("1e999999999")`` would compute for hours."""
    text = "/".join(str(a) if type(a) in (int, str) else "?" for a in args)
    if not re.fullmatch(r"-?\d{1,9}(/[1-9]\d{0,8})?", text):
        raise pickle.UnpicklingError(f"the fraction {text[:40]!r}")
    return Fraction(text)


def torch_load(path: Path, stand_ins: list[tuple[Any, str]]) -> Any:
    with _damaged(path):
        _bounded(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
        size = sum(t.numel() * t.element_size() for t in _tensors(held))
        if size > SHARING * path.stat().st_size + SLACK:
            raise WeightsError(
                f"{path} describes {size} bytes of tensors in a much smaller file; it is not a checkpoint"
            )
    return held


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Any failure of a reader as one WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except MemoryError as error:
        raise WeightsError(f"{path} describes more than fits in memory; it is damaged or hostile") from error
    except Exception as error:
        # Only a piece of torch's message: the rest advises weights_only=False, the one thing not to do here.
        text = str(error)
        asked = re.search(
            r"GLOBAL ([\w.]+)|function <[a-z- ]*([\w.]+)|add_safe_globals` but got <class '([\w.]+)'", text
        )
        if asked or "Only persistent_load of storage" in text:
            what = f"asks for {next(filter(None, asked.groups()))}" if asked else "names a class in torch's old format"
            raise WeightsError(
                f"{path} {what}, which could run code, so ortsep does not load it; "
                "take the official file, or save the state_dict() of a model of your own"
            ) from error
        reason = re.sub(r"(?s).*WeightsUnpickler error:|Check the documentation.*", "", text).strip().split("\n")[0]
        reason = reason[:160].rstrip(".") or type(error).__name__
        if _begins_as_one(path):
            raise WeightsError(f"{path} is damaged or no checkpoint ({reason}); download or copy it again") from error
        raise WeightsError(
            f"{path} is no checkpoint but another kind of file ({reason}); name one that torch or safetensors saved"
        ) from error


def _begins_as_one(path: Path) -> bool:
    """Whether the first bytes are a zip's, a pickle's, or those of safetensors: an 8-byte length and a JSON object."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(9)
        return head.startswith((b"PK\x03\x04", b"\x80")) or head[8:] == b"{"
    return False


def _bounded(path: Path) -> None:
    """Refuse zip bombs: torch stores its records uncompressed, so together they are no longer than the file."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    with zipfile.ZipFile(path) as archive:
        declared = sum(record.file_size for record in archive.infolist())
    if declared > path.stat().st_size:
        raise WeightsError(
            f"{path} would unpack to {declared} bytes from {path.stat().st_size}, which torch never writes; "
            "it is not a checkpoint"
        )


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested containers, each container visited once."""
    todo, seen = [held], set()
    while todo:
        item = todo.pop()
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, dict | list | tuple | set) and id(item) not in seen:
            seen.add(id(item))
            todo.extend(item.values() if isinstance(item, dict) else item)


def read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    from safetensors import safe_open

    with _damaged(path), safe_open(str(path), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
