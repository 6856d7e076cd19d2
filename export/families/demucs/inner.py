"""The inner layers of Demucs v3 as ONNX, for any number of frames: group norms, framed LSTMs, local attention.

Values are [B, C, T]; functions are as in ``demucs_layers``. Source: package ``demucs`` 4.1, ``demucs.demucs``:
``DConv``, ``BLSTM``, ``LocalState`` (Défossez 2021).
"""

import math

import numpy as np
from torch import nn

from ortsep.export.families.demucs.layers import Length, dconv, norm_scale, numpy64, require, time_mean
from ortsep.export.graph.algebra import lstm_weights
from ortsep.export.graph.builder import Graph


def group_norm(graph: Graph, x: str, norm: nn.Module, length: Length, height: int = 1) -> str:
    """``nn.GroupNorm`` of [B, C, T], or of [1, C, T] where there are several groups: all sums in two steps.

    A value [1, C, F, T] goes in as it is with ``height`` F, and comes out as [1, C F, T].
    """
    groups, channels = norm.num_groups, norm.num_channels
    rows = channels // groups * height
    gamma, beta = (numpy64(p).repeat(height).reshape(-1, rows, 1) for p in (norm.weight, norm.bias))
    y = graph.reshape(x, groups, rows, -1) if groups > 1 or height > 1 else x
    centred = graph.sub(y, graph.mean(time_mean(graph, y, length), 1))
    variance = graph.mean(time_mean(graph, graph.mul(centred, centred), length), 1)
    scale = graph.mul(norm_scale(graph, variance, norm.eps), graph.const(gamma))
    y = graph.add(graph.mul(centred, scale), graph.const(beta))
    return graph.reshape(y, 1, channels * height, -1) if groups > 1 else y


def glu(graph: Graph, x: str) -> str:
    """a * sigmoid(b) of the two halves of the channels."""
    a, b = graph.ops("Split", x, outputs=2, axis=1, num_outputs=2)
    return graph.mul(a, graph.op("Sigmoid", b))


def convolve(graph: Graph, x: str, conv: nn.Module, stride: int = 1) -> str:
    """A ``Conv1d`` as it stands."""
    return graph.conv(
        x,
        numpy64(conv.weight),
        numpy64(conv.bias),
        stride=[stride],
        pads=[conv.padding[0]] * 2,
        dilation=[conv.dilation[0]],
    )


def residual(graph: Graph, x: str, module: nn.Module, length: Length) -> str:
    """``DConv`` on [B, C, T], with or without LSTM and attention in its branches."""
    plain = not any(type(part).__name__ in ("BLSTM", "LocalState") for layer in module.layers for part in layer)
    if plain:
        return dconv(graph, x, module, rank=3, frames=length)
    for layer in module.layers:
        x = graph.add(x, _branch(graph, x, layer, length))
    return x


def _branch(graph: Graph, x: str, layer: nn.Module, length: Length) -> str:
    for part in layer:
        kind = type(part).__name__
        if kind == "Conv1d":
            x = convolve(graph, x, part)
        elif kind == "GroupNorm":
            x = group_norm(graph, x, part, length)
        elif kind == "GELU":
            x = graph.gelu(x)
        elif kind == "GLU":
            x = glu(graph, x)
        elif kind == "LayerScale":
            x = graph.mul(x, graph.const(numpy64(part.scale)[:, None]))
        elif kind == "BLSTM":
            x = blstm(graph, x, part)
        elif kind == "LocalState":
            x = local_state(graph, x, part)
        else:
            require(False, f"a residual branch with {kind}")
    return x


# -- recurrence ----------------------------------------------------------------------------------------------------


def blstm(graph: Graph, x: str, module: nn.Module) -> str:
    """``BLSTM``: bidirectional LSTM layers and a linear one over frames of ``max_steps`` that overlap by half.

    With W = max_steps, the original cuts more than W steps into n = ceil(T / (W/2)) frames, takes the middle halves of
    their results and more of the first and the last. Here one formula serves every T: step t is taken from frame
    min(max((t - W/4) // (W/2), 0), n - 1), where n = 1 and the frame is T long for T <= W.
    """
    steps = module.max_steps
    t = graph.op("Shape", x, start=2)
    y = graph.transpose(x, 2, 0, 1)
    y = _lstm_linear(graph, y, module) if steps is None else _framed(graph, y, module, t, steps)
    y = graph.transpose(y, 1, 2, 0)
    return graph.add(y, x) if module.skip else y


