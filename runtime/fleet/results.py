"""What became of each song, a row each, in a file that grows with the run."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ortsep.base.errors import MissingDependency, OrtsepError, UsageError
from ortsep.base.whole import begin, drop, saying
from ortsep.songs import SongReport

_GROUP = 1000
"""Rows that a parquet file gets at a time."""
_MEND = "name another file with --report-to"


class Results:
    """Rows for ``path``: ``.jsonl`` is written line by line and can be read at any time; ``.parquet`` appears when it
    is complete. Raises UsageError, MissingDependency, OutputError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None
        self._partial: Path | None = None
        if path.suffix == ".jsonl":
            with saying(path, _MEND):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8")
        elif path.suffix == ".parquet":
            try:
                import pyarrow  # noqa: F401
            except ImportError as error:
                raise MissingDependency(f"{path} needs pyarrow: pip install 'ortsep[fleet]'") from error
            self._partial = begin(path, _MEND)
        else:
            raise UsageError(f"--report-to {path} is of no known kind; name it .jsonl or .parquet")

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._partial is None:
            self._file.close()
            return
        try:
            if kind is None:
                with saying(self._path, _MEND):
                    self._flush()
                    if self._writer is not None:
                        self._writer.close()
                    self._partial.replace(self._path)
        finally:
            drop(self._partial)

    def add(self, song: str, outcome: SongReport | OrtsepError, more: Mapping[str, Any]) -> None:
        """One song's row: its state, times and stems, or its error; and the manifest's other columns."""
        row: dict[str, Any] = {"song": song, "state": "failed", "error": None, "transient": None}
        row |= dict.fromkeys(("model", "provider", "seconds", "processing_time", "gain", "stems", "warnings"))
        if isinstance(outcome, OrtsepError):
            row |= {"error": str(outcome), "transient": outcome.transient}
        else:
            row["state"] = "skipped" if outcome.skipped else "done"
            row |= {
                name: getattr(outcome, name) for name in ("model", "provider", "seconds", "processing_time", "gain")
            }
            row |= {"stems": json.dumps(outcome.stems), "warnings": "\n".join(outcome.warnings)}
        row |= {f"manifest.{name}": None if value is None else str(value) for name, value in more.items()}
        if self._partial is None:
            with saying(self._path, _MEND):
                self._file.write(json.dumps(row) + "\n")
                self._file.flush()
            return
        self._rows.append(row)
        if len(self._rows) >= _GROUP:
            with saying(self._path, _MEND):
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        if not self._rows and self._writer is not None:
            return
        if self._writer is None:
            numbers = ("seconds", "processing_time", "gain")
            names = list(self._rows[0]) if self._rows else ["song", "state", "error"]
            kinds = [pa.float64() if n in numbers else pa.bool_() if n == "transient" else pa.string() for n in names]
            self._schema = pa.schema(list(zip(names, kinds, strict=True)))
            self._writer = parquet.ParquetWriter(self._partial, self._schema)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()
