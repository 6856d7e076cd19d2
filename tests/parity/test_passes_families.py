"""Every general pass, alone and together, on every family: on torch's own export of the network, and on ortsep's graph.

The passes know nothing of families. What they are given first is what somebody has who calls ``torch.onnx.export`` on
the original network (Spleeter's in torch, ``spleeter_torch``), then what ortsep's exporter makes of it.
"""

import io
import warnings
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from demucs.utils import center_trim
from spleeter_torch import unet_logits
from torch import nn

from ortsep.export.families.demucs.hdemucs import hdemucs_graph
from ortsep.export.families.demucs.htdemucs import htdemucs_graph
from ortsep.export.families.demucs.time import demucs_v3_graph
from ortsep.export.families.drums_mini.graph import DrumsMini
from ortsep.export.families.drums_mini.graph import build_graph as drums_mini_graph
from ortsep.export.families.larsnet.graph import UNet
from ortsep.export.families.larsnet.graph import build_graph as larsnet_graph
from ortsep.export.families.moises_light.architecture import Architecture, random_state
from ortsep.export.families.moises_light.graph import build_graph as moises_graph
from ortsep.export.families.moises_light.network import load_network
from ortsep.export.families.moises_light.network import masks as moises_masks
from ortsep.export.families.open_unmix.graph import Shape, random_network
from ortsep.export.families.open_unmix.graph import build_graph as open_unmix_graph
from ortsep.export.families.spleeter.graph import spleeter_graph
from ortsep.export.families.spleeter.weights import Architecture as SpleeterArchitecture
from ortsep.export.families.spleeter.weights import networks, random_variables
from ortsep.export.passes import apply, optimize, passes
from ortsep.export.weights.random_weights import randomise

pytestmark = pytest.mark.usefixtures("one_thread")

Snr = Callable[[Any, Any], float]
STEMS = ["drums", "bass", "other"]
ALONE = sorted({one.__name__ for portable in (False, True) for one in passes(portable)})
GATE = 100.0
"""dB that a rewritten graph must keep of the graph that it was made from."""
TORCH = 90.0
"""dB against the network in float64; torch's plain graphs of Demucs sum their norms flat and reach less."""


class Family(NamedTuple):
    network: nn.Module
    inputs: dict[str, np.ndarray]
    own: onnx.ModelProto


