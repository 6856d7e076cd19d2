"""Make the small graphs that the runtime's tests run: `python tests/data/make_graphs.py` in the full environment.

Each scales its input by known factors, so that what comes out of the whole path is known too. They are kept in the
repository because the lean environment has nothing to make them with; tests/export/graph/test_graphs.py makes them
again and compares.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from ortsep.export.graph.builder import Graph
from ortsep.export.graph.files import attach_spec, save_model
from ortsep.models.bands import Band, Bands
from ortsep.models.spec import STFT, Blocks, Chunks, Filter, Free, Member, ModelSpec, Normalization, Weights

RATE = 8000
TRANSFORM = STFT(n_fft=256, hop=64, bins=128, pad_left=96, pad_right=96, partial=True, normalized=True)
TRANSFORM = replace(TRANSFORM, envelope="constant")
CENTRED = STFT(n_fft=256, hop=64, bins=129, pad_left=128, pad_right=128)
WAVEFORM = ModelSpec(
    name="waves",
    family="test",
    stems=("drums", "vocals"),
    sample_rate=RATE,
    channels=2,
    domain="waveform",
    output="stems",
    chunks=Chunks(length=4000, max_shift=500),
    weights=Weights(source="made for tests", licence="MIT", redistributable=True),
)
HYBRID = replace(
    WAVEFORM,
    name="hybrid",
    stems=("drums", "bass", "vocals"),
    domain="hybrid",
    output="hybrid",
    stft=TRANSFORM,
    normalization=Normalization("track"),
)
COMPLEX = replace(
    WAVEFORM,
    name="complex",
    domain="complex",
    output="part_masks",
    stft=replace(CENTRED, normalized=True, extend="next-hop", frame_multiple=8),
    chunks=Chunks(length=4000, takes=Free(whole=6000)),
    normalization=Normalization("spectrum", 1e-5),
)
MAGNITUDE = replace(
    WAVEFORM,
    domain="magnitude",
    output="stem_magnitudes",
    stft=CENTRED,
    chunks=None,
    blocks=Blocks(frames=32, batch=2),
    filter=Filter(method="ratio"),
)
BANDS = replace(
    WAVEFORM,
    name="bands",
    domain="bands",
    output="masks",
    chunks=None,
    bands=Bands(
        layout="test",
        bands=(
            Band(4000, 32, 128, 0, 40, fall=(20, 30)),
            Band(8000, 64, 256, 20, 118, rise=(30, 20)),
        ),
        bins=140,
        prefilter=(136, 138),
        window=64,
        context=16,
        multiple=2,
        aggression=0,
    ),
)


def _stack(g: Graph, x: str, factors: list[float], rank: int) -> str:
    """[B, ...] as [B, S, ...], stem k scaled by factors[k]."""
    wide = g.op("Unsqueeze", x, g.ints(1))
    return g.mul(wide, g.const(np.array(factors).reshape(1, -1, *[1] * (rank - 1))))


def waveform(factors: list[float], samples: int | str) -> onnx.ModelProto:
    g = Graph("waves")
    x = g.input("mix", ["batch", 2, samples])
    g.output(_stack(g, x, factors, 3), "stems", ["batch", len(factors), 2, samples])
    return g.model()


def hybrid() -> onnx.ModelProto:
    g = Graph("hybrid")
    mix, spectrum = g.input("mix", [1, 2, 4000]), g.input("spectrum", [1, 4, 128, 63])
    g.output(_stack(g, mix, [0.1, 0.2, 0.3], 3), "stems", [1, 3, 2, 4000])
    g.output(_stack(g, spectrum, [0.2, 0.3, 0.4], 4), "stem_spectra", [1, 3, 4, 128, 63])
    return g.model()


def complex_masks() -> onnx.ModelProto:
    g = Graph("complex")
    x = g.input("spectrum", ["batch", 4, 129, "frames"])
    nothing = _stack(g, x, [0.0, 0.0], 4)
    masks = g.add(nothing, g.const(np.array([0.25, 0.75]).reshape(1, 2, 1, 1, 1)))
    g.output(masks, "masks", ["batch", 2, 4, 129, "frames"])
    return g.model()


def magnitudes(factors: list[float], output: str, frames: int | str) -> onnx.ModelProto:
    g = Graph("magnitudes")
    x = g.input("magnitude", ["batch", 2, 129, frames])
    y = _stack(g, x, factors, 4)
    if output == "masks":
        ones = g.op("Div", y, g.op("Max", _stack(g, x, [1.0], 4), g.const(1e-9)))
        y = ones
    g.output(y, output, ["batch", len(factors), 2, 129, frames])
    return g.model()


def one_mask() -> onnx.ModelProto:
    """The mask 0.25 for the frames in the middle."""
    g = Graph("bands")
    x = g.slice(g.input("magnitude", [1, 2, 140, "frames"]), 3, 16, -16)
    masks = g.add(_stack(g, x, [0.0], 4), g.const(np.array(0.25)))
    g.output(masks, "masks", [1, 1, 2, 140, "middle"])
    return g.model()


def all_graphs() -> dict[str, onnx.ModelProto]:
    """Every test graph by its path below tests/data/graphs."""
    bag = (
        Member("first.onnx", (1.0, 0.0), (0, 1)),
        Member("second.onnx", (0.0, 1.0), (0, 1)),
    )
    mean = (Member("one.onnx", (1.0, 3.0), (0, 1)), Member("two.onnx", (1.0, 1.0), (0, 1)))
    single = (Member("drums.onnx", (1.0, 0.0), (0,)), Member("vocals.onnx", (0.0, 1.0), (1,)))
    masks = replace(MAGNITUDE, name="masks", output="masks", filter=Filter(method="mask"))
    wiener = replace(
        MAGNITUDE,
        name="wiener",
        filter=Filter(method="wiener", iterations=1, window=40),
        blocks=Blocks(frames=64, overlap=16, padded=False, whole=200),
    )
    described = {
        "waves/waves.onnx": (waveform([0.25, 0.5], 4000), WAVEFORM),
        "hybrid/hybrid.onnx": (hybrid(), HYBRID),
        "complex/complex.onnx": (complex_masks(), COMPLEX),
        "ratio/ratio.onnx": (magnitudes([1.0, 2.0], "stem_magnitudes", 32), replace(MAGNITUDE, name="ratio")),
        "masks/masks.onnx": (magnitudes([0.25, 0.5], "masks", 32), masks),
        "wiener/wiener.onnx": (magnitudes([0.6, 0.8], "stem_magnitudes", "frames"), wiener),
        "bands/bands.onnx": (one_mask(), BANDS),
        "bag/first.onnx": (waveform([0.25, 9.0], 4000), replace(WAVEFORM, name="bag", bag=bag)),
        "bag/second.onnx": (waveform([9.0, 0.5], 4000), replace(WAVEFORM, name="bag", bag=bag)),
        "mean/one.onnx": (waveform([0.2, 0.4], 4000), replace(WAVEFORM, name="mean", bag=mean)),
        "mean/two.onnx": (waveform([0.4, 0.8], 4000), replace(WAVEFORM, name="mean", bag=mean)),
        "single/drums.onnx": (waveform([0.25], 4000), replace(WAVEFORM, name="single", bag=single)),
        "single/vocals.onnx": (waveform([0.5], 4000), replace(WAVEFORM, name="single", bag=single)),
    }
    plain = {
        "plain/plain.onnx": waveform([0.25, 0.75], "samples"),
        "plain_fixed/plain_fixed.onnx": waveform([0.25, 0.75], 1000),
    }
    return {name: attach_spec(model, spec) for name, (model, spec) in described.items()} | plain


if __name__ == "__main__":
    for name, model in all_graphs().items():
        path = Path(__file__).parent / "graphs" / name
        save_model(model, path)
        stems = "drums\nbass\nvocals\n" if "hybrid" in name else "drums\nvocals\n"
        (path.parent / "stems.txt").write_text(stems)
