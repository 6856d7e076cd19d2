"""MDX23C: InstVoc HQ, DrumSep, De-Reverb, Phantom Centre, and whatever else was trained with MSST or UVR's code."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import torch

from ortsep.export.families.mdx23c.architecture import Architecture, State, parameter_count, random_state
from ortsep.export.families.mdx23c.checkpoint import described, read_architecture
from ortsep.export.families.mdx23c.graph import build_graph
from ortsep.export.families.mdx23c.network import Network
from ortsep.export.msst import Makers, Source, SpectralNetwork, Transform
from ortsep.export.weights.msst_code import msst_module
from ortsep.models.spec import STFT, ModelSpec

ROUTES: tuple[str, ...] = ()
CONFIG = "the yaml that came with the checkpoint"
GRAPH = "mdx23c.onnx"


def _original(arch: Architecture, state: State, source: Source, rows: tuple[int, ...]) -> SpectralNetwork:
    last = "final_conv.2.weight"
    if len(rows) < arch.outputs:
        kept = state[last].reshape(arch.outputs, arch.inputs, *state[last].shape[1:])[list(rows)]
        state = {**state, last: kept.reshape(-1, *kept.shape[2:])}
        arch = replace(arch, outputs=len(rows))
    source = replace(source, settings=replace(source.settings, chunk=arch.chunk))
    half = arch.n_fft // 2
    spec = ModelSpec(
        **source.facts(rows),
        family="mdx23c",
        channels=arch.audio_channels,
        domain="complex",
        output="stem_spectra",
        stft=STFT(arch.n_fft, arch.hop, arch.dim_f, pad_left=half, pad_right=half),
        bandwidth=arch.dim_f * arch.sample_rate / arch.n_fft if arch.dim_f < half else None,
        parameters=parameter_count(arch),
    )

    def forward(dtype: torch.dtype) -> Network:
        return Network(arch, state, dtype)

    transform = Transform(arch.n_fft, arch.hop, arch.dim_f)
    oracle = partial(_oracle, arch, state)
    return SpectralNetwork(spec, GRAPH, source.settings, transform, forward, partial(_build, arch, state), oracle)


def _build(arch: Architecture, state: State, portable: bool) -> onnx.ModelProto:
    return build_graph(arch, state)  # portable as it is


def _oracle(arch: Architecture, state: State, checkout: Path) -> Any:
    """MSST's ``TFC_TDF_net`` with these parameters."""
    utils = SimpleNamespace(prefer_target_instrument=lambda config: config.training.instruments)
    module = msst_module(
        checkout, "models/mdx23c_tfc_tdf_v3.py", {"utils": SimpleNamespace(), "utils.model_utils": utils}
    )
    names = ("norm", "act", "num_subbands", "num_scales", "scale", "num_channels", "growth", "num_blocks_per_scale")
    model = {name: getattr(arch, name) for name in (*names, "bottleneck_factor")}
    audio = {"n_fft": arch.n_fft, "hop_length": arch.hop, "dim_f": arch.dim_f, "num_channels": arch.audio_channels}
    config = SimpleNamespace(
        model=SimpleNamespace(**model),
        audio=SimpleNamespace(**audio),
        training=SimpleNamespace(instruments=range(arch.outputs)),
    )
    network = module.TFC_TDF_net(config)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
    return network.eval()


MAKERS = Makers(
    read=read_architecture,
    describe=described,
    outputs=lambda arch: int(arch.outputs),
    random_state=random_state,
    original=_original,
)
load, from_checkpoint = MAKERS.load, MAKERS.from_checkpoint
