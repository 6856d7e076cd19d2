"""Proving that an exported model equals its original, in stages, because a loose end-to-end gate hides faults.

1. transform: the runtime's STFT and inverse against the original's, same input
2. graph: ONNX Runtime against the original network in float64, same tensors
3. end to end: the runtime's separation of real audio against the original package's own
4. provider: every execution provider that is here against CPU

Stages, gates and the measure are those of the design: SNR in dB, 10*log10(sum(ref^2)/sum((ref-x)^2)) in float64.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ortsep.audio.resample import resample, resampled_length
from ortsep.audio.sources import fit_channels
from ortsep.base.arrays import F32
from ortsep.base.decibels import snr
from ortsep.base.errors import ModelError, UsageError, WeightsError
from ortsep.engine.bands import band_spectrum, band_wave
from ortsep.engine.stft import istft, stft
from ortsep.export.exporter import choose_weights, open_named
from ortsep.export.family import OWN, Choice, Original, is_checkpoint
from ortsep.export.graph.files import attach_spec, save_model
from ortsep.export.graph.precision import GATES as PRECISION_GATES
from ortsep.export.weights.remembered import recall
from ortsep.graphs.model import Model, load_model
from ortsep.graphs.providers import LOWER, PROVIDERS, choose_provider
from ortsep.graphs.session import Session
from ortsep.models.bands import Bands
from ortsep.models.catalogue import catalogue
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, STFT, Figure, Fixed, ModelSpec, from_json
from ortsep.separator import Separator
from ortsep.songs.mixture import counted

Say = Callable[[str], None]

GATES = {"transform": 120.0, "graph": 100.0, "end to end": 90.0, "provider": 60.0}


OFFICIAL = ("https://", "bundled:", "package:")
"""How ``Weights.source`` begins for files that the catalogue knows how to get again."""


@dataclass(frozen=True)
class Report:
    """The figures of a validation, and what could not be compared and why."""

    name: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(f.db >= f.gate for f in self.figures)


def validate_model(
    reference: str | Path,
    *,
    choice: Choice | None = None,
    oracle: Path | None = None,
    songs: Sequence[Path] = (),
    seconds: float = 12.0,
    say: Say = lambda _: None,
    doing: Say = lambda _: None,
) -> Report:
    """Validate an exported model and write the figures into its files.

    ``say`` is told each figure as a ``line``, ``doing`` what is compared next.

    ``choice`` names the checkpoint it was made from, with its configuration, where that is neither official nor random
    nor remembered from its export. ``oracle`` is a checkout with the original's own code, for a family that has such,
    which then separates in place of ours. ``songs`` are real audio for the end-to-end stage (a seeded test signal is
    always used too), of which the first ``seconds`` count. Raises what loading the model, the checkpoint and the songs
    raise; UsageError where the checkpoint isn't known.
    """
    model = load_model(reference)
    original = _original(model, choice or Choice())
    if original.spec.stems != tuple(find_stems(model)):
        raise ModelError(
            f"{model.folder} has stems {', '.join(find_stems(model))} and the checkpoint "
            f"{', '.join(original.spec.stems)}; name the checkpoint it was made from with --weights"
        )
    original = original.beside(oracle) if oracle else original
    signals = list(_signals(model, songs, seconds))
    figures: list[Figure] = []
    for stage in (_transform, _graph, _end_to_end, _providers):
        doing(f"comparing: {stage.__name__.strip('_').replace('_', ' ')} ...")
        for figure in stage(model, original, signals):
            say(line(figure))
            figures.append(figure)
    if not any(figure.stage.startswith("end to end") for figure in figures):
        return _reported(model, figures, ["no end-to-end stage: nobody else separates with this network"])
    notes = [] if songs else ["no --song was given: the end-to-end stage used the test signal only"]
    return _reported(model, figures, notes)


def _reported(model: Model, figures: list[Figure], notes: list[str]) -> Report:
    report = Report(model.spec.name, tuple(figures), tuple(notes))
    _record(model, report)
    return report


def find_stems(model: Model) -> tuple[str, ...]:
    """The stems as exported, before stems.txt renamed them; of one file of a bag those that it alone gives.

    Raises UsageError for a file of a bag whose stems need others too.
    """
    spec, file = _spec_in(model.file(model.members[0])), model.members[0].file
    if not _one_of_a_bag(model, spec):
        return spec.stems
    given = {m.file: {row for row in m.rows if m.weights[row]} for m in spec.bag}
    own = given.pop(file)
    if any(own & rows for rows in given.values()):
        raise UsageError(
            f"{file} gives its stems together with other graphs of {spec.name}; validate them all: "
            f"ortsep validate {model.folder}"
        )
    return tuple(spec.stems[row] for row in sorted(own))


def _one_of_a_bag(model: Model, spec: ModelSpec) -> bool:
    """Whether a file was named that is one of several."""
    return len(model.members) == 1 < len(spec.bag)


def _spec_in(file: Path) -> ModelSpec:
    text = read_metadata(file).get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{file} was not exported by ortsep, so there is no original to compare it with")
    return from_json(text, str(file))


def _original(model: Model, choice: Choice) -> Original:
    """The original of an exported model: what ``choice`` names, else the official files, the seed, what is remembered.

    A name that is not in the catalogue is that of a checkpoint of one's own: its file says what it is, or its family.
    """
    spec, stems = _spec_in(model.file(model.members[0])), choice.stems or find_stems(model)
    if spec.family == "own" and choice.path is None:
        return _own(spec, choice)
    source = spec.weights.source
    known = spec.entry in catalogue()
    if choice.path is None and choice.seed is None:
        if spec.weights.random:
            choice = replace(choose_weights(source), config=choice.config)
        elif not (known and source.startswith(OFFICIAL)):
            made = recall(spec)
            if made is None:
                raise UsageError(
                    f"{spec.name} was made from {source}, which is not where it was; name that checkpoint with "
                    "--weights PATH, and its configuration, if it has one, with --config FILE"
                )
            config, path = choice.config or made.config, made.weights and Path(made.weights)
            wanted = stems if _one_of_a_bag(model, spec) else made.stems or stems
            choice = replace(choice, path=path or None, config=config, settings=made.settings)
            return open_named(made.name, replace(choice, stems=wanted))
    choice = replace(choice, stems=stems)
    if known:
        return open_named(spec.entry, choice)
    card = next((card.name for card in catalogue().values() if card.family == spec.family), spec.entry)
    if choice.path is None or not is_checkpoint(str(choice.path)):
        return open_named(card, choice)
    try:
        return open_named(str(choice.path), replace(choice, path=None))
    except WeightsError:
        return open_named(card, choice)


def _own(spec: ModelSpec, choice: Choice) -> Original:
    """A torch network of one's own, made again as its export made it. Raises UsageError, WeightsError."""
    made = recall(spec)
    if made is None:
        raise UsageError(f"{spec.name} was not made here, or its module is gone; export it again with --torch")
    if spec.weights.random:
        choice = replace(choose_weights(spec.weights.source), say=choice.say)
    path, config = made.weights and Path(made.weights), choice.config or made.config
    original = open_named(made.name, replace(choice, path=path or None, config=config, stems=made.stems))
    if original.spec.weights.sha256 != spec.weights.sha256:
        raise WeightsError(
            f"{made.name.removeprefix(OWN)} gives other weights than those that {spec.name} has; seed what it draws at "
            "random, or export it with --weights"
        )
    return original


