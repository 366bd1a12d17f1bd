"""Recipes that look at weights only: row-wise int8 of whole encoders, int8 tables, fp16 files, and how graphs hold constants."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.encoders import encoder_graph
from tests.support.models import cnn_graph, mlp_graph, tiny_graph
from trainers.arrays import Array
from trainers.quantize import gather, halves, nbits, rowwise
from trainers.quantize.candidates import optimize

WORDS, WIDTH, TOKENS = 1000, 64, 12


@pytest.fixture(scope="module")
def encoder() -> bytes:
    return encoder_graph(layers=2, width=WIDTH, heads=4, inner=128, words=WORDS)


def session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def ran(graph: bytes | None, **feed: Array) -> Array:
    assert graph is not None
    return np.asarray(session(optimize(graph, "test")).run(None, feed)[0])


def texts(rows: int, seed: int = 0) -> dict[str, Array]:
    ids = np.random.default_rng(seed).integers(0, WORDS, (rows, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones((rows, TOKENS), np.int64)}


def kinds(graph: bytes | None) -> dict[str, int]:
    """Elements of the stored tensors by type."""
    counted: dict[str, int] = {}
    for tensor in onnx.load_from_string(graph or b"").graph.initializer:
        name = TensorProto.DataType.Name(tensor.data_type)
        counted[name] = counted.get(name, 0) + int(np.prod(tensor.dims))
    return counted


def model_of(
    nodes: list[onnx.NodeProto], constants: Mapping[str, Array], *, output: list[int | str], opset: int = 20
) -> onnx.ModelProto:
    """`x` FP32 [batch, 48] to `y`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


WEIGHTS = np.random.default_rng(3).normal(size=(48, 40)).astype(np.float32)
ROWS = np.random.default_rng(4).normal(size=(5, 48)).astype(np.float32)


def test_an_encoder_by_rows_has_the_same_bits_alone_and_in_any_batch(encoder: bytes):
    """Every token's state, that is; the sum over tokens behind them is fp32, and onnxruntime adds in another order for one row."""
    model = onnx.load_from_string(gather.rewrite(rowwise.rewrite(encoder) or b"") or b"")
    pooled = next(
        node for node in model.graph.node if node.op_type == "ReduceSum" and not node.name.startswith("rowwise")
    )
    states = next(node for node in model.graph.node if node.output[0] == pooled.input[0]).input[0]
    model.graph.output.append(helper.make_tensor_value_info(states, TensorProto.FLOAT, ["batch", "tokens", WIDTH]))
    quantized = session(optimize(model.SerializeToString(), "rowwise"))
    embeddings, tokens = quantized.run(None, texts(24))
    for row in range(24):
        alone = quantized.run(None, {name: values[row : row + 1] for name, values in texts(24).items()})
        np.testing.assert_array_equal(tokens[row], alone[1][0])
        np.testing.assert_allclose(embeddings[row], alone[0][0], atol=1e-6)


def test_padding_moves_an_encoder_by_rows_no_more_than_fp32_rounds(encoder: bytes):
    model = session(optimize(gather.rewrite(rowwise.rewrite(encoder) or b"") or b"", "rowwise"))
    feed = texts(8)
    padded = {name: np.pad(values, ((0, 0), (0, 20))) for name, values in feed.items()}
    padded["input_ids"][:, TOKENS:] = WORDS - 1  # not even a neutral word
    np.testing.assert_allclose(model.run(None, padded)[0], model.run(None, feed)[0], atol=1e-5)


def test_an_encoder_by_rows_has_no_large_fp32_weight_left(encoder: bytes):
    quantized = gather.rewrite(rowwise.rewrite(encoder) or b"")
    stored = kinds(optimize(quantized or b"", "rowwise"))
    assert stored["INT8"] == WORDS * WIDTH + 2 * (4 * WIDTH * WIDTH + 2 * WIDTH * 128)
    assert stored["FLOAT"] < 6000  # biases, norms and scales
    assert len(quantized or b"") < len(encoder) / 3


