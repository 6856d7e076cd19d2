"""HTDemucs's cross-domain transformer as ONNX, equal to ``demucs.transformer.CrossTransformerEncoder``.

Tokens are rows of a matrix [B*N, C], so that every linear layer is one Gemm; attention and the norm at a layer's end
see them as [B, N, C]. The frequency branch keeps its tokens in (f, t) order, as they lie in memory, where demucs moves
them to (t, f): attention does not know an order, and the table of positions is permuted instead.

Source: Rouard, Massa, Défossez, "Hybrid Transformers for Music Source Separation" (2022), package ``demucs`` 4.1.
"""

from dataclasses import dataclass

import numpy as np
from demucs.transformer import create_2d_sin_embedding, create_sin_embedding
from torch import nn

from ortsep.base.arrays import F64
from ortsep.export.families.demucs.layers import norm_scale, numpy64, require
from ortsep.export.graph.builder import MICROSOFT, Graph


@dataclass(frozen=True)
class Tokens:
    """Tokens of one branch: ``value`` [B*N, C]."""

    value: str
    count: int
    width: int

    def batched(self, graph: Graph) -> str:
        """[B, N, C]."""
        return graph.reshape(self.value, -1, self.count, self.width)

    def of(self, value: str) -> "Tokens":
        return Tokens(value, self.count, self.width)


def gemm(graph: Graph, x: str, weight: F64, bias: F64) -> str:
    """x W' + b for rows x; the bias costs no pass of its own, unlike MatMul and Add."""
    return graph.op("Gemm", x, graph.const(weight), graph.const(bias), transB=1)


def layer_norm(graph: Graph, x: str, norm: nn.Module, *, bias: bool = True) -> str:
    """LayerNorm over the last axis; without its bias where the caller folds it into what follows."""
    extra = [graph.const(numpy64(norm.bias))] if bias else []
    return graph.op("LayerNormalization", x, graph.const(numpy64(norm.weight)), *extra, axis=-1, epsilon=norm.eps)


def token_norm(graph: Graph, tokens: Tokens, norm: nn.Module) -> Tokens:
    """GroupNorm of one group, over (N, C): sums over C, then over N, since a flat one loses 50 dB."""
    x = tokens.batched(graph)
    centred = graph.sub(x, graph.mean(x, 1, 2))
    scale = norm_scale(graph, graph.mean(graph.mul(centred, centred), 1, 2), norm.eps)
    y = graph.mul(centred, graph.mul(scale, graph.const(numpy64(norm.weight))))
    y = graph.add(y, graph.const(numpy64(norm.bias)))
    return tokens.of(graph.reshape(y, -1, tokens.width))


def attention(graph: Graph, q: Tokens, kv: Tokens, module: nn.Module, gain: F64, *, portable: bool) -> str:
    """``nn.MultiheadAttention`` of normalised tokens, times ``gain`` [C] (LayerScale, folded into the projection).

    q, k and v are separate products, because splitting one product copies it. ONNX Runtime's own operator never holds
    the N x M weights of all heads (230 MB at N = M = 2688); with ``portable`` plain MatMul and Softmax do.
    """
    heads, width = module.num_heads, q.width
    weights = np.split(numpy64(module.in_proj_weight), 3)
    biases = np.split(numpy64(module.in_proj_bias), 3)
    sources = (q, kv, kv)
    parts = [source.of(gemm(graph, source.value, w, b)) for source, w, b in zip(sources, weights, biases, strict=True)]
    if portable:
        y = plain_attention(graph, parts, heads)
    else:
        rows = [part.batched(graph) for part in parts]
        y = graph.op("MultiHeadAttention", *rows, domain=MICROSOFT, num_heads=heads)
    out, bias = numpy64(module.out_proj.weight), numpy64(module.out_proj.bias)
    return gemm(graph, graph.reshape(y, -1, width), gain[:, None] * out, gain * bias)


