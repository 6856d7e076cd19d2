"""Each pass against the untouched graph in ONNX Runtime, alone, and all of them together on Demucs-like pieces."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from places import GRAPHS as DATA
from small_graphs import attention, dconv, equal, finished, glu, group_norm, kinds, random, run
from torch import nn

from ortsep.base.decibels import snr
from ortsep.base.errors import FileMissing, ModelError, UsageError
from ortsep.export.graph.builder import Graph
from ortsep.export.optimize import optimize_file
from ortsep.export.passes import OLDEST, apply, optimize, passes
from ortsep.export.passes.attention import fuse_attention, split_projections
from ortsep.export.passes.clean import drop_dead, drop_expand, fold_constants, fuse_gelu, simplify_moves
from ortsep.export.passes.convs import crop_transposed, fold_affine, shuffle_transposed, split_glu
from ortsep.export.passes.layout import cancel_transposes, unfold_rows
from ortsep.export.passes.norms import expansion_norm, step_means, step_norm


def test_constants_are_computed_once_and_outputs_keep_their_names() -> None:
    g = Graph("constants")
    table = g.op("Concat", *(g.op(k, g.const(random(4, 8))) for k in ("Sin", "Cos")), axis=1)
    model = finished(g, g.add(g.input("x", [4, 16]), table), [4, 16])
    made, count = apply(model, fold_constants)
    assert (kinds(made), count) == (["Add"], 3)
    equal(model, made)


def test_a_folded_constant_does_not_grow_beyond_measure() -> None:
    g = Graph("broadcast")
    wide = g.op("Expand", g.const(random(1, 1)), g.ints(2048, 2048))
    model = finished(g, g.add(g.input("x", [2048, 2048]), wide), [2048, 2048])
    assert apply(model, fold_constants) == (model, 0)
    made, count = apply(model, drop_expand)
    assert (kinds(made), count) == (["Add"], 1)
    equal(model, made)


def test_an_expand_that_does_the_broadcasting_stays() -> None:
    g = Graph("needed")
    y = g.add(g.op("Expand", g.input("x", [1, 4]), g.ints(3, 4)), g.const(random(1, 4)))
    assert apply(finished(g, y, [3, 4]), drop_expand)[1] == 0


def test_a_scaled_expand_goes_too() -> None:
    g = Graph("scaled")
    wide = g.mul(g.op("Expand", g.input("e", [1, 4, 1]), g.ints(1, 4, 6)), g.const(0.2))
    model = finished(g, g.add(g.input("x", [1, 4, 6]), wide), [1, 4, 6])
    made, _ = apply(model, drop_expand)
    assert kinds(made) == ["Mul", "Add"]
    equal(model, made)


def test_dead_nodes_and_weights_go() -> None:
    g = Graph("dead")
    x = g.input("x", [2, 3])
    g.linear(x, random(4, 3))
    model = finished(g, g.op("Relu", x), [2, 3])
    made, count = apply(model, drop_dead)
    assert (kinds(made), len(made.graph.initializer), count) == (["Relu"], 0, 2)


@pytest.mark.parametrize("order", ["x(half)", "half(x)", "(x half)"])
def test_gelu_written_out_becomes_one_node(order: str) -> None:
    g = Graph("gelu")
    x = g.input("x", [3, 50])
    sum_ = g.add(g.op("Erf", g.div(x, g.const(np.sqrt(2)))), g.const(1.0))
    half = g.const(0.5)
    ways = {
        "x(half)": lambda: g.mul(g.mul(x, sum_), half),
        "half(x)": lambda: g.mul(x, g.mul(sum_, half)),
        "(x half)": lambda: g.mul(g.mul(x, half), sum_),
    }
    model = finished(g, ways[order](), [3, 50])
    made, _ = apply(model, fuse_gelu)
    assert kinds(made) == ["Gelu"]
    equal(model, made)


def test_what_is_almost_a_gelu_is_left_alone() -> None:
    g = Graph("almost")
    x = g.input("x", [3, 5])
    sum_ = g.add(g.op("Erf", g.div(x, g.const(1.5))), g.const(1.0))
    model = finished(g, g.mul(g.mul(x, sum_), g.const(0.5)), [3, 5])
    assert apply(model, fuse_gelu) == (model, 0)


def test_moves_are_merged() -> None:
    g = Graph("moves")
    x = g.transpose(g.transpose(g.input("x", [1, 4, 6]), 1, 0, 2), 0, 2, 1)
    x = g.op("Squeeze", g.reshape(g.op("Identity", x), 4, 6, 1), g.ints(2))
    model = finished(g, g.op("Relu", g.op("Unsqueeze", x, g.ints(0))), [1, 4, 6])
    made, _ = apply(model, simplify_moves)
    assert len(made.graph.node) <= 3
    equal(model, made)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_norm_behind_an_expansion_needs_only_what_is_in_front_of_it(batch: int) -> None:
    g = Graph("expansion")
    x = g.input("x", [batch, 6, 700])
    y = group_norm(g, g.conv(x, random(48, 6, 1), random(48) + 3), 48, [batch, 48, 700])
    model = finished(g, y, [batch, 48, 700])
    made, count = apply(model, expansion_norm)
    assert count == 1 and "InstanceNormalization" not in kinds(made)
    equal(model, made)


def test_a_padded_convolution_is_no_expansion() -> None:
    g = Graph("padded")
    y = g.conv(g.input("x", [1, 6, 50]), random(48, 6, 1), random(48), pads=[1, 1])
    assert apply(finished(g, group_norm(g, y, 48, [1, 48, 52]), [1, 48, 52]), expansion_norm)[1] == 0


@pytest.mark.parametrize("groups", [1, 3, 12])
def test_norms_in_steps_equal_torch_in_float64(groups: int) -> None:
    """One on a large tensor with a mean, where ONNX Runtime's own has half the digits."""
    t = 20000
    norm = nn.GroupNorm(groups, 12).double()
    g = Graph("steps")
    x = g.add(g.input("x", [1, 12, t]), g.const(3.0))
    y = group_norm(g, x, 12, [1, 12, t], groups)
    with torch.no_grad():
        gamma, beta = (next(a for n, a in g._constants.items() if n == c) for c in list(g._constants)[-2:])
        norm.weight.copy_(torch.from_numpy(numpy_helper.to_array(gamma).copy().ravel()))
        norm.bias.copy_(torch.from_numpy(numpy_helper.to_array(beta).copy().ravel()))
        noise = np.random.default_rng(1).standard_normal((1, 12, t)).astype(np.float32)
        expected = norm(torch.from_numpy(noise + np.float32(3)).double()).numpy()
    model = finished(g, y, [1, 12, t])
    made, count = apply(model, step_norm)
    assert count == 1
    assert snr(expected, run(made)["y"]) > 125
    assert snr(expected, run(made)["y"]) >= snr(expected, run(model)["y"]) - 3


