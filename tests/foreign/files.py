"""Files as other people's exporters write them: true tensor names, ranks and shapes, a small network of random weights.

The network is the same function in all of them (``network``), on ortsep's axes; only names and axes differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

F64 = npt.NDArray[np.float64]
TAPS = (-1, 0, 1)
"""Along the last axis: what comes before, the sample or frame itself, what comes after."""


def weights(rows: int, columns: int, seed: int) -> F64:
    """[taps, rows, columns], float32 values."""
    values = np.random.default_rng(seed).normal(size=(len(TAPS), rows, columns)) / np.sqrt(len(TAPS) * columns)
    return values.astype(np.float32).astype(np.float64)


def network(x: F64, w: F64, bias: float = 0.0) -> F64:
    """The network in float64, [B, columns, ..., T] to [B, rows, ..., T]: leaky ReLU of three taps on the last axis."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)])
    length = x.shape[-1]
    y = sum(np.einsum("rc,bc...->br...", w[k], padded[..., k : k + length]) for k in range(len(TAPS)))
    y = y + bias
    return np.where(y > 0, y, 0.1 * y)


@dataclass
class Writer:
    """A graph under construction; names count up as in a tracing exporter."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        name = name or f"/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(self, value: npt.NDArray[np.generic]) -> str:
        name = f"onnx::{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def rearranged(
        self, x: str, first: Sequence[int], order: Sequence[int], last: Sequence[int], name: str = ""
    ) -> str:
        """Reshape, transpose, reshape."""
        x = self.op("Reshape", x, self.const(np.array(first, np.int64)))
        x = self.op("Transpose", x, perm=list(order))
        return self.op("Reshape", x, self.const(np.array(last, np.int64)), name=name)

    def network(self, x: str, w: F64, rank: int, bias: float = 0.0) -> str:
        """``network`` on [B, columns, ..., T] of ``rank`` 3 or 4."""
        taps = np.moveaxis(w, 0, -1).astype(np.float32)
        pads = [0, 1, 0, 1] if rank == 4 else [1, 1]
        if rank == 4:
            taps = taps[:, :, None, :]
        shift = self.const(np.full(len(taps), bias, np.float32))
        return self.op("LeakyRelu", self.op("Conv", x, self.const(taps), shift, pads=pads), alpha=0.1)

    def save(
        self,
        path: Path,
        inputs: Mapping[str, Sequence[object]],
        outputs: Mapping[str, Sequence[object]],
        metadata: Mapping[str, str] | None = None,
        opset: int = 17,
        kind: int = TensorProto.FLOAT,
    ) -> Path:
        infos = [
            [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in tensors.items()]
            for tensors in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "main_graph", infos[0], infos[1], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        helper.set_model_props(model, dict(metadata or {}))
        onnx.save(model, str(path))
        return path


def mdx_net(path: Path, dim_f: int = 2048, dim_t: int = 256, seed: int = 1, **more: object) -> Path:
    """UVR's: ``input`` [batch, 4, dim_f, dim_t] to ``output``."""
    g = Writer()
    g.op("Identity", g.network("input", weights(4, 4, seed), 4), name="output")
    shape = ["batch_size", 4, dim_f, dim_t]
    return g.save(path, {"input": shape}, {"output": shape}, opset=13, **more)  # type: ignore[arg-type]


def spleeter(path: Path, seed: int) -> Path:
    """sherpa-onnx's: ``x`` [2, splits, 512, 1024] to ``y``; the network sees [splits, 2, 1024, 512]."""
    g = Writer()
    x = g.op("Transpose", "x", perm=[1, 0, 3, 2])
    y = g.op("Sigmoid", g.network(x, weights(2, 2, seed), 4))
    g.op("Transpose", g.op("Mul", y, x), perm=[1, 0, 3, 2], name="y")
    shape = [2, "num_splits", 512, 1024]
    metadata = {"model_type": "spleeter", "stems": "2", "sample_rate": "41000"}
    return g.save(path, {"x": shape}, {"y": shape}, metadata, opset=13)


