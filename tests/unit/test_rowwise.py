"""The row-wise int8 rewrite: near to fp32, and bit for bit the same alone and in any company."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.support.models import mlp_graph, tiny_graph
from trainers.arrays import Array
from trainers.quantize import rowwise
from trainers.quantize.candidates import optimize


def rewritten(graph: bytes) -> ort.InferenceSession:
    quantized = rowwise.rewrite(graph)
    assert quantized is not None
    return ort.InferenceSession(optimize(quantized, "rowwise"))


def run(session: ort.InferenceSession, features: Array) -> Array:
    return np.asarray(session.run(None, {"features": features})[0])


@settings(max_examples=15, deadline=None)
@given(
    features=st.sampled_from([33, 64, 200]),
    hidden=st.sampled_from([40, 64, 129]),
    outputs=st.sampled_from([1, 10, 32]),
    mates=st.integers(1, 40),
    magnitude=st.sampled_from([1e-20, 1.0, 1e6, 1e30]),
    seed=st.integers(0, 1000),
)
def test_no_batch_mate_changes_a_bit(features: int, hidden: int, outputs: int, mates: int, magnitude: float, seed: int):
    session = rewritten(mlp_graph(features, hidden, outputs, seed))
    rng = np.random.default_rng(seed)
    row = rng.normal(size=(1, features)).astype(np.float32)
    company = (rng.normal(size=(mates, features)) * magnitude).astype(np.float32)
    at = int(rng.integers(0, mates + 1))
    batch = np.concatenate([company[:at], row, company[at:]])
    np.testing.assert_array_equal(run(session, batch)[at], run(session, row)[0])


@pytest.mark.parametrize(("features", "hidden", "outputs"), [(32, 64, 10), (100, 256, 64), (512, 512, 1)])
def test_answers_are_close_to_fp32(features: int, hidden: int, outputs: int):
    graph = mlp_graph(features, hidden, outputs)
    rows = np.random.default_rng(1).normal(size=(200, features)).astype(np.float32)
    exact = run(ort.InferenceSession(graph), rows)
    difference = run(rewritten(graph), rows) - exact
    assert np.sqrt(np.mean(difference**2)) < 0.03 * exact.std()


def test_a_row_of_zeros_is_exact():
    graph = mlp_graph(64, 64, 10)
    zeros = np.zeros((1, 64), np.float32)
    hidden_only = onnx.load_from_string(graph)
    del hidden_only.graph.node[1:], hidden_only.graph.output[:]
    hidden_only.graph.output.append(helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", 64]))
    alone = hidden_only.SerializeToString()
    np.testing.assert_array_equal(run(rewritten(alone), zeros), run(ort.InferenceSession(alone), zeros))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5, 63])
def test_what_is_not_finite_stays_so_and_stays_in_its_row(value: float, at: int):
    session = rewritten(mlp_graph(64, 64, 10))
    rows = np.random.default_rng(2).normal(size=(9, 64)).astype(np.float32)
    clean = run(session, rows)
    rows[4, at] = value
    answers = run(session, rows)
    assert not np.isfinite(answers[4]).any()
    np.testing.assert_array_equal(np.delete(answers, 4, axis=0), np.delete(clean, 4, axis=0))


def test_weights_never_saturate_pairs_of_products_in_16_bits():
    quantized = onnx.load_from_string(rowwise.rewrite(mlp_graph(64, 64, 32)) or b"")
    weights = [numpy_helper.to_array(t) for t in quantized.graph.initializer if t.data_type == TensorProto.INT8]
    assert len(weights) == 2
    assert 2 * 255 * max(int(np.abs(matrix.astype(int)).max()) for matrix in weights) <= 2**15 - 1


def test_matmul_with_three_axes_and_a_transposed_gemm_are_rewritten():
    weights = np.random.default_rng(3).normal(size=(48, 40)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["features", "w"], ["product"]),
        helper.make_node("Reshape", ["product", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "w"], ["back"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3, 48])],
        [helper.make_tensor_value_info("back", TensorProto.FLOAT, ["rows", 48])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([-1, 40]), "flat")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    features = np.random.default_rng(4).normal(size=(5, 3, 48)).astype(np.float32)
    expected = (features @ weights @ weights.T).reshape(-1, 48)
    np.testing.assert_allclose(run(rewritten(model), features), expected, atol=0.03 * np.abs(expected).max())


def test_scaled_gemm_and_small_matrices_are_left_alone():
    scaled = onnx.load_from_string(mlp_graph(64, 64, 1))
    scaled.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.5))
    assert rowwise.rewrite(scaled.SerializeToString()) is None
    assert rowwise.rewrite(tiny_graph()) is None