def _framed(graph: Graph, x: str, module: nn.Module, t: str, steps: int) -> str:
    hop = steps // 2
    channels = module.linear.out_features
    zero, one = graph.const(0, np.int64), graph.const(1, np.int64)
    last = graph.op("Squeeze", graph.op("Div", graph.sub(t, graph.ints(1)), graph.ints(hop)))  # ceil(T / hop) - 1
    fits = graph.op("LessOrEqual", t, graph.ints(steps))
    last = graph.op("Squeeze", graph.op("Where", fits, graph.ints(0), graph.reshape(last, 1)))
    width = graph.op("Squeeze", graph.op("Min", t, graph.ints(steps)))
    count = graph.add(last, one)

    begins = graph.mul(graph.op("Range", zero, count, one), graph.const(hop, np.int64))
    places = graph.add(
        graph.reshape(graph.op("Range", zero, width, one), -1, 1), graph.reshape(begins, 1, -1)
    )  # [W, n]: the step that each frame holds
    filled = graph.op("Pad", x, graph.ints(0, 0, 0, steps, 0, 0))
    frames = graph.op("Gather", filled, places, axis=0)  # [W, n, B, C]
    y = _lstm_linear(graph, graph.op("Reshape", frames, _shape(graph, width, -1, channels)), module)

    at = graph.op("Range", zero, graph.op("Squeeze", t), one)
    started = graph.op("Max", graph.sub(at, graph.const(steps // 4, np.int64)), zero)
    middle = graph.op("Div", started, graph.const(hop, np.int64))
    frame = graph.op("Min", middle, last)
    within = graph.sub(at, graph.mul(frame, graph.const(hop, np.int64)))
    index = graph.add(graph.mul(within, count), frame)
    batch = graph.op("Shape", x, start=1, end=2)
    flat = graph.op("Reshape", y, graph.concat([graph.ints(-1), batch, graph.ints(channels)], 0))  # [W n, B, C]
    return graph.op("Gather", flat, index, axis=0)


def _shape(graph: Graph, first: str, *rest: int) -> str:
    """A shape whose first size is the int64 scalar ``first``."""
    return graph.concat([graph.reshape(first, 1), graph.ints(*rest)], 0)


def _lstm_linear(graph: Graph, x: str, module: nn.Module) -> str:
    """The LSTM layers on [T, B, C], then the linear layer."""
    lstm = module.lstm
    hidden = lstm.hidden_size
    plain = lstm.bidirectional and lstm.bias and not lstm.batch_first and lstm.proj_size == 0
    require(plain, "an LSTM of another kind than demucs's")
    state = {name: numpy64(value) for name, value in lstm.named_parameters()}
    for k in range(lstm.num_layers):
        weights = map(graph.const, lstm_weights(state, k, bidirectional=True, name=""))
        y = graph.op("LSTM", x, *weights, hidden_size=hidden, direction="bidirectional")  # [T, 2, B, H]
        x = graph.reshape(graph.transpose(y, 0, 2, 1, 3), 0, 0, 2 * hidden)
    return graph.linear(x, numpy64(module.linear.weight), numpy64(module.linear.bias))


# -- attention -----------------------------------------------------------------------------------------------------


def local_state(graph: Graph, x: str, module: nn.Module) -> str:
    """``LocalState``: attention without positions, weakened linearly with distance, blind to the step itself.

    The original sums ``ndecay`` kernels -(f + 1) |t - s| / sqrt(ndecay), each weighted by a sigmoid of the query. They
    differ by a factor only, so the weights are summed first and one kernel remains.
    """
    require(not module.nfreqs and module.ndecay > 0, "local attention with frequencies or without decay")
    heads, decays = module.heads, module.ndecay
    width = module.key.out_channels // heads

    def split(conv: nn.Module, scale: float = 1.0) -> str:
        y = graph.conv(x, scale * numpy64(conv.weight), scale * numpy64(conv.bias))
        return graph.reshape(y, 0, heads, conv.out_channels // heads, -1)

    queries = graph.transpose(split(module.query, width**-0.5), 0, 1, 3, 2)
    dots = graph.op("MatMul", queries, split(module.key))  # [B, heads, query, key]

    steepness = np.arange(1, decays + 1).reshape(1, 1, -1, 1) / (2 * math.sqrt(decays))
    weighted = graph.mul(graph.op("Sigmoid", split(module.query_decay)), graph.const(steepness))
    decay = graph.transpose(graph.op("ReduceSum", weighted, graph.ints(2), keepdims=1), 0, 1, 3, 2)

    distance = _distance(graph, x)
    dots = graph.sub(dots, graph.mul(decay, distance))
    itself = graph.op("Equal", distance, graph.const(0.0))
    weights = graph.op("Softmax", graph.op("Where", itself, graph.const(-100.0), dots), axis=-1)
    content = graph.transpose(split(module.content), 0, 1, 3, 2)
    mixed = graph.transpose(graph.op("MatMul", weights, content), 0, 1, 3, 2)
    joined = graph.reshape(mixed, 0, heads * width, -1)
    return graph.add(x, convolve(graph, joined, module.proj))


def _distance(graph: Graph, x: str) -> str:
    """|t - s| over the last axis of ``x``: [T, T], float32."""
    count = graph.op("Squeeze", graph.op("Shape", x, start=2))
    steps = graph.op("Range", graph.const(0, np.int64), count, graph.const(1, np.int64))
    steps = graph.op("Cast", steps, to=1)
    return graph.op("Abs", graph.sub(graph.reshape(steps, -1, 1), graph.reshape(steps, 1, -1)))
