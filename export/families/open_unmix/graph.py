"""The Open-Unmix network: in torch as the reference, and as an ONNX graph (open-unmix 1.3, ``openunmix.model``).

Per frame: bins up to a limit -> Linear -> BatchNorm -> tanh -> LSTM (three layers, both directions), beside itself ->
Linear -> BatchNorm -> ReLU -> Linear -> BatchNorm -> a mask for every bin (ReLU) times the input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from ortsep.base.arrays import F64
from ortsep.base.errors import WeightsError
from ortsep.export.graph.algebra import affine_in, lstm_weights
from ortsep.export.graph.builder import Graph
from ortsep.models.spec import Part, State

ENCODED = "encoded"
"""The tensor [T, B, hidden] that the LSTMs hear."""
LEFTOVERS = ("sample_rate", "stft.window", "transform.0.window")
"""Buffers of older releases that the published checkpoints still carry and the network no longer has."""


@dataclass(frozen=True)
class Shape:
    """The network's dimensions: ``bins`` in and out, of which it listens to the first ``heard``."""

    bins: int
    heard: int
    channels: int
    hidden: int
    layers: int = 3
    bidirectional: bool = True

    @property
    def cells(self) -> int:
        """LSTM units in one direction."""
        return self.hidden // 2 if self.bidirectional else self.hidden


def shape_of(state: Mapping[str, Any], where: str) -> Shape:
    """The dimensions that a state dict implies. Raises WeightsError where it is not one of Open-Unmix."""
    try:
        heard, bins = len(state["input_mean"]), len(state["output_mean"])
        hidden, inputs = state["fc1.weight"].shape
        layers = sum(f"lstm.weight_hh_l{k}" in state for k in range(64))
        shape = Shape(bins, heard, inputs // heard, hidden, layers, "lstm.weight_hh_l0_reverse" in state)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{where} is not an Open-Unmix checkpoint (looking for {error}); give <target>.pth as openunmix saves it"
        ) from error
    if not (heard <= bins and 1 <= shape.channels <= 64 and layers):
        raise WeightsError(f"{where} has dimensions that no Open-Unmix network has ({shape}); check the file")
    return shape


class Network(nn.Module):
    """One target's network, with the parameter names of ``openunmix.model.OpenUnmix``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.fc1 = nn.Linear(shape.heard * shape.channels, shape.hidden, bias=False)
        self.bn1 = nn.BatchNorm1d(shape.hidden)
        self.lstm = nn.LSTM(shape.hidden, shape.cells, shape.layers, bidirectional=shape.bidirectional)
        self.fc2 = nn.Linear(2 * shape.hidden, shape.hidden, bias=False)
        self.bn2 = nn.BatchNorm1d(shape.hidden)
        self.fc3 = nn.Linear(shape.hidden, shape.bins * shape.channels, bias=False)
        self.bn3 = nn.BatchNorm1d(shape.bins * shape.channels)
        self.input_mean = nn.Parameter(torch.zeros(shape.heard))
        self.input_scale = nn.Parameter(torch.ones(shape.heard))
        self.output_mean = nn.Parameter(torch.ones(shape.bins))
        self.output_scale = nn.Parameter(torch.ones(shape.bins))
        self.eval()

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """[B, C, F, T] -> [B, C, F, T], the target's magnitude."""
        batch, channels, bins, frames = magnitude.shape
        x = magnitude.permute(3, 0, 1, 2)[..., : self.shape.heard]
        x = ((x + self.input_mean) * self.input_scale).reshape(frames * batch, -1)
        x = torch.tanh(self.bn1(self.fc1(x))).reshape(frames, batch, -1)
        x = torch.cat([x, self.lstm(x)[0]], -1).reshape(frames * batch, -1)
        x = self.bn3(self.fc3(torch.relu(self.bn2(self.fc2(x)))))
        mask = torch.relu(x.reshape(frames, batch, channels, bins) * self.output_scale + self.output_mean)
        return mask.permute(1, 2, 3, 0) * magnitude


def load_network(state: Mapping[str, Any], where: str) -> Network:
    """The network of a state dict, in float32. Raises WeightsError for one that does not fit or is not finite."""
    state = {name: value for name, value in state.items() if name not in LEFTOVERS}
    network = Network(shape_of(state, where))
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{where} does not fit the Open-Unmix network ({reason}); check the file") from error
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{where} has values in {name} that are not finite; take an earlier checkpoint")
    return network


