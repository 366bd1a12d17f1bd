"""The cost model: costs by hand, break-even where both bills meet, and a verdict for every kind of model."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.advice import capacity, costing, judging, traffic
from gateway.advice.advised import Advice, Wish
from gateway.advice.measured import Cell, Measured, Served, disagreements
from gateway.advice.service import Service
from gateway.advice.traffic import Traffic
from gateway.advice.units import Unit
from gateway.contract import energy, offers
from gateway.contract.manifest import GpuFigure, Manifest
from gateway.contract.prices import PICO_PER_USD
from tests.support import models

MS = 10**6
OBJECTIVE_NS = 100 * MS


def offer(name: str) -> offers.Offer:
    return next(one for one in offers.load().offer if one.name == name)


def unit(name: str, rps: float) -> Unit:
    return Unit(offer(name), rps, rps, rps, rps, request_cpu_ns=5 * MS, init_ns=2_000 * MS, tier="modelled", note="")


def measured(cpu_ms: float = 5.0, *, resident_bytes: int = 200 << 20) -> Measured:
    ns = round(cpu_ms * MS)
    taken = (ns, ns + 200_000, ns + 100_000)
    served = Served(ns, Service(taken, taken), resident_bytes, 2_000 * MS)
    cells = (Cell(1, 1, round(0.9 * ns), round(0.9 * ns), ns, 100),)
    return Measured("m", 1, "fp32", "AMD EPYC", cells, 5 * MS, 20 << 20, is_real=True, served=served)


def manifest(*figures: GpuFigure) -> Manifest:
    made, _ = models.manifest_of("m", models.mlp_signature(), {"fp32": models.mlp_graph()})
    return msgspec.structs.replace(made, gpu=figures) if figures else made


def advised(traffic_: Traffic, *figures: GpuFigure, cpu_ms: float = 5.0, **wish: int) -> Advice:
    wished = Wish(objective_ns=wish.pop("objective_ns", OBJECTIVE_NS), floor=wish.pop("floor", 1))
    return judging.advise(measured(cpu_ms), manifest(*figures), traffic_, offers.load(), energy.load(), wished)


def test_a_constant_rate_costs_whole_replicas():
    costed = costing.cost(traffic.at_rate(250), unit("c7i.large", 100), floor=1, cold_start_ns=0)
    assert costed.replicas_peak == 3
    assert costed.cost_picousd == round(Fraction("0.08925") * 3 * PICO_PER_USD)
    assert costed.million_picousd == round(Fraction("0.08925") * 3 / 900_000 * 10**6 * PICO_PER_USD)
    assert costed.month_picousd == round(Fraction("0.08925") * 3 * 730 * PICO_PER_USD)


def test_costs_are_of_the_hours_and_not_of_their_mean():
    day = traffic.of_hours("x", {0: 360_000, 1: 3600, 2: 0})  # 100/s, 1/s, nothing
    costed = costing.cost(day, unit("c7i.large", 10), floor=1, cold_start_ns=0)
    assert (costed.replica_s, costed.replicas_min, costed.replicas_peak) == ((10 + 1 + 1) * 3600, 1, 10)
    none = costing.cost(day, unit("c7i.large", 10), floor=0, cold_start_ns=30 * 10**9)
    assert none.replica_s == 11 * 3600 + 30  # a silent hour is free, and traffic comes back once


def test_a_function_is_billed_by_the_millisecond_the_call_and_its_starts():
    costed = costing.cost(traffic.at_rate(1), unit("lambda-x86", 100), floor=1, cold_start_ns=10**12)
    run_s = Fraction(5, 1000) + Fraction(2, 100)  # a hundredth of two seconds of init, and not what the platform takes
    call = run_s * Fraction(1769, 1024) * Fraction("0.0000166667") + Fraction("0.0000002")
    assert costed.cost_picousd == round(call * 3600 * PICO_PER_USD)


@pytest.mark.parametrize(("gpu", "parity_vcpus"), [("g4dn.xlarge", 11.8), ("g6.xlarge", 18.0), ("g5.xlarge", 22.5)])
def test_price_parity_is_the_published_number_of_vcpus(gpu: str, parity_vcpus: float):
    rate = costing.break_even_rps(unit("c7i.large", 2.0), unit(gpu, 1e9), floor=1)  # a vCPU answers one a second
    assert rate == pytest.approx(parity_vcpus, abs=0.05)


@given(st.floats(1, 1e4), st.floats(1, 1e5), st.integers(1, 3))
def test_at_break_even_both_cost_the_same_and_above_it_the_gpu_less(cpu_rps: float, gpu_rps: float, floor: int):
    cpu, gpu = unit("c7i.large", cpu_rps), unit("g4dn.xlarge", gpu_rps)
    rate = costing.break_even_rps(cpu, gpu, floor=floor)
    cheap = Fraction("0.526") / Fraction(gpu_rps) < Fraction("0.08925") / Fraction(cpu_rps)
    assert (rate is not None) == cheap
    if rate is not None:
        cpus = rate / cpu_rps * 0.08925
        assert cpus == pytest.approx(floor * 0.526)
        assert rate < floor * gpu_rps


def test_a_worker_answers_less_within_the_objective_than_saturated():
    service = Service(lone_ns=(6 * MS,), queued_ns=(5 * MS,))
    one = capacity.of_worker(service, objective_ns=60 * MS)
    assert one.saturated_rps == 200
    assert 0.6 * 200 < one.objective_rps < 200
    assert one.usable_rps == pytest.approx(120)
    tight = capacity.of_worker(service, objective_ns=9 * MS)
    assert tight.usable_rps == tight.objective_rps < 0.6 * 200
    assert capacity.of_worker(service, objective_ns=5 * MS).usable_rps == 0


def figure(rows_per_s: float, p99_ns: int = 10 * MS) -> GpuFigure:
    return GpuFigure(gpu="T4", datatype="fp16", batch_rows=32, rows_per_s=rows_per_s, p99_ns=p99_ns, runs=100)


def test_stays_on_cpus_at_a_low_rate():
    advice = advised(traffic.at_rate(30))
    assert advice.verdict.startswith("Stay on CPUs: fargate-arm at $0.366 a million, and g4dn.xlarge")
    assert all(one.winner == "cpu" for one in advice.scenarios)
    rare = advised(traffic.at_rate(0.1))
    assert rare.verdict.startswith("Stay on CPUs: lambda-arm at $0.776 a million and nothing while nobody calls")


def test_says_use_a_gpu_when_one_was_measured_and_is_cheaper():
    busy = traffic.of_hours("the ledger", {0: 3600 * 3000})
    advice = advised(busy, figure(20_000))
    assert advice.verdict.startswith("Use a GPU: g4dn.xlarge at $")
    assert (advice.tier, advice.scenarios[0].winner) == ("modelled", "gpu")
    slow = advised(busy, figure(20_000, p99_ns=2 * OBJECTIVE_NS))
    assert next(one for one in slow.options if one.name == "g4dn.xlarge").million_picousd is None


def test_says_measure_when_the_assumed_range_decides():
    advice = advised(traffic.of_hours("the ledger", {0: 3600 * 3000}))
    assert advice.verdict.startswith("Measure a GPU before you decide")
    assert (advice.tier, advice.tier_reason) == (
        "assumed",
        "where the GPU's throughput lies in its assumed range decides",
    )


def test_says_use_a_gpu_when_no_cpu_meets_the_objective():
    advice = advised(traffic.at_rate(5), figure(500), cpu_ms=300)
    assert advice.verdict.startswith("Use a GPU: g4dn.xlarge at $")
    assert "no CPU offer meets the objective" in advice.verdict
    assert advice.zero is None
    assert advice.promise is not None
    assert advice.promise.offer == "g4dn.xlarge"


def test_says_so_when_nothing_can_serve_it():
    bare = offers.OfferFile("x", tuple(one for one in offers.load().offer if one.kind != "gpu"))
    wish = Wish(objective_ns=MS, floor=1)
    advice = judging.advise(measured(), manifest(), traffic.at_rate(1), bare, energy.load(), wish)
    assert advice.verdict.startswith("Nothing here can serve this within the objective (a lone request takes")


def test_says_turn_it_off_at_night():
    day = traffic.of_hours("the ledger", {hour: 200_000 if hour in range(8, 20) else 0 for hour in range(24)})
    advice = advised(day)
    assert "turn it off while nothing comes (50% of the time)" in advice.verdict
    assert advice.zero is not None
    assert advice.zero.saves == pytest.approx(0.5, abs=0.01)
    assert advice.zero.wakes_per_month == pytest.approx(730 / 24)


def test_a_model_too_large_for_an_offer_is_told():
    wish = Wish(objective_ns=OBJECTIVE_NS, floor=1)
    large = measured(resident_bytes=3 << 30)
    advice = judging.advise(large, manifest(), traffic.at_rate(1), offers.load(), energy.load(), wish)
    fits = {one.name: one.note for one in advice.options if one.kind == "task"}
    assert all(note == "does not fit: 3.00 GB are needed" for note in fits.values())


def test_two_replicas_cost_twice_and_promise_the_objective():
    one, two = advised(traffic.at_rate(5)), advised(traffic.at_rate(5), floor=2)
    costs = [next(o.month_picousd for o in advice.options if o.name == "fargate-x86") or 0 for advice in (one, two)]
    assert costs[1] == pytest.approx(2 * costs[0], abs=2)
    assert one.promise is not None
    assert one.promise.holds
    assert one.promise.p99_ns <= OBJECTIVE_NS


def test_the_same_arguments_give_the_same_advice():
    assert advised(traffic.at_rate(50)) == advised(traffic.at_rate(50))


def test_grams_are_ranges_and_a_gpu_without_coefficients_has_none():
    shipped = energy.load()
    fewer = msgspec.structs.replace(shipped, gpu=tuple(gpu for gpu in shipped.gpu if gpu.name != "H200"))
    made, wish = manifest(GpuFigure("H200", "fp16", 32, 1e5, MS, 10)), Wish(objective_ns=OBJECTIVE_NS, floor=1)
    for coefficients, is_known in ((shipped, True), (fewer, False)):
        advice = judging.advise(measured(), made, traffic.at_rate(50), offers.load(), coefficients, wish)
        grams = {option.name: option.sci_thousand_ng for option in advice.options}
        assert (grams["p5en.48xlarge"] is not None) == is_known
        assert all(span.low <= span.value <= span.high for span in grams.values() if span is not None)


def test_every_gpu_that_is_offered_has_coefficients_and_says_how_sure_they_are():
    coefficients = energy.load()
    for offer in offers.load().offer:
        if offer.gpu:
            gpu = coefficients.of_gpu(offer.gpu)
            assert all(figure.source for figure in (gpu.idle_watts, gpu.busy_watts, gpu.embodied_g_per_hour))
    h200 = coefficients.of_gpu("H200")
    assert {h200.idle_watts.tier, h200.busy_watts.tier, h200.embodied_g_per_hour.tier} == {"assumed"}


def test_disagreements_with_the_manifest_are_told_and_agreement_is_not():
    made = manifest()
    [variant] = made.variants
    assert any("the manifest says" in sentence for sentence in disagreements(measured(), made))
    [cell] = variant.latency
    same = msgspec.structs.replace(measured(), cells=(Cell(1, 1, cell.p50_ns, cell.p50_ns, cell.p99_ns, 9),))
    same = msgspec.structs.replace(same, build_ns=variant.load_ns or 0)
    assert disagreements(same, made) == ()


def test_a_manifest_without_gpu_figures_keeps_its_bytes():
    assert b'"gpu"' not in msgspec.json.encode(manifest())
    assert b'"gpu"' in msgspec.json.encode(manifest(figure(1.0)))


def test_curves_reach_below_todays_rate():
    rare = traffic.at_rate(0.01)
    wish = Wish(objective_ns=OBJECTIVE_NS, floor=1)
    curves = judging.curves(measured(), manifest(), rare, offers.load(), energy.load(), wish)
    assert curves
    assert all(curve.points[0][0] < 0.01 < curve.points[-1][0] for curve in curves)
