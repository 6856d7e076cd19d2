"""Specs of older formats, as the current one says the same: pure functions from parsed JSON to parsed JSON."""

from typing import Any

from ortsep.base.errors import ModelError

FORMAT = 2
"""Raised when a runtime that ignores the new keys would give wrong audio. Keys it does not know are ignored.

1: chunks said with five flags what their graph takes, and all were joined with triangles. ``masks`` of a complex graph
multiplied real and imaginary parts apart.
"""


def upgraded(spec: dict[str, Any], where: str) -> dict[str, Any]:
    """A spec as it was parsed, in format ``FORMAT``. What is wrong in it stays as wrong, for who decodes it."""
    return _from_1(spec, where) if spec["format"] == 1 else spec


def _from_1(spec: dict[str, Any], where: str) -> dict[str, Any]:
    new = {**spec, "format": 2}
    if spec.get("domain") == "complex" and spec.get("output") == "masks":
        new["output"] = "part_masks"
    chunks = spec.get("chunks")
    if isinstance(chunks, dict):
        kept = ("length", "overlap", "align", "max_shift")
        new["chunks"] = {key: chunks[key] for key in kept if key in chunks} | {"takes": _takes(chunks, where)}
    return new


def _takes(chunks: dict[str, Any], where: str) -> dict[str, Any]:
    """``least`` 0 meant at ``length`` always, where no song ran whole."""
    fixed, least = chunks.get("fixed", True), chunks.get("least", 0)
    if fixed is True:
        if least:
            raise ModelError(f"{where}: the spec has chunks of a fixed length and others; export the model again")
        return {"kind": "fixed"}
    if fixed is not False:
        raise ModelError(f"{where}: the spec's chunks can't be {str(fixed)[:60]!r} for fixed; export the model again")
    whole = {"whole": chunks.get("whole", 0)}
    if type(least) is int and least == 0:
        return {"kind": "free", **whole}
    return {"kind": "stepped", "least": least, "step": chunks.get("step", 1), **whole}
