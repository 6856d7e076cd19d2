"""Exporting a model: checkpoint in, a folder with its graphs and stems.txt out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ortsep import __version__
from ortsep.base.decibels import in_words, snr
from ortsep.base.errors import ModelError, OutputError, UsageError, WeightsError
from ortsep.base.whole import whole_folder
from ortsep.export.family import (
    FAMILIES,
    Choice,
    Downloading,
    Original,
    is_checkpoint,
    is_own,
    load_original,
    open_original,
)
from ortsep.export.fixed import precision_for, with_fixed_shapes
from ortsep.export.graph.builder import foreign_domains
from ortsep.export.graph.files import attach_spec, attached_spec, parameter_count, save_model
from ortsep.export.graph.precision import GATES, measure_time, open_graph, with_precision
from ortsep.export.weights.numpy_pickle import holds_arrays
from ortsep.export.weights.remembered import Made, remember
from ortsep.models.catalogue import CHECKPOINTS, Card, catalogue, exported_home, find_card, folder_name
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, Figure, ModelSpec, Timing, from_json
from ortsep.stems.manifest import FILE_NAME, write_manifest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What an export made: the folder, its graphs with sizes in bytes and node counts, and the spec they carry."""

    folder: Path
    files: tuple[tuple[str, int, int], ...]
    spec: ModelSpec

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.files)


def choose_weights(
    text: str | None,
    config: Path | None = None,
    stems: tuple[str, ...] = (),
    downloading: Downloading | None = None,
) -> Choice:
    """The weights that ``--weights`` names: None the official ones, ``random[:SEED]``, or a path."""
    if text is None:
        return Choice(config=config, stems=stems, downloading=downloading)
    if text == "random" or text.startswith("random:"):
        seed = text.partition(":")[2] or "0"
        if not seed.isdecimal():
            raise UsageError(f"random:{seed} is not a seed; write random:0, random:1, ...")
        return Choice(seed=int(seed), config=config, stems=stems)
    return Choice(path=Path(text), config=config, stems=stems)


def export_model(
    name: str,
    choice: Choice,
    output: Path | None = None,
    *,
    portable: bool = False,
    precision: str = "fp32",
    target: str = "",
    named: str = "",
    say: Say = lambda _: None,
) -> Exported:
    """Export a model of the catalogue into ``output`` (its name's folder in the home of models by default,
    <name>-<precision> where that is not fp32, <name>-waveform for that contract, <name>-<target> for a ``target``), and
    call it ``named``.

    The folder appears only when complete, in place of an earlier one. ``say`` is told what happens, one line each.
    Raises ModelError for an unknown name, and what its family raises for the weights. ``name`` may be a checkpoint's
    path: then its architecture is told by what is in it.
    """
    choice = replace(choice, say=say)
    _refuse_idle_options(name, choice)
    if target and choice.contract:
        raise UsageError(f"--contract {choice.contract} has a form of its own; leave --target out")
    kind, precision = choice.contract or target or precision, precision_for(target, precision)
    if not is_checkpoint(name) and not is_own(name):  # before anything is fetched
        folder = _folder(named or find_card(name).name, output, kind)
        if output is None and choice.path is not None:
            _refuse_others(folder, choice.path)
    original = open_named(name, choice)
    for note in original.spec.notes:
        say(f"{original.spec.name}: {note}")
    folder = _folder(named or original.spec.name, output, kind)
    ways: dict[str, Any] = {"portable": portable, "precision": precision, "target": target, "named": named, "say": say}
    made = _written(original, folder, choice, **ways)
    if choice.path is not None or is_checkpoint(name) or is_own(name):
        weights = str(choice.path.absolute()) if choice.path else None
        config = choice.config.absolute() if choice.config else None
        where = str(Path(name).absolute()) if is_checkpoint(name) else name
        remember(made.spec, Made(where, weights, config, choice.stems, choice.settings))
    return made


def _written(
    original: Original, folder: Path, choice: Choice, *, precision: str, named: str, say: Say, **ways: Any
) -> Exported:
    """``write_export``, or what ``choice.contract`` asks for."""
    if not choice.contract:
        return write_export(original, folder, precision=precision, named=named, say=say, **ways)
    from ortsep.export.waveform import write_waveform

    if precision != "fp32":
        raise UsageError(f"a waveform graph is written in fp32 only; make it smaller with: ortsep optimize {folder}")
    files, spec = write_waveform(original, folder, named=named, say=say)
    return Exported(folder, files, spec)


