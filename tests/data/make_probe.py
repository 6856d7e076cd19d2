"""Make runtime/measure/probe.onnx: `python tests/data/make_probe.py` in the full environment."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def probe() -> onnx.ModelProto:
    """conv 3x3, x * sigmoid(x), conv 1x1, on [1, 4, 64, 64], with seeded weights."""
    draw = np.random.default_rng(0).standard_normal
    weights = {"w1": draw((16, 4, 3, 3)), "w2": draw((4, 16, 1, 1))}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 64, 64]) for name in "xy"]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["a"], ["s"]),
            helper.make_node("Mul", ["a", "s"], ["m"]),
            helper.make_node("Conv", ["m", "w2"], ["y"]),
        ],
        "probe",
        values[:1],
        values[1:],
        [numpy_helper.from_array((w * 0.2).astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


if __name__ == "__main__":
    from ortsep.measure.doctor import PROBE

    onnx.save(probe(), PROBE)