class Outside(nn.Module):
    """A hybrid Demucs on (mix, spectrum) with the STFT and its inverse left out, as a plain export needs it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        if isinstance(model, HTDemucs):
            model.crosstransformer.sin_random_shift = 0
        for name, function in {
            "_spec": lambda _, x: self.spectrum,
            "_magnitude": lambda _, z: z,
            "_mask": self._keep,
            "_ispec": lambda _, z, length: torch.zeros(()),
        }.items():
            nn.Module.__setattr__(model, name, MethodType(function, model))

    def _keep(self, _: Any, z: torch.Tensor, spectra: torch.Tensor) -> torch.Tensor:
        self.spectra = spectra
        return spectra

    def forward(self, mix: torch.Tensor, spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.spectrum = spectrum
        return self.model(mix), self.spectra


class Function(nn.Module):
    """A function of a network and a tensor as a module."""

    def __init__(self, network: Any, function: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.network, x)


def noise(*shape: int) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal(shape) * 0.3).astype(np.float32)


def built(model: Any) -> Any:
    randomise(model, 1)
    return model.eval()


def htdemucs() -> Family:
    model = built(HTDemucs(STEMS, channels=8, dconv_mode=3, t_layers=3, t_heads=4, bottom_channels=32, segment=1))
    graph = htdemucs_graph(model)
    return Family(Outside(model), {"mix": noise(1, 2, 44100), "spectrum": noise(1, 4, 2048, 44)}, graph)


def hdemucs() -> Family:
    # no LSTM: how torch frames it depends on the length, which no plain export can follow
    model = built(HDemucs(STEMS, channels=8, nfft=1024, depth=4, norm_starts=2, dconv_attn=9, dconv_lstm=9, cac=True))
    inputs = {"mix": noise(1, 2, 256 * 64), "spectrum": noise(1, 4, 512, 64)}
    return Family(Outside(model), inputs, hdemucs_graph(model, samples=256 * 64))


def demucs() -> Family:
    # nor resampling, which torch's tracer can't follow
    sizes = {"channels": 8, "depth": 4, "norm_starts": 2, "dconv_attn": 9, "dconv_lstm": 9}
    model = built(Demucs(STEMS, **sizes, lstm_layers=0, resample=False))
    samples = model.valid_length(6000)
    return Family(model, {"mix": noise(1, 2, samples)}, demucs_v3_graph(model, samples=samples))


def open_unmix() -> Family:
    network = random_network(Shape(bins=129, heard=93, channels=2, hidden=32), 5)
    return Family(network, {"magnitude": np.abs(noise(1, 2, 129, 24))}, open_unmix_graph(network, "small"))


def larsnet() -> Family:
    network = built(UNet(128))
    return Family(network, {"magnitude": np.abs(noise(1, 2, 128, 64))}, larsnet_graph(network, 64, "small"))


def moises_light() -> Family:
    sizes = {"n_fft": 256, "hop_size": 64, "freq_dim": 96, "n_bands": 3, "G": 6, "n_enc": 2, "n_dec": 1}
    arch = Architecture(**sizes, n_split_enc=2, n_rope=2, dim_head=8, heads=2)
    state = random_state(arch, 0)
    network = Function(load_network(arch, state), moises_masks)
    return Family(network, {"spectrum": noise(1, 4, 96, 12)}, moises_graph(arch, state))


def spleeter() -> Family:
    (net,) = networks(random_variables(1, 2), 1)
    arch = SpleeterArchitecture(1024, "ELU", "ELU", softmax=False)

    def stem(_: Any, magnitude: torch.Tensor) -> torch.Tensor:
        x = magnitude.swapaxes(2, 3)
        kind = np.float64 if x.dtype == torch.float64 else np.float32
        with mock.patch("spleeter_torch.double", lambda a: torch.from_numpy(np.array(a, kind))):
            return (torch.sigmoid(unet_logits(x, net, arch)) * x).swapaxes(2, 3)

    inputs = {"magnitude": np.abs(noise(1, 2, 1024, 512))}
    return Family(Function(nn.Identity(), stem), inputs, spleeter_graph("one", [net], arch).model())


def drums_mini() -> Family:
    network = built(DrumsMini())
    band = network.band
    pool = (band[None] == torch.arange(network.arch.bands)[:, None]).float()

    def masks(network: Any, magnitude: torch.Tensor) -> torch.Tensor:
        # its own pooling, an index_add, is nothing that torch can export
        power = (pool / pool.sum(1, keepdim=True)).to(magnitude.dtype) @ magnitude.square()
        return torch.softmax(network.logits(power), 1)[:, :, :, band]

    return Family(
        Function(network, masks), {"magnitude": np.abs(noise(1, 2, 1025, 24)) * 30}, drums_mini_graph(network, "small")
    )


FAMILIES = (htdemucs, hdemucs, demucs, open_unmix, larsnet, moises_light, spleeter, drums_mini)
UNTOUCHED = (larsnet,)
"""Plain exports in which no pass finds anything: this one's norms stand behind activations, and its transposed
convolutions have kernels of 5 for a stride of 2."""


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By ONNX Runtime as the file says it, without rewriting of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [t.name for t in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def trimmed(tensor: torch.Tensor, reference: Any) -> torch.Tensor:
    """``center_trim`` to a length that the tracer has made a tensor."""
    return center_trim(tensor, reference if getattr(reference, "ndim", 0) else int(reference))


@cache
def made(family: Callable[[], Family]) -> tuple[Family, onnx.ModelProto]:
    """The family's pieces and torch's plain export of its network."""
    pieces = family()
    pieces.network.eval()
    tensors = tuple(torch.from_numpy(value) for value in pieces.inputs.values())
    file = io.BytesIO()
    torch.backends.mha.set_fastpath_enabled(False)  # it has no ONNX form
    with warnings.catch_warnings(), mock.patch("demucs.demucs.center_trim", trimmed):
        warnings.simplefilter("ignore")
        kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        names = [*pieces.inputs]
        torch.onnx.export(pieces.network, tensors, file, dynamo=False, opset_version=18, input_names=names, **kept)
    return pieces, onnx.load_from_string(file.getvalue())


def graphs(family: Callable[[], Family], which: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    pieces, plain = made(family)
    return (plain if which == "plain" else pieces.own), pieces.inputs


def worst(reference: dict[str, np.ndarray], found: dict[str, np.ndarray], snr: Snr) -> float:
    return min(snr(reference[name].astype(np.float64), found[name]) for name in reference)


@cache
def untouched(family: Callable[[], Family], which: str) -> dict[str, np.ndarray]:
    return run(*graphs(family, which))


@pytest.mark.parametrize("which", ["plain", "own"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.__name__))
def test_each_pass_alone(family: Callable[[], Family], which: str, snr: Snr) -> None:
    model, inputs = graphs(family, which)
    changed = []
    for one in {one.__name__: one for portable in (False, True) for one in passes(portable)}.values():
        rewritten, places = apply(model, one)
        if places:
            changed.append(one.__name__)
            assert worst(untouched(family, which), run(rewritten, inputs), snr) > GATE, one.__name__
    assert changed or which == "own" or family in UNTOUCHED


@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
@pytest.mark.parametrize("which", ["plain", "own"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.__name__))
def test_all_passes_together(family: Callable[[], Family], which: str, portable: bool, snr: Snr) -> None:
    model, inputs = graphs(family, which)
    rewritten, reports = optimize(model, portable=portable)
    assert worst(untouched(family, which), run(rewritten, inputs), snr) > GATE
    again, _ = optimize(rewritten, portable=portable)
    assert worst(untouched(family, which), run(again, inputs), snr) > GATE
    if which == "plain" and family not in UNTOUCHED:
        assert sum(report.changed for report in reports)
        assert all(node.domain == "" for node in rewritten.graph.node) or not portable


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.__name__))
def test_the_plain_export_optimised_is_the_network(family: Callable[[], Family], snr: Snr) -> None:
    pieces, plain = made(family)
    found = run(optimize(plain)[0], pieces.inputs)
    pieces.network.double()
    try:
        with torch.no_grad():
            result = pieces.network(*(torch.from_numpy(value).double() for value in pieces.inputs.values()))
    finally:
        pieces.network.float()
    wanted = result if isinstance(result, tuple) else (result,)
    for reference, value in zip(wanted, found.values(), strict=True):
        assert snr(reference.numpy(), value) > TORCH