@pytest.mark.parametrize("keepdims", [0, 1])
def test_means_are_taken_in_steps(keepdims: int) -> None:
    g = Graph("means")
    x = g.add(g.input("x", [1, 4, 256, 336]), g.const(3.0))
    model = finished(g, g.op("ReduceMean", x, g.ints(1, 2, 3), keepdims=keepdims), [1, 1, 1, 1] if keepdims else [1])
    made, count = apply(model, step_means)
    noise = np.random.default_rng(1).standard_normal((1, 4, 256, 336)).astype(np.float32)
    exact = (noise + np.float32(3)).astype(np.float64).mean()
    assert count == 1 and kinds(made).count("ReduceMean") == 3
    assert abs(run(made)["y"].item() - exact) <= abs(run(model)["y"].item() - exact)
    assert abs(run(made)["y"].item() / exact - 1) < 3e-7


def test_batch_norms_and_scales_go_into_the_weights() -> None:
    g = Graph("affine")
    y = g.conv(g.input("x", [2, 3, 20]), random(5, 3, 3), random(5))
    values = (random(5, low=0.3), random(5), random(5), random(5, low=0.5))
    y = g.op("BatchNormalization", y, *(g.const(v) for v in values))
    y = g.mul(g.const(random(5, 1, low=0.3)), g.op("Relu", y))
    y = g.conv_transpose(y, random(5, 4, 4), None, stride=[2])
    y = g.add(g.mul(y, g.const(random(1, 4, 1, low=0.3))), g.const(random(4, 1)))
    model = finished(g, y, [2, 4, 38])
    made, count = apply(model, fold_affine)
    assert count >= 3 and "BatchNormalization" not in kinds(made)
    equal(model, made)