def plain_attention(graph: Graph, parts: list[Tokens], heads: int) -> str:
    """softmax(q k' / sqrt(d)) v in operators of the standard; [B, N, C]."""
    q, k, v = (graph.reshape(p.value, -1, p.count, heads, p.width // heads) for p in parts)
    depth = parts[0].width // heads
    q = graph.mul(graph.transpose(q, 0, 2, 1, 3), graph.const(depth**-0.5))
    weights = graph.op("Softmax", graph.op("MatMul", q, graph.transpose(k, 0, 2, 3, 1)), axis=-1)
    y = graph.op("MatMul", weights, graph.transpose(v, 0, 2, 1, 3))
    return graph.reshape(graph.transpose(y, 0, 2, 1, 3), -1, parts[0].count, parts[0].width)


def layer_gain(scale: nn.Module, width: int) -> F64:
    """The factors of a LayerScale, ones for an Identity."""
    return np.ones(width) if isinstance(scale, nn.Identity) else numpy64(scale.scale)


def transformer_layer(graph: Graph, x: Tokens, other: Tokens | None, layer: nn.Module, *, portable: bool) -> Tokens:
    """A layer of one branch: self-attention, or cross-attention to ``other`` where that is given; then feed-forward."""
    require(layer.norm_first, "transformer layers that normalise last")
    require(not getattr(layer, "sparse", False), "sparse attention")
    norms = [layer.norm1, layer.norm2] if other is None else [layer.norm1, layer.norm2, layer.norm3]
    require(all(type(norm) is nn.LayerNorm for norm in norms), "group norms in its transformer")
    require(getattr(layer.activation, "__name__", "") == "gelu", "transformer activations other than GELU")
    q = x.of(layer_norm(graph, x.value, norms[0]))
    kv = q if other is None else other.of(layer_norm(graph, other.value, norms[1]))
    module = layer.self_attn if other is None else layer.cross_attn
    require(module.in_proj_weight is not None and module.bias_k is None, "attention of another form")
    mixed = attention(graph, q, kv, module, layer_gain(layer.gamma_1, x.width), portable=portable)
    y = graph.add(x.value, mixed)
    gain = layer_gain(layer.gamma_2, x.width)
    hidden = layer_norm(graph, y, norms[-1])
    hidden = graph.gelu(gemm(graph, hidden, numpy64(layer.linear1.weight), numpy64(layer.linear1.bias)))
    weight, bias = gain[:, None] * numpy64(layer.linear2.weight), gain * numpy64(layer.linear2.bias)
    result = x.of(graph.add(y, gemm(graph, hidden, weight, bias)))
    if layer.norm_out is None:
        return result
    require(layer.norm_out.num_groups == 1, "transformer norms in several groups")
    return token_norm(graph, result, layer.norm_out)


def to_tokens(graph: Graph, x: str, conv: nn.Module | None) -> str:
    """[B, C, N] to rows [B*N, C'], through the 1x1 ``conv`` where there is one.

    The product takes its left side transposed, so that no copy is made (ONNX Runtime fuses Transpose and MatMul).
    """
    rows = graph.transpose(x, 0, 2, 1)
    if conv is None:
        return rows
    weight = np.ascontiguousarray(numpy64(conv.weight)[:, :, 0].T)
    return graph.add(graph.op("MatMul", rows, graph.const(weight)), graph.const(numpy64(conv.bias)))


def from_tokens(graph: Graph, tokens: Tokens, conv: nn.Module | None) -> str:
    """Rows back to [B, C, N], through the 1x1 ``conv`` where there is one, transposed by the product likewise."""
    columns = graph.transpose(tokens.batched(graph), 0, 2, 1)
    if conv is None:
        return columns
    y = graph.op("MatMul", graph.const(numpy64(conv.weight)[:, :, 0]), columns)
    return graph.add(y, graph.const(numpy64(conv.bias)[:, None]))


def enter(graph: Graph, x: str, conv: nn.Module | None, norm: nn.Module, positions: F64) -> Tokens:
    """Norm and positions [N, C] of one branch [B, C, N]; the norm's bias is folded into the positions."""
    count, width = positions.shape
    require(type(norm) is nn.LayerNorm, "a transformer without LayerNorm at its input")
    rows = layer_norm(graph, to_tokens(graph, x, conv), norm, bias=False)
    rows = graph.add(rows, graph.const(positions + numpy64(norm.bias)))
    return Tokens(graph.reshape(rows, -1, width), count, width)


def cross_transformer(
    graph: Graph,
    x: str,
    xt: str,
    module: nn.Module,
    sizes: tuple[int, int],
    samples: int,
    bottlenecks: tuple[nn.Module | None, nn.Module | None, nn.Module | None, nn.Module | None],
    *,
    portable: bool,
) -> tuple[str, str]:
    """``CrossTransformerEncoder`` on ``x`` [B, C, F*T] with ``sizes`` (F, T) and ``xt`` [B, C, ``samples``].

    ``bottlenecks`` are the 1x1 convolutions around it (up, up of the time branch, down, down of the time branch) or
    Nones. Raises WeightsError for what the graph does not cover.
    """
    require(module.emb == "sin" and module.sin_random_shift == 0, "position embeddings that are not plain sinusoids")
    norm_in = module.norm_in
    require(type(norm_in) is nn.LayerNorm, "a transformer without LayerNorm at its input")
    (bins, frames), width = sizes, norm_in.normalized_shape[0]
    up, up_t, down, down_t = bottlenecks
    table = numpy64(create_2d_sin_embedding(width, bins, frames, max_period=module.max_period))[0]
    line = numpy64(create_sin_embedding(samples, width, max_period=module.max_period))[:, 0]
    gain = module.weight_pos_embed
    spec = enter(graph, x, up, norm_in, gain * table.reshape(width, -1).T)
    wave = enter(graph, xt, up_t, module.norm_in_t, gain * line)
    for index, (layer, layer_t) in enumerate(zip(module.layers, module.layers_t, strict=True)):
        alone = index % 2 == module.classic_parity
        graph.scope(f"transformer/{index}")
        old = spec
        spec = transformer_layer(graph, spec, None if alone else wave, layer, portable=portable)
        graph.scope(f"transformer_t/{index}")
        wave = transformer_layer(graph, wave, None if alone else old, layer_t, portable=portable)
    graph.scope("transformer/out")
    return from_tokens(graph, spec, down), from_tokens(graph, wave, down_t)
