"""``ortsep optimize``: rewriting a file with the general passes, measured and checked before it is written."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ortsep.base import memory
from ortsep.base.apart import NoAnswer, ask
from ortsep.base.decibels import snr
from ortsep.base.errors import FileMissing, ModelError, OrtsepError, OutputError, UsageError
from ortsep.base.whole import scratch
from ortsep.export.fixed import fixed_like, input_shapes, precision_for, with_fixed_shapes
from ortsep.export.graph.builder import foreign_domains
from ortsep.export.graph.files import attach_spec, save_model
from ortsep.export.graph.precision import GATES, run_graph, with_precision
from ortsep.export.passes import PassReport, optimize
from ortsep.export.passes.norms import step_means, step_norm
from ortsep.export.portable import own_operators
from ortsep.export.simplify import Simplified, simplify
from ortsep.graphs.recognised import foreign_spec
from ortsep.models.spec import METADATA_KEY, Figure, ModelSpec, from_json
from ortsep.stems.manifest import FILE_NAME as MANIFEST

Say = Callable[[str], None]

GATE = 90.0
"""dB that the rewritten graph must keep, by default."""
FLOOR = 50.0
"""dB against the untouched graph even where that one's own sums are inaccurate."""
RUNS = 3
_KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class Side:
    """Medians of fresh processes: seconds to create the session and to run it, peak memory and file size in MB."""

    load: float
    seconds: float
    peak_mb: float
    file_mb: float
    nodes: int


@dataclass(frozen=True)
class Optimized:
    """What was done, and how the result compares. All SNRs are the worst over the outputs, in dB.

    ``db`` is against the reference: the given graph with its normalisations summed accurately, where it has any, else
    the given graph itself. ``db_given`` is what the given graph has against that reference, ``db_untouched`` the
    result against the given graph.
    """

    output: Path
    passes: tuple[PassReport, ...]
    before: Side
    after: Side
    db: float
    db_given: float
    db_untouched: float
    gate: float
    precision: str
    shapes: Mapping[str, tuple[int, ...]]
    onnxsim: Simplified | None = None
    """What onnxsim made of it, where it was asked for."""


def optimize_file(
    source: Path,
    output: Path,
    *,
    portable: bool = False,
    simplified: bool = False,
    precision: str = "fp32",
    gate: float | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    runs: int = RUNS,
    target: str = "",
    say: Say = lambda _: None,
) -> Optimized:
    """Rewrite ``source`` into ``output``, unless the result differs from it by more than ``gate`` allows.

    ``simplified``: onnxsim behind the passes, kept where it gains. ``shapes`` gives inputs with free dimensions their
    sizes. ``target``: for ``coreml`` or ``web``, as an export is. Metadata stays, stems.txt is copied beside it, and
    external data becomes part of the one file. Raises FileMissing, ModelError where the file is no graph that runs or
    the result is not equal, UsageError for shapes that don't fit, OutputError, MissingDependency without onnxsim.
    """
    precision, portable = precision_for(target, precision), portable or bool(target)
    gate = gate if gate is not None else GATE if precision == "fp32" else GATES[precision]
    if output.exists() and output.resolve() == source.resolve():
        raise UsageError(f"{output} is the file to optimise itself; write the result elsewhere with -o")
    model = _loaded(source)
    spec = _spec_of(source, model)
    inputs = seeded_inputs(source, {**(input_shapes(spec, model) if target and spec else {}), **(shapes or {})})
    made, reports = optimize(model, portable=portable)
    for report in reports:
        if report.changed:
            say(f"{report.name:<20} {report.changed:>5} changed, {report.before} -> {report.after} nodes")
    found = None
    if simplified:
        made, found = simplify(made, inputs, gate=gate if precision == "fp32" else GATE, portable=portable, say=say)
    if precision == "fp32" and not any(report.changed for report in reports) and not (found and found.kept):
        say("no pass found anything to change: the graph is written as it is")
    made = with_precision(made, precision, say)
    if target:
        made, spec = _for_target(made, spec, inputs, say)
    with scratch("ortsep-optimize") as folder:
        fast = folder / "optimized.onnx"
        save_model(made, fast)
        db, db_given, db_untouched = _compared(source, model, fast, inputs, gate)
        sizes = {name: list(value.shape) for name, value in inputs.items()}
        before, after = _measured({"before": source, "after": fast}, sizes, runs, say)
        figure = Figure(f"optimize: {precision} against the given file, noise", db, gate, "given graph, float32")
        if spec is not None:
            _describe(made, spec, precision=precision, figure=figure)
        save_model(made, output)
    _copy_manifest(source.parent, output.parent, say)
    sides = [
        Side(*figures, path.stat().st_size / 1e6, len(m.graph.node))
        for figures, path, m in ((before, source, model), (after, output, made))
    ]
    known = {name: tuple(shape) for name, shape in sizes.items()}
    return Optimized(
        output, tuple(reports), sides[0], sides[1], db, db_given, db_untouched, gate, precision, known, found
    )