def test_full_range_is_nearer_to_fp32_than_seven_bits(encoder: bytes):
    exact = ran(encoder, **texts(32))
    errors = [
        np.abs(ran(rowwise.rewrite(encoder, weight_max=limit), **texts(32)) - exact).mean()
        for limit in (rowwise.WEIGHT_MAX_FULL, rowwise.WEIGHT_MAX)
    ]
    assert errors[0] < errors[1] < 0.05 * exact.std()


def test_tables_stay_int8_in_the_optimized_file_and_rows_come_back(encoder: bytes):
    quantized = optimize(gather.rewrite(encoder) or b"", "gather")
    assert kinds(quantized)["INT8"] == WORDS * WIDTH
    exact, own = ran(encoder, **texts(32)), session(quantized).run(None, texts(32))[0]
    assert np.sqrt(np.mean((own - exact) ** 2)) < 0.02 * exact.std()


def test_a_looked_up_row_is_off_by_half_a_step_of_its_own_row():
    table = (np.random.default_rng(0).normal(size=(4096, 8)) * np.logspace(-6, 2, 4096)[:, None]).astype(np.float32)
    table[7] = 0
    nodes = [
        helper.make_node("ArgMax", ["x"], ["at"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "at"], ["y"], axis=0),
    ]
    model = model_of(nodes, {"table": table}, output=["batch", 8])
    rows = np.eye(48, dtype=np.float32)
    exact = table[:48]
    own = ran(gather.rewrite(model.SerializeToString()), x=rows)
    assert (np.abs(own - exact) <= 0.51 * np.abs(exact).max(axis=1, keepdims=True) / 127).all()
    np.testing.assert_array_equal(own[7], 0)


def test_a_table_that_is_multiplied_with_too_is_left_alone():
    table = np.random.default_rng(0).normal(size=(1024, 48)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["at"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "at"], ["y"], axis=0),
    ]
    tied = model_of(nodes, {"table": table}, output=["batch", 48]).SerializeToString()
    assert gather.rewrite(tied) is None
    nearest = ran(rowwise.rewrite(tied), x=table[:16])  # the multiplication is still quantized, the lookup still exact
    np.testing.assert_array_equal(nearest, table[:16])


def test_small_tables_and_lookups_along_columns_are_left_alone():
    assert gather.rewrite(tiny_graph()) is None
    wide = np.zeros((4, 8192), np.float32)
    nodes = [
        helper.make_node("ArgMax", ["x"], ["at"], axis=1, keepdims=0),
        helper.make_node("Gather", ["wide", "at"], ["y"], axis=1),
    ]
    assert gather.rewrite(model_of(nodes, {"wide": wide}, output=[4, "batch"]).SerializeToString()) is None


@pytest.mark.parametrize("how", ["initializer", "constant", "identity", "transposed", "gemm"])
def test_a_weight_is_found_however_the_graph_holds_it(how: str):
    held = {
        "initializer": ([], {"w": WEIGHTS}),
        "constant": ([helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHTS))], {}),
        "identity": ([helper.make_node("Identity", ["shared"], ["w"])], {"shared": WEIGHTS}),
        "transposed": ([helper.make_node("Transpose", ["turned"], ["w"], perm=[1, 0])], {"turned": WEIGHTS.T.copy()}),
        "gemm": ([], {"w": WEIGHTS.T.copy()}),
    }
    before, constants = held[how]
    product = (
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
        if how == "gemm"
        else helper.make_node("MatMul", ["x", "w"], ["y"])
    )
    quantized = rowwise.rewrite(model_of([*before, product], constants, output=["batch", 40]).SerializeToString())
    exact = ROWS @ WEIGHTS
    np.testing.assert_allclose(ran(quantized, x=ROWS), exact, atol=0.03 * np.abs(exact).max())
    assert not {"Constant", "Identity", "Transpose"} & {n.op_type for n in onnx.load_from_string(quantized).graph.node}
    assert kinds(quantized)["FLOAT"] == 40 + 3  # the column scales and three scalars


