"""Judging candidates: what the gates catch, what the choice prefers, what the timing adds up to. No test asserts a time."""

import math

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from gateway.contract import prices
from gateway.contract.manifest import BatchCost, Gate, Latency, Ratio, Signature, Tensor, Tradeoff, Variant
from tests.support.models import tiny_graph
from tests.support.tinyjob import tiny_data
from trainers.errors import GateFailed
from trainers.evaluate import choice, judge, timing
from trainers.job import Candidate, Data, Target, Terms
from trainers.objectives import binary

BATCHES = Target().batches


@pytest.fixture(scope="module")
def data() -> Data:
    return tiny_data()


def quiet(*_: object) -> None: ...


def candidate(name: str, graph: bytes) -> Candidate:
    return Candidate(id=name, recipe=name, graph=graph)


def judged(data: Data, **graphs: bytes) -> judge.Verdict:
    return judge.judge(
        [candidate(name, graph) for name, graph in graphs.items()], data, Terms(binary()), quiet, prices.load()
    )


def failed(verdict: judge.Verdict, variant: str) -> set[str]:
    return {gate.name for gate in verdict.gates if gate.variant == variant and not gate.passed}


def with_probability(graph: bytes, *nodes: onnx.NodeProto, **constants: np.ndarray) -> bytes:
    """The graph with nodes between its former output, now called `before`, and `probability`."""
    model = onnx.load_from_string(graph)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return bytes(model.SerializeToString())


def centered_on_the_batch(graph: bytes) -> bytes:
    """An answer that depends on its batch mates, like one quantized with a single scale for all rows."""
    return with_probability(
        graph,
        helper.make_node("ReduceMean", ["before", "rows"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "part"], ["shift"]),
        helper.make_node("Mul", ["before", "rest"], ["own"]),
        helper.make_node("Add", ["own", "shift"], ["probability"]),
        rows=np.array([0], np.int64),
        part=np.array(0.01, np.float32),
        rest=np.array(0.99, np.float32),
    )


def test_the_same_graph_again_passes_every_gate_and_changes_nothing(data: Data):
    verdict = judged(data, fp32=tiny_graph(), copy=tiny_graph())
    assert all(gate.passed for gate in verdict.gates)
    assert {gate.name for gate in verdict.gates if gate.variant == "fp32"} == {"nan", "batch_difference"}
    assert verdict.evaluations[0].metrics == verdict.evaluations[1].metrics
    assert all(variant.batch_invariant and variant.max_batch == 128 for variant in verdict.variants)


def test_other_weights_fail_on_what_they_change(data: Data):
    verdict = judged(data, fp32=tiny_graph(0), other=tiny_graph(1))
    assert {"probability_drift_p99", "label_disagreement"} <= failed(verdict, "other")
    assert verdict.serve == "fp32"
    assert "other" in verdict.choice
    assert "fails (" in verdict.choice


def test_an_answer_that_depends_on_batch_mates_is_kept_alone_and_not_served(data: Data):
    verdict = judged(data, fp32=tiny_graph(), crowd=centered_on_the_batch(tiny_graph()))
    crowd = next(variant for variant in verdict.variants if variant.id == "crowd")
    assert "batch_difference" in failed(verdict, "crowd")
    assert (crowd.batch_invariant, crowd.max_batch) == (False, 1)
    assert verdict.serve == "fp32"


def test_a_reference_that_depends_on_batch_mates_is_refused(data: Data):
    with pytest.raises(GateFailed, match="fp32 graph must not be served: batch_difference is"):
        judged(data, fp32=centered_on_the_batch(tiny_graph()))


def test_a_candidate_with_missing_answers_fails_without_metrics(data: Data):
    missing = with_probability(
        tiny_graph(),
        helper.make_node("Log", ["negative"], ["nothing"]),
        helper.make_node("Add", ["before", "nothing"], ["probability"]),
        negative=np.array(-1, np.float32),
    )
    verdict = judged(data, fp32=tiny_graph(), missing=missing)
    assert failed(verdict, "missing") == {"nan"}
    assert verdict.evaluations[1].metrics == {}
    assert all(math.isfinite(gate.measured) for gate in verdict.gates)


