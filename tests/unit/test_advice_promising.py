"""The simulation shown is of the offer that is recommended; one that misses the objective is never recommended silently."""

import io

import msgspec
import pytest
from rich.console import Console

from gateway.advice import costing, judging, traffic, view
from gateway.advice.advised import Advice, Wish
from gateway.advice.traffic import Traffic
from gateway.contract import energy, offers
from gateway.contract.manifest import Evaluation, Gate
from tests.support import models
from tests.unit.test_advice_costing import MS, advised, figure, measured, unit

SECOND = 10**9
BUSY = traffic.of_hours("the ledger", {0: 3600 * 3000})
NIGHTS = traffic.of_hours("the ledger", {hour: 40_000 if hour in range(8, 20) else 0 for hour in range(24)})


def shown(advice: Advice) -> list[str]:
    output = io.StringIO()
    view.render(advice, Console(file=output, width=300))
    return output.getvalue().splitlines()


@pytest.mark.parametrize(
    ("load", "floor"), [(traffic.at_rate(0.001), 0), (traffic.at_rate(5), 0), (traffic.at_rate(800), 1), (NIGHTS, 0)]
)
def test_the_simulation_is_of_the_offer_that_the_verdict_names(load: Traffic, floor: int):
    advice = advised(load, floor=floor)
    assert advice.promise is not None
    assert advice.verdict.startswith(f"Stay on CPUs: {advice.promise.offer} at ")
    assert advice.promise.p50_ns <= advice.promise.p95_ns <= advice.promise.p99_ns
    assert any(line.startswith(f"simulated around its peak on {advice.promise.offer}:") for line in shown(advice))


def test_a_function_that_is_called_often_is_warm_and_keeps_the_objective():
    advice = advised(traffic.at_rate(5), floor=0)
    promise = advice.promise
    assert promise is not None
    assert promise.offer == "lambda-arm"
    assert promise.holds
    assert promise.replicas_peak > 1  # two at once need two sandboxes
    assert 0 < promise.cold_share < 0.001
    assert promise.cold_start_ns == 2_500 * MS  # two seconds measured, half a second assumed
    assert "misses" not in advice.verdict
    assert advice.keeper is None


def test_a_function_that_is_found_cold_misses_the_objective_and_the_sentence_says_who_keeps_it():
    advice = advised(traffic.at_rate(0.001), floor=0)
    promise, keeper = advice.promise, advice.keeper
    assert promise is not None
    assert promise.keep_alive is not None
    assert (promise.offer, promise.holds, promise.p99_ns) == ("lambda-arm", False, 2_500 * MS)
    assert promise.keep_alive.cold_share_low < promise.cold_share < promise.keep_alive.cold_share_high
    assert promise.cold_share == pytest.approx(0.55, abs=0.06)  # exp(-0.6)
    assert keeper is not None
    assert (keeper.offer, keeper.floor, keeper.holds) == ("fargate-arm", 1, True)
    assert "lambda-arm misses the objective of 100 ms: around its busiest time 1 in 100 callers would wait 2.5 s" in (
        advice.verdict
    )
    assert "fargate-arm with 1 kept keeps it, for $28.84 a month" in advice.verdict
    lines = shown(advice)
    assert any("OVER the objective" in line for line in lines)
    assert any(line.startswith("ASSUMED: 0.5 s of a cold start for the platform (0.1 to 0.7)") for line in lines)
    assert any("kept for 10 min (5 min: " in line and "; 45 min: " in line for line in lines)


def test_the_keep_alive_is_told_where_its_range_decides():
    advice = advised(traffic.at_rate(0.01), floor=0)
    promise = advice.promise
    assert promise is not None
    assert promise.keep_alive is not None
    assert promise.holds
    assert promise.keep_alive.p99_high_ns == promise.cold_start_ns
    assert "; but were idle sandboxes kept for 300 s only, 1 in 100 callers would wait 2.5 s" in advice.verdict


def test_nobody_is_named_where_nobody_keeps_it():
    only = offers.OfferFile("x", tuple(one for one in offers.load().offer if one.kind == "function"))
    wish = Wish(objective_ns=100 * MS, floor=0)
    advice = judging.advise(measured(), models_manifest(), traffic.at_rate(0.001), only, energy.load(), wish)
    assert advice.keeper is None
    assert "and nothing else that was simulated keeps it" in advice.verdict


def test_a_function_that_is_found_cold_pays_for_its_starts():
    rare, often = (
        next(one for one in advised(traffic.at_rate(rps), floor=0).options if one.name == "lambda-x86")
        for rps in (0.001, 5)
    )
    assert "of calls find it cold, simulated" in rare.note
    assert "one call in a hundred taken to find it cold" in often.note
    assert (rare.million_picousd or 0) > 20 * (often.million_picousd or 0)


