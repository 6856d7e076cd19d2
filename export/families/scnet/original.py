"""SCNet: starrytong's models, ZFTurbo's, and whatever else was trained with MSST."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch

from ortsep.export.families.scnet.architecture import Architecture, State, parameter_count, random_state
from ortsep.export.families.scnet.checkpoint import described, read_architecture
from ortsep.export.families.scnet.graph import build_graph
from ortsep.export.families.scnet.network import Network
from ortsep.export.msst import Makers, Source, SpectralNetwork, Transform
from ortsep.export.weights.msst_code import msst_module
from ortsep.models.spec import STFT, ModelSpec

ROUTES: tuple[str, ...] = ()
CONFIG = "the yaml that came with the checkpoint"
GRAPH = "scnet.onnx"


def _original(arch: Architecture, state: State, source: Source, rows: tuple[int, ...]) -> SpectralNetwork:
    parameters = parameter_count(arch)
    if len(rows) < arch.sources:
        arch, state = _narrow(arch, state, rows)
    source = replace(source, settings=replace(source.settings, chunk=arch.chunk))
    half = arch.nfft // 2
    spec = ModelSpec(
        **source.facts(rows),
        family="scnet",
        channels=arch.dims[0] // 2,
        domain="complex",
        output="stem_spectra",
        stft=STFT(
            arch.nfft,
            arch.hop_size,
            arch.bins,
            pad_left=half,
            pad_right=half,
            normalized=arch.normalized,
            extend="next-hop",
            frame_multiple=2,
            window="ones",
        ),
        parameters=parameters,
    )

    def forward(dtype: torch.dtype) -> Network:
        return Network(arch, state, dtype)

    transform = Transform(arch.nfft, arch.hop_size, arch.bins, False, arch.normalized, arch.padded)
    oracle = partial(_oracle, arch, state)
    return SpectralNetwork(spec, GRAPH, source.settings, transform, forward, partial(_build, arch, state), oracle)


def _narrow(arch: Architecture, state: State, rows: tuple[int, ...]) -> tuple[Architecture, State]:
    """Only the stems ``rows``: each has ``dims[0]`` channels of the last transposed convolutions."""
    state = dict(state)
    for b in range(len(arch.band_SR)):
        name = f"decoder.{len(arch.dims) - 2}.1.convtrs.{b}"
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        kept = weight.reshape(len(weight), arch.sources, -1, *weight.shape[2:])[:, list(rows)]
        state[f"{name}.weight"] = kept.reshape(len(weight), -1, *weight.shape[2:])
        state[f"{name}.bias"] = bias.reshape(arch.sources, -1)[list(rows)].reshape(-1)
    return replace(arch, sources=len(rows)), state


def _build(arch: Architecture, state: State, portable: bool) -> onnx.ModelProto:
    return build_graph(arch, state)  # portable as it is


def _oracle(arch: Architecture, state: State, checkout: Path) -> Any:
    """MSST's ``SCNet`` with these parameters."""
    module = msst_module(checkout, "models/scnet/__init__.py")
    own = {name: value for name, value in vars(arch).items() if name not in ("sources", "chunk")}
    network = module.SCNet(sources=list(range(arch.sources)), win_size=arch.nfft, **own)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return network.eval()


MAKERS = Makers(
    read=read_architecture,
    describe=lambda settings, _, name: described(settings, name),
    outputs=lambda arch: int(arch.sources),
    random_state=random_state,
    original=_original,
)
load, from_checkpoint = MAKERS.load, MAKERS.from_checkpoint