def _refuse_others(folder: Path, checkpoint: Path) -> None:
    """Raise OutputError where a model of other weights lies already: own weights have the catalogue's name too."""
    for graph in sorted(folder.glob("*.onnx"))[:1]:
        spec = read_metadata(graph).get(METADATA_KEY)
        source = from_json(spec, str(graph)).weights.source if spec else ""
        if Path(source).name != checkpoint.name:
            raise OutputError(
                f"{folder} holds the model of other weights ({source or 'unknown'}); give this one a name with --name, "
                "or choose a folder with --output"
            )


def open_named(name: str, choice: Choice) -> Original:
    """The original of a model of the catalogue, or in a checkpoint that ``name`` is the path of.

    ``choice.say`` is told the licence of the weights, or what was found in the file. Raises what loading raises.
    """
    if is_own(name):
        from ortsep.export.own import open_own

        own = open_own(name, choice)
        choice.say(own_licence(own.spec))
        return own
    if is_checkpoint(name) and holds_arrays(Path(name)):
        return _of_arrays(Path(name), choice)
    if is_checkpoint(name):
        from ortsep.export.weights.frontdoor import open_checkpoint, text_of

        if choice.path is not None or choice.seed is not None:
            raise UsageError(f"{name} is a checkpoint already; leave --weights out")
        path = Path(name)
        checkpoint = open_checkpoint(_checkpoint_in(path), choice.config)
        choice.say(f"{checkpoint.path.name}:\n{text_of(checkpoint.table)}")
        if not checkpoint.architecture.folder and path.is_dir() and len(others := checkpoints_in(path)) > 1:
            names = ", ".join(str(p.relative_to(path)) for p in others[:4])
            raise UsageError(f"{path} holds {len(others)} checkpoints ({names}); name the one that is meant")
        place = path if checkpoint.architecture.folder else None
        original = open_original(checkpoint, replace(choice, path=place))
        choice.say(own_licence(original.spec))
        return original
    card = find_card(name)
    if choice.seed is not None:
        choice.say(f"WARNING: random weights (seed {choice.seed}): the stems will be noise, of use for tests only")
        return load_original(card, choice)
    if choice.official:
        choice.say(_licence(card))
        return load_original(card, choice)
    original = load_original(card, choice)
    choice.say(own_licence(original.spec))
    return original


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, and in folders up to two levels below it."""
    found = (path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(depth)))
    return [path for path in found if path.suffix.lower() in CHECKPOINTS and path.is_file()]


def _checkpoint_in(path: Path) -> Path:
    """A checkpoint, or the first one in a folder. Raises WeightsError for a folder that holds none."""
    if not path.is_dir():
        return path
    if not (found := checkpoints_in(path)):
        raise WeightsError(
            f"{path} holds no checkpoint ({', '.join(CHECKPOINTS)}); check the path, or name the model with it: "
            f"ortsep export NAME --weights {path}"
        )
    return found[0]


def _of_arrays(path: Path, choice: Choice) -> Original:
    """The original in files of arrays, which so far is Spleeter's, a file a stem; the first card of so many stems."""
    if choice.path is not None or choice.seed is not None:
        raise UsageError(f"{path} is a checkpoint already; leave --weights out")
    family = import_module(FAMILIES["spleeter"])
    count = len(family.stem_files(path))
    card = next((c for c in catalogue().values() if c.family == "spleeter" and len(c.stems) == count), None)
    if card is None:
        raise WeightsError(
            f"{path} is one of {count} files of arrays, and Spleeter has one for each of 2, 4 or 5 stems, numbered "
            "from 0: put all of them into one folder, and give the first"
        )
    choice.say(f"{path.name}: {card.title}, of {count} files, a stem each: {', '.join(card.stems)}")
    original = load_original(card, replace(choice, path=path))
    choice.say(own_licence(original.spec))
    return original


def own_licence(spec: ModelSpec) -> str:
    """What is known of the terms of weights that somebody gave a path of."""
    licence = spec.weights.licence or "unknown: they are your own, not the official ones"
    return f"{spec.name}: licence of the weights: {licence}"


def _refuse_idle_options(name: str, choice: Choice) -> None:
    """Raise UsageError for options that would change nothing beside these weights."""
    own = is_checkpoint(name) or is_own(name)
    if (choice.source or choice.offline) and (own or not choice.official):
        option, what = "--source" if choice.source else "--offline", name if own else "--weights"
        raise UsageError(f"{option} is for official weights, and {what} names others; leave one of them out")
    if choice.route and own:
        raise UsageError(f"--route is for models of the catalogue, and {name} is exported in one way; leave it out")


