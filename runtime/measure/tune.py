"""``ortsep.tune``: the fastest setting for a model on this machine, found by trying, and kept for provider ``auto``."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ortsep.base import memory
from ortsep.base.decibels import PERFECT, in_words, snr
from ortsep.base.errors import ModelError, OrtsepError, OutputError
from ortsep.base.threads import cores, physical_cores
from ortsep.base.whole import scratch
from ortsep.graphs.model import Model, load_model
from ortsep.graphs.portable import forms
from ortsep.graphs.providers import LOWER, PROVIDERS, WHOLE, versions
from ortsep.graphs.tuned import EXACT, Kept, Setting, write_tuned
from ortsep.measure.paces import Paces, seconds_for, subject
from ortsep.measure.race import BUDGET, Raced, race
from ortsep.models.spec import ModelSpec

Say = Callable[[str], None]
_ROOM = 3
"""Most settings that stay loaded beside ortsep's own."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found of a model, and whether it is kept. ``notes``: what kept something from being tried.

    ``sound``: seconds of noise that ``found.seconds`` are the time of. ``gate``: dB that a setting has to keep.
    """

    model: str
    found: Raced
    sound: float
    kept: bool
    notes: tuple[str, ...]
    gate: float = EXACT


def candidates(
    spec: ModelSpec, providers: Sequence[str], *, portable: bool, count: int, physical: int | None
) -> list[Setting]:
    """What is tried, the likeliest first: every provider that computes in float32 and can take the graph, with a
    ``portable`` form of it where there is one; on the CPU blocks or threads, waiting, memory.

    ``count``: cores that may be used, ``physical`` those without their second threads, where that is known.
    """
    made = []
    for name in providers:
        if name != "cpu" and name not in LOWER and not (spec.parts and name in WHOLE):
            made += [Setting(name, portable=True)] * portable + [Setting(name)]
    if spec.parts:
        made += [Setting(blocks=n) for n in dict.fromkeys((1, 2, count, 2 * count)) if n != min(4, count)]
        return [*made, Setting(arena=False)]
    if spec.blocks is not None and spec.blocks.padded:
        made += [Setting(blocks=n) for n in dict.fromkeys((count, 1)) if n != 2 and count > 1]
        return [*made, Setting(arena=False)]
    made += [Setting(threads=n) for n in dict.fromkeys((count, max(1, count // 2))) if n != physical]
    return [*made, Setting(spinning=False), Setting(arena=False)]


def tune(model: str | Path, *, budget: float = BUDGET, keep: bool = True, doing: Say = lambda _: None) -> Tuned:
    """Try providers, threads and memory on a model, for about ``budget`` seconds, and keep the best for ``auto``.

    Raises FileMissing and ModelError where there is no such model, and what keeps it from running on the CPU.
    """
    import onnxruntime

    found = load_model(model)
    have = onnxruntime.get_available_providers()
    names = [name for name, full in PROVIDERS.items() if full in have]
    before = set(forms())
    made, notes = _portable_forms(found, names, doing)
    left_over = set(made) - before
    try:
        settings = candidates(found.spec, names, portable=bool(made), count=cores(), physical=physical_cores())
        with scratch("ortsep-tune") as folder:
            result = _confirmed(found, _run(found, settings, folder, budget, doing), folder, doing)
        kept = keep and _keep(found, Kept(result.best, result.ratio, result.snr_db))
        if kept:
            left_over = set() if result.best.portable else set(made)
    finally:
        _remove(left_over)
    return Tuned(found.spec.name, result, seconds_for(found.spec), kept, tuple(notes))


def _keep(model: Model, kept: Kept) -> bool:
    """Whether the cache took it, for every graph."""
    written = [write_tuned(model.file(member), versions(), kept) for member in model.members]
    return all(written)


def _remove(forms_: Iterable[Path]) -> None:
    for form in forms_:
        with contextlib.suppress(OSError):
            form.unlink()


def _run(model: Model, settings: Sequence[Setting], folder: Path, budget: float, doing: Say) -> Raced:
    path, sides = subject(model), list[Paces]()

    def opening(setting: Setting) -> Paces:
        sides.append(Paces(path, setting, folder))
        return sides[-1]

    def room() -> int:
        free = memory.available()
        return _ROOM if free is None else max(1, min(_ROOM, int(free / max(1, sides[0].peak))))

    try:
        return race(settings, opening, budget=budget, room=room, doing=doing)
    except OrtsepError as error:
        raise ModelError(f"{model.spec.name} does not run on the CPU ({error}); see: ortsep inspect {path}") from error


def _confirmed(model: Model, found: Raced, folder: Path, doing: Say) -> Raced:
    """The same, if another provider is as equal on the other graphs of a bag as on the first; else ortsep's own."""
    if found.best.provider == "cpu" or subject(model) == model.folder:
        return found
    for member in model.members[1:]:
        doing(f"comparing {found.best} on {member.file} ...")
        given = []
        for setting in (Setting(), found.best):
            side = Paces(model.file(member), setting, folder)
            try:
                given.append(side.first())
            finally:
                side.close()
        decibels = snr(*given)
        if not decibels >= EXACT:
            reason = f"is not equal on {member.file} ({in_words(decibels, 0)})"
            tried = tuple(replace(each, reason=reason) if each.setting == found.best else each for each in found.tried)
            return replace(found, best=Setting(), ratio=1.0, snr_db=PERFECT, tried=tried)
    return found


def _portable_forms(model: Model, names: Sequence[str], doing: Say) -> tuple[list[Path], list[str]]:
    """Portable forms of all graphs, where a provider is there that needs them, and what to say where they lack."""
    if not set(names) & {"openvino", "coreml"} or model.spec.parts or (model.described and model.spec.portable):
        return [], []
    try:
        from ortsep.export.portable import portable_form
    except ImportError as error:
        which = " and ".join(name for name in names if name in WHOLE and name not in LOWER)
        return [], [
            f"a portable form of the graph, which {which} may run faster, was not tried: making it needs "
            f"{error.name or error}, pip install 'ortsep[onnx]'"
        ]
    made, before = list[Path](), set(forms())
    try:
        for member in model.members:
            if (form := portable_form(model.file(member), doing)) is None:
                return [], []
            made.append(form)
    except (ModelError, OutputError) as error:
        _remove(set(made) - before)
        return [], [f"a portable form of the graph was not tried: {error}"]
    except BaseException:
        _remove(set(made) - before)
        raise
    return made, []
