"""The reference route for Spleeter, with the ``spleeter`` extra: TensorFlow's own operators, and tf2onnx.

Graphs are built with ``tf.nn`` in ``tf.compat.v1``, variables restored by name with TensorFlow's own Saver, and one
stem's network is made, run or converted at a time, so that memory stays bounded.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ortsep.base.apart import NoAnswer, ask
from ortsep.base.arrays import F32, Array
from ortsep.base.errors import MissingDependency, ModelError
from ortsep.base.interrupt import at_once
from ortsep.base.whole import scratch
from ortsep.export.families.spleeter.reference import HOP, N_FFT, RATIO_EPS
from ortsep.export.families.spleeter.weights import DOWN, EPSILON, UP, Architecture, expected_shapes
from ortsep.export.graph.builder import IR_VERSION

TF2ONNX_OPSET = 18
"""The newest that tf2onnx 1.17 writes."""


def available(*modules: str) -> bool:
    """Whether TensorFlow, and ``modules``, are installed; nothing is imported."""
    return all(find_spec(name) is not None for name in ("tensorflow", *modules))


def load_tensorflow() -> Any:
    """The package, imported. Raises MissingDependency."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with at_once():
            import tensorflow

        tensorflow.get_logger().setLevel("ERROR")
    except ImportError as error:
        raise MissingDependency(
            "the reference route for Spleeter needs TensorFlow, which is not installed; pip install 'ortsep[spleeter]'"
        ) from error
    return tensorflow


def _variables(tf: Any, stem: int) -> dict[str, Any]:
    """TensorFlow variables of one stem's network, by the names that they have in a checkpoint."""
    before = expected_shapes(stem)
    mine = {name: shape for name, shape in expected_shapes(stem + 1).items() if name not in before}
    return {name: tf.compat.v1.get_variable(name, shape, tf.float32) for name, shape in mine.items()}


def _logits(tf: Any, x: Any, variables: Mapping[str, Any], stem: int, architecture: Architecture) -> Any:
    """One stem's mask logits of x [B, 512, bins, 2], in x's dtype."""
    activations = {
        "LeakyReLU": lambda v: tf.nn.leaky_relu(v, 0.2),
        "ReLU": tf.nn.relu,
        "ELU": tf.nn.elu,
    }
    down, up = activations[architecture.conv_activation], activations[architecture.deconv_activation]

    def layer(kind: str, index: int, *names: str) -> list[Any]:
        prefix = kind if index == 0 else f"{kind}_{index}"
        return [tf.cast(variables[f"{prefix}/{name}"], x.dtype) for name in names]

    def conv(v: Any, index: int, stride: int, dilation: int) -> Any:
        kernel, bias = layer("conv2d", 7 * stem + index, "kernel", "bias")
        return tf.nn.bias_add(tf.nn.conv2d(v, kernel, stride, "SAME", dilations=dilation), bias)

    def deconv(v: Any, index: int) -> Any:
        kernel, bias = layer("conv2d_transpose", 6 * stem + index, "kernel", "bias")
        frames, bins = architecture.frames >> (5 - index), architecture.bins >> (5 - index)
        shape = tf.stack([tf.shape(v)[0], frames, bins, UP[index]])
        out = tf.nn.bias_add(tf.nn.conv2d_transpose(v, kernel, shape, 2, "SAME"), bias)
        return tf.ensure_shape(out, [None, frames, bins, UP[index]])

    def norm(v: Any, index: int) -> Any:
        parts = layer("batch_normalization", 12 * stem + index, "gamma", "beta", "moving_mean", "moving_variance")
        if v.dtype == tf.float32:
            return tf.compat.v1.nn.fused_batch_norm(v, *parts, epsilon=EPSILON, is_training=False)[0]
        gamma, beta, mean, variance = parts
        return tf.nn.batch_normalization(v, mean, variance, beta, gamma, EPSILON)

    skips = []
    y = x
    for i in range(len(DOWN)):
        skips.append(conv(y, i, 2, 1))
        y = down(norm(skips[-1], i))
    y = skips.pop()
    for i in range(len(UP)):
        y = norm(up(deconv(y, i)), 6 + i)
        if skips:
            y = tf.concat([skips.pop(), y], 3)
    return conv(y, 6, 1, 2)


