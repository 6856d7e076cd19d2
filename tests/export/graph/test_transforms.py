"""The transforms of a graph against the runtime's, which are equal to torch's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from ortsep.base.errors import ModelError
from ortsep.engine.stft import istft, stft
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.files import save_model
from ortsep.export.graph.transforms import factors, istft_nodes, stft_nodes
from ortsep.graphs.session import Session
from ortsep.models.spec import STFT

Snr = Callable[[Any, Any], float]
DEMUCS = STFT(4096, 1024, 2048, 1536, 1536, "reflect", True, True, "constant")
SPECS = {
    "htdemucs": (DEMUCS, 343_980),
    "mdx-net": (STFT(7680, 1024, 3072, 3840, 3840, zero_before=3), 1024 * 63),
    "bass": (STFT(16384, 1024, 2048, 8192, 8192), 1024 * 31),
    "roformer": (STFT(2048, 441, 1025, 1024, 1024, zero_after=1), 441 * 100),
    "spleeter": (STFT(4096, 1024, 1024, 4096, 3072, "zero", partial=True, envelope="constant"), 50_001),
    "umx": (STFT(4096, 1024, 2049, 2048, 2048), 50_001),
    "moises": (STFT(6144, 1024, 2048, 3072, 3072, normalized=True, extend="next-hop", frame_multiple=8), 60_000),
    "larsnet": (STFT(4096, 1024, 2048, 2048, 2048, extend="hop"), 60_000),
}


@pytest.mark.parametrize("name", SPECS)
def test_as_the_runtime_transforms(tmp_path: Path, snr: Snr, name: str) -> None:
    spec, samples = SPECS[name]
    x = np.random.default_rng(0).normal(size=(2, samples)).astype(np.float32) * 0.1
    z = stft(spec, x.astype(np.float64))[:, : spec.bins]
    z[:, : spec.zero_before] = 0
    g = Graph(name)
    real, imag = stft_nodes(g, g.input("x", (2, samples)), spec, 2, samples)
    for part, label in ((real, "re"), (imag, "im")):
        g.output(g.op("Identity", part), label, z.shape)
    save_model(g.model(), tmp_path / "there.onnx")
    re, im = Session(tmp_path / "there.onnx", provider="cpu").run({"x": x})
    assert snr(z, re + 1j * im) >= 120

    frames = z.shape[-1]
    g = Graph(name)
    wave = istft_nodes(g, g.input("re", z.shape), g.input("im", z.shape), spec, 2, frames, samples)
    g.output(g.op("Identity", wave), "wave", (2, samples))
    save_model(g.model(), tmp_path / "back.onnx")
    (back,) = Session(tmp_path / "back.onnx", provider="cpu").run({"re": re, "im": im})
    heard = z.copy()
    heard[:, : spec.zero_after] = 0
    assert snr(istft(spec, heard, samples), back) >= 120


def test_sizes_and_what_is_too_short() -> None:
    assert [factors(n) for n in (4096, 7680, 6144, 2048, 7)] == [(64, 64), (80, 96), (64, 96), (32, 64), (1, 7)]
    g = Graph("short")
    with pytest.raises(ModelError, match="too short"):
        stft_nodes(g, g.input("x", (2, 100)), DEMUCS, 2, 100)
