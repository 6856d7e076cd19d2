"""``ortsep export --contract waveform``: demucs.onnx and stems.txt, as programs without an STFT expect them.

The contract is that of models/README.md: [batch, channels, samples] to [batch, stems, channels, samples], float32.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ortsep import __version__
from ortsep.base.arrays import F32
from ortsep.base.decibels import in_words, snr
from ortsep.base.errors import ModelError
from ortsep.base.whole import scratch, whole_folder
from ortsep.export.family import Original
from ortsep.export.graph.builder import foreign_domains
from ortsep.export.graph.files import attach_spec, attached_spec, parameter_count, save_model
from ortsep.export.graph.waveform import Part, waveform_graph, waveform_samples, waveform_spec
from ortsep.export.passes import optimize
from ortsep.graphs.session import Session
from ortsep.models.spec import Chunks, Figure, Member, ModelSpec
from ortsep.separator import Separator
from ortsep.stems.manifest import FILE_NAME as MANIFEST
from ortsep.stems.manifest import write_manifest

FILE = "demucs.onnx"
"""What programs of this contract look for, with a stems.txt beside it."""
GATE = 100.0
"""dB that the graph must keep of the one with the STFT outside, on one chunk."""
Say = Callable[[str], None]


def write_waveform(
    original: Original, folder: Path, *, named: str = "", say: Say = lambda _: None
) -> tuple[tuple[tuple[str, int, int], ...], ModelSpec]:
    """Write an original as one graph of waveforms into ``folder``, all or nothing, as a model called ``named``.

    Gives its file with size in bytes and node count, and the spec that it carries.

    Raises ModelError where its filter can't be part of a graph, or the result is not equal to the usual export.
    """
    spec = original.spec
    parts, names = parts_of(original)
    made, _ = optimize(waveform_graph(spec, parts))
    db = _compare(spec, parts, names, made.SerializeToString())
    if not db >= GATE:
        raise ModelError(
            f"{spec.name} was not written: with its transforms inside it keeps {db:.1f} dB, below {GATE:g}; report it"
        )
    say(f"{spec.name}: {in_words(db)} against the graph with the STFT outside, on one chunk (gate {GATE:g})")
    own = replace(
        waveform_spec(spec),
        name=named or spec.name,
        card=spec.entry if named else spec.card,
        exporter=f"ortsep {__version__}",
        parameters=spec.parameters or sum(parameter_count(part.model) for part in parts),
        portable=not foreign_domains(made.graph.node),
        validation=(Figure("waveform: one chunk of noise", db, GATE, "STFT outside the graph"),),
    )
    with whole_folder(folder, "choose another with --output", stale="*.onnx") as working:
        size = save_model(attach_spec(made, own), working / FILE)
        write_manifest(working / MANIFEST, own.stems)
    say(f"{FILE}: {len(made.graph.node)} nodes, {size / 1e6:.1f} MB")
    return ((FILE, size, len(made.graph.node)),), own


def _compare(spec: ModelSpec, parts: list[Part], names: list[str], made: bytes) -> float:
    """dB of the new graph against the old ones in ortsep's own runtime, for a song of one chunk."""
    mix = chunk_of_noise(spec)
    with scratch("waveform") as folder:
        save_outside(spec, parts, names, folder / "outside")
        separator = Separator(folder / "outside", provider="cpu")
        reference = np.stack(list(separator.separate(mix, spec.sample_rate).values()))
        (folder / FILE).write_bytes(made)
        (stems,) = Session(folder / FILE, provider="cpu").run({"mix": mix[None]})
    return snr(reference, stems[0])


def chunk_of_noise(spec: ModelSpec) -> F32:
    """Seeded noise [C, N] of the length that the graph takes."""
    noise = np.random.default_rng(0).standard_normal((spec.channels, waveform_samples(spec))) * 0.1
    return noise.astype(np.float32)


def save_outside(spec: ModelSpec, parts: list[Part], names: list[str], folder: Path) -> None:
    """Write the graphs with the STFT outside as a model that takes a song of one chunk in one piece."""
    chunks = Chunks(waveform_samples(spec), overlap=0.0)
    for part, name in zip(parts, names, strict=True):
        whole = replace(part.spec, chunks=part.spec.chunks and chunks, bag=spec.bag, stems=spec.stems)
        save_model(attach_spec(part.model, whole), folder / name)


def parts_of(original: Original) -> tuple[list[Part], list[str]]:
    """A model's graphs with what is each one's own, and their file names."""
    spec = original.spec
    everything = Member(FILE, (1.0,) * len(spec.stems), tuple(range(len(spec.stems))))
    graphs = list(original.graphs())
    parts = [
        Part(member, attached_spec(model) or spec, model)
        for member, (_, model) in zip(spec.bag or (everything,), graphs, strict=True)
    ]
    return parts, [name for name, _ in graphs]
