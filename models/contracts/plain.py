"""Waveform graphs of any make: the stems on an axis, named by a stems.txt, or an output for each, named by itself."""

from ortsep.models.contracts.contract import Contract, Found, Port, Unclear, number
from ortsep.models.spec import Chunks, Fixed, Free, ModelSpec

RATE = 44100
"""Sample rate assumed of a graph that carries no spec."""
CHUNK = 10.0
"""Chunk of a graph of free length, in seconds."""
SONG = ("vocals", "drums", "bass", "other", "guitar", "piano", "accompaniment", "instrumental", "residual")
DRUMS = ("kick", "snare", "toms", "hihat", "cymbals", "ride", "crash")
NAMES = (*SONG, *DRUMS, "music", "speech", "noise", "effects", "sfx", "lead", "backing", "strings", "wind", "synth")
"""What outputs are called when their names are those of stems."""


def _spec(found: Found, stems: tuple[str, ...], count: int | None) -> ModelSpec:
    if count not in (None, len(stems)):
        raise Unclear(f"stems.txt or --stems names {len(stems)} stems where it gives {count}; mend the names")
    rate = round(number(found, "sample_rate", 1000, 768_000) or RATE)
    length = found.sizes.get("n")
    chunk = round(CHUNK * rate)
    return ModelSpec(
        name=found.file.stem,
        family="plain",
        stems=stems,
        sample_rate=rate,
        channels=found.sizes.get("c", 2),
        domain="waveform",
        output="stems",
        chunks=Chunks(length or chunk, takes=Fixed() if length else Free(whole=chunk)),
        tensors=found.tensors,
        notes=(f"no spec in the file: {rate} Hz {'as said' if 'sample_rate' in found.wishes.settings else 'assumed'}",),
    )


def _on_an_axis(found: Found) -> ModelSpec:
    if not found.wishes.stems:
        raise Unclear(
            "it has no stems.txt beside it; write one with a stem name per line, in the order of the graph's output, "
            "or name them with --stems"
        )
    return _spec(found, found.wishes.stems, found.sizes.get("s"))


def _by_name(found: Found) -> ModelSpec:
    names = tuple(tensor.name for tensor in found.file.signature.outputs)
    if not found.wishes.stems and not all(name.lower() in NAMES for name in names):
        raise Unclear(
            f"its outputs are called {', '.join(names)}, which are no names of stems; name them in this order with "
            "--stems, or in a stems.txt"
        )
    return _spec(found, found.wishes.stems or names, len(names))


PLAIN = Contract(
    name="waveform",
    title="a waveform graph with the stems on an axis, and a stems.txt",
    inputs=(Port("mix", "b c n"),),
    outputs=(Port("stems", "b s c n"),),
    describe=_on_an_axis,
    known={},
    settings=("sample_rate",),
)
NAMED = Contract(
    name="named-outputs",
    title="a waveform graph with an output for each stem",
    inputs=(Port("mix", "b c n"),),
    outputs=(Port("stems", "b c n"),),
    each=True,
    describe=_by_name,
    known={},
    settings=("sample_rate",),
)
