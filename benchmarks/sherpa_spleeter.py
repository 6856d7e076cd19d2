"""Spleeter's two stems in sherpa-onnx, for ``run_all.py --models spleeter:2stems/sherpa-onnx``.

The same seeded random weights as ortsep exports, in the graphs that sherpa-onnx's own exporter makes
(k2-fsa/sherpa-onnx, scripts/spleeter: export_onnx.py and unet.py, operator for operator as torch.onnx writes that
module at opset 13), and a worker that separates one song with them, file to files. sherpa-onnx is given the zeros that
Spleeter itself puts around a song, and which it leaves out: what both write can then be compared sample by sample.
"""

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ortsep.base import memory
from ortsep.base.errors import MissingDependency
from ortsep.export.exporter import choose_weights
from ortsep.export.families.spleeter.original import Spleeter
from ortsep.export.families.spleeter.reference import HOP, N_FFT
from ortsep.export.families.spleeter.weights import EPSILON, FRAMES, Conv, Norm, UNet, networks
from ortsep.export.family import load_original
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.files import save_model
from ortsep.models.catalogue import find_card

STEMS = ("vocals", "accompaniment")
OPSET = 13
"""Of torch.onnx.export in sherpa-onnx's scripts/spleeter/export_onnx.py."""
METADATA = {"model_type": "spleeter", "sample_rate": "41000", "version": "1", "stems": "2"}
"""What sherpa-onnx reads and writes; it runs at 44100 Hz whatever the rate here says."""


def sherpa_graph(net: UNet) -> onnx.ModelProto:
    """One stem's network in sherpa-onnx's contract: ``x`` to ``y``, magnitudes [2, blocks, 512, 1024] both."""
    g = Graph("spleeter", OPSET)
    shape = [2, "num_splits", FRAMES, 1024]
    x = g.transpose(g.input("x", shape), 1, 0, 2, 3)

    def kernel(conv: Conv) -> Any:
        return np.ascontiguousarray(conv.kernel.transpose(3, 2, 0, 1))

    def norm(y: str, by: Norm) -> str:
        vectors = (by.gamma, by.beta, by.mean, by.variance)
        return g.op("BatchNormalization", y, *map(g.const, vectors), epsilon=EPSILON)

    skips, y = [], x
    for i, conv in enumerate(net.down):
        y = g.op("Pad", y, g.ints(0, 0, 1, 1, 0, 0, 2, 2), g.const(0.0), mode="constant")
        skips.append(g.conv(y, kernel(conv), conv.bias, stride=[2, 2]))
        if i < len(net.down_norms):
            y = g.op("LeakyRelu", norm(skips[-1], net.down_norms[i]), alpha=0.2)
    y = skips.pop()
    for conv, by in zip(net.up, net.up_norms, strict=True):
        y = g.conv_transpose(y, kernel(conv), conv.bias, stride=[2, 2])
        y = norm(g.op("Relu", g.slice(g.slice(y, 2, 1, -2), 3, 1, -2)), by)
        if skips:
            y = g.concat([skips.pop(), y], 1)
    y = g.op("Sigmoid", g.conv(y, kernel(net.mask), net.mask.bias, pads=[3] * 4, dilation=[2, 2]))
    g.output(g.transpose(g.mul(y, x), 1, 0, 2, 3), "y", shape)
    model = g.model()
    for key, value in METADATA.items():
        model.metadata_props.add(key=key, value=value)
    return model


def write_graphs(folder: Path) -> None:
    """``vocals.onnx`` and ``accompaniment.onnx`` for sherpa-onnx, with the weights of ``--weights random``."""
    original = load_original(find_card("spleeter:2stems"), choose_weights("random"))
    assert isinstance(original, Spleeter)
    for stem, net in zip(STEMS, networks(original.variables, len(STEMS)), strict=True):
        save_model(sherpa_graph(net), folder / f"{stem}.onnx")


def worker(graphs: Path, song: Path, output: Path, threads: int) -> None:
    """Separate one file with sherpa-onnx and print what it took."""
    import sherpa_onnx
    import soundfile

    files = sherpa_onnx.OfflineSourceSeparationSpleeterModelConfig(*(str(graphs / f"{stem}.onnx") for stem in STEMS))
    model = sherpa_onnx.OfflineSourceSeparationModelConfig(spleeter=files, num_threads=threads)
    separation = sherpa_onnx.OfflineSourceSeparation(sherpa_onnx.OfflineSourceSeparationConfig(model=model))
    ready, began = time.time(), time.perf_counter()
    mix, rate = soundfile.read(song, dtype="float32", always_2d=True)
    frames = -(-(len(mix) + N_FFT) // HOP)
    padded = np.zeros((mix.shape[1], (frames - 1) * HOP + N_FFT), np.float32)
    padded[:, N_FFT : N_FFT + len(mix)] = mix.T
    made = separation.process(sample_rate=rate, samples=padded)
    output.mkdir(parents=True, exist_ok=True)
    for stem, channels in zip(STEMS, made.stems, strict=True):
        wave = np.asarray(channels.data)[:, N_FFT : N_FFT + len(mix)]
        soundfile.write(output / f"{stem}.wav", wave.T, rate, subtype="FLOAT")
    took = time.perf_counter() - began
    print(json.dumps({"ready": ready, "seconds": took, "backend": "sherpa-onnx", "peak_mb": memory.peak() / 1e6}))


def prepare(folder: Path, song: Path, output: Path, threads: int) -> list[str]:
    """Write the graphs into ``folder``; what then runs ``worker`` in a fresh process.

    Raises MissingDependency where sherpa-onnx is not installed.
    """
    if find_spec("sherpa_onnx") is None:
        raise MissingDependency("sherpa-onnx is not installed; pip install 'ortsep[bench]'")
    subprocess.run([sys.executable, __file__, "--write", str(folder)], check=True)
    return [sys.executable, __file__, "--worker", str(folder), str(song), str(output), str(threads)]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write", folder]:
            write_graphs(Path(folder))
        case ["--worker", graphs, song, output, threads]:
            worker(Path(graphs), Path(song), Path(output), int(threads))
