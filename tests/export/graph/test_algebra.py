"""Each formula of the algebra against torch's own layer, in float64."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from ortsep.export.graph.algebra import (
    affine_in,
    expansion_factors,
    largest_divisor,
    lstm_weights,
    onnx_gates,
    phase_kernel,
    phase_taps,
    two_step,
)
from ortsep.export.graph.builder import Graph
from ortsep.export.weights.random_weights import randomise

Snr = Any


def sizeable(module: nn.Module, seed: int = 0) -> Any:
    randomise(module, seed)
    return module.eval()


def test_a_batch_norm_is_a_gain_and_a_shift(snr: Snr) -> None:
    norm = sizeable(nn.Sequential(nn.BatchNorm1d(7, eps=1e-3))).double()
    x = torch.randn(5, 7, dtype=torch.float64)
    gain, shift = affine_in({k: v.numpy() for k, v in norm.state_dict().items()}, "0", eps=1e-3)
    assert gain.dtype == shift.dtype == np.float64
    assert snr(norm(x).detach().numpy(), gain * x.numpy() + shift) > 280


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_weights_are_those_that_onnx_means(bidirectional: bool, snr: Snr) -> None:
    lstm = sizeable(nn.LSTM(5, 6, 2, bidirectional=bidirectional))
    state = {f"inner.{name}": value.numpy() for name, value in lstm.state_dict().items()}
    g, ways = Graph("lstm"), 1 + bidirectional
    y = g.input("x", [9, 2, 5])
    for layer in range(2):
        w, r, b = lstm_weights(state, layer, bidirectional, "inner.")
        direction = "bidirectional" if bidirectional else "forward"
        y = g.op("LSTM", y, g.const(w), g.const(r), g.const(b), hidden_size=6, direction=direction)
        y = g.reshape(g.transpose(y, 0, 2, 1, 3), 0, 0, 6 * ways)
    g.output(y, "y", [9, 2, 6 * ways])
    x = torch.randn(9, 2, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = lstm(x)[0].numpy()
    session = onnxruntime.InferenceSession(g.model().SerializeToString())
    assert snr(want, session.run(None, {"x": x.numpy()})[0]) > 120


def test_the_order_of_gates() -> None:
    np.testing.assert_array_equal(onnx_gates(np.array([1, 1, 2, 2, 3, 3, 4, 4])), [1, 1, 4, 4, 2, 2, 3, 3])


@pytest.mark.parametrize(("length", "divisor", "steps"), [(1, 1, None), (36, 6, None), (16381, 1, None)])
def test_what_is_short_or_prime_is_summed_at_once(length: int, divisor: int, steps: None) -> None:
    assert largest_divisor(length) == divisor and two_step(length) is steps


@pytest.mark.parametrize(("length", "steps"), [(1 << 14, (128, 128)), (343980, (585, 588)), (2 * 8209, (2, 8209))])
def test_what_is_long_is_summed_in_two_steps(length: int, steps: tuple[int, int]) -> None:
    assert two_step(length) == steps and steps[0] * steps[1] == length


@pytest.mark.parametrize(
    ("size", "stride", "pad"), [(8, 4, 2), (8, 4, 0), (5, 2, 2), (5, 2, 1), (4, 2, 1), (2, 2, 0), (7, 3, 1), (3, 4, 0)]
)
def test_phases_of_a_transposed_convolution(size: int, stride: int, pad: int, snr: Snr) -> None:
    layer = sizeable(nn.ConvTranspose1d(3, 5, size, stride)).double()
    x = torch.randn(1, 3, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = layer(x)[0].detach().numpy()[:, pad:]
    count = min(whole.shape[1] // stride, 11)
    kernel, ((first, last),) = phase_kernel(layer.weight.detach().numpy(), stride, pad, [range(stride)])
    padded = np.pad(x[0].numpy(), ((0, 0), (max(0, -first), max(0, last))))
    start = max(0, first)
    got = np.stack([np.tensordot(kernel, padded[:, start + j : start + j + kernel.shape[2]], 2) for j in range(count)])
    got = got.reshape(count, 5, stride) + layer.bias.detach().numpy()[:, None]
    assert snr(whole[:, : count * stride], got.transpose(1, 0, 2).reshape(5, -1)) > 280


def test_phases_along_two_axes_and_of_a_tile(snr: Snr) -> None:
    """Tiles of 4 x 2 outputs, a step of 2 x 1 inputs apart, as LarsNet's last layers keep them."""
    layer = sizeable(nn.ConvTranspose2d(2, 3, 5, 2, padding=2, output_padding=1)).double()
    x = torch.randn(1, 2, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kernel, ((top, bottom), (left, right)) = phase_kernel(layer.weight.detach().numpy(), 2, 2, [range(4), range(2)])
    padded = nn.functional.pad(x, (-left, right, -top, bottom - 1))
    tiles = nn.functional.conv2d(padded, torch.from_numpy(kernel), layer.bias.repeat_interleave(8), stride=(2, 1))
    want = layer(x).detach().numpy().reshape(3, 4, 4, 6, 2).transpose(0, 2, 4, 1, 3)
    assert snr(want.reshape(24, 4, 6), tiles[0].detach().numpy()) > 280


def test_a_tap_reaches_every_output_once() -> None:
    pairs = [(p + 4 * o, tap) for p in range(4) for o, tap in phase_taps(8, 4, 2, p)]
    assert sorted(tap for _, tap in pairs) == list(range(8))


def test_a_norm_behind_an_expansion(snr: Snr) -> None:
    conv, norm = sizeable(nn.Conv1d(4, 24, 1)).double(), sizeable(nn.GroupNorm(1, 24)).double()
    x = 3 + torch.randn(1, 4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    want = norm(conv(x))[0].detach().numpy()
    weight, bias = conv.weight.detach().numpy()[:, :, 0], conv.bias.detach().numpy()
    factors = expansion_factors(weight, bias, norm.weight.detach().numpy())
    g = x[0].numpy()
    m = np.append(g.mean(1), 1)
    variance = np.square(weight @ (g - g.mean(1, keepdims=True))).sum(0).mean() / 24
    variance += np.square(factors.centred @ m).sum() / 24
    s = 1 / np.sqrt(variance + norm.eps)
    inputs = np.vstack([g * s, np.full((1, 50), s), np.full((1, 50), s * (factors.mean @ m))])
    assert snr(want, factors.matrix @ inputs + norm.bias.detach().numpy()[:, None]) > 270