def test_a_scale_along_time_stays() -> None:
    g = Graph("time")
    y = g.mul(g.conv(g.input("x", [1, 3, 20]), random(5, 3, 1)), g.const(random(20)))
    assert apply(finished(g, y, [1, 5, 20]), fold_affine)[1] == 0


def test_a_glu_becomes_two_convolutions() -> None:
    g = Graph("glu")
    y = glu(g, g.conv(g.input("x", [1, 4, 30]), random(12, 4, 3), random(12), pads=[1, 1]))
    model = finished(g, g.mul(y, g.const(random(6, 1))), [1, 6, 30])
    made, _ = apply(model, split_glu)
    assert sorted(kinds(made)) == ["Conv", "Conv", "Mul", "Mul", "Sigmoid"]
    equal(model, made)
    both = apply(made, fold_affine)[0]
    assert sorted(kinds(both)) == ["Conv", "Conv", "Mul", "Sigmoid"]
    equal(model, both)


@pytest.mark.parametrize("tail", [(), (7,)])
@pytest.mark.parametrize("stop", [-2, -3])
def test_transposed_convolutions_become_a_shuffle(tail: tuple[int, ...], stop: int) -> None:
    g = Graph("transposed")
    ones = [1] * len(tail)
    x = g.input("x", [1, 6, 9, *tail])
    y = g.conv_transpose(x, random(6, 5, 8, *ones), random(5), stride=[4, *ones])
    y = g.op("Slice", y, g.ints(2), g.ints(stop), g.ints(2), g.ints(1))
    model = finished(g, y, [1, 5, 38 + stop, *tail])
    cropped, count = apply(model, crop_transposed)
    assert (kinds(cropped), count) == (["ConvTranspose"], 1)
    equal(model, cropped)
    made, count = apply(cropped, shuffle_transposed)
    assert count == 1 and "ConvTranspose" not in kinds(made)
    equal(model, made)


def test_rows_in_the_batch_become_a_second_axis() -> None:
    g = Graph("rows")
    x = g.input("x", [1, 16, 8, 40])
    y = dconv(g, g.reshape(g.transpose(x, 0, 2, 1, 3), 8, 16, 40), 16, [8, 16, 40])
    model = finished(g, g.transpose(g.reshape(y, 1, 8, 16, 40), 0, 2, 1, 3), [1, 16, 8, 40])
    lowered = optimize(model, [expansion_norm, step_norm])[0]
    made, count = apply(lowered, unfold_rows)
    assert count and "Transpose" not in kinds(made)
    equal(model, made)


def test_transposes_around_elementwise_operators_cancel() -> None:
    g = Graph("cancel")
    x = g.transpose(g.input("x", [2, 30, 6]), 0, 2, 1)
    y = g.mul(g.sub(x, g.mean(x, 2, 1)), g.const(random(6, 1)))
    model = finished(g, g.transpose(y, 0, 2, 1), [2, 30, 6])
    made, count = apply(model, cancel_transposes)
    assert count and "Transpose" not in kinds(made)
    equal(model, made)


