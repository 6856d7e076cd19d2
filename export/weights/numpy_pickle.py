"""Arrays by name out of what ``torch.save`` makes of a dict of numpy arrays: a zip with one pickle and no tensors.

``torch.load`` refuses such a file unless the pickle may call what it names. Nothing that it names is called here:
numpy's constructors are stand-ins that take shapes, types and bytes, and check them against each other.
"""

import pickle
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.base.arrays import Array
from ortsep.base.errors import WeightsError

_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
_BESIDE = {"data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", "serialization_id"}
"""What lies in such a zip; tensors would be files with a number for a name."""
_EXPANDED = 100
"""How many times its packed size a pickle may have: weights hardly shrink."""
_SLACK = 1 << 20


def holds_arrays(path: Path) -> bool:
    """Whether a file is such a zip, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.rpartition("/")[2] for info in archive.infolist()]
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return "data.pkl" in names and set(names) <= _BESIDE


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays by name. Raises WeightsError for a file that is damaged, or whose pickle asks for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            (info,) = (i for i in archive.infolist() if i.filename.rpartition("/")[2] == "data.pkl")
            if info.file_size > _EXPANDED * path.stat().st_size + _SLACK:
                size = info.file_size >> 20
                raise WeightsError(f"{path} unpacks to {size} MB, so it is no checkpoint; check the path")
            held = _Unpickler(BytesIO(archive.read(info))).load()
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise WeightsError(f"{path} is damaged ({error}); get a complete copy") from error
    except WeightsError:
        raise
    except Exception as error:  # whatever a broken pickle makes Python's unpickler say
        raise WeightsError(
            f"{path} can't be read without running what it asks for ({error}); check the path"
        ) from error
    if not isinstance(held, dict) or not all(isinstance(k, str) for k in held):
        raise WeightsError(f"{path} holds a {type(held).__name__} and not arrays by name; it is another kind of file")
    found = {name: value.array for name, value in held.items() if isinstance(value, _Held) and value.array is not None}
    if len(found) < len(held):
        lost = next(name for name in held if name not in found)
        raise WeightsError(f"{path} holds {lost[:60]!r}, which is no array; it is another kind of file")
    return found


class _Type:
    """Stands in for a dtype: its letters, and the byte order that its state adds."""

    def __init__(self, letters: object, *_: object) -> None:
        self.name = str(letters)
        if self.name not in _TYPES:
            raise pickle.UnpicklingError(f"the type {self.name[:20]!r}")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a type with fields")
        self.name = f"{state[1]}{self.name}"


class _Held:
    """Stands in for an array until its state comes."""

    array: Array | None = None

    def __setstate__(self, state: object) -> None:
        _, shape, kind, fortran, data = state if isinstance(state, tuple) and len(state) == 5 else (None,) * 5
        if not isinstance(kind, _Type) or not isinstance(data, bytes) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array without shape, type and bytes")
        flat = np.frombuffer(data, np.dtype(kind.name))
        if not all(type(size) is int and size >= 0 for size in shape) or flat.size != np.prod(shape, dtype=object):
            raise pickle.UnpicklingError(f"an array of shape {str(shape)[:40]} with {flat.size} values")
        array = flat.reshape(shape, order="F" if fortran else "C")
        self.array = array.astype(array.dtype.newbyteorder("="))


def _reconstruct(*_: object) -> _Held:
    return _Held()


def _encode(text: object, coding: object = "latin1") -> bytes:
    if not isinstance(text, str) or coding != "latin1":
        raise pickle.UnpicklingError("bytes in another coding than latin1")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Held,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'[:60]}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for tensors that are not in it")