def test_a_matrix_that_two_nodes_share_is_stored_once():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = model_of(nodes, {"w": WEIGHTS}, output=["batch", 40]).SerializeToString()
    quantized = rowwise.rewrite(graph)
    assert kinds(quantized)["INT8"] == WEIGHTS.size
    assert rowwise.names(graph) == ("a", "b")
    half = rowwise.rewrite(graph, skip={"a"})
    assert kinds(half)["FLOAT"] > WEIGHTS.size
    assert rowwise.rewrite(graph, skip={"a", "b"}) is None
    exact = ROWS @ WEIGHTS + np.tanh(ROWS) @ WEIGHTS
    for made in (quantized, half):
        np.testing.assert_allclose(ran(made, x=ROWS), exact, atol=0.03 * np.abs(exact).max())


def test_a_subgraph_keeps_its_multiplication_and_the_weight_it_names():
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 40])],
        )
        for name in ("yes", "no")
    ]
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["is_positive"]),
        helper.make_node("If", ["is_positive"], ["inner"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("MatMul", ["x", "w"], ["outer"]),
        helper.make_node("Sub", ["inner", "outer"], ["y"]),
    ]
    model = model_of(nodes, {"w": WEIGHTS, "zero": np.zeros((), np.float32)}, output=["batch", 40])
    difference = ran(rowwise.rewrite(model.SerializeToString()), x=ROWS)
    assert 0 < np.abs(difference).max() < 0.03 * np.abs(ROWS @ WEIGHTS).max()


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_older_operator_sets_are_rewritten_in_their_own_words(opset: int):
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHTS}, output=["batch", 40], opset=opset)
    exact = ROWS @ WEIGHTS
    np.testing.assert_allclose(
        ran(rowwise.rewrite(model.SerializeToString()), x=ROWS), exact, atol=0.03 * np.abs(exact).max()
    )


def test_an_operator_set_without_the_words_is_left_alone():
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHTS}, output=["batch", 40], opset=11)
    assert rowwise.rewrite(model.SerializeToString()) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_stays_where_the_gates_see_it(value: float):
    weights = WEIGHTS.copy()
    weights[3, 3] = value
    graph = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}, output=["batch", 40])
    assert rowwise.rewrite(graph.SerializeToString()) is None


def test_halves_are_half_the_file_and_compute_in_fp32():
    graph = cnn_graph()
    halved = halves.rewrite(graph) or b""
    assert len(halved) < 0.52 * len(graph)
    image = np.random.default_rng(0).normal(size=(2, 3, 96, 96)).astype(np.float32)
    exact, own = session(graph).run(None, {"image": image})[0], session(halved).run(None, {"image": image})[0]
    assert 0 < np.abs(own - exact).max() < 2e-3 * exact.std()
    huge = session(halved).run(None, {"image": image * np.float32(1e6)})[0]
    assert np.isfinite(huge).all()  # an activation beyond 65,504 would not be, in fp16


def test_halves_leave_what_fp16_cannot_hold():
    assert halves.rewrite(tiny_graph()) is None
    large = np.full((64, 64), 1e5, np.float32)
    nodes = [helper.make_node("Gather", ["large", "at"], ["row"]), helper.make_node("Add", ["row", "row"], ["y"])]
    model = model_of(nodes, {"large": large, "at": np.array([0])}, output=[1, 64])
    assert halves.rewrite(model.SerializeToString()) is None


@pytest.mark.parametrize(("bits", "size", "error"), [(8, 0.5, 0.03), (4, 0.4, 0.3)])
def test_blocks_shrink_multiplications_and_stay_near(encoder: bytes, bits: int, size: float, error: float):
    quantized = nbits.rewrite(encoder, bits=8 if bits == 8 else 4)
    exact, own = ran(encoder, **texts(16)), ran(quantized, **texts(16))
    assert len(quantized or b"") - 4 * WORDS * WIDTH < size * (len(encoder) - 4 * WORDS * WIDTH)
    assert 0 < np.sqrt(np.mean((own - exact) ** 2)) < error * exact.std()


def test_blocks_need_a_matmul_by_a_constant():
    assert nbits.rewrite(mlp_graph(), bits=8) is None
    assert nbits.rewrite(tiny_graph(), bits=4) is None
