"""Which candidates a graph gets, what a failing recipe does to the others, saturation of 16 bits, and rescue by sensitivity."""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.support.manualclock import ManualClock
from tests.support.models import mlp_graph, tiny_graph
from tests.unit.test_static_recipes import FEATURES, IMAGES, small_cnn
from trainers.arrays import Array
from trainers.job import Candidate
from trainers.quantize import (
    calibration,
    candidates,
    preprocess,
    recipes,
    rescuing,
    rowwise,
    saturation,
    selective,
    static,
)

MLP = {"features": FEATURES}


@pytest.fixture(autouse=True)
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except in `mlp` and `cnn`, graphs go as they are: preparation changes nothing in an MLP, and starts a process."""
    monkeypatch.setattr(preprocess, "prepared", lambda graph: graph)


def ids(offered: candidates.Offer) -> list[str]:
    return [candidate.id for candidate in offered.candidates]


@pytest.fixture(scope="module")
def mlp() -> candidates.Offer:
    return candidates.offer(mlp_graph(64, 64, 20), MLP)


@pytest.fixture(scope="module")
def cnn() -> candidates.Offer:
    return candidates.offer(small_cnn(), {"image": IMAGES}, max_batch=1)


def test_a_graph_without_convolutions_is_offered_by_rows_and_static(mlp: candidates.Offer):
    assert ids(mlp)[:3] == ["fp32", "int8-rowwise", "int8-rowwise-full"]
    assert {candidate.recipe for candidate in mlp.candidates} == {"fp32", "rowwise_i8", "static_mm"}
    assert [skipped.id for skipped in mlp.skipped if "nothing" in skipped.reason] == ["int8-gather"]


def test_convolutions_are_offered_static_only_even_when_rows_run_alone(cnn: candidates.Offer):
    assert {candidate.recipe for candidate in cnn.candidates} == {"fp32", "static_qdq"}
    assert {candidate.recipe_args.get("per_channel") for candidate in cnn.candidates[1:]} == {True, False}
    for candidate in cnn.candidates:
        kinds = {node.op_type for node in onnx.load_from_string(candidate.graph).graph.node}
        assert not kinds & {"ConvInteger", "DynamicQuantizeLinear"}
        assert candidate.optimized_by == ""  # the serving machine chooses their layout


def test_no_candidate_has_unsigned_weights(mlp: candidates.Offer, cnn: candidates.Offer):
    for candidate in (*mlp.candidates, *cnn.candidates):
        tensors = onnx.load_from_string(candidate.graph).graph.initializer
        assert not [t.name for t in tensors if t.data_type == TensorProto.UINT8 and np.prod(t.dims) > 1]


def test_full_range_weights_that_saturate_require_the_flag_and_have_a_sibling(mlp: candidates.Offer):
    by_id = {candidate.id: candidate for candidate in mlp.candidates}
    assert by_id["int8-static-full"].requires == ("avx512_vnni",)
    assert by_id["int8-static"].requires == ()
    args = {"reduce_range": True, "calibration_sha256": calibration.digest(MLP)}
    assert by_id["int8-static"].recipe_args == args
    assert "do not fit into 16 bits" in by_id["int8-rowwise-full"].notes


def test_full_range_weights_that_never_saturate_need_no_sibling():
    """One weight per column: no two products of a pair are ever large together."""
    lonely = np.zeros((64, 32), np.float32)
    lonely[np.arange(32) * 2, np.arange(32)] = 1
    model = onnx.load_from_string(mlp_graph(64, 32, 40))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(lonely, "w1"))
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.eye(32, 40, dtype=np.float32), "w2"))
    offered = candidates.offer(model.SerializeToString(), MLP)
    full = next(candidate for candidate in offered.candidates if candidate.id == "int8-static-full")
    assert full.requires == ()
    assert "int8-static" not in ids(offered)
    assert any(skipped.id == "int8-static" and "every CPU" in skipped.reason for skipped in offered.skipped)


def test_stock_dynamic_is_offered_only_where_rows_run_alone(mlp: candidates.Offer):
    assert "int8-dynamic" not in ids(mlp)
    assert "int8-dynamic" in ids(candidates.offer(mlp_graph(64, 64, 20), MLP, max_batch=1))


def test_blocks_are_offered_only_when_asked_for():
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "w"], ["scores"])],
        "test",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    assert not [name for name in ids(candidates.offer(model, MLP)) if "blocks" in name]
    asked = candidates.offer(model, MLP, asked=("nbits8", "nbits4"))
    assert ids(asked)[-2:] == ["int8-blocks", "int4-blocks"]


def test_a_tiny_graph_is_offered_as_it_is():
    rows = {"categories": np.full((10, 2), "AA", object), "numbers": np.ones((10, 3), np.float32)}
    offered = candidates.offer(tiny_graph(), rows)
    assert ids(offered) == ["fp32"]
    assert offered.skipped[0].reason == "5 weights in all are too few to gain anything"


def test_a_recipe_that_fails_is_skipped_with_its_reason_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch):
    def broken(graph: bytes, rows: Mapping[str, Array], **_: object) -> bytes:
        raise RuntimeError("NOT_IMPLEMENTED: no kernel\nand a long trace")

    monkeypatch.setattr(static, "multiplications", broken)
    offered = candidates.offer(mlp_graph(64, 64, 20), MLP)
    assert ids(offered) == ["fp32", "int8-rowwise", "int8-rowwise-full"]
    reasons = {skipped.id: skipped.reason for skipped in offered.skipped}
    assert reasons["int8-static"] == reasons["int8-static-full"] == "RuntimeError: NOT_IMPLEMENTED: no kernel"


def test_a_recipe_that_makes_an_invalid_graph_is_skipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rowwise, "rewrite", lambda graph, **_: b"nonsense")
    offered = candidates.offer(mlp_graph(64, 64, 20), MLP)
    assert ids(offered) == ["fp32", "int8-static-full", "int8-static"]
    assert any(skipped.id == "int8-rowwise" for skipped in offered.skipped)


def exact_count(activations: Array, weights: Array) -> int:
    """By definition: neighbours along the inputs, in Python's integers."""
    over = 0
    for row in activations.tolist():
        for column in weights.T.tolist():
            products = [a * w for a, w in zip(row, column, strict=True)] + [0]
            over += sum(not -32768 <= sum(products[i : i + 2]) <= 32767 for i in range(0, len(row), 2))
    return over


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 1000))
def test_saturated_pairs_are_counted_exactly(inputs: int, outputs: int, seed: int):
    rng = np.random.default_rng(seed)
    activations = rng.integers(0, 256, (5, inputs)).astype(np.uint8)
    weights = rng.integers(-128, 128, (inputs, outputs)).astype(np.int8)
    pairs, over = saturation._over(activations, weights)
    assert pairs == 5 * -(-inputs // 2) * outputs
    assert over == exact_count(activations, weights)


def test_seven_bits_never_saturate_and_eight_do():
    graph, rows = mlp_graph(64, 64, 32), {"features": FEATURES}
    by_weight = {
        limit: saturation.measure(rowwise.rewrite(graph, weight_max=limit) or b"", rows)
        for limit in (rowwise.WEIGHT_MAX, rowwise.WEIGHT_MAX_FULL)
    }
    assert by_weight[rowwise.WEIGHT_MAX].rate == 0
    assert 0 < by_weight[rowwise.WEIGHT_MAX_FULL].rate < 0.1
    assert by_weight[rowwise.WEIGHT_MAX].pairs == 64 * (32 * 64 + 32 * 32)


def test_convolutions_are_counted_where_their_kernels_look():
    made = static.convolutions(small_cnn(), {"image": IMAGES}, reduce_range=False)
    found = saturation.measure(made or b"", {"image": IMAGES})
    assert set(found.saturated) == {"c1", "a2", "logits"}  # by what each makes: the second has taken its Relu in
    assert found.pairs == 64 * (6 * 6 * 5 * 16 + 3 * 3 * 72 * 24 + 48 * 12)


def test_what_is_not_quantized_has_no_saturation():
    assert saturation.measure(mlp_graph(), {"features": FEATURES[:, :32]}).rate == 0


class Trials:
    """A graph is the list of its quantized nodes; a node does harm when it is among them."""

    def __init__(self, table: Mapping[str, float]) -> None:
        self.table, self.built = table, 0

    def build(self, excluded: Collection[str]) -> bytes:
        self.built += 1
        return ",".join(name for name in self.table if name not in excluded).encode()

    def distance(self, graph: bytes) -> float:
        return sum(self.table[name] for name in graph.decode().split(",") if name)


@given(st.lists(st.integers(0, 100), min_size=2, max_size=12), st.integers(0, 300))
def test_as_few_nodes_as_it_takes_stay_fp32(harm: list[int], allowed: int):
    trials = Trials({f"n{i}": float(value) for i, value in enumerate(harm)})
    found = selective.rescue(
        trials.build, list(trials.table), distance=trials.distance, passes=lambda g: trials.distance(g) <= allowed
    )
    ordered = sorted(harm, reverse=True)
    fewest = next((n for n in range(1, len(harm)) if sum(ordered[n:]) <= allowed), None)
    assert (found and len(found.excluded)) == fewest
    if found:
        assert trials.distance(found.graph) <= allowed
        assert found.trials == trials.built


def test_rescue_stops_at_its_number_of_trials():
    trials = Trials({f"n{i}": 1.0 for i in range(50)})
    found = selective.rescue(
        trials.build, list(trials.table), distance=trials.distance, passes=lambda _: False, trials_max=20
    )
    assert found is None
    assert trials.built <= 20


def test_rescue_stops_when_its_time_is_over():
    clock = ManualClock(0)
    trials = Trials({f"n{i}": 1.0 for i in range(50)})

    def slow(excluded: Collection[str]) -> bytes:
        clock.work(10)
        return trials.build(excluded)

    found = selective.rescue(
        slow, list(trials.table), distance=trials.distance, passes=lambda _: False, seconds_max=95, clock=clock.now_ns
    )
    assert found is None
    assert trials.built == 10


def outlier_graph() -> bytes:
    """A first layer with two columns that static scales cannot hold together, a harmless second one."""
    model = onnx.load_from_string(mlp_graph(64, 64, 40))
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[:, 0] *= 3000
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w1"))
    return bytes(model.SerializeToString())


def test_the_node_that_hurts_is_found_and_left_fp32():
    graph = outlier_graph()
    offered = candidates.offer(graph, MLP)
    failing = next(candidate for candidate in offered.candidates if candidate.id == "int8-static")
    limit = 0.012

    def passes(candidate: Candidate) -> bool:
        return spread(candidate.graph, graph) < limit

    assert not passes(failing)
    rescued = rescuing.rescue(graph, MLP, failing, passes)
    (found,) = rescued.candidates
    assert found.id == "int8-static-selective"
    assert found.recipe_args["fp32_nodes"] in {"hidden", "scores"}
    assert "1 nodes stay fp32" in found.notes
    assert passes(found)


def spread(graph: bytes, exact: bytes) -> float:
    source = recipes.Source(exact, MLP, folder=None)  # type: ignore[arg-type]  # nothing is kept
    return rescuing._Distance(source)(graph)


def test_a_gate_that_nothing_passes_is_reported(cnn: candidates.Offer):
    failing = next(candidate for candidate in cnn.candidates if candidate.id == "int8-static")
    rescued = rescuing.rescue(small_cnn(), {"image": IMAGES}, failing, lambda _: False, trials_max=6)
    assert rescued.candidates == ()
    assert [skipped.id for skipped in rescued.skipped] == [
        "int8-static-percentile",
        "int8-static-entropy",
        "int8-static-selective",
    ]


def test_another_calibrator_may_be_all_it_takes(cnn: candidates.Offer):
    failing = next(candidate for candidate in cnn.candidates if candidate.id == "int8-static")
    rescued = rescuing.rescue(small_cnn(), {"image": IMAGES}, failing, lambda made: "entropy" in made.id)
    assert [candidate.id for candidate in rescued.candidates] == ["int8-static-entropy"]
    assert rescued.candidates[0].recipe_args["method"] == "Entropy"
