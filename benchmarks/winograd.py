"""3x3 convolutions as ONNX Runtime has them, and as Winograd's F(2x2, 3x3) of ONNX nodes; one thread, CPU seconds.

    $ python benchmarks/winograd.py

Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray (2016): 2.25 times fewer products. Depthwise
convolutions make the 16 transformed planes, convolutions 1x1 the products, additions and an interleaving the output.
"""

import time
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ortsep.export.graph.builder import Graph

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float)
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float)


def measured(model: onnx.ModelProto, x: Any) -> tuple[float, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    session.run(None, {"x": x})
    times = []
    for _ in range(3):
        began = time.process_time()
        (out,) = session.run(None, {"x": x})
        times.append(time.process_time() - began)
    return min(times), out


def combined(g: Graph, signs: Any, values: list[str]) -> str:
    """The sum of the values, the first with sign 1, each with its sign; those of sign 0 left out."""
    used = [(sign, value) for sign, value in zip(signs, values, strict=True) if sign]
    total = used[0][1]
    for sign, value in used[1:]:
        total = g.add(total, value) if sign > 0 else g.sub(total, value)
    return total


def winograd(g: Graph, x: str, weight: Any, height: int, width: int) -> str:
    """A convolution 3x3 of pad 1 of [1, C, H, W], H and W even."""
    c = len(weight)
    transformed = np.einsum("ai,ocij,bj->aboc", G, weight, G)
    planes = [[""] * 4 for _ in range(4)]
    for p in range(4):
        for q in range(4):
            taps = np.broadcast_to(np.outer(B[p], B[q]), (c, 1, 4, 4)).copy()
            plane = g.conv(x, taps, stride=[2, 2], pads=[1] * 4, groups=c)
            planes[p][q] = g.conv(plane, transformed[p, q][:, :, None, None])
    rows = []
    for r in range(2):
        columns = [combined(g, A[r], [planes[p][q] for p in range(4)]) for q in range(4)]
        pair = [g.reshape(combined(g, A[s], columns), 1, c, height // 2, 1, width // 2, 1) for s in range(2)]
        rows.append(g.concat(pair, 5))
    return g.reshape(g.concat(rows, 3), 1, c, height, width)


def main() -> None:
    rng = np.random.default_rng(0)
    graph = Graph("product")
    x = graph.input("x", [2048, 2048])
    graph.output(graph.op("MatMul", x, graph.const(rng.standard_normal((2048, 2048)))), "y", [2048, 2048])
    took, _ = measured(graph.model(), rng.standard_normal((2048, 2048)).astype(np.float32))
    print(f"product of matrices: {2 * 2048**3 / took / 1e9:.0f} GFLOP/s")
    for c, height, width in ((128, 256, 256), (256, 128, 128), (384, 64, 64)):
        weight = rng.standard_normal((c, c, 3, 3)) / np.sqrt(9 * c)
        x_value = rng.standard_normal((1, c, height, width)).astype(np.float32)
        times = []
        for way in ("direct", "winograd"):
            graph = Graph(way)
            x = graph.op("Relu", graph.input("x", list(x_value.shape)))
            made = graph.conv(x, weight, pads=[1] * 4) if way == "direct" else winograd(graph, x, weight, height, width)
            graph.output(made, "y", list(x_value.shape))
            times.append(measured(graph.model(), x_value)[0])
        rate = 2 * 9 * c * c * height * width / times[0] / 1e9
        print(f"{c} channels, {height} x {width}: {rate:.0f} GFLOP/s direct, Winograd {times[1] / times[0]:.2f} of it")


if __name__ == "__main__":
    main()