def _folder(name: str, output: Path | None, precision: str) -> Path:
    """Where a model of this name goes. Raises OutputError where a file is in the way."""
    kind = "" if precision == "fp32" else f"-{precision}"
    folder = output or exported_home() / f"{folder_name(name)}{kind}"
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"{folder} is a file where the export wants a folder; move it or choose another with --output"
        )
    return folder


def write_export(
    original: Original,
    folder: Path,
    *,
    portable: bool = False,
    precision: str = "fp32",
    target: str = "",
    named: str = "",
    say: Say = lambda _: None,
) -> Exported:
    """Write an original's graphs and stems.txt into ``folder``, all or nothing, as a model called ``named``.

    ``target``: the form for ``coreml`` or ``web``, of fixed shapes.

    Another precision than fp32 is measured against it; its SNR and its time are written into the spec. Raises
    ModelError where an SNR is below its gate.
    """
    with whole_folder(folder, "choose another with --output", stale="*.onnx") as working:
        spec, files = original.spec, []
        figures: list[Figure] = list(spec.validation)
        timing: list[Timing] = []
        graphs = original.graphs_for(target) if target else original.graphs(portable)
        for member, (file, exact) in enumerate(graphs):
            figures += [figure for figure in original.spec.validation if figure not in figures]
            model = with_precision(exact, precision, say)
            if model is not exact:
                measured, time = _cost(original, member, file, exact, model, precision)
                figures += measured
                timing.append(time)
                for figure in measured:
                    say(f"{figure.stage}: {in_words(figure.db)} (gate {figure.gate:g})")
                say(f"{time.stage}: {time.ratio:.2f} of the time of fp32 ({time.seconds:.3f} s, {time.machine})")
            domains = foreign_domains(model.graph.node)
            spec = attached_spec(exact) or spec
            if target:
                model, spec = with_fixed_shapes(model, spec, say)
            spec = replace(
                spec,
                name=named or spec.name,
                card=spec.entry if named else spec.card,
                exporter=f"ortsep {__version__}",
                precision=spec.precision if precision == "fp32" else precision,
                portable=not domains,
                parameters=spec.parameters or parameter_count(exact),
            )
            spec = replace(spec, validation=tuple(figures), timing=tuple(timing))
            size = save_model(attach_spec(model, spec), working / file)
            files.append((file, size, len(model.graph.node)))
            say(f"{file}: {len(model.graph.node)} nodes, {size / 1e6:.1f} MB")
        for file, *_ in files[:-1] if timing else []:
            _record(working / file, spec)
        write_manifest(working / FILE_NAME, spec.names)
    return Exported(folder, tuple(files), spec)


def _cost(
    original: Original, member: int, file: str, exact: onnx.ModelProto, model: onnx.ModelProto, precision: str
) -> tuple[tuple[Figure, ...], Timing]:
    """What the precision costs and gains: each output against the float32 graph's, on a few seconds of seeded noise."""
    spec = original.spec
    noise = np.random.default_rng(0).standard_normal((spec.channels, 4 * spec.sample_rate)) * 0.1
    inputs = original.example(member, noise.astype(np.float32))
    run_exact, run_model = open_graph(exact), open_graph(model)
    reference, result = run_exact(inputs), run_model(inputs)
    figures = []
    for output, value in reference.items():
        db = snr(value, result[output])
        if not db >= GATES[precision]:
            raise ModelError(
                f"{file} keeps {db:.1f} dB of {output} in {precision}, below {GATES[precision]:g}; export it in fp32"
            )
        stage = f"precision: {file} {output}, {precision}, noise"
        figures.append(Figure(stage, db, GATES[precision], "float32 graph"))
    return tuple(figures), measure_time(f"precision: {file}, {precision}", run_exact, run_model, inputs)


def _record(path: Path, figures: ModelSpec) -> None:
    """Give an earlier file of a bag the figures of all of them."""
    model = onnx.load(str(path))
    spec = attached_spec(model)
    assert spec is not None
    save_model(attach_spec(model, replace(spec, validation=figures.validation, timing=figures.timing)), path)


def _licence(card: Card) -> str:
    allowed = {
        True: "they may be redistributed",
        False: "they may NOT be redistributed",
        None: "redistribution: unstated",
    }
    return f"{card.name}: licence of the weights: {card.licence} ({allowed[card.redistributable]})"