def _signals(model: Model, songs: Sequence[Path], seconds: float) -> Iterator[tuple[str, F32]]:
    """Named mixtures [C, N] at the model's rate."""
    rate, channels = model.spec.sample_rate, model.spec.channels
    yield "test signal", fit_channels(synthetic_song(rate, seconds), channels)
    for path in songs:
        song = counted(path, duration=seconds)
        count = resampled_length(song.samples, song.sample_rate, rate)
        blocks = resample(song.blocks(), song.channels, song.sample_rate, rate, count)
        yield path.name, fit_channels(np.concatenate(list(blocks), axis=-1), channels)


def synthetic_song(rate: int, seconds: float, seed: int = 0) -> F32:
    """A seeded stereo signal [2, N] with decaying tones, noise bursts, and silence within and at the end."""
    rng = np.random.default_rng(seed)
    count = max(1, round(rate * seconds))
    time = np.arange(count) / rate
    out = np.zeros((2, count))
    for beat in np.arange(0, seconds, 0.25):
        at = time - beat
        decay = np.where(at >= 0, np.exp(-6 * np.clip(at, 0, None)), 0)
        pitch = 55 * 2 ** (rng.integers(0, 48) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * k * at) / k for k in range(1, 6))
        burst = rng.standard_normal(count) * np.exp(-40 * np.clip(at, 0, None)) * (at >= 0)
        pan = rng.uniform(0.2, 0.8)
        out += 0.1 * np.stack([pan * (tone * decay + burst), (1 - pan) * (tone * decay + 0.7 * burst)])
    third = count // 3
    out[:, third : third + count // 8] = 0
    out[:, count - count // 10 :] = 0
    return out.astype(np.float32)


def _transform(model: Model, original: Original, signals: list[tuple[str, F32]]) -> Iterator[Figure]:
    seen: list[tuple[STFT | None, STFT | None]] = []
    for index, member in enumerate(model.members):
        spec = _spec_in(model.file(member))
        if spec.bands is not None:
            yield from (figure for name, mix in signals for figure in _of_bands(spec.bands, original, name, mix))
        if spec.stft is None or (spec.stft, spec.inverse) in seen:
            continue
        seen.append((spec.stft, spec.inverse))
        for name, mix in signals:
            yield from _transforms(spec, original, index, name, mix)


def _transforms(spec: ModelSpec, original: Original, index: int, name: str, mix: F32) -> Iterator[Figure]:
    assert spec.stft is not None
    if spec.chunks is not None and isinstance(spec.chunks.takes, Fixed):
        mix = _exactly(mix, spec.chunks.length)
    theirs = original.transform(mix, index)
    if theirs is None:
        return
    ours = stft(spec.stft, mix)[:, : spec.stft.bins]
    which = f"{name}, graph {index + 1}" if index else name
    yield Figure(f"transform: STFT, {which}", snr(theirs, ours), GATES["transform"], original.package)
    back = original.inverse(theirs, mix.shape[-1], index)
    if back is not None:
        inverse = istft(spec.inverse or spec.stft, theirs.astype(np.complex64), mix.shape[-1])
        yield Figure(f"transform: inverse, {which}", snr(back, inverse), GATES["transform"], original.package)


def _of_bands(bands: Bands, original: Original, name: str, mix: F32) -> Iterator[Figure]:
    theirs = original.transform(mix)
    assert theirs is not None
    yield Figure(
        f"transform: bands, {name}", snr(theirs, band_spectrum(bands, mix)), GATES["transform"], original.package
    )
    back = original.inverse(theirs, mix.shape[-1])
    assert back is not None
    ours = band_wave(bands, theirs.astype(np.complex64)[None])[0]
    yield Figure(f"transform: inverse, {name}", snr(back, ours), GATES["transform"], original.package)


def _exactly(mix: F32, samples: int) -> F32:
    """The first ``samples`` of the mixture, repeated where it is shorter."""
    return np.ascontiguousarray(np.resize(mix.T, (samples, mix.shape[0])).T)


def _graph(model: Model, original: Original, signals: list[tuple[str, F32]]) -> Iterator[Figure]:
    name, mix = signals[-1]
    for index, member in enumerate(model.members):
        inputs = original.example(index, mix)
        session = Session(model.file(member), provider="cpu")
        names = [t.name for t in session.outputs]
        results = dict(zip(names, session.run(inputs), strict=True))
        del session
        for output, theirs in original.network(index, inputs).items():
            where = f"{member.file} {output}" if len(model.members) > 1 else output
            db = snr(theirs, results[output])
            yield Figure(f"graph: {where}, {name}", db, _gate(model, "graph"), original.against)


def _end_to_end(model: Model, original: Original, signals: list[tuple[str, F32]]) -> Iterator[Figure]:
    separator = Separator(model.folder if len(model.members) > 1 else model.file(model.members[0]), provider="cpu")
    cases = [(name, mix) for name, mix in signals]
    if model.spec.channels > 1:
        mono = np.repeat(signals[-1][1].mean(axis=0, keepdims=True, dtype=np.float32), model.spec.channels, axis=0)
        cases.append((f"{signals[-1][0]}, mono", mono))
    for name, mix in cases:
        theirs = original.separate(mix)
        if theirs is None:
            return
        ours = np.stack(list(separator.separate(mix).values()))
        db, gate = snr(theirs, ours), _gate(model, "end to end")
        against = original.package
        if db < gate and (limit := _repeatable(original, mix, theirs)) < gate:
            against = f"{against}, itself {limit:.1f} dB from its result at -180 dB of noise"
            gate = min(gate, limit - CHANCE)
        yield Figure(f"end to end: {name}", db, gate, against)


CHANCE = 6.0
"""dB that two roundings of an original may differ by: where it is no nearer to itself, it can't be the gate."""


def _repeatable(original: Original, mix: F32, theirs: F32) -> float:
    """How far the original's result moves, in dB, when noise 180 dB below the peak is added to what it hears.

    Demucs's networks of amplitudes give silence the phase of rounding errors, and RoFormers bring bands that a codec
    left empty to unit level: no two computers agree about those.
    """
    noise = np.random.default_rng(0).standard_normal(mix.shape) * 1e-9 * max(float(np.abs(mix).max()), 1e-3)
    again = original.separate(mix + noise.astype(np.float32))
    assert again is not None
    return snr(theirs, again)


def _gate(model: Model, stage: str) -> float:
    """A stage's gate; a file of lower precision is held to what that precision can keep."""
    return min(GATES[stage], PRECISION_GATES.get(model.spec.precision, GATES[stage]))


def _providers(model: Model, original: Original, signals: list[tuple[str, F32]]) -> Iterator[Figure]:
    name, mix = signals[-1]
    inputs: dict[str, Any] = original.example(0, mix)
    file = model.file(model.members[0])
    reference = None
    for provider in PROVIDERS:
        try:
            choose_provider(provider)
        except RuntimeError:
            continue
        results = Session(file, provider=provider).run(inputs)
        if reference is None:
            reference = results
            continue
        worst = min(snr(a, b) for a, b in zip(reference, results, strict=True))
        gate = LOWER.get(provider, GATES["provider"])
        yield Figure(f"provider: {provider} against cpu, {name}", worst, gate, "cpu provider")


def _record(model: Model, report: Report) -> None:
    """Write the figures into the spec of every file of the model."""
    for member in model.members:
        path = model.file(member)
        graph = onnx.load(str(path))
        spec = _spec_in(path)
        kept = tuple(f for f in spec.validation if f.stage.startswith(("precision:", "optimize:")))
        spec = replace(spec, validation=(*report.figures, *kept))
        save_model(attach_spec(graph, spec), path)


def line(figure: Figure) -> str:
    """A figure as text."""
    mark = "ok  " if figure.db >= figure.gate else "FAIL"
    return f"{mark}  {figure.stage:<32} {figure.db:7.1f} dB  gate {figure.gate:g}  ({figure.against})"


def verdict(report: Report) -> str:
    """What comes below the figures."""
    found = "equals its original" if report.ok else "does NOT equal its original"
    return "\n".join([*report.notes, f"{report.name} {found}"])
