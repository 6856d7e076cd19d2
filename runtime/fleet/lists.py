"""Which songs a run is over: a manifest of thousands of paths and addresses, and the share of it that is ours.

Rows are read as they are needed: a list of any length takes no memory.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ortsep.base.errors import FileMissing, MissingDependency, UsageError
from ortsep.base.paths import is_url

PATH_COLUMNS = ("path", "song", "file", "url", "audio", "filepath")
"""What a manifest may call the column of songs; the first of these that it has is taken."""
OPTIONS: Mapping[str, type] = {
    "stems": tuple,
    "two_stems": str,
    "residual": bool,
    "start": float,
    "duration": float,
    "downmix": bool,
    "allow_truncated": bool,
    "format": str,
    "subtype": str,
    "rate": int,
}
"""Columns that are options of ``ortsep run`` for the song of their row; an empty cell leaves the run's own."""


@dataclass(frozen=True)
class Row:
    """One song of a manifest: what it is called there, options of its own, and the other columns, for the report."""

    song: str
    options: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``: every ``count``-th song, for schedulers that start one run each."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """``I/N``. Raises UsageError."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {text!r} is no part of a list; write I/N with I from 1 to N, as 3/16")
        return cls(int(found[1]), int(found[2]))

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Our rows. The same list and count give the same parts, whoever asks."""
        return (row for number, row in enumerate(rows) if number % self.count == self.index - 1)


def read_manifest(path: str) -> Iterator[Row]:
    """The songs of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file, or of standard input (``-``: one path a line,
    or JSON objects). Paths that are relative are so to the manifest's folder.

    Raises FileMissing, UsageError (with the line) and, for parquet, MissingDependency.
    """
    where = Path(path)
    home = Path() if path == "-" else where.parent
    if path == "-":
        yield from _lines(sys.stdin, "standard input", home)
        return
    if not where.is_file():
        raise FileMissing(f"there is no manifest {path}; name a .csv, .tsv, .jsonl or .parquet file, or - for stdin")
    if where.suffix == ".parquet":
        yield from _parquet(where, home)
        return
    with _opened(where) as file:
        if where.suffix in (".csv", ".tsv"):
            yield from _csv(file, where, home)
        elif where.suffix in (".jsonl", ".ndjson", ".txt", ".list"):
            yield from _lines(file, path, home)
        else:
            raise UsageError(f"the manifest {path} is of no known kind; name it .csv, .tsv, .jsonl, .txt or .parquet")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise UsageError(f"the manifest {path} is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise FileMissing(f"the manifest {path} can't be read ({error.strerror}); check it") from error


def _csv(file: TextIO, path: Path, home: Path) -> Iterator[Row]:
    reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    try:
        column = _column(reader.fieldnames or (), str(path))
        for cells in reader:
            if None in cells:
                raise UsageError(
                    f"{path}, line {reader.line_num}, has more cells than the first line has names; mend it"
                )
            yield _row(cells, column, home, f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise UsageError(f"the manifest {path} is no table ({error}); mend line {reader.line_num}") from error


def _lines(file: Iterable[str], name: str, home: Path) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        text = line.strip("\r\n")
        if not text.strip():
            continue
        if not text.lstrip().startswith("{"):
            yield Row(_resolved(text, home))
            continue
        where = f"{name}, line {number}"
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}, is no JSON object ({str(error)[:160]}); mend it") from error
        yield _row(cells, _column(cells, where), home, where)


def _parquet(path: Path, home: Path) -> Iterator[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependency(f"{path} needs pyarrow, which isn't installed: pip install 'ortsep[fleet]'") from error
    try:
        table = parquet.ParquetFile(path)
        column = _column(table.schema_arrow.names, str(path))
        for batch in table.iter_batches(1024):
            for number, cells in enumerate(batch.to_pylist()):
                yield _row(cells, column, home, f"{path}, row {number}")
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"the manifest {path} is no parquet file ({error}); make it again") from error


def _column(names: Iterable[str], where: str) -> str:
    known = list(names)
    column = next((name for name in PATH_COLUMNS if name in known), None)
    if column is None:
        raise UsageError(
            f"{where}, has no column of songs; call one {' or '.join(PATH_COLUMNS[:3])} (it has {_short(known)})"
        )
    return column


def _short(names: list[Any]) -> str:
    """The first names of a table, for a message of one line."""
    shown = [" ".join(str(name)[:40].split()) for name in names[:8]]
    return ", ".join(shown + ["..."] * (len(names) > 8)) or "none"


def _row(cells: Mapping[str, Any], column: str, home: Path, where: str) -> Row:
    song = cells[column]
    if not isinstance(song, str) or not song.strip():
        raise UsageError(f"{where}, names no song in the column {column!r}; fill it or remove the line")
    options = {}
    for name, kind in OPTIONS.items():
        value = cells.get(name)
        if value not in (None, ""):
            options[name] = _value(value, kind, f"{where}, {name}")
    more = {name: value for name, value in cells.items() if name != column and name not in OPTIONS}
    return Row(_resolved(song, home), options, more)


def _value(value: Any, kind: type, where: str) -> Any:
    try:
        if kind is tuple:
            names = value.split(",") if isinstance(value, str) else value
            return tuple(str(name).strip() for name in names if str(name).strip())
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[str(value).lower()]
        return kind(value)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise UsageError(f"{where} can't be {str(value)[:60]!r}; mend the manifest") from None


def _resolved(song: str, home: Path) -> str:
    return song if is_url(song) or Path(song).is_absolute() else str(home / song)