N, F, T = 343980, 2048, 336
BIAS = 0.1
"""Of HTDemucs's network: without one, what standardises its inputs would not show."""


def demucs(path: Path, make: str, stems: int = 4, seed: int = 3) -> Path:
    """HTDemucs of one of the makes: ``sevagh``, ``openkara``, ``openvino``, ``mixxx``, ``stemsplit``."""
    g = Writer()
    mix, spectrum = {
        "sevagh": ("input", "onnx::ReduceMean_1"),
        "openkara": ("mix", "spectral"),
        "openvino": ("input.1", "input.25"),
        "mixxx": ("input", ""),
        "stemsplit": ("mix", ""),
    }[make]
    waves = g.network(mix, weights(2 * stems, 2, seed), 3, BIAS)
    if not spectrum:
        name = {"mixxx": "output", "stemsplit": "stems"}[make]
        g.op("Reshape", waves, g.const(np.array([1, stems, 2, N], np.int64)), name=name)
        declared = [1, 0, 2, N] if make == "mixxx" else [1, stems, 2, N]
        return g.save(path, {mix: [1, 2, N]}, {name: declared})
    x = g.op("Reshape", spectrum, g.const(np.array([1, 4, F, T], np.int64)))
    spectra = g.network(x, weights(4 * stems, 4, seed + 1), 4, BIAS)
    shapes: dict[str, tuple[list[object], list[object], list[object]]] = {
        "sevagh": ([1, 4, F, T], [1, stems, 4, F, T], [1, stems, 2, N]),
        "openkara": ([1, 2, 2, F, T], [1, stems, 2, 2, F, T], [1, stems, 2, N]),
        "openvino": ([1, 4, F, T], [1, 4 * stems, F, T], [1, 2 * stems, N]),
    }
    given, frequency, time = shapes[make]
    names = {"sevagh": ("output", "8311"), "openkara": ("spectral_out", "time_out"), "openvino": ("8022", "8131")}[make]
    g.op("Reshape", spectra, g.const(np.array(frequency, np.int64)), name=names[0])
    g.op("Reshape", waves, g.const(np.array(time, np.int64)), name=names[1])
    inputs = {mix: [1, 2, N], spectrum: given}
    if make != "sevagh":
        inputs = {spectrum: given, mix: [1, 2, N]}
    metadata = {"openkara.spectral_contract": "1"} if make == "openkara" else {}
    return g.save(path, inputs, {names[0]: frequency, names[1]: time}, metadata)


def roformer(path: Path, stems: int = 4, frames: int = 801, seed: int = 7) -> Path:
    """port-bs-roformer's: ``spec`` [1, 2050, T, 2], bins before channels, to ``mask`` [1, S, 2050, T, 2]."""
    g = Writer()
    x = g.rearranged("spec", (1, 1025, 2, frames, 2), (0, 2, 4, 1, 3), (1, 4, 1025, frames))
    y = g.network(x, weights(4 * stems, 4, seed) * 0.3, 4)
    y = g.op("Tanh", y)
    last = (1, stems, 2050, frames, 2)
    g.rearranged(y, (1, stems, 2, 2, 1025, frames), (0, 1, 4, 2, 5, 3), last, name="mask")
    return g.save(path, {"spec": [1, 2050, frames, 2]}, {"mask": list(last)})


def named(path: Path, names: Sequence[str], length: int | str = "N", seed: int = 9) -> Path:
    """As tutorials export: a waveform in, an output for each stem, named by it."""
    g = Writer()
    for k, name in enumerate(names):
        g.op("Identity", g.network("audio", weights(2, 2, seed + k), 3), name=name)
    shape = [1, 2, length]
    return g.save(path, {"audio": shape}, dict.fromkeys(names, shape))