def _restore(tf: Any, session: Any, variables: Mapping[str, Any], source: Path | Mapping[str, Array]) -> None:
    if isinstance(source, Path):
        tf.compat.v1.train.Saver(dict(variables)).restore(session, str(source))
    else:
        # fed in one run: constants would stay in the graph, and each run of other operators is optimised anew
        fed = {variable.initializer.inputs[1]: source[name] for name, variable in variables.items()}
        session.run([variable.initializer for variable in variables.values()], fed)


def network(
    magnitude: Array,
    stems: int,
    architecture: Architecture,
    source: Path | Mapping[str, Array],
    dtype: str = "float64",
) -> Array:
    """TensorFlow's stem magnitudes [B, S, 2, bins, 512] of magnitudes [B, 2, bins, 512], in ``dtype``.

    ``source`` is a checkpoint's prefix, which TensorFlow restores itself, or its variables.
    """
    tf = load_tensorflow()
    x = np.ascontiguousarray(magnitude.transpose(0, 3, 2, 1), dtype)
    logits = []
    for k in range(stems):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            fed = tf.compat.v1.placeholder(dtype, [None, *x.shape[1:]])
            variables = _variables(tf, k)
            y = _logits(tf, fed, variables, k, architecture)
            _restore(tf, session, variables, source)
            logits.append(np.concatenate([session.run(y, {fed: block[None]}) for block in x]))
    with tf.device("CPU"):
        stacked = tf.stack(logits, 1)
        masks = tf.nn.softmax(stacked, 1) if architecture.softmax else tf.sigmoid(stacked)
        result: Array = (masks * x[:, None]).numpy()
    return result.transpose(0, 1, 4, 3, 2)