def test_a_gpu_is_simulated_with_its_measured_batches():
    advice = advised(BUSY, figure(20_000, p99_ns=10 * MS))
    promise = advice.promise
    assert promise is not None
    assert (promise.offer, promise.holds, promise.keep_alive) == ("g4dn.xlarge", True, None)
    assert 20 * MS < promise.p50_ns < 30 * MS  # two batches, and reading and writing
    slow = advised(BUSY, figure(20_000, p99_ns=60 * MS))
    assert slow.verdict.startswith("Use a GPU: g4dn.xlarge")
    assert "g4dn.xlarge misses the objective of 100 ms" in slow.verdict
    assert slow.keeper is not None
    assert (slow.keeper.offer, slow.keeper.holds) == ("c7g.large", True)


def test_a_gpu_that_nobody_measured_promises_no_latency():
    shipped = offers.load()
    gpus = offers.OfferFile("x", tuple(one for one in shipped.offer if one.kind == "gpu"), shipped.assumption)
    wish = Wish(objective_ns=100 * MS, floor=1)
    advice = judging.advise(measured(), models_manifest(), BUSY, gpus, energy.load(), wish)
    assert advice.promise is None
    assert "measure its latency before you promise 100 ms: nobody has" in advice.verdict


def test_however_rare_a_request_somebody_has_to_be_there_for_it():
    costed = costing.cost(traffic.at_rate(1e-9), unit("g4dn.xlarge", 1e6), floor=0, cold_start_ns=0)
    assert (costed.replicas_peak, costed.replica_s) == (1, 3600)
    promise = advised(traffic.at_rate(1e-6), floor=0).promise
    assert promise is not None
    assert (promise.offer, promise.holds, promise.cold_share) == ("lambda-arm", False, 1.0)


def test_latency_rises_with_the_load_and_less_with_more_workers():
    loads = advised(traffic.at_rate(3000)).loads  # the cheapest is a machine of two
    assert [(load.workers, load.share) for load in loads] == [(n, share) for n in (1, 2) for share in (0.3, 0.6, 0.8)]
    assert loads[1].rps == pytest.approx(0.6 * 196, rel=0.01)
    assert loads[4].rps == pytest.approx(2 * loads[1].rps)
    for one in (loads[:3], loads[3:]):
        assert one[0].p99_ns < one[1].p99_ns < one[2].p99_ns
        assert all(load.p50_ns <= load.p95_ns <= load.p99_ns for load in one)
    assert loads[5].p99_ns < loads[2].p99_ns
    assert len(advised(traffic.at_rate(5)).loads) == 3  # a function


def models_manifest(*ids: str, **changed: object):
    made, _ = models.manifest_of("m", models.mlp_signature(), {name: models.mlp_graph() for name in ids or ("fp32",)})
    return msgspec.structs.replace(made, **changed)


def test_what_a_variant_loses_in_quality_is_told_where_it_is_recorded():
    wish = Wish(objective_ns=100 * MS, floor=1)
    whole = Evaluation(subject="fp32", split="test", rows=1000, metrics={"roc_auc": 0.702, "brier": 0.167})
    less = Evaluation(subject="int8", split="test", rows=1000, metrics={"roc_auc": 0.699})
    baseline = Evaluation(subject="baseline:logistic", split="test", rows=1000, metrics={"roc_auc": 0.69})
    failed = Gate(name="agreement", variant="int8", passed=False, measured=0.9, limit=0.99)
    made = models_manifest("fp32", "int8", evaluations=(whole, less, baseline), gates=(failed,))
    advice = judging.advise(measured(), made, traffic.at_rate(5), offers.load(), energy.load(), wish)
    [one] = advice.judged
    assert (one.variant, one.against, one.failed) == ("int8", "fp32", ("agreement",))
    assert one.deltas == {"roc_auc": pytest.approx(-0.003)}
    words = "quality as recorded: int8 against fp32 on test (1,000 rows): roc_auc -0.0030; failed agreement"
    assert words in shown(advice)
    alone = judging.advise(measured(), models_manifest(), traffic.at_rate(5), offers.load(), energy.load(), wish)
    assert alone.judged == ()
    assert not any("quality as recorded" in line for line in shown(alone))


@pytest.mark.parametrize("load", [traffic.at_rate(0.001), BUSY])
def test_the_table_fits_120_columns_and_says_each_note_once(load: Traffic):
    advice = advised(load)
    lines = shown(advice)
    first = next(number for number, line in enumerate(lines) if line.startswith("offer"))
    table = lines[first : first + 1 + len(advice.options)]
    assert max(len(line.rstrip()) for line in table) <= 120
    notes = [line.partition(": ")[2] for line in lines if "vCPUs" in line]
    assert notes
    assert len(notes) == len(set(notes))
