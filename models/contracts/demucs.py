"""Other people's HTDemucs files: the STFT outside or inside, in four makes that share shapes and differ in meaning.

sevagh/demucs.onnx and timcsy/demucs-web, openkara-models, Mixxx / StemSplit / hi-ogawa, and Intel's for OpenVINO.
Around the network all are as ``demucs.apply.apply_model`` and ``demucs.api`` have it.
"""

import re
from dataclasses import replace

from ortsep.models.contracts.contract import Contract, Found, Port
from ortsep.models.spec import STFT, Chunks, Member, ModelSpec, Normalization, Weights

LENGTH = 343980
"""Samples of a chunk: 7.8 s."""
HOP = 1024
BINS, FRAMES = 2 * HOP, 336
STEMS = ("drums", "bass", "other", "vocals", "guitar", "piano")
"""In the networks' order; the first four are all that most have."""
SPECIALIST = re.compile(r"(.*_ft)[_.-](drums|bass|other|vocals)", re.IGNORECASE)
"""A file of htdemucs_ft that was trained for one stem: its other rows are worse, and nobody uses them."""


def specialist(name: str) -> tuple[str, str] | None:
    """The bag and the stem of a file of htdemucs_ft, by its name without .onnx."""
    match = SPECIALIST.fullmatch(name)
    return (match[1], match[2].lower()) if match else None


def _count(found: Found) -> int:
    """Stems of the graph, of which some files declare no number."""
    return found.sizes.get("s") or (6 if "6s" in found.file.stem else 4)


def _describe(found: Found, transform: bool, normalization: Normalization) -> ModelSpec:
    stems = STEMS[: _count(found)]
    alone = specialist(found.file.stem)
    tensors = found.tensors
    notes: tuple[str, ...] = ()
    if alone and len(stems) == 4:
        tensors = tensors.only((stems.index(alone[1]),))
        notes = (f"one of four: of its stems only {alone[1]} is good; a folder with all four runs as one model",)
        stems = (alone[1],)
    return ModelSpec(
        name=found.file.stem,
        family="demucs",
        stems=stems,
        sample_rate=44100,
        channels=2,
        domain="hybrid" if transform else "waveform",
        output="hybrid" if transform else "stems",
        # HTDemucs._spec and _ispec: frames 2 .. 338 of a centred STFT of the chunk padded by 3/2 hops.
        stft=STFT(4 * HOP, HOP, BINS, 3 * HOP // 2, 3 * HOP // 2, "reflect", True, True, "constant")
        if transform
        else None,
        chunks=Chunks(LENGTH, overlap=0.25, max_shift=22050),
        normalization=normalization,
        tensors=tensors,
        weights=Weights(source=found.file.name),
        notes=notes,
    )


def bagged(parts: tuple[ModelSpec, ...], files: tuple[str, ...]) -> ModelSpec | None:
    """The specialists of htdemucs_ft, in the order of their stems, as one model; None where their graphs differ."""
    stems = STEMS[: len(parts)]
    tensors = {part.tensors.only(()) for part in parts}
    if tuple(part.stems[0] for part in parts) != stems or len(tensors) > 1 or len({part.domain for part in parts}) > 1:
        return None
    rows = tuple(range(len(stems)))
    members = tuple(Member(file, tuple(float(r == k) for r in rows), rows) for k, file in enumerate(files))
    name = specialist(parts[0].name)
    return replace(
        parts[0], name=name[0] if name else parts[0].name, stems=stems, tensors=tensors.pop(), bag=members, notes=()
    )


def _inside(found: Found) -> ModelSpec:
    return _describe(found, False, Normalization("track"))


def _outside(found: Found) -> ModelSpec:
    return _describe(found, True, Normalization("track"))


def _by_host(found: Found) -> ModelSpec:
    return _describe(found, True, Normalization("chunk", eps=1e-5))


_SIZES = {"n": (LENGTH,), "f": (BINS,), "t": (FRAMES,), "s": (4, 6)}

CONTRACTS = (
    Contract(
        name="demucs-hybrid",
        title="HTDemucs of sevagh/demucs.onnx and demucs-web: the STFT outside, the waveform first",
        inputs=(Port("mix", "b c n"), Port("spectrum", "b cr f t")),
        outputs=(Port("stem_spectra", "b s cr f t"), Port("stems", "b s c n")),
        describe=_outside,
        sizes=_SIZES,
    ),
    Contract(
        name="openkara",
        title="HTDemucs of openkara-models: the STFT outside, real and imaginary parts on an axis of their own",
        inputs=(Port("spectrum", "b c r f t", ("spectral",)), Port("mix", "b c n", ("mix",))),
        outputs=(Port("stem_spectra", "b s c r f t", ("spectral_out",)), Port("stems", "b s c n", ("time_out",))),
        describe=_outside,
        sizes=_SIZES,
    ),
    Contract(
        name="openvino",
        title="HTDemucs of Intel's OpenVINO plugins: the spectrum first, both inputs standardised outside",
        inputs=(Port("spectrum", "b cr f t"), Port("mix", "b c n")),
        outputs=(Port("stem_spectra", "b scr f t"), Port("stems", "b sc n")),
        describe=_by_host,
        sizes=_SIZES,
    ),
    Contract(
        name="demucs-waveform",
        title="HTDemucs with the STFT inside: Mixxx, StemSplit, hi-ogawa, openkara's older files",
        inputs=(Port("mix", "b c n"),),
        outputs=(Port("stems", "b s c n"),),
        describe=_inside,
        sizes={"n": (LENGTH,), "s": (4, 6)},
    ),
)