def test_stock_dynamic_quantization_is_caught(data: Data, tmp_path):
    """onnxruntime's own: one scale for the whole batch (onnxruntime #10111)."""
    wide = _wide_graph()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("logging.warning", quiet)  # it recommends a pre-processing
        quantize_dynamic(onnx.load_from_string(wide), tmp_path / "dynamic.onnx", weight_type=QuantType.QInt8)
    verdict = judged(data, fp32=wide, dynamic=(tmp_path / "dynamic.onnx").read_bytes())
    assert "batch_difference" in failed(verdict, "dynamic")


def _wide_graph() -> bytes:
    """`tiny_graph` with a hidden layer before its output."""
    model = onnx.load_from_string(tiny_graph())
    rng = np.random.default_rng(0)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    at = list(model.graph.node).index(gemm)
    gemm.input[0] = "active"
    del gemm.input[2]
    hidden = [helper.make_node("MatMul", ["row", "w"], ["hidden"]), helper.make_node("Relu", ["hidden"], ["active"])]
    for i, node in enumerate(hidden):
        model.graph.node.insert(at + i, node)
    weights = {
        "w": rng.normal(size=(5, 64)) * [[0.1], [0.1], [0.1], [1e-3], [0.1]],
        "weights": rng.normal(size=(64, 1)) / 8,
    }
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items())
    assert model.graph.input[1].type.tensor_type.elem_type == TensorProto.FLOAT
    return bytes(model.SerializeToString())


def variant(
    name: str,
    us: float,
    *,
    load_ns: int = 1000,
    requires: tuple[str, ...] = (),
    noisy: bool = False,
    spread: float = 0.01,
) -> Variant:
    ratio = Ratio(median=us / 10, low=us / 10 - spread, high=us / 10 + spread)
    latency = tuple(Latency(batch_rows=n, p50_ns=round(us * 1000 * n), p99_ns=0, runs=300) for n in (1, 8))
    return Variant(
        id=name,
        recipe=name,
        file=f"{name}.onnx",
        opset=20,
        max_batch=128,
        batch_invariant=True,
        requires=requires,
        latency=latency,
        load_ns=load_ns,
        tradeoff=Tradeoff(row_ns=us * 1000, row_cpu_ns=us * 1000, thousand_picousd=None, ratio=ratio, is_noisy=noisy),
    )


PASSED = Gate(name="nan", variant="", passed=True, measured=0, limit=0)
FAILED = Gate(name="label_disagreement", variant="", passed=False, measured=0.05, limit=0.03)


def chosen(*variants: Variant, sizes: tuple[int, ...], bad: str = "") -> choice.Choice:
    names = [each.id for each in variants]
    gates = {name: [FAILED if name == bad else PASSED] for name in names}
    return choice.choose(variants, dict(zip(names, sizes, strict=True)), gates)


@pytest.mark.parametrize(
    ("us", "size", "served"),
    [
        (8.0, 100, "int8"),  # clearly cheaper
        (9.0, 100, "fp32"),  # cheaper, and not clearly
        (10.5, 60, "int8"),  # much smaller, and not dearer beyond the noise
        (11.0, 30, "fp32"),  # much smaller, and dearer
    ],
)
def test_another_variant_must_be_clearly_cheaper_or_much_smaller_and_not_dearer(us: float, size: int, served: str):
    assert chosen(variant("fp32", 10), variant("int8", us), sizes=(100, size)).order[0] == served


def test_a_failed_gate_outweighs_any_speed():
    found = chosen(variant("fp32", 10), variant("int8", 1), sizes=(100, 10), bad="int8")
    assert found.order == ("fp32", "int8")
    assert "fails (label_disagreement is 0.05, limit 0.03)" in found.sentence
    assert found.front == {"fp32"}


def test_between_equally_cheap_ones_the_faster_load_decides():
    found = chosen(
        variant("fp32", 10), variant("a", 5, load_ns=9000), variant("b", 5.2, load_ns=3000), sizes=(100, 30, 30)
    )
    assert found.order == ("b", "a", "fp32")
    assert found.sentence.startswith(
        "b is served: fp32 takes 10.00 us of CPU per row, the mean over batches of 1, 8; b 5.20 us (0.52x, 0.51 to 0.53) at 0.30x"
    )


