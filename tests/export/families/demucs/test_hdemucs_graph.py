"""Graphs of small Demucs v3 networks, hybrid and in the time domain, against the networks in float64."""

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs

from ortsep.base.errors import WeightsError
from ortsep.export.families.demucs.hdemucs import hdemucs_graph
from ortsep.export.families.demucs.time import demucs_v3_graph
from ortsep.export.weights.random_weights import randomise

pytestmark = pytest.mark.usefixtures("one_thread")

STEMS = ["drums", "bass", "vocals"]
HYBRID = {"channels": 8, "nfft": 1024, "depth": 5, "norm_starts": 3, "dconv_attn": 3, "dconv_lstm": 3}
TIME = {"channels": 8, "depth": 5, "norm_starts": 3, "dconv_attn": 3, "dconv_lstm": 3}
HOP = 256


def network(kind: Any, **arguments: Any) -> Any:
    model = kind(STEMS, **arguments)
    randomise(model, 1)
    return model.eval()


def run(model: Any, graph: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    names = [t.name for t in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def hybrid_inputs(samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(samples)
    mix = 0.3 * rng.standard_normal((1, 2, samples)) + 0.05
    spectrum = rng.standard_normal((1, 4, 512, math.ceil(samples / HOP)))
    return {"mix": mix.astype(np.float32), "spectrum": spectrum.astype(np.float32)}


def hybrid_reference(model: Any, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The network's own forward in float64, with its STFT taken from the inputs and its inverse left out."""
    model = model.double()
    b, c, f, t = inputs["spectrum"].shape
    parts = torch.from_numpy(inputs["spectrum"]).double().view(b, c // 2, 2, f, t)
    held: list[torch.Tensor] = []
    model._spec = lambda _: torch.complex(parts[:, :, 0], parts[:, :, 1])
    model._ispec = lambda z, _: held.append(z) or torch.zeros(())
    with torch.no_grad():
        stems = model(torch.from_numpy(inputs["mix"]).double())
    channels = torch.stack([held[0].real, held[0].imag], dim=3)
    return stems.numpy(), channels.flatten(2, 3).numpy()


@pytest.mark.parametrize("samples", [1, 300, HOP * 200, HOP * 200 + 1, HOP * 300 - 3])
def test_a_hybrid_graph_takes_any_length(samples: int, snr: Any) -> None:
    """Beyond 200 frames the LSTMs work on frames that overlap."""
    model = network(HDemucs, **HYBRID)
    inputs = hybrid_inputs(samples)
    outputs = run(model, hdemucs_graph(model, samples=samples), inputs)
    stems, spectra = hybrid_reference(model, inputs)
    assert snr(stems, outputs["stems"]) > 110
    assert snr(spectra, outputs["stem_spectra"]) > 110


@pytest.mark.parametrize(
    "arguments",
    [
        {"norm_starts": 999},
        {"norm_starts": 1},
        {"multi_freqs": [0.25, 0.5]},
        {"multi_freqs": [0.3], "multi_freqs_depth": 1, "cac": False},
        {"dconv_mode": 3, "rewrite": False},
        {"dconv_lstm": 2, "dconv_attn": 2, "dconv_mode": 2},
        {"context": 2, "context_enc": 1, "channels_time": 12, "time_stride": 4},
        {"freq_emb": 0, "emb_smooth": False, "dconv_lstm": 9, "norm_groups": 1},
    ],
    ids=lambda arguments: ",".join(arguments),
)
def test_the_hybrid_networks_of_other_arguments(arguments: dict[str, Any], snr: Any) -> None:
    model = network(HDemucs, **{**HYBRID, **arguments})
    inputs = hybrid_inputs(HOP * 30 + 11)
    outputs = run(model, hdemucs_graph(model, samples=HOP * 300), inputs)
    stems, spectra = hybrid_reference(model, inputs)
    assert snr(stems, outputs["stems"]) > 110
    assert snr(spectra, outputs["stem_spectra"]) > 110


def test_amplitudes_take_the_phase_of_the_mixture_and_none_of_silence(snr: Any) -> None:
    model = network(HDemucs, **HYBRID, cac=False, hybrid_old=True)
    inputs = hybrid_inputs(HOP * 20)
    inputs["spectrum"][..., 7:9] = 0
    outputs = run(model, hdemucs_graph(model, samples=HOP * 20), inputs)
    stems, spectra = hybrid_reference(model, inputs)
    assert snr(stems, outputs["stems"]) > 110
    assert not outputs["stem_spectra"][..., [0, 1, -2, -1]].any()  # the frames of zeros of hybrid_old
    given = outputs["stem_spectra"][..., 2:-2]
    assert snr(spectra, given) > 110
    silent = given[0, :, :, :, 7:9]
    assert silent[:, 0::2].any() and not silent[:, 1::2].any()


def test_hybrid_networks_that_are_not_covered() -> None:
    for odd in ({"hybrid": False}, {"cac": False, "wiener_iters": 1, "end_iters": 1}, {"depth": 3}):
        with pytest.raises(WeightsError, match="exporter doesn't cover"):
            hdemucs_graph(HDemucs(STEMS, **{**HYBRID, **odd}), samples=1000)


@pytest.mark.parametrize("samples", [1, 512 * 110])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rewrite": False, "dconv_mode": 3},
        {"lstm_layers": 2, "dconv_mode": 0, "gelu": False, "norm_starts": 9, "normalize": False},
        {"glu": False, "resample": False, "norm_starts": 2, "dconv_lstm": 9},
    ],
    ids=["v3", "no rewrite", "v2", "others"],
)
def test_a_time_domain_graph_takes_any_valid_length(arguments: dict[str, Any], samples: int, snr: Any) -> None:
    model = network(Demucs, **{**TIME, **arguments})
    samples = model.valid_length(samples)
    mix = (0.3 * np.random.default_rng(samples).standard_normal((1, 2, samples)) + 0.05).astype(np.float32)
    outputs = run(model, demucs_v3_graph(model, samples=samples), {"mix": mix})
    with torch.no_grad():
        reference = model.double()(torch.from_numpy(mix).double())
    assert snr(reference, outputs["stems"]) > 110


def test_a_long_wave_is_summed_in_steps(snr: Any) -> None:
    """An offset beside which the signal is small: flat sums in float32 would be far off."""
    model = network(HDemucs, channels=4, nfft=1024, depth=5, dconv_lstm=9, dconv_attn=9, dconv_comp=2)
    inputs = hybrid_inputs(HOP * 1200)
    inputs["mix"] += 3
    outputs = run(model, hdemucs_graph(model, samples=HOP * 1200), inputs)
    stems, _ = hybrid_reference(model, inputs)
    assert snr(stems, outputs["stems"]) > 105
