"""``ortsep export`` and ``ortsep validate``: the commands that need the ``export`` extra."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from ortsep import __version__
from ortsep.models.errors import MissingDependency


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def _missing(error: ImportError) -> MissingDependency:
    return MissingDependency(
        f"this command needs {error.name or error}, which the lean runtime leaves out; pip install 'ortsep[export]'"
    )


def export_command(
    name: str,
    weights: str | None,
    output: Path | None,
    config: Path | None,
    stems: tuple[str, ...],
    *,
    portable: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    try:
        from ortsep.export.exporter import choose_weights, export_model
    except ImportError as error:
        raise _missing(error) from error
    choice = choose_weights(weights, config, stems)
    try:
        made = export_model(name, choice, output, portable=portable, say=lambda text: _say(quiet, text))
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if as_json:
        files = [{"file": f, "bytes": size, "nodes": nodes} for f, size, nodes in made.files]
        document = {"version": __version__, "folder": str(made.folder), "files": files, "spec": asdict(made.spec)}
        print(json.dumps(document, ensure_ascii=False))
    else:
        _say(quiet, f"{made.spec.name}: {len(made.files)} graph(s), {made.size / 1e6:.1f} MB, in {made.folder}")
        _say(quiet, f"run it:   ortsep run {made.folder} SONG\nprove it: ortsep validate {made.folder}")
    return 0


def validate_command(
    reference: str, weights: str | None, songs: list[Path], seconds: float, *, as_json: bool, quiet: bool
) -> int:
    try:
        from ortsep.export.validate import table, validate_model
    except ImportError as error:
        raise _missing(error) from error
    try:
        report = validate_model(
            reference, weights=weights, songs=songs, seconds=seconds, say=lambda text: _say(quiet, text)
        )
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if as_json:
        figures = [{**asdict(f), "ok": f.db >= f.gate, "db": min(f.db, 999.0)} for f in report.figures]
        document = {
            "version": __version__,
            "model": report.name,
            "figures": figures,
            "notes": list(report.notes),
            "ok": report.ok,
        }
        print(json.dumps(document, ensure_ascii=False))
    else:
        print(table(report))
    return 0 if report.ok else 1
