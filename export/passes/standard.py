"""ONNX Runtime's own operators of transformers written out in operators of the standard, for other runtimes.

Sources: ONNX Runtime's page of its contrib operators, of ``MultiHeadAttention`` and ``RotaryEmbedding``.
"""

import onnx

from ortsep.export.passes.editor import Editor, attribute

_MICROSOFT = "com.microsoft"


def _own(ed: Editor, kind: str, inputs: int) -> list[onnx.NodeProto]:
    """The nodes of that kind with one output and just the first ``inputs`` inputs."""
    nodes = [node for node in ed.nodes if node.op_type == kind and node.domain == _MICROSOFT]
    return [
        node
        for node in nodes
        if len(node.output) == 1 and all(node.input[:inputs]) and len([*filter(None, node.input)]) == inputs
    ]


def standard_rotary(ed: Editor) -> int:
    """RotaryEmbedding of [B, T, E] by tables [positions, D / 2] and a position for each token: products and sums.

    Of each head's D channels pairs are turned, x' = x cos - y sin and y' = x sin + y cos: neighbours (``interleaved``),
    or the first half and the second.
    """
    count = 0
    for node in _own(ed, "RotaryEmbedding", 4):
        x, positions, *tables = node.input
        ranks = [ed.shape(name) for name in (x, positions, tables[0])]
        heads = attribute(node, "num_heads", 0)
        if any(shape is None for shape in ranks) or [len(s or ()) for s in ranks] != [3, 2, 2] or not heads:
            continue
        half = (ranks[2] or (None,))[-1]
        if half is None or (ranks[0] or (None,))[-1] != 2 * half * heads or attribute(node, "scale", 1.0) != 1.0:
            continue
        pair = [half, 2] if attribute(node, "interleaved", 0) else [2, half]
        split = ed.reshape(x, [0, 0, heads, *pair])
        axis = 4 if attribute(node, "interleaved", 0) else 3
        sizes = ed.const([1, 1], "int64")
        first = ed.op("Split", split, sizes, axis=axis)
        (second,) = ed.more_outputs(first, 1)
        turn = [ed.op("Gather", table, positions, axis=0) for table in tables]  # [B, T, half]
        shape = [0, 0, 1, half, 1] if axis == 4 else [0, 0, 1, 1, half]
        cos, sin = (ed.reshape(each, shape) for each in turn)
        left = ed.op("Sub", ed.op("Mul", first, cos), ed.op("Mul", second, sin))
        right = ed.op("Add", ed.op("Mul", first, sin), ed.op("Mul", second, cos))
        ed.replace(node.output[0], ed.reshape(ed.op("Concat", left, right, axis=axis), [0, 0, 2 * half * heads]))
        count += 1
    return count


def standard_attention(ed: Editor) -> int:
    """MultiHeadAttention of q, k and v [B, L, E] as softmax(q k^T) v, whose weights are then whole in memory."""
    count = 0
    for node in _own(ed, "MultiHeadAttention", 3):
        shapes = [ed.shape(name) for name in node.input]
        heads = attribute(node, "num_heads", 0)
        if (
            any(shape is None or len(shape) != 3 for shape in shapes)
            or not heads
            or attribute(node, "unidirectional", 0)
        ):
            continue
        width = (shapes[0] or (None,))[-1]
        if width is None or width % heads:
            continue
        scale = attribute(node, "scale", 0.0) or (width // heads) ** -0.5
        parts = (ed.reshape(name, [0, 0, heads, -1]) for name in node.input)
        q, k, v = (ed.op("Transpose", x, perm=perm) for x, perm in zip(parts, _ORDERS, strict=True))
        weights = ed.op("Softmax", ed.op("MatMul", ed.op("Mul", q, ed.const(scale)), k), axis=-1)
        out = ed.op("Transpose", ed.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        ed.replace(node.output[0], ed.reshape(out, [0, 0, -1]))
        count += 1
    return count


_ORDERS = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
"""Of q, k and v [B, L, heads, D]."""