def separator(stems: int, architecture: Architecture, source: Path | Mapping[str, Array]) -> Callable[[F32], F32]:
    """What spleeter's Separator computes with its defaults: samples [2, N] to stems [S, 2, N], float32 throughout.

    As there (spleeter, model/__init__.py: EstimatorSpecBuilder; utils/tensor.py), transforms, networks and masks are
    one graph, run once for the whole song, on as many threads as TensorFlow takes by itself.
    """
    tf = load_tensorflow()
    with tf.Graph().as_default() as graph:
        waveform = tf.compat.v1.placeholder(tf.float32, [None, 2], "waveform")
        padded = tf.concat([tf.zeros([N_FFT, 2]), waveform], 0)
        spectrum = tf.signal.stft(tf.transpose(padded), N_FFT, HOP, window_fn=tf.signal.hann_window, pad_end=True)
        spectrum = tf.transpose(spectrum, [1, 2, 0])
        frames = tf.shape(spectrum)[0]
        filled = tf.pad(spectrum, [[0, tf.math.floormod(-frames, architecture.frames)], [0, 0], [0, 0]])
        x = tf.abs(tf.reshape(filled, [-1, architecture.frames, N_FFT // 2 + 1, 2]))[:, :, : architecture.bins]
        variables = [_variables(tf, k) for k in range(stems)]
        logits = [_logits(tf, x, own, k, architecture) for k, own in enumerate(variables)]
        if architecture.softmax:
            masks = tf.unstack(tf.nn.softmax(tf.stack(logits, 4)), axis=4)
        else:
            masks = [tf.sigmoid(own) for own in logits]
        powers = [(mask * x) ** 2 for mask in masks]
        total = tf.add_n(powers) + RATIO_EPS
        waves = []
        for power in powers:
            ratio = tf.pad(
                (power + RATIO_EPS / stems) / total, [[0, 0], [0, 0], [0, N_FFT // 2 + 1 - x.shape[2]], [0, 0]]
            )
            ratio = tf.reshape(ratio, [-1, N_FFT // 2 + 1, 2])[:frames]
            masked = tf.transpose(tf.cast(ratio, tf.complex64) * spectrum, [2, 0, 1])
            wave = tf.signal.inverse_stft(masked, N_FFT, HOP, window_fn=tf.signal.hann_window) * (2 / 3)
            waves.append(tf.transpose(wave)[N_FFT : N_FFT + tf.shape(waveform)[0]])
        session = tf.compat.v1.Session(graph=graph)
        _restore(tf, session, {name: v for own in variables for name, v in own.items()}, source)

    def separate(mix: F32) -> F32:
        return np.stack(session.run(waves, {waveform: mix.T})).swapaxes(1, 2)

    return separate


def write_checkpoint(variables: Mapping[str, Array], prefix: Path) -> None:
    """Write ``PREFIX.index`` and ``PREFIX.data-*`` with TensorFlow's own Saver."""
    tf = load_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = {n: tf.compat.v1.get_variable(n, v.shape, v.dtype) for n, v in variables.items()}
        _restore(tf, session, made, variables)
        tf.compat.v1.train.Saver(made).save(session, str(prefix), write_meta_graph=False)


def answer(prefix: str, stem: str, settings: str, path: str) -> None:
    """Convert one stem's logits with tf2onnx: ``x`` [N, 512, bins, 2] to ``y`` of the same shape, written to ``path``.

    ``settings``: an Architecture in JSON.
    """
    tf = load_tensorflow()
    import tf2onnx

    architecture = Architecture(**json.loads(settings))
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, architecture.frames, architecture.bins, 2], "x")
        variables = _variables(tf, int(stem))
        tf.identity(_logits(tf, x, variables, int(stem), architecture), "y")
        _restore(tf, session, variables, Path(prefix))
        frozen = tf.compat.v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
    model, _ = tf2onnx.convert.from_graph_def(
        frozen, input_names=["x:0"], output_names=["y:0"], opset=TF2ONNX_OPSET, output_path=path
    )
    assert model is not None


def convert(prefix: Path, stems: Sequence[str], architecture: Architecture) -> onnx.ModelProto:
    """The whole model by way of TensorFlow and tf2onnx, with the same inputs and outputs as the direct graph.

    Each stem is converted in a process of its own, which takes its memory along when it ends.
    """
    load_tensorflow()
    if not available("tf2onnx"):
        raise MissingDependency("this conversion needs tf2onnx, which is not installed; pip install 'ortsep[spleeter]'")
    parts = []
    with scratch("ortsep-spleeter") as folder:
        for k in range(len(stems)):
            path = str(folder / f"{k}.onnx")
            try:
                ask(__name__, prefix, k, json.dumps(asdict(architecture)), path)
            except NoAnswer as error:
                raise ModelError(f"tf2onnx failed on the network of {stems[k]} ({error}); leave --route out") from error
            parts.append(onnx.load(path))
    return _join(parts, architecture)


def _join(parts: Sequence[onnx.ModelProto], architecture: Architecture) -> onnx.ModelProto:
    nodes = [helper.make_node("Transpose", ["magnitude"], ["x"], perm=[0, 3, 2, 1])]
    constants = [helper.make_tensor("stem_axis", TensorProto.INT64, [1], [1])]
    stacked = []
    for k, part in enumerate(parts):
        named = onnx.compose.add_prefix(part, f"stem{k}/").graph
        rename = {named.input[0].name: "x"}
        for node in named.node:
            for i, name in enumerate(node.input):
                node.input[i] = rename.get(name, name)
        nodes += [*named.node, helper.make_node("Unsqueeze", [named.output[0].name, "stem_axis"], [f"logits{k}"])]
        constants += named.initializer
        stacked.append(f"logits{k}")
    nodes.append(helper.make_node("Concat", stacked, ["logits"], axis=1))
    if architecture.softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["masks"], axis=1))
    else:
        nodes.append(helper.make_node("Sigmoid", ["logits"], ["masks"]))
    nodes += [
        helper.make_node("Unsqueeze", ["x", "stem_axis"], ["x1"]),
        helper.make_node("Mul", ["masks", "x1"], ["stems"]),
        helper.make_node("Transpose", ["stems"], ["stem_magnitudes"], perm=[0, 1, 4, 3, 2]),
    ]
    shape = [2, architecture.bins, architecture.frames]
    float_info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "spleeter",
        [float_info("magnitude", TensorProto.FLOAT, ["B", *shape])],
        [float_info("stem_magnitudes", TensorProto.FLOAT, ["B", len(parts), *shape])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=parts[0].opset_import, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model