@given(base=st.integers(0, 10**7), row=st.integers(0, 10**5))
def test_an_exact_line_is_found_again(base: int, row: int):
    cells = [Latency(batch_rows=n, p50_ns=base + row * n, p99_ns=0, runs=300) for n in BATCHES]
    cost = timing.fit_cost(cells)
    assert cost.base_ns == pytest.approx(base, abs=2, rel=1e-6)
    assert cost.row_ns == pytest.approx(row, abs=2, rel=1e-6)


@given(st.lists(st.integers(0, 10**9), min_size=4, max_size=4))
def test_a_cost_is_never_negative_whatever_was_measured(times: list[int]):
    cells = [Latency(batch_rows=n, p50_ns=t, p99_ns=0, runs=30) for n, t in zip(BATCHES, times, strict=True)]
    cost = timing.fit_cost(cells)
    assert msgspec.convert(msgspec.to_builtins(cost), BatchCost) == cost


@given(base=st.integers(0, 10**7), row=st.integers(0, 10**5), row_length=st.integers(0, 10**4))
def test_an_exact_plane_is_found_again(base: int, row: int, row_length: int):
    cells = [
        Latency(batch_rows=n, p50_ns=base + row * n + row_length * n * length, p99_ns=0, runs=300, length=length)
        for n in BATCHES
        for length in (16, 32, 64)
    ]
    cost = timing.fit_cost(cells)
    assert cost.base_ns == pytest.approx(base, abs=100, rel=1e-5)
    assert cost.row_ns == pytest.approx(row, abs=100, rel=1e-3)
    assert cost.row_length_ps == pytest.approx(1000 * row_length, abs=2000, rel=1e-3)


SEQUENCE = Signature(
    inputs=(
        Tensor(name="ids", datatype="FP32", shape=("batch", "sequence", 2)),
        Tensor(name="mask", datatype="FP32", shape=("batch", "sequence")),
    ),
    outputs=(Tensor(name="sums", datatype="FP32", shape=("batch", 2)),),
)


def test_the_length_of_a_row_counts_every_symbolic_dimension_once():
    assert SEQUENCE.length({"ids": (7, 5, 2), "mask": (7, 5)}) == 5
    assert SEQUENCE.has_length
    image = Tensor(name="image", datatype="FP32", shape=("batch", "height", "width", 3))
    assert Signature(inputs=(image,), outputs=(image,)).length({"image": (7, 5, 4, 3)}) == 20
    fixed = Tensor(name="x", datatype="FP32", shape=("batch", 3))
    assert not Signature(inputs=(fixed,), outputs=(fixed,)).has_length
    assert Signature(inputs=(fixed,), outputs=(fixed,)).length({"x": (7, 3)}) == 1


def test_a_graph_whose_rows_have_a_length_is_timed_at_several(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "RUNS", 30)
    nodes = [
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["ids", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sums"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [
            helper.make_tensor_value_info("ids", TensorProto.FLOAT, ["batch", "sequence", 2]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", "sequence"]),
        ],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array([1], np.int64), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"ids": np.ones((3, 64, 2), np.float32), "mask": np.ones((3, 64), np.float32)}
    cells = timing.measure({"fp32": session}, inputs, SEQUENCE, dict.fromkeys(BATCHES, 1.0), quiet)["fp32"].latency
    assert [(cell.length, cell.batch_rows) for cell in cells] == [(n, b) for n in (64, 32, 16) for b in BATCHES]
    assert timing.row_cost_ns(cells, Target().mix) == pytest.approx(
        np.mean([cell.p50_ns / cell.batch_rows for cell in cells[:4]])
    )
    assert cells[1].batch == "8 x 64"
    assert timing.fit_cost(cells).base_ns > 0


def test_a_graph_of_fixed_shape_is_timed_once_per_batch(data: Data, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "RUNS", 30)
    session = ort.InferenceSession(tiny_graph(), providers=["CPUExecutionProvider"])
    cells = timing.measure({"fp32": session}, data.test.inputs, data.signature, dict.fromkeys(BATCHES, 1.0), quiet)[
        "fp32"
    ].latency
    assert [cell.batch for cell in cells] == [str(rows) for rows in BATCHES]
    assert timing.fit_cost(cells).row_length_ps == 0
