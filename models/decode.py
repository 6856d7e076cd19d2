"""From parsed JSON to frozen dataclasses, driven by their annotations; nothing that they don't allow gets past."""

import math
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union

from ortsep.base.errors import ModelError


def check(ok: bool, what: str) -> None:
    """Raise ModelError where a value that a spec holds is ``not ok``."""
    if not ok:
        raise ModelError(f"the model's spec is not usable: {what}; export the model again")


def decode(kind: Any, value: Any, path: str, where: str) -> Any:
    """Build a value of the annotated type ``kind`` from parsed JSON, or raise ModelError naming the path.

    A union of dataclasses is told apart by their field ``kind``, a Literal of one word. Keys that a dataclass does not
    know are ignored.
    """

    def wrong() -> ModelError:
        return ModelError(f"{where}: {path} in the spec can't be {str(value)[:60]!r}; export the model again")

    origin = typing.get_origin(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise wrong()
        hints = typing.get_type_hints(kind)
        known = {f.name for f in fields(kind)}
        given = {k: decode(hints[k], v, f"{path}.{k}", where) for k, v in value.items() if k in known}
        try:
            return kind(**given)
        except TypeError as error:
            raise ModelError(f"{where}: {path} in the spec is incomplete ({error}); export the model again") from error
    if origin in (Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        chosen = next((o for o in options if o is not type(None) and _is_meant(o, value, options)), None)
        if chosen is None:
            raise wrong()
        return decode(chosen, value, path, where)
    if origin is Literal:
        if type(value) is not str or value not in typing.get_args(kind):
            raise wrong()
        return value
    if origin is tuple:
        if not isinstance(value, list) or len(value) > 4096:
            raise wrong()
        item = typing.get_args(kind)[0]
        return tuple(decode(item, v, f"{path}[{i}]", where) for i, v in enumerate(value))
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if type(value) is not kind or (kind is float and math.isnan(value)):
        raise wrong()
    return value


def _is_meant(option: Any, value: Any, options: tuple[Any, ...]) -> bool:
    """Whether ``value`` is of this member of a union: the only one, or that whose ``kind`` it names."""
    if len([o for o in options if o is not type(None)]) == 1:
        return True
    return isinstance(value, dict) and value.get("kind") in typing.get_args(typing.get_type_hints(option)["kind"])