def random_network(shape: Shape, seed: int) -> Network:
    """A network whose every parameter is drawn from ``seed`` and large enough to matter, its masks about 0 to 1."""
    network = Network(shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            if value.ndim == 2:
                drawn = torch.randn(value.shape, generator=generator) * (2.0 / value.shape[1]) ** 0.5
            elif name.endswith((".running_mean", ".bias")) or name.startswith("lstm.bias"):
                drawn = torch.randn(value.shape, generator=generator) * 0.2
            else:
                drawn = 0.3 + 0.4 * torch.rand(value.shape, generator=generator)
            value.copy_(-drawn if name == "input_mean" else drawn)
    return network


def parameter_count(network: Network) -> int:
    """Learned parameters, without the normalisations' running statistics."""
    return sum(p.numel() for p in network.parameters())


@dataclass(frozen=True)
class _Way:
    """One direction of one LSTM layer: its name, which is that of the tensor it gives, and its states."""

    name: str
    backward: bool

    @property
    def given(self) -> tuple[str, str]:
        return f"{self.name}.hidden", f"{self.name}.cell"

    @property
    def left(self) -> tuple[str, str]:
        return f"{self.name}.hidden.left", f"{self.name}.cell.left"


def _ways(shape: Shape, layer: int) -> list[_Way]:
    names = ("forward", "backward") if shape.bidirectional else ("forward",)
    return [_Way(f"lstm{layer}.{name}", name == "backward") for name in names]


def parts_of(shape: Shape) -> tuple[Part, ...]:
    """Where ``build_graph``'s graph is cut: encoder, each way through each LSTM layer, decoder. For batches of one."""
    parts = [Part(("magnitude",), ENCODED)]
    heard: tuple[str, ...] = (ENCODED,)
    for layer in range(shape.layers):
        ways = _ways(shape, layer)
        for way in ways:
            size = (1, 1, shape.cells)
            states = tuple(State(given, left, size) for given, left in zip(way.given, way.left, strict=True))
            parts.append(Part(heard, way.name, states, "backward" if way.backward else "forward"))
        heard = tuple(way.name for way in ways)
    return (*parts, Part(("magnitude", ENCODED, *heard), "stem_magnitudes"))


def _one_way(g: Graph, x: str, silence: Sequence[str], way: _Way, cells: int, weights: Sequence[F64]) -> str:
    """One direction of an LSTM layer, [T, B, I] to [T, B, H], of W, R and B; its states begin as ``silence``, zeros and
    the shape [1, B, H]. A node for each direction: the two can then go through the song on their own."""
    g.scope(way.name)
    states = (g.named(g.op("Expand", *silence), name) for name in way.given)
    direction = "reverse" if way.backward else "forward"
    constants = (g.const(each[None]) for each in weights)
    outputs = g.ops("LSTM", x, *constants, "", *states, outputs=3, hidden_size=cells, direction=direction)
    for output, name in zip(outputs[1:], way.left, strict=True):
        g.named(output, name)
    return g.named(g.op("Squeeze", outputs[0], g.ints(1)), way.name)


def build_graph(network: Network, name: str) -> onnx.ModelProto:
    """``magnitude`` [B, C, F, T] -> ``stem_magnitudes`` [B, 1, C, F, T] of one target, B and T free.

    Normalisations and scales are folded into the linear layers in float64. The first wide matrix works on [B, C F, T]
    as it lies in memory, and the narrow hidden states are transposed for the LSTM, which wants [T, B, H]. The last one
    stands on the right, where ONNX Runtime packs it once: with what turning its answer costs, that takes three quarters
    of the time of a product from the left.
    """
    shape = network.shape
    state = {k: v.double().numpy() for k, v in network.state_dict().items()}
    c, f = shape.channels, shape.bins
    g = Graph(name)
    mix = g.input("magnitude", ["batch", c, f, "frames"])

    gain, shift = affine_in(state, "bn1")
    mean, scale = (np.tile(state[k], c) for k in ("input_mean", "input_scale"))
    weight = state["fc1.weight"] * scale
    x = g.scope("encoder").reshape(g.slice(mix, 2, 0, shape.heard), 0, c * shape.heard, -1)
    x = g.op("MatMul", g.const(gain[:, None] * weight), x)
    x = g.op("Tanh", g.add(x, g.const((gain * (weight @ mean) + shift)[:, None])))
    x = y = g.named(g.transpose(x, 2, 0, 1), ENCODED)

    batch = g.slice(g.op("Shape", x), 0, 1, 2)
    silence = g.const(np.zeros((1, 1, shape.cells))), g.concat([g.ints(1), batch, g.ints(shape.cells)], 0)
    for layer in range(shape.layers):
        weights = list(zip(*lstm_weights(state, layer, shape.bidirectional), strict=True))
        ways = [
            _one_way(g, y, silence, way, shape.cells, w) for way, w in zip(_ways(shape, layer), weights, strict=True)
        ]
        y = g.concat(ways, 2) if len(ways) > 1 else ways[0]

    gain, shift = affine_in(state, "bn2")
    x = g.scope("decoder").linear(g.concat([x, y], 2), gain[:, None] * state["fc2.weight"], shift)
    x = g.op("Relu", x)
    gain, shift = affine_in(state, "bn3")
    mean, scale = (np.tile(state[k], c) for k in ("output_mean", "output_scale"))
    x = g.op("Relu", g.linear(x, (gain * scale)[:, None] * state["fc3.weight"], shift * scale + mean))
    x = g.transpose(g.reshape(x, 0, 0, 1, c, f), 1, 2, 3, 4, 0)
    x = g.mul(x, g.op("Unsqueeze", mix, g.ints(1)))
    g.output(x, "stem_magnitudes", ["batch", 1, c, f, "frames"])
    return g.model()