@pytest.mark.parametrize(("one", "kind"), [(fuse_attention, "MultiHeadAttention"), (split_projections, "Softmax")])
def test_attention_is_found_behind_any_moves(one: Callable[..., int], kind: str) -> None:
    g = Graph("attention")
    model = finished(g, attention(g, g.input("x", [1, 40, 16]), 40, 16, 4), [1, 40, 16])
    made, count = apply(model, one)
    assert count == 1 and kind in kinds(made) and "Gather" not in kinds(made)
    assert (kind == "Softmax") == all(node.domain == "" for node in made.graph.node)
    equal(model, made)


def test_heads_in_another_order_are_left_alone() -> None:
    g = Graph("order")
    x = g.linear(g.input("x", [1, 8, 4]), random(4, 4))
    q = g.transpose(g.reshape(x, 1, 8, 2, 2), 0, 3, 1, 2)
    weights = g.op("Softmax", g.op("MatMul", q, g.transpose(q, 0, 1, 3, 2)), axis=-1)
    model = finished(g, g.reshape(g.transpose(g.op("MatMul", weights, q), 0, 2, 1, 3), 1, 8, 4), [1, 8, 4])
    assert apply(model, fuse_attention) == (model, 0)


def demucs_like() -> onnx.ModelProto:
    """Both branches of a small Demucs: rows, norms, GLU, attention, transposed convolution."""
    g = Graph("demucs")
    x, w = g.input("spectrum", [1, 4, 32, 24]), g.input("mix", [1, 2, 256])
    x = g.sub(x, g.op("ReduceMean", x, g.ints(1, 2, 3), keepdims=1))
    x = g.gelu(g.conv(x, random(16, 4, 8, 1) / 4, random(16), stride=[4, 1], pads=[2, 0, 2, 0]))
    y = dconv(g, g.reshape(g.transpose(x, 0, 2, 1, 3), 8, 16, 24), 16, [8, 16, 24])
    y = g.transpose(g.reshape(y, 1, 8, 16, 24), 0, 2, 1, 3)
    skip = glu(g, g.conv(y, random(32, 16, 1, 1) / 4, random(32)))
    tokens = g.transpose(g.reshape(skip, 1, 16, 192), 0, 2, 1)
    tokens = g.add(tokens, attention(g, tokens, 192, 16, 4))
    y = g.add(g.reshape(g.transpose(tokens, 0, 2, 1), 1, 16, 8, 24), skip)
    y = g.op(
        "Slice",
        g.conv_transpose(y, random(16, 8, 8, 1) / 4, random(8), stride=[4, 1]),
        g.ints(2),
        g.ints(-2),
        g.ints(2),
    )
    g.output(y, "spectra", [1, 8, 32, 24])
    v = dconv(g, g.conv(w, random(16, 2, 8), random(16), stride=[4], pads=[2, 2]), 16, [1, 16, 64])
    v = g.op(
        "Slice", g.conv_transpose(v, random(16, 2, 8) / 4, random(2), stride=[4]), g.ints(2), g.ints(258), g.ints(2)
    )
    g.output(v, "waves", [1, 2, 256])
    return g.model()


@pytest.mark.parametrize("portable", [False, True])
def test_all_together_on_a_small_demucs(portable: bool) -> None:
    model = demucs_like()
    before = model.SerializeToString(deterministic=True)
    made, reports = optimize(model, portable=portable)
    assert model.SerializeToString(deterministic=True) == before
    equal(model, made)
    gone = {"InstanceNormalization", "ConvTranspose", "Gather", "Split"}
    assert not gone & set(kinds(made))
    assert not portable or all(node.domain == "" for node in made.graph.node)
    assert {r.name for r in reports if r.changed} >= {
        "expansion_norm",
        "unfold_rows",
        "split_glu",
        "shuffle_transposed",
    }
    again, _ = optimize(made, portable=portable)
    equal(model, again)


