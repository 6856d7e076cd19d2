"""``ortsep export``, ``optimize`` and ``validate``: the commands that need the ``export`` extra."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ortsep import __version__
from ortsep.base.decibels import in_words
from ortsep.base.errors import MissingDependency, UsageError
from ortsep.base.interrupt import at_once
from ortsep.base.paths import exists
from ortsep.commands.progress import Downloads, emit
from ortsep.commands.terminal import screen
from ortsep.graphs.adopt import Adopted
from ortsep.graphs.library import find_checkpoint
from ortsep.graphs.model import is_ready
from ortsep.models.catalogue import card_named, exported_home, find_card, folder_name, model_homes
from ortsep.models.contracts.contract import Wishes
from ortsep.models.contracts.official import checkpoint_entry

if TYPE_CHECKING:
    from ortsep.export.exporter import Exported


def _say(quiet: bool, *lines: str) -> None:
    if not quiet:
        screen.say(*lines)


def _doing(quiet: bool, text: str) -> None:
    if not quiet:
        screen.doing(text)


def _missing(error: ImportError, extra: str) -> MissingDependency:
    """``extra``: the smallest of this package's that will do."""
    return MissingDependency(
        f"this command needs {error.name or error}, which the lean runtime leaves out; pip install 'ortsep[{extra}]'",
        name=error.name,
    )


def _extra(reference: str) -> str:
    """The extra that exporting and proving a model takes, named, or in a folder of its name."""
    card = card_named(reference) or card_named(Path(reference).name)
    return card.extra if card else "export"


@dataclass(frozen=True)
class ExportSettings:
    """How an export is made and what it tells, as typed."""

    portable: bool = False
    precision: str = "fp32"
    route: str = ""
    contract: str = ""
    name: str = ""
    """What the model is called, where that is not the catalogue's or the checkpoint's name."""
    progress: Literal["bar", "json"] = "bar"
    as_json: bool = False
    quiet: bool = False
    source: str = ""
    offline: bool = False
    target: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What no file and no table says of the weights."""


def export_command(
    name: str,
    weights: str | None,
    output: Path | None,
    config: Path | None,
    stems: tuple[str, ...],
    settings: ExportSettings,
) -> int:
    made = _exported(name, weights, output, config, stems, settings)
    if settings.as_json:
        files = [{"file": f, "bytes": size, "nodes": nodes} for f, size, nodes in made.files]
        document = {"version": __version__, "folder": str(made.folder), "files": files, "spec": asdict(made.spec)}
        print(json.dumps(document))
    elif settings.progress != "json":
        folder = made.folder
        known = any(folder.absolute() == (home / folder.name).absolute() for home in model_homes())
        short = made.spec.name if known and folder.name == folder_name(made.spec.name) else str(folder)
        _say(settings.quiet, f"run it:   ortsep run {short} SONG", f"prove it: ortsep validate {short}")
    return 0


def export_first(reference: str, progress: Literal["bar", "json"], quiet: bool) -> None:
    """Export a model of the catalogue that is to be run and is not ready, or a checkpoint in the homes of models that
    is called so. Raises what an export raises.

    MODEL@STEM and what is no such name are left to whoever loads the model.
    """
    name = reference if card_named(reference) else reference.partition("@")[0]
    card = card_named(name)
    if exists(reference) or is_ready(reference) or is_ready(name):
        return
    weights = find_checkpoint(name, model_homes())
    if card is None and (weights is None or checkpoint_entry(weights) is None):
        return
    called = card.name if card is not None else name
    where = f" from {weights}" if weights else ""
    first = f"{called} is not exported yet: it is exported first{where}, into {exported_home()}"
    given = (called, str(weights) if weights else None) if card is not None else (str(weights), None)
    try:
        _exported(*given, None, None, (), ExportSettings(progress=progress, quiet=quiet), first)
    except MissingDependency as error:
        extra, here = (card.extra if card is not None else "export"), f" (its weights are {weights})" * bool(weights)
        raise MissingDependency(
            f"{called} is not exported yet{here}, and exporting needs what the lean runtime leaves out ({error.name}): "
            f"pip install 'ortsep[{extra}]', or copy its folder from a machine where it is exported into "
            f"{exported_home()}"
        ) from error


def _exported(
    name: str,
    weights: str | None,
    output: Path | None,
    config: Path | None,
    stems: tuple[str, ...],
    settings: ExportSettings,
    first: str = "",
) -> "Exported":
    """Export, and tell of it, ``first`` before all. Raises MissingDependency where a framework is not installed."""

    def doing() -> None:
        if settings.progress != "json":
            _doing(settings.quiet, f"exporting {name} ...")

    def say(text: str) -> None:
        if settings.progress == "json":
            emit("message", text=text)
        else:
            _say(settings.quiet, *text.split("\n"))
            doing()

    doing()
    try:
        with at_once():
            from ortsep.export.exporter import choose_weights, export_model
    except ImportError as error:
        if not exists(name) and not name.startswith("torch:"):
            find_card(name)  # to install something for the sake of a typo would be a pity
        raise _missing(error, _extra(name)) from error
    if first:
        say(first)
    with closing(Downloads(settings.progress, settings.quiet)) as downloads:
        choice = replace(
            choose_weights(weights, config, stems, downloads),
            route=settings.route,
            contract=settings.contract,
            source=settings.source,
            offline=settings.offline,
            settings=settings.settings,
        )
        try:
            made = export_model(
                name,
                choice,
                output,
                portable=settings.portable,
                precision=settings.precision,
                target=settings.target,
                named=settings.name,
                say=say,
            )
        except ModuleNotFoundError as error:
            raise _missing(error, _extra(name)) from error
        say(f"{made.spec.name}: {len(made.files)} graph(s), {made.size / 1e6:.1f} MB, in {made.folder}")
    return made


def rewrite_file(file: Path, wishes: Wishes, output: Path, *, quiet: bool) -> Adopted:
    """Write a foreign file anew as ortsep's own."""
    try:
        with at_once():
            from ortsep.export.rewrite import rewrite
    except ImportError as error:
        raise _missing(error, "onnx") from error
    return rewrite(file, output, wishes, say=lambda text: _say(quiet, text))