def _compared(
    source: Path, model: onnx.ModelProto, fast: Path, inputs: Mapping[str, Any], gate: float
) -> tuple[float, ...]:
    """``db``, ``db_given`` and ``db_untouched`` of an Optimized. Raises ModelError where they are below the gate."""
    given, result = run_graph(source, inputs), run_graph(fast, inputs)
    exact, changed = optimize(model, [step_norm, step_means])
    reference = run_graph(exact, inputs) if any(report.changed for report in changed) else given
    db, db_untouched = _worst(reference, result), _worst(given, result)
    if not db >= gate or not db_untouched >= min(gate, FLOOR):
        raise ModelError(
            f"{source} was not written anew: the rewritten graph has {db:.1f} dB against it ({db_untouched:.1f} dB "
            f"against the graph as it runs now) where {gate:g} are asked for; report it, or lower --gate"
        )
    return db, _worst(reference, given), db_untouched


def _loaded(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise FileMissing(f"there is no model file {path}; name the .onnx file to optimise")
    try:
        model = onnx.load(str(path))
    except FileNotFoundError as error:
        raise FileMissing(f"{path} keeps weights in a file that is missing ({error}); put it beside it") from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(f"{path} can't be read as an ONNX model ({reason}); name a .onnx file") from error
    if not model.graph.node:
        raise ModelError(f"{path} holds no graph; name a .onnx file")
    return model


def seeded_inputs(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Any]:
    """Noise for each input of a graph, drawn from ``seed`` and its shape.

    A free first dimension is 1; other free ones must be given. Raises UsageError naming the input and the option.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{path} can't be loaded as an ONNX model ({reason}); mend the file first") from error
    values = session.get_inputs()
    unknown = set(shapes) - {value.name for value in values}
    if unknown:
        names = ", ".join(value.name for value in values)
        raise UsageError(f"{path.name} has no input {sorted(unknown)[0]!r}; --shape takes {names}")
    rng = np.random.default_rng(seed)
    made = {}
    for value in values:
        if value.type not in _KINDS:
            raise ModelError(f"input {value.name} of {path.name} is {value.type}; only graphs of floats can be checked")
        shape = _sized(value.name, list(value.shape), shapes.get(value.name))
        made[value.name] = (rng.standard_normal(shape) * 0.3).astype(_KINDS[value.type])
    return made


def _sized(name: str, declared: list[Any], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    if wanted is not None:
        fits = len(wanted) == len(declared)
        if not fits or any(isinstance(d, int) and d > 0 and d != w for d, w in zip(declared, wanted, strict=True)):
            raise UsageError(f"--shape {name}={','.join(map(str, wanted))} does not fit its shape {declared}")
        return wanted
    sizes = [1 if i == 0 and not (isinstance(d, int) and d > 0) else d for i, d in enumerate(declared)]
    if any(not isinstance(d, int) or d < 1 for d in sizes):
        raise UsageError(f"input {name} has the free shape {declared}; give sizes with --shape {name}=1,2,...")
    return tuple(sizes)


def _worst(reference: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    return min(snr(reference[name], result[name]) for name in reference)


def _measured(
    paths: Mapping[str, Path], sizes: Mapping[str, list[int]], runs: int, say: Say
) -> list[tuple[float, float, float]]:
    """Medians of fresh processes, interleaved: seconds to load and to run, peak MB."""
    made: dict[str, list[tuple[float, float, float]]] = {side: [] for side in paths}
    for _ in range(runs):
        for side, path in paths.items():
            try:
                load, seconds, peak = ask(__name__, path, json.dumps(sizes))
            except NoAnswer as error:
                raise ModelError(f"the graph {side} could not be measured ({error}); report it") from error
            made[side].append((load, seconds, peak))
    medians = []
    for side, all_runs in made.items():
        load, seconds, peak = (float(middle) for middle in np.median(all_runs, axis=0))
        say(f"{side:<7} load {load:.2f} s, run {seconds:.3f} s, peak {peak:.0f} MB")
        medians.append((load, seconds, peak))
    return medians


def _spec_of(source: Path, model: onnx.ModelProto) -> ModelSpec | None:
    """The spec in a file, or that of another program's that is recognised."""
    text = next((p.value for p in model.metadata_props if p.key == METADATA_KEY), None)
    return from_json(text) if text is not None else _recognised(source)


def _for_target(
    model: onnx.ModelProto, spec: ModelSpec | None, inputs: Mapping[str, Any], say: Say
) -> tuple[onnx.ModelProto, ModelSpec | None]:
    """The model with fixed shapes, and its spec: as the spec has them, else as the ``inputs``. It is changed."""
    if left := own_operators(model):
        raise ModelError(f"{left[0]} is an operator of its own, in whose place nothing of the ONNX standard is known")
    if spec is not None:
        return with_fixed_shapes(model, spec, say)
    return fixed_like(model, {name: value.shape for name, value in inputs.items()}), None


def _describe(model: onnx.ModelProto, spec: ModelSpec, *, precision: str, figure: Figure) -> None:
    """Write a spec that is up to date: of a file recognised too, whose key changes."""
    own = foreign_domains(model.graph.node)
    chosen = spec.precision if precision == "fp32" else precision
    kept = tuple(f for f in spec.validation if not f.stage.startswith("optimize:"))
    attach_spec(model, replace(spec, portable=not own, precision=chosen, validation=(*kept, figure)))


def _recognised(source: Path) -> ModelSpec | None:
    """The spec of another program's file; None for one that is not known, or is run together with others."""
    try:
        spec = foreign_spec(source)
    except OrtsepError:
        return None
    return replace(spec, bag=()) if len(spec.bag) == 1 else None


def _copy_manifest(source: Path, target: Path, say: Say) -> None:
    manifest, copy = source / MANIFEST, target / MANIFEST
    if not manifest.exists() or source.resolve() == target.resolve():
        return
    if copy.exists() and copy.read_bytes() != manifest.read_bytes():
        say(f"{copy} is there already and differs from {manifest}; it was left alone")
        return
    try:
        shutil.copyfile(manifest, copy)
    except OSError as error:
        raise OutputError(f"{copy} can't be written ({error.strerror}); copy {manifest} beside the file") from error


def answer(path: str, sizes: str, runs: str = "3") -> tuple[float, float, float]:
    """Load a graph and run it on noise of ``sizes`` (JSON by input): seconds to load and to run, peak MB."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    began = time.perf_counter()
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    load = time.perf_counter() - began
    rng = np.random.default_rng(0)
    kinds = {value.name: _KINDS[value.type] for value in session.get_inputs()}
    shapes = json.loads(sizes).items()
    inputs = {name: (rng.standard_normal(shape) * 0.3).astype(kinds[name]) for name, shape in shapes}
    took = []
    for _ in range(int(runs) + 1):
        began = time.perf_counter()
        session.run(None, inputs)
        took.append(time.perf_counter() - began)
    return load, float(np.median(took[1:])), memory.peak() / 1e6
