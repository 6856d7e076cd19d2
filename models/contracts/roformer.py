"""santiquiroz/port-bs-roformer-onnx: complex masks, bins and channels in one axis, around it MSST's ``demix``."""

from ortsep.models.contracts.contract import Contract, Found, Port, Unclear
from ortsep.models.contracts.mdx_net import stem_names
from ortsep.models.spec import STFT, Border, Chunks, Derived, Join, ModelSpec, Weights

N_FFT, HOP = 2048, 441
BINS = N_FFT // 2 + 1
STEMS = ("drums", "bass", "other", "vocals")
"""Of its graphs of four stems."""
PARTS = 2
"""Chunks over each sample, MSST's num_overlap of these models."""


def _describe(found: Found) -> ModelSpec:
    count = found.sizes.get("s", 1)
    stems = found.wishes.stems[:count] or (STEMS if count == len(STEMS) else ())
    if not stems:
        raise Unclear(
            f"nothing in the file says which {count} stem{'s' * (count > 1)} it gives; add --stems "
            f"{','.join(('vocals', 'other', 'third', 'fourth')[:count])}, or a stems.txt beside it"
        )
    if "t" not in found.sizes:
        raise Unclear("the graph doesn't say how many frames it takes; save it with its 801 or 1101 frames")
    length = HOP * (found.sizes["t"] - 1)
    return ModelSpec(
        name=found.file.stem,
        family="roformer",
        stems=stems,
        sample_rate=44100,
        channels=2,
        domain="complex",
        output="masks",
        stft=STFT(N_FFT, HOP, BINS, pad_left=N_FFT // 2, pad_right=N_FFT // 2, zero_after=1),
        chunks=Chunks(
            length,
            parts=PARTS,
            join=Join("fade", length // 10),
            border=Border(fill="reflect", overlapping=True),
            tail="reflect",
        ),
        derived=(Derived(stem_names(stems[0])[1], stems),) if count == 1 else (),
        tensors=found.tensors,
        weights=Weights(source=found.file.name),
    )


ROFORMER = Contract(
    name="port-bs-roformer",
    title="RoFormer of port-bs-roformer-onnx: complex masks",
    inputs=(Port("spectrum", "b fc t r", ("spec",)),),
    outputs=(Port("masks", "b s fc t r"),),
    describe=_describe,
    sizes={"f": (BINS,)},
)
