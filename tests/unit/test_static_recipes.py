"""Recipes that need rows or a batch: static int8 of MatMuls and of convolutions, stock dynamic int8, calibration, preparation."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support import graphs
from tests.support.encoders import encoder_graph
from tests.support.models import mlp_graph, tiny_graph
from trainers.arrays import Array
from trainers.errors import DataError
from trainers.quantize import calibration, dynamic, preprocess, static, weights
from trainers.quantize.candidates import optimize

FEATURES = np.random.default_rng(0).normal(size=(150, 64)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(100, 1, 8, 8)).astype(np.float32)


def small_cnn(*, softmax: bool = False) -> bytes:
    """`image` [batch, 1, 8, 8]: Conv, BatchNormalization, Relu, Conv, Relu, MaxPool, Gemm to twelve logits."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Array:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants = {
        "k1": drawn(16, 1, 3, 3),
        "k2": drawn(24, 16, 3, 3),
        "w": drawn(12, 24 * 4),
        "b": rng.normal(size=12).astype(np.float32),
        **{name: np.abs(rng.normal(size=16)).astype(np.float32) + 0.5 for name in ("scale", "shift", "mean", "var")},
    }
    nodes = [
        helper.make_node("Conv", ["image", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["a1"]),
        helper.make_node("Conv", ["a1", "k2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["a2"]),
        helper.make_node("MaxPool", ["a2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
        *([helper.make_node("Softmax", ["logits"], ["shares"], axis=1)] if softmax else []),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("shares" if softmax else "logits", TensorProto.FLOAT, ["batch", 12])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def ran(graph: bytes | None, **feed: Array) -> Array:
    assert graph is not None
    return np.asarray(ort.InferenceSession(optimize(graph, "test")).run(None, feed)[0])


def quantized_inputs(graph: bytes | None) -> set[str]:
    """What a QuantizeLinear reads."""
    model = onnx.load_from_string(graph or b"")
    return {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def int8_weights(graph: bytes | None) -> list[Array]:
    model = onnx.load_from_string(graph or b"")
    return [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
    ]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("method", static.METHODS)
@pytest.mark.parametrize("reduce_range", [True, False])
def test_convolutions_in_int8_keep_their_logits_float(per_channel: bool, method: static.Method, reduce_range: bool):
    prepared = preprocess_once()
    made = static.convolutions(
        prepared, {"image": IMAGES}, per_channel=per_channel, method=method, reduce_range=reduce_range
    )
    assert "logits" not in quantized_inputs(made)
    kernels = int8_weights(made)
    assert len(kernels) == 3
    assert max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels) <= (64 if reduce_range else 127)
    exact, own = ran(small_cnn(), image=IMAGES), ran(made, image=IMAGES)
    assert 0 < np.sqrt(np.mean((own - exact) ** 2)) < 0.1 * exact.std()


_prepared: list[bytes] = []


def preprocess_once() -> bytes:
    if not _prepared:
        _prepared.append(preprocess.prepared(small_cnn()))
    return _prepared[0]


def test_onnxruntime_runs_the_convolutions_as_integers():
    made = static.convolutions(preprocess_once(), {"image": IMAGES})
    kinds = [node.op_type for node in onnx.load_from_string(optimize(made or b"", "static")).graph.node]
    assert kinds.count("QLinearConv") == 2
    assert "Conv" not in kinds
    assert "ConvInteger" not in kinds


def test_static_answers_do_not_depend_on_batch_mates():
    made = ort.InferenceSession(optimize(static.convolutions(preprocess_once(), {"image": IMAGES}) or b"", "static"))
    mates = np.concatenate([IMAGES[:1], IMAGES[1:32] * 1000])
    np.testing.assert_array_equal(made.run(None, {"image": mates})[0][0], made.run(None, {"image": IMAGES[:1]})[0][0])


def test_what_a_softmax_is_taken_of_is_never_quantized():
    encoder = onnx.load_from_string(encoder_graph(layers=1, width=64, heads=4, inner=128, words=100))
    kinds = {name: node.op_type for node in encoder.graph.node for name in node.output}
    barred = static.before_softmax(encoder.graph)
    assert {kinds[name] for name in barred} >= {"Add", "Div"}  # the mask's addition, the scaled scores
    assert "MatMul" not in {kinds[name] for name in barred}
    logits = static.convolutions(small_cnn(softmax=True), {"image": IMAGES})
    assert not {"logits", "shares"} & quantized_inputs(logits)


def test_only_multiplications_by_a_constant_are_touched_and_their_results_stay_float():
    encoder = encoder_graph(layers=1, width=64, heads=4, inner=128, words=100)
    ids = np.random.default_rng(0).integers(0, 100, (64, 8))
    made = static.multiplications(encoder, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    constant = weights.Constants(onnx.load_from_string(encoder).graph)
    multiplied = [
        node.input[0]
        for node in onnx.load_from_string(encoder).graph.node
        if node.op_type == "MatMul" and constant.floats(node.input[1]) is not None
    ]
    assert len(multiplied) == 6  # of eight: what an attention multiplies is two activations
    assert quantized_inputs(made) == set(multiplied)
    assert len(int8_weights(made)) == 6


def test_nodes_can_be_left_out_by_the_name_of_their_output():
    graph = mlp_graph(64, 64, 20)
    assert static.names(graph) == ("hidden", "scores")
    half = static.multiplications(graph, {"features": FEATURES}, skip={"scores"})
    assert [matrix.shape for matrix in int8_weights(half)] == [(64, 64)]
    assert static.multiplications(graph, {"features": FEATURES}, skip={"scores", "hidden"}) is None


def test_ranges_found_once_are_used_again(tmp_path: Path):
    ranges = tmp_path / "ranges.json"
    rows = {"features": FEATURES}
    first = static.multiplications(mlp_graph(64, 64, 20), rows, ranges=ranges)
    again = static.multiplications(mlp_graph(64, 64, 20), {"features": FEATURES * 100}, ranges=ranges)
    assert ranges.is_file()
    np.testing.assert_array_equal(ran(first, features=FEATURES), ran(again, features=FEATURES))


def test_graphs_without_weights_or_convolutions_give_nothing():
    assert static.convolutions(mlp_graph(), {"features": FEATURES}) is None
    bare = bytes(graphs.graph(graphs.add_weights(), {"w": graphs.WEIGHTS}).SerializeToString())
    rows = {"x": np.ones((10, 3), np.float32)}
    assert static.multiplications(bare, rows) is None
    assert dynamic.rewrite(bare) is None


def test_string_inputs_do_not_keep_a_graph_from_being_calibrated():
    wide = onnx.load_from_string(tiny_graph())
    gemm = next(node for node in wide.graph.node if node.op_type == "Gemm")
    gemm.output[0] = "narrow"
    sigmoid = next(node for node in wide.graph.node if node.op_type == "Sigmoid")
    wide.graph.node.insert(
        list(wide.graph.node).index(sigmoid), helper.make_node("MatMul", ["narrow", "out"], ["many"])
    )
    wide.graph.node.insert(list(wide.graph.node).index(sigmoid), helper.make_node("MatMul", ["many", "in"], ["logit"]))
    matrix = np.random.default_rng(0).normal(size=(1, 1100)).astype(np.float32)
    wide.graph.initializer.extend(
        [numpy_helper.from_array(matrix, "out"), numpy_helper.from_array(matrix.T.copy(), "in")]
    )
    rows = {"categories": np.full((70, 2), "AA", object), "numbers": np.ones((70, 3), np.float32)}
    made = static.multiplications(wide.SerializeToString(), rows)
    assert sorted(matrix.shape for matrix in int8_weights(made)) == [(1, 1100), (1100, 1)]
    other = {name: values[:-1] for name, values in rows.items()}
    assert calibration.digest(rows) == calibration.digest(dict(rows)) != calibration.digest(other)


def ragged(*lengths: int) -> Array:
    rows = np.empty(len(lengths), object)
    rows[:] = [np.full((length, 4), float(i), np.float32) for i, length in enumerate(lengths)]
    return rows


def test_rows_of_another_length_never_share_a_batch_and_a_smaller_last_one_is_dropped():
    values = ragged(*([5] * 150 + [3] * 70 + [9]))
    feeds = calibration.batches({"x": values, "flag": np.ones(221, np.int64)})
    assert [feed["x"].shape for feed in feeds] == [(64, 5, 4), (64, 5, 4), (64, 3, 4)]
    assert all(len(feed["flag"]) == len(feed["x"]) for feed in feeds)
    (short,) = calibration.batches({"x": ragged(2, 2, 7)})
    assert short["x"].shape == (2, 2, 4)
    assert {feed["x"].shape[1] for feed in calibration.batches({"x": values}, one_shape=True)} == {5}


def test_calibration_stops_at_its_limit_of_rows():
    feeds = calibration.batches({"x": np.zeros((5000, 2), np.float32)})
    assert sum(len(feed["x"]) for feed in feeds) == calibration.ROWS_MAX


@pytest.mark.parametrize("rows", [{}, {"x": np.zeros((0, 2))}, {"x": np.zeros((3, 2)), "y": np.zeros((2, 2))}])
def test_calibration_without_rows_is_refused(rows: dict[str, Array]):
    with pytest.raises(DataError, match="calibration needs rows"):
        calibration.batches(rows)


@pytest.mark.parametrize("method", static.METHODS)
def test_a_ragged_calibration_set_crashes_no_calibrator(method: static.Method):
    """Images of three sizes, in numbers that fill no batch."""
    sizes = [8] * 70 + [6] * 30 + [10] * 5
    images = np.empty(len(sizes), object)
    images[:] = [np.random.default_rng(i).normal(size=(1, size, size)) for i, size in enumerate(sizes)]
    images[:] = [image.astype(np.float32) for image in images]
    nodes = [
        helper.make_node("Conv", ["image", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "any size",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, "height", "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(np.random.default_rng(0).normal(size=(16, 1, 3, 3)).astype(np.float32), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made = static.convolutions(model.SerializeToString(), {"image": images}, method=method)
    assert len(int8_weights(made)) == 1


def test_stock_dynamic_int8_depends_on_its_batch_mates():
    """The measured fact that keeps it from targets that batch: onnxruntime #10111."""
    made = ort.InferenceSession(optimize(dynamic.rewrite(mlp_graph(64, 64, 20)) or b"", "dynamic"))
    alone = made.run(None, {"features": FEATURES[:1]})[0]
    mates = np.concatenate([FEATURES[:1], FEATURES[1:8] * 10])
    assert np.abs(made.run(None, {"features": mates})[0][0] - alone[0]).max() > 0.01


def test_stock_dynamic_int8_leaves_out_what_it_is_told_to():
    half = dynamic.rewrite(mlp_graph(64, 64, 20), skip={"scores"})
    assert [matrix.shape for matrix in int8_weights(half)] == [(64, 64)]
    assert dynamic.rewrite(mlp_graph(64, 64, 20), skip={"scores", "hidden"}) is None


def test_preparation_folds_batch_normalization_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    kinds = [node.op_type for node in onnx.load_from_string(preprocess.prepared(small_cnn())).graph.node]
    assert "BatchNormalization" not in kinds
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("graph", [tiny_graph(), b"no graph at all"])
def test_what_cannot_be_prepared_stays_valid_or_as_it_was(graph: bytes):
    made = preprocess.prepared(graph)
    if made != graph:
        rows: dict[str, Any] = {"categories": np.full((2, 2), "AA", object), "numbers": np.ones((2, 3), np.float32)}
        np.testing.assert_allclose(ran(made, **rows), ran(graph, **rows), atol=1e-6)
