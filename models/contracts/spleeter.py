"""sherpa-onnx's Spleeter: a file for each of two stems, magnitudes in, masked magnitudes out.

Around the networks as sherpa-onnx has it: frames begin with the song, without Spleeter's own 4096 zeros before it. Its
host leaves out the frames that the song only partly fills, and so up to 1023 samples at the end; here they count, which
is what it gives for the song followed by 3072 zeros or more.
"""

from ortsep.models.contracts.contract import Contract, Found, Port, Unclear
from ortsep.models.spec import STFT, Blocks, Filter, Member, ModelSpec, Weights

STEMS = ("vocals", "accompaniment")
N_FFT, HOP, BINS, FRAMES = 4096, 1024, 1024, 512
BATCH = 4
"""Blocks a run: bounds the memory, where sherpa-onnx gives the whole song at once."""


def _describe(found: Found) -> ModelSpec:
    stem = next((s for s in STEMS if found.file.name.lower().startswith(s)), None)
    if stem is None:
        raise Unclear(
            f"sherpa-onnx's Spleeter is a pair of files whose names begin with {' and '.join(STEMS)}, and "
            f"{found.file.name} is called neither; give both their names back"
        )
    rest = found.file.name[len(stem) :]
    files = [f"{s}{rest}" for s in STEMS]
    if missing := [file for file in files if file not in found.file.beside | {found.file.name}]:
        raise Unclear(
            f"it is one of a pair, and {missing[0]} is not beside it: each stem's mask needs both; put that file there"
        )
    return ModelSpec(
        name=f"spleeter{rest.removesuffix('.onnx')}",
        family="spleeter",
        stems=STEMS,
        sample_rate=44100,
        channels=2,
        domain="magnitude",
        output="stem_magnitudes",
        stft=STFT(N_FFT, HOP, BINS, 0, N_FFT - HOP, "zero", partial=True),
        blocks=Blocks(FRAMES, batch=found.sizes.get("b", BATCH)),
        filter=Filter(method="ratio", exponent=2.0, eps=1e-10),
        tensors=found.tensors,
        bag=tuple(Member(file, (float(k == 0), float(k == 1)), (k,)) for k, file in enumerate(files)),
        bandwidth=BINS * 44100 / N_FFT,
        weights=Weights(source=" and ".join(files)),
    )


SPLEETER = Contract(
    name="sherpa-spleeter",
    title="Spleeter of sherpa-onnx: vocals.onnx and accompaniment.onnx",
    inputs=(Port("magnitude", "c b t f", ("x",)),),
    outputs=(Port("stem_magnitudes", "c b t f", ("y",)),),
    describe=_describe,
    sizes={"f": (BINS,), "t": (FRAMES,)},
)
