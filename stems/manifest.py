"""stems.txt: the names of a graph's stems, one a line, in output order, nothing else."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from ortsep.base.errors import FileMissing, ModelError
from ortsep.base.whole import whole_file

FILE_NAME = "stems.txt"
MAX_NAME_BYTES = 100
"""So that a song's name, the stem's and an extension fit the 255 bytes that file systems allow."""

_MAX_BYTES = 1 << 16
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?")
"""Names that Windows keeps for devices, with any extension (Microsoft, "Naming Files, Paths, and Namespaces")."""


def read_manifest(path: Path, count_in_graph: int | None = None) -> tuple[str, ...]:
    """The stems of a manifest, checked as ``check_names`` does. UTF-8, with or without BOM; LF or CRLF.

    Raises FileMissing, and ModelError for a file that is no manifest.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileMissing(f"there is no {path}; write one stem name a line in output order") from None
    except OSError as error:
        raise ModelError(f"{path} can't be read ({error.strerror}); mend its permissions") from error
    if len(data) > _MAX_BYTES:
        raise ModelError(f"{path} is over {_MAX_BYTES} bytes, which no list of stems is; write one stem name a line")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    return check_names([line.rstrip(" \t") for line in lines], count_in_graph, str(path))


def write_manifest(path: Path, stems: Sequence[str]) -> None:
    """Write a manifest, complete or not at all. Raises ModelError for bad names, OutputError where it can't."""
    text = "".join(f"{name}\n" for name in check_names(stems))
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def check_names(
    names: Iterable[str], count_in_graph: int | None = None, where: str = "the list of stems"
) -> tuple[str, ...]:
    """The names as they are, if each can be a file name on every system and they differ on all; else ModelError.

    ``count_in_graph`` is the number of stems that the graph gives, where it is known.
    """
    stems, seen = tuple(names), dict[str, int]()
    if not stems:
        raise ModelError(f"{where} names no stem; write one name a line in output order")
    for line, name in enumerate(stems, 1):
        fault = name_fault(name)
        if fault is not None:
            raise ModelError(f"{where}, line {line}: {fault}; write a name that can be a file name")
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            raise ModelError(
                f"{where}, line {line}: {name!r} is there already in line {seen[key]} and would be the same file; "
                "give every stem a name of its own"
            )
        seen[key] = line
    if count_in_graph is not None and len(stems) != count_in_graph:
        raise ModelError(
            f"{where} names {len(stems)} stems and the graph gives {count_in_graph}; write exactly {count_in_graph} "
            "names, one a line, in output order"
        )
    return stems


def name_fault(name: str) -> str | None:
    """Why ``name`` can't be a file name on every system, as a clause; None where it can."""
    if not name.strip():
        return "the name is blank"
    if name in (".", ".."):
        return f"{name!r} is a folder"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return f"{name[:40]!r} has a control character"
    if found := _FORBIDDEN.search(name):
        return f"{name[:40]!r} has the character {found.group()!r}"
    if name != name.strip() or name.endswith("."):
        return f"{name[:40]!r} begins with a space or ends with a space or dot"
    if _RESERVED.fullmatch(name):
        return f"{name[:40]!r} is a device name on Windows"
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        return f"{name[:20]!r}... is longer than {MAX_NAME_BYTES} bytes"
    return None


def safe_name(name: str) -> str:
    """The name itself where it can be a file name on every system, else the nearest one that can (of any length)."""
    out = "".join("_" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)
    out = _FORBIDDEN.sub("_", out).strip().rstrip(". ")
    return f"_{out}" if not out or _RESERVED.fullmatch(out) else out
