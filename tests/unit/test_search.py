"""The whole search on small real graphs: what is measured, refused, rescued and kept for other CPUs. No test asserts a time."""

import io
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from gateway.cli import manifestview
from gateway.contract import prices
from gateway.contract.manifest import (
    DataSource,
    Examples,
    Gate,
    Latency,
    Ratio,
    Signature,
    Tensor,
    Tradeoff,
    Variant,
)
from gateway.runtime.session import pick_variant
from tests.support import models
from tests.support.models import mlp_graph
from tests.unit.test_evaluate import chosen, variant
from trainers import objectives, search
from trainers.evaluate import choice, coldload, fidelity, host, judge, timing
from trainers.job import Candidate, Data, Limits, Split, Target, Terms
from trainers.quantize import candidates as offering
from trainers.quantize import dynamic
from trainers.quantize.candidates import Offer, optimize

ROWS = np.random.default_rng(0).normal(size=(900, 64)).astype(np.float32)
SIGNATURE = Signature(
    inputs=(Tensor(name="features", datatype="FP32", shape=("batch", 64)),),
    outputs=(Tensor(name="shares", datatype="FP32", shape=("batch", 10)),),
)
TERMS = Terms(objectives.multiclass(10))


def quiet(*_: object) -> None: ...


def classifier(scale: float = 3.0) -> bytes:
    """`mlp_graph` with a Softmax behind it."""
    model = onnx.load_from_string(mlp_graph(64, 128, 10))
    model.graph.initializer[2].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[2]) * np.float32(scale), "w2")
    )
    model.graph.node.append(helper.make_node("Softmax", ["scores"], ["shares"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["batch", 10]))
    return bytes(model.SerializeToString())


def data() -> Data:
    """What the classifier itself says is true."""
    truth = ort.InferenceSession(classifier()).run(None, {"features": ROWS})[0].argmax(axis=1)
    splits = [Split({"features": ROWS[a:b]}, truth[a:b]) for a, b in ((0, 300), (300, 600), (600, 900))]
    source = DataSource(name="drawn", sha256="0" * 64, rows=900)
    return Data(*splits, (source,), Examples((), ()), SIGNATURE, split="at random")


def searched(terms: Terms = TERMS) -> search.Found:
    """With a few runs and loads of each: what they come to is not asked here."""
    held_out = data()
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(timing, "RUNS", 20)
        quick.setattr(coldload, "LOADS", 1)
        return search.search(classifier(), held_out.validation.inputs, held_out, terms, quiet, prices.load())


@pytest.fixture(scope="module")
def found() -> search.Found:
    return searched()


def test_every_candidate_is_measured_gated_and_recorded(found: search.Found):
    by_id = {each.id: each for each in found.verdict.variants}
    assert set(by_id) == {candidate.id for candidate in found.candidates}
    assert {"fp32", "int8-rowwise"} <= set(by_id)
    for each in by_id.values():
        assert isinstance(each.tradeoff, Tradeoff)
        assert each.tradeoff.thousand_picousd
        assert each.tradeoff.row_ns > 0
        assert each.load_ns
        assert each.batch_invariant
    assert by_id["int8-rowwise"].recipe_args == {"reduce_range": True}
    assert found.skipped["int8-gather"] == "the graph has nothing that this recipe changes"
    named = {gate.name for gate in found.verdict.gates if gate.variant == "int8-rowwise"}
    assert {"accuracy_loss_bound", "calibration_error_rise", "label_disagreement", "probability_drift_p99"} <= named


def test_what_this_cpu_cannot_run_is_not_measured(found: search.Found, monkeypatch: pytest.MonkeyPatch):
    reference = found.candidates[0]
    full = msgspec.structs.replace(reference, id="full", requires=("avx512_vnni",), saturated=1e-3)
    monkeypatch.setattr(offering, "offer", lambda *_, **__: Offer((reference, full)))
    monkeypatch.setattr(host, "cpu_flags", lambda: frozenset({"avx2"}))
    made = searched()
    assert [candidate.id for candidate in made.candidates] == ["fp32"]
    assert made.skipped["full"].startswith("requires avx512_vnni, which this CPU lacks")


@pytest.fixture
def refused(found: search.Found, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A first verdict that says fp32 is served and only gates are against `int8-static`; what was judged, time after time."""
    judged: list[list[str]] = []

    def judge_it(candidates: Sequence[Candidate], *_: object) -> judge.Verdict:
        judged.append([candidate.id for candidate in candidates])
        name = "int8-static" if len(judged) == 1 else None
        return msgspec.structs.replace(found.verdict, serve="fp32", rescuable=name)

    monkeypatch.setattr(judge, "judge", judge_it)
    return judged


def test_a_candidate_that_only_gates_refuse_is_rescued_and_judged_again(refused: list[list[str]]):
    """The gates it has to pass are real ones, and so are its graphs."""
    kind = Limits(metric_drop_max=0.5, accuracy_loss_max=0.5, calibration_rise_max=0.5, agreement_min=0.5)
    kind = msgspec.structs.replace(kind, probability_drift_p99_max=0.5)
    made = searched(msgspec.structs.replace(TERMS, limits=kind))
    first, second = refused
    assert second == [*first, "int8-static-selective"]
    rescued = made.candidates[-1]
    assert rescued.recipe_args["fp32_nodes"] in {"hidden", "scores"}


def test_a_rescue_that_fails_leaves_its_reason(refused: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judge.Gates, "passes", lambda *_: False)
    made = searched()
    assert len(refused) == 1
    assert "no choice of nodes passed" in made.skipped["int8-static-selective"]
    assert made.verdict.serve == "fp32"


def crowd() -> Candidate:
    return Candidate("int8-dynamic", "dyn_i8", optimize(dynamic.rewrite(classifier()) or b"", "dynamic"))


def gates_of(terms: Terms) -> dict[str, Gate]:
    reference = Candidate("fp32", "fp32", classifier())
    asked = judge.Gates(reference, data(), terms)
    return {gate.name: gate for gate in asked.of(crowd(), asked.answers(crowd()))}


def test_stock_dynamic_is_refused_where_rows_share_batches_and_the_gate_says_why():
    gate = gates_of(TERMS)[fidelity.BATCH_DIFFERENCE]
    assert not gate.passed
    assert gate.measured > 1e-3
    assert gate.detail == "the target expects batches of up to 128 rows, and mates move answers"


def test_stock_dynamic_may_serve_a_target_that_runs_rows_alone_and_is_marked():
    alone = Terms(objectives.multiclass(10), target=Target(mix={1: 1.0}))
    gate = gates_of(alone)[fidelity.BATCH_DIFFERENCE]
    assert gate.passed
    assert gate.detail == "the target runs every row alone"
    dynamic_one = next(v for v in searched(alone).verdict.variants if v.id == "int8-dynamic")
    assert (dynamic_one.batch_invariant, dynamic_one.max_batch) == (False, 1)


def test_saturation_without_a_required_flag_is_a_failed_gate():
    reference = Candidate("fp32", "fp32", classifier())
    asked = judge.Gates(reference, data(), TERMS)
    risky = msgspec.structs.replace(reference, id="copy", saturated=1e-4)
    for requires, passed in (((), False), (("avx512_vnni",), True)):
        candidate = msgspec.structs.replace(risky, requires=requires)
        gate = next(g for g in asked.of(candidate, asked.reference) if g.name == "saturation")
        assert gate.passed is passed
        assert gate.measured == 1e-4


def test_an_interval_that_reaches_one_is_no_win():
    assert chosen(variant("fp32", 10), variant("int8", 8, spread=0.3), sizes=(100, 100)).order[0] == "fp32"


def test_what_two_passes_disagree_on_is_not_served():
    found = chosen(variant("fp32", 10), variant("int8", 5, noisy=True), sizes=(100, 30))
    assert found.order[0] == "fp32"
    assert "too noisy to believe" in found.sentence


def test_between_equally_cheap_ones_the_one_for_every_cpu_is_served():
    flags = ("avx512_vnni",)
    found = chosen(
        variant("fp32", 10),
        variant("full", 5, load_ns=1, requires=flags),
        variant("generic", 5.1, load_ns=2),
        sizes=(100, 30, 30),
    )
    assert found.order == ("generic", "full", "fp32")


def test_a_host_without_the_flag_gets_the_next_best_and_not_fp32():
    made = [
        variant("fp32", 10),
        variant("full", 4, requires=("avx512_vnni",)),
        variant("generic", 7),
        variant("slow", 12),
    ]
    order = chosen(*made, sizes=(100, 30, 30, 90)).order
    assert order == ("full", "generic", "fp32", "slow")
    manifest, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, dict.fromkeys(order, b"x"))
    by_id = {each.id: each for each in made}
    manifest = msgspec.structs.replace(manifest, variants=tuple(by_id[name] for name in order), serve="full")
    assert pick_variant(manifest, frozenset({"avx512_vnni"})).id == "full"
    assert pick_variant(manifest, frozenset({"avx2"})).id == "generic"


def worth(
    *variants: Variant, sizes: Sequence[int], bad: Mapping[str, float] | Sequence[str], served: str = "fp32"
) -> str | None:
    """`bad` are the ones that fail a gate with limit 1, and by what."""
    names = [each.id for each in variants]
    measured = bad if isinstance(bad, Mapping) else dict.fromkeys(bad, 2.0)
    gates = {
        name: [Gate("drift", name, passed=name not in bad, measured=measured.get(name, 0), limit=1)] for name in names
    }
    return choice.worth_rescuing(variants, dict(zip(names, sizes, strict=True)), gates, served)


def test_only_what_would_be_served_but_for_its_gates_is_worth_rescuing():
    made = (variant("fp32", 10), variant("a", 5), variant("b", 4), variant("c", 12))
    assert worth(*made, sizes=(100, 30, 30, 90), bad=("a", "b", "c")) == "b"
    assert worth(*made, sizes=(100, 30, 30, 90), bad=("a", "c")) == "a"
    assert worth(*made, sizes=(100, 30, 30, 90), bad=("c",)) is None
    assert worth(*made, sizes=(100, 30, 30, 90), bad=()) is None


def test_the_one_nearest_to_its_limits_is_rescued():
    made = (variant("fp32", 10), variant("near", 6), variant("far", 5))
    assert worth(*made, sizes=(100, 30, 30), bad={"near": 1.2, "far": 4.0}) == "near"
    assert worth(*made, sizes=(100, 30, 30), bad={"near": 4.0, "far": 1.2}) == "far"


def test_a_smaller_file_does_not_keep_a_cheaper_variant_from_being_rescued():
    made = (variant("fp32", 10), variant("halves", 10), variant("int8", 5))
    assert worth(*made, sizes=(100, 50, 25), bad=("int8",), served="halves") == "int8"
    almost = (variant("fp32", 10), variant("quick", 5.5), variant("int8", 5))
    assert worth(*almost, sizes=(100, 50, 25), bad=("int8",), served="quick") is None


def test_models_show_prints_the_table_of_trade_offs():
    manifest, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": b"x", "int8": b"y"})
    line = Tradeoff(
        row_ns=12_340.0,
        row_cpu_ns=12_000.0,
        thousand_picousd=135_000_000,
        ratio=Ratio(0.61, 0.58, 0.64),
        is_pareto=True,
        notes="1.0e-03 of 100 sums",
    )
    served = msgspec.structs.replace(manifest.variants[1], tradeoff=line, requires=("avx512_vnni",))
    manifest = msgspec.structs.replace(
        manifest, variants=(served, manifest.variants[0]), serve="int8", skipped={"int8-gather": "no tables"}
    )
    console = Console(width=220, record=True, file=io.StringIO())
    manifestview.render(console, 3, manifest, "not signed")
    text = console.export_text()
    for part in ("int8 *", "12.0 us", "0.61x (0.58 to 0.64)", "135 u$", "avx512_vnni", "1.0e-03 of 100 sums"):
        assert part in text
    assert "no int8-gather: no tables" in text


def test_models_show_of_an_old_manifest_has_no_such_table():
    manifest, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": b"x"})
    assert isinstance(manifest.variants[0].latency[0], Latency)
    console = Console(width=220, record=True, file=io.StringIO())
    manifestview.render(console, 1, manifest, "not signed")
    assert "trade-offs" not in console.export_text()