@pytest.mark.parametrize("one", passes(), ids=lambda one: str(one.__name__))
def test_a_pass_that_finds_nothing_leaves_the_model_alone(one: Callable[..., int]) -> None:
    g = Graph("plain")
    model = finished(g, g.op("Relu", g.conv(g.input("x", [1, 2, 9]), random(3, 2, 3), random(3))), [1, 3, 7])
    assert apply(model, one)[0] is model


@pytest.mark.parametrize("name", ["hybrid/hybrid", "complex/complex", "masks/masks", "waves/waves", "ratio/ratio"])
def test_exported_graphs_stay_equal_and_keep_their_spec(name: str) -> None:
    model = onnx.load(str(DATA / f"{name}.onnx"))
    made, _ = optimize(model)
    assert list(made.metadata_props) == list(model.metadata_props)
    assert list(made.graph.input) == list(model.graph.input) and list(made.graph.output) == list(model.graph.output)


def test_values_that_a_subgraph_uses_are_kept() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["inside"], ["out"])], "then", [], [helper.make_empty_tensor_value_info("out")]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["inside"], ["out"])], "else", [], [helper.make_empty_tensor_value_info("out")]
    )
    nodes = [
        helper.make_node("Identity", ["x"], ["inside"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=other),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "if", [value("x", 1, [3])], [value("y", 1, [3])], [numpy_helper.from_array(np.array(True), "flag")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    made, _ = optimize(model)
    np.testing.assert_array_equal(run(model)["y"], run(made)["y"])


def test_an_old_opset_is_refused() -> None:
    g = Graph("old", opset=OLDEST - 1)
    with pytest.raises(ModelError, match="version_converter"):
        optimize(finished(g, g.op("Relu", g.input("x", [1])), [1]))


def test_a_file_is_optimised_with_its_manifest(tmp_path: Path) -> None:
    model = demucs_like()
    model.metadata_props.add(key="owner", value="kept")
    source = tmp_path / "in" / "model.onnx"
    source.parent.mkdir()
    onnx.save(model, str(source), save_as_external_data=True, location="weights.bin", size_threshold=512)
    (source.parent / "stems.txt").write_text("a\nb\n")
    made = optimize_file(source, tmp_path / "out" / "fast.onnx", runs=1)
    written = onnx.load(str(made.output))
    assert made.db > 110 and made.after.peak_mb > 0 and made.after.nodes == len(written.graph.node)
    assert [(p.key, p.value) for p in written.metadata_props] == [("owner", "kept")]
    assert (tmp_path / "out" / "stems.txt").read_text() == "a\nb\n"
    with pytest.raises(ModelError, match="was not written"):
        optimize_file(source, tmp_path / "never.onnx", gate=400.0, runs=1)
    assert not (tmp_path / "never.onnx").exists()


def test_what_cannot_be_optimised_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        optimize_file(tmp_path / "no.onnx", tmp_path / "out.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError):
        optimize_file(tmp_path / "bad.onnx", tmp_path / "out.onnx")
    g = Graph("free")
    onnx.save(finished(g, g.op("Relu", g.input("x", ["batch", 2, "time"])), ["batch", 2, "time"]), tmp_path / "f.onnx")
    with pytest.raises(UsageError, match="--shape x"):
        optimize_file(tmp_path / "f.onnx", tmp_path / "out.onnx")
    with pytest.raises(UsageError, match="does not fit"):
        optimize_file(tmp_path / "f.onnx", tmp_path / "out.onnx", shapes={"x": (1, 3, 5)})
    with pytest.raises(UsageError, match="no input"):
        optimize_file(tmp_path / "f.onnx", tmp_path / "out.onnx", shapes={"z": (1,)})
    assert optimize_file(tmp_path / "f.onnx", tmp_path / "o.onnx", shapes={"x": (2, 2, 5)}, runs=1).db > 900
