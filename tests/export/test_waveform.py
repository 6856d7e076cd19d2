"""Models as one graph of waveforms, equal to what the runtime does with one chunk, for each domain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from foreign.files import F64, weights

from ortsep.base.errors import ModelError
from ortsep.export.family import Original
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.waveform import waveform_samples, waveform_spec
from ortsep.export.waveform import GATE, write_waveform
from ortsep.graphs.model import load_model
from ortsep.models.spec import STFT, Blocks, Chunks, Derived, Filter, Member, ModelSpec, Normalization
from ortsep.separator import Separator

BINS, FRAMES, HOP = 129, 32, 64
CENTRED = STFT(256, HOP, BINS, 128, 128, zero_before=2)
LENGTH = HOP * (FRAMES - 1)
Snr = Callable[[Any, Any], float]


def spec(**changes: Any) -> ModelSpec:
    common: dict[str, Any] = {
        "name": "small",
        "family": "test",
        "stems": ("a", "b"),
        "sample_rate": 8000,
        "channels": 2,
        "domain": "complex",
        "output": "stem_spectra",
        "stft": CENTRED,
        "chunks": Chunks(LENGTH),
    }
    return ModelSpec(**{**common, **changes})


def network(g: Graph, x: str, w: F64, shape: tuple[int, ...], kind: str = "LeakyRelu") -> str:
    """Leaky ReLU of three taps along the last axis, in the given shape."""
    taps = np.moveaxis(w, 0, -1)
    y = g.conv(x, taps[:, :, None] if len(shape) == 5 else taps, pads=(0, 1, 0, 1) if len(shape) == 5 else (1, 1))
    return g.reshape(g.op(kind, y), *shape)


def spectral(stems: int, output: str, seed: int, kind: str = "LeakyRelu") -> onnx.ModelProto:
    g = Graph("spectral")
    x = g.input("spectrum", (1, 4, BINS, FRAMES))
    shape = (1, stems, 4, BINS, FRAMES)
    g.output(network(g, x, weights(4 * stems, 4, seed), shape, kind), output, shape)
    return g.model()


def hybrid(stems: int, seed: int) -> onnx.ModelProto:
    g = Graph("hybrid")
    mix, x = g.input("mix", (1, 2, LENGTH)), g.input("spectrum", (1, 4, BINS, FRAMES))
    for value, w, name, shape in (
        (mix, weights(2 * stems, 2, seed), "stems", (1, stems, 2, LENGTH)),
        (x, weights(4 * stems, 4, seed), "stem_spectra", (1, stems, 4, BINS, FRAMES)),
    ):
        g.output(network(g, value, w, shape), name, shape)
    return g.model()


def estimates(stems: int, output: str, seed: int) -> onnx.ModelProto:
    g = Graph("magnitude")
    x = g.input("magnitude", ("B", 2, BINS, FRAMES))
    y = g.op("Sigmoid", g.conv(x, np.moveaxis(weights(2 * stems, 2, seed), 0, -1)[:, :, None], pads=(0, 1, 0, 1)))
    g.output(g.reshape(y, 0, stems, 2, BINS, FRAMES), output, ("B", stems, 2, BINS, FRAMES))
    return g.model()


def waves(stems: int, seed: int) -> onnx.ModelProto:
    g = Graph("waves")
    shape = (1, stems, 2, LENGTH)
    g.output(network(g, g.input("mix", (1, 2, LENGTH)), weights(2 * stems, 2, seed), shape), "stems", shape)
    return g.model()


class Fixed(Original):
    """An original that is its graphs and nothing else."""

    def __init__(self, spec: ModelSpec, *graphs: onnx.ModelProto) -> None:
        self.spec = spec
        self._graphs = graphs

    def graphs(self, portable: bool = False) -> Any:
        names = [member.file for member in self.spec.bag] or ["small.onnx"]
        yield from zip(names, self._graphs, strict=True)

    transform = inverse = network = example = separate = baseline = lambda *_: None  # type: ignore[assignment]


BAG = (Member("one.onnx", (1.0, 0.5), (0, 1)), Member("two.onnx", (0.0, 0.25), (0, 1)))
PAIR = (Member("a.onnx", (1.0, 0.0), (0,)), Member("b.onnx", (0.0, 1.0), (1,)))
TRACK = Normalization("track")
CASES: dict[str, tuple[ModelSpec, tuple[onnx.ModelProto, ...]]] = {
    "complex": (spec(), (spectral(2, "stem_spectra", 1),)),
    "spectrum": (spec(normalization=Normalization("spectrum", 1e-5)), (spectral(2, "stem_spectra", 1),)),
    "part masks": (spec(output="part_masks"), (spectral(2, "masks", 2, "Tanh"),)),
    "hybrid": (spec(domain="hybrid", output="hybrid", normalization=TRACK), (hybrid(2, 3),)),
    "bag": (spec(domain="hybrid", output="hybrid", normalization=TRACK, bag=BAG), (hybrid(2, 4), hybrid(2, 5))),
    "waveform": (spec(domain="waveform", output="stems", stft=None), (waves(2, 6),)),
    "ratio": (
        spec(
            domain="magnitude",
            output="stem_magnitudes",
            chunks=None,
            blocks=Blocks(FRAMES),
            filter=Filter("ratio"),
            bag=PAIR,
        ),
        (estimates(1, "stem_magnitudes", 7), estimates(1, "stem_magnitudes", 8)),
    ),
    "mask": (
        spec(domain="magnitude", output="masks", chunks=None, blocks=Blocks(FRAMES), filter=Filter("mask")),
        (estimates(2, "masks", 9),),
    ),
    "masks": (spec(output="masks"), (spectral(2, "masks", 10, "Tanh"),)),
    "gain and rest": (
        spec(stems=("a",), gains=(1.03,), derived=(Derived("b", ("a",)),)),
        (spectral(1, "stem_spectra", 11),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_one_chunk_of_the_runtime(tmp_path: Path, snr: Snr, name: str) -> None:
    given, graphs = CASES[name]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.onnx").write_bytes(b"of an earlier model")
    _, made = write_waveform(Fixed(given, *graphs), tmp_path / "out")
    assert made.validation[0].db >= GATE
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["demucs.onnx", "stems.txt"]
    model = load_model(tmp_path / "out")
    assert model.spec.domain == "waveform" and model.stems == given.names
    stems = Separator(tmp_path / "out", provider="cpu").separate(np.ones((2, 3 * LENGTH), np.float32) * 0.1, 8000)
    assert all(np.isfinite(stem).all() for stem in stems.values())


def test_a_filter_that_is_no_graph(tmp_path: Path) -> None:
    given = spec(
        domain="magnitude",
        output="stem_magnitudes",
        chunks=None,
        blocks=Blocks(FRAMES),
        filter=Filter("wiener", iterations=1),
    )
    with pytest.raises(ModelError, match="filters its stems in a way that no graph here holds"):
        write_waveform(Fixed(given, estimates(2, "stem_magnitudes", 1)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lengths() -> None:
    blocks = spec(domain="magnitude", output="masks", chunks=None, blocks=Blocks(FRAMES), filter=Filter("mask"))
    assert waveform_samples(blocks) == FRAMES * HOP - 1
    assert waveform_spec(spec(derived=(Derived("rest", ("a",)),))).stems == ("a", "b", "rest")