def optimize_command(
    model: Path,
    output: Path,
    shapes: list[str],
    gate: float | None,
    *,
    portable: bool,
    simplified: bool,
    precision: str,
    target: str,
    as_json: bool,
    quiet: bool,
) -> int:
    _doing(quiet, f"optimizing {model} ...")
    try:
        with at_once():
            from ortsep.export.optimize import optimize_file
    except ImportError as error:
        raise _missing(error, "onnx") from error
    made = optimize_file(
        model,
        output,
        portable=portable,
        simplified=simplified,
        precision=precision,
        gate=gate,
        shapes=dict(map(_shape, shapes)),
        target=target,
        say=lambda text: _say(quiet, text),
    )
    screen.clear()
    before, after = made.before, made.after
    if as_json:
        document = {"version": __version__, **asdict(made), "output": str(made.output)}
        print(json.dumps(document))
        return 0
    print(f"{'':<10} {'nodes':>6} {'file MB':>8} {'load s':>7} {'run s':>7} {'peak MB':>8}")
    for side, m in (("before", before), ("after", after)):
        print(f"{side:<10} {m.nodes:>6} {m.file_mb:>8.1f} {m.load:>7.2f} {m.seconds:>7.3f} {m.peak_mb:>8.0f}")
    time, peak = after.seconds / before.seconds, after.peak_mb / before.peak_mb
    print(f"after / before: time {time:.2f}, peak memory {peak:.2f}")
    if made.onnxsim is not None:
        print(made.onnxsim)
    print(f"{in_words(made.db)} against the given graph (gate {made.gate:g})")
    if made.db_untouched < made.db:
        print(
            f"its normalisations were summed accurately for this; as they run now they have {in_words(made.db_given)} "
            f"themselves, and the result {in_words(made.db_untouched)} against them"
        )
    return 0


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.partition("=")
    if not name or not all(part.strip().isdecimal() and int(part) for part in sizes.split(",")):
        raise UsageError(f"--shape {text} is not an input's name with its sizes; write --shape mix=1,2,343980")
    return name, tuple(int(part) for part in sizes.split(","))


def validate_command(
    reference: str,
    weights: str | None,
    config: Path | None,
    songs: list[Path],
    seconds: float,
    *,
    oracle: Path | None = None,
    as_json: bool,
    quiet: bool,
) -> int:
    _doing(quiet, f"loading {reference} and its original ...")
    try:
        with at_once():
            from ortsep.export.exporter import choose_weights
            from ortsep.export.validate import validate_model, verdict
    except ImportError as error:
        raise _missing(error, _extra(reference)) from error

    def say(text: str) -> None:
        """Figures are the result: on standard output, unless the document goes there."""
        screen.clear()
        if not as_json:
            print(text, flush=True)
        elif not quiet:
            screen.say(text)

    try:
        report = validate_model(
            reference,
            choice=choose_weights(weights, config),
            oracle=oracle,
            songs=songs,
            seconds=seconds,
            say=say,
            doing=partial(_doing, quiet),
        )
    except ModuleNotFoundError as error:
        raise _missing(error, _extra(reference)) from error
    if as_json:
        figures = [{**asdict(f), "ok": f.db >= f.gate, "db": min(f.db, 999.0)} for f in report.figures]
        document = {
            "version": __version__,
            "model": report.name,
            "figures": figures,
            "notes": list(report.notes),
            "ok": report.ok,
        }
        screen.clear()
        print(json.dumps(document))
    else:
        say(verdict(report))
    return 0 if report.ok else 1
