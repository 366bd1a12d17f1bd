"""Measured figures against the rules: what passes, what does not, and that nothing unmeasured ever passes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.promotions import Gate, Judged
from gateway.contract.registry import Promotion
from trainers import metrics, objectives
from trainers.promotion import gates
from trainers.promotion.budgets import ALLOWANCES, Cost
from trainers.promotion.comparing import Compared, SliceGain
from trainers.rules import Rules

S = 10**9
NUMBERS = st.none() | st.floats(-10, 10)
ONLY_AUC = msgspec.structs.replace(objectives.binary(), metrics=(metrics.ROC_AUC,))


def compared(low: float = -0.001, high: float = 0.02, slices: tuple[SliceGain, ...] = ()) -> Compared:
    judged = Judged(
        "newest", 500, champion={"roc_auc": 0.70}, candidate={"roc_auc": 0.71}, gains={"roc_auc": (low, high)}
    )
    return Compared(judged, slices)


def passed(found: list[Gate]) -> dict[str, bool]:
    return {gate.name: gate.passed for gate in found}


def entry(generation: int, version: int, at_s: float) -> Promotion:
    return Promotion("m", "champion", version, "ab" * 32, generation, "anna", "", int(at_s * S))


@given(NUMBERS, st.floats(-10, 10))
def test_a_gate_passes_by_its_measurement_and_never_without(measured: float | None, limit: float):
    most, least = gates.at_most("x", measured, limit), gates.at_least("x", measured, limit)
    assert most.passed == (measured is not None and measured <= limit)
    assert least.passed == (measured is not None and measured >= limit)


@pytest.mark.parametrize(("low", "is_kept"), [(0.005, True), (-0.0099, True), (-0.0101, False)])
def test_a_gain_may_lie_below_zero_by_the_margin_only(low: float, is_kept: bool):
    assert passed(gates.no_worse(compared(low), ONLY_AUC, Rules())) == {"newest roc_auc": is_kept}


def test_a_metric_has_a_margin_of_its_own():
    rules = Rules(margins={"roc_auc": 0.05})
    assert passed(gates.no_worse(compared(-0.04), ONLY_AUC, rules)) == {"newest roc_auc": True}
    assert passed(gates.no_worse(compared(-0.06), ONLY_AUC, rules)) == {"newest roc_auc": False}


def test_being_better_is_asked_for_only_by_the_rules():
    assert gates.better(compared(-0.001), ONLY_AUC, Rules()) == []
    strict = Rules(must_be_better=True)
    lows = (-0.001, 0.0, 0.001)
    assert [gates.better(compared(low), ONLY_AUC, strict)[0].passed for low in lows] == [False, False, True]


def test_skipped_rows_have_no_gates_and_failed_comparisons_do_not_pass():
    skipped = Compared(Judged("frozen", 3, excluded=500, skipped="3 rows"))
    assert gates.no_worse(skipped, ONLY_AUC, Rules()) == []
    broken = Compared(Judged("newest", 500), problem="an answer is NaN")
    [gate] = gates.no_worse(broken, ONLY_AUC, Rules())
    assert (gate.passed, gate.measured, gate.detail) == (False, None, "an answer is NaN")
    [gate] = gates.no_worse(broken, objectives.untargeted("embed"), Rules())
    assert (gate.passed, gate.measured) == (False, None)


def test_a_slice_holds_back_only_when_it_is_surely_worse():
    fine = SliceGain("jfk", 900, 0.01, 0.03)
    unsure, worse = SliceGain("ewr", 210, -0.03, 0.001), SliceGain("lga", 400, -0.05, -0.03)
    assert passed(gates.no_worse(compared(slices=(fine, unsure)), ONLY_AUC, Rules()))["newest slice"]
    found = {gate.name: gate for gate in gates.no_worse(compared(slices=(fine, worse, unsure)), ONLY_AUC, Rules())}
    assert not found["newest slice"].passed
    assert "worst is 'lga', 400 rows" in found["newest slice"].detail


@pytest.mark.parametrize(("rows", "failed"), [(499, "train_rows_min"), (500, ""), (3000, ""), (3001, "train_rows_max")])
def test_a_training_may_not_shrink_or_swell_too_much(rows: int, failed: str):
    found = gates.training(gates.Training(rows, 1000, 0.05, 31.0, is_dated=True), Rules())
    assert [gate.name for gate in found if not gate.passed] == ([failed] if failed else [])


def test_labels_may_not_shift_and_data_may_not_be_older():
    found = passed(gates.training(gates.Training(1000, 1000, 0.11, -1.0, is_dated=True), Rules()))
    assert (found["label_shift"], found["days_newer"]) == (False, False)
    found = passed(gates.training(gates.Training(1000, 1000, 0.1, 0.0, is_dated=True), Rules()))
    assert (found["label_shift"], found["days_newer"]) == (True, True)


def test_dates_that_went_missing_do_not_pass_and_those_that_never_were_are_not_asked_for():
    missing = gates.training(gates.Training(1000, 1000, 0.0, None, is_dated=True), Rules())
    assert not passed(missing)["days_newer"]
    assert gates.training(gates.Training(1000, None, None, None, is_dated=False), Rules()) == []


def test_floors_are_minima_for_scores_and_maxima_for_errors():
    binary = objectives.binary()
    judged = Compared(Judged("newest", 500, candidate={"roc_auc": 0.7, "brier": 0.2, "average_precision": 0.4}))
    assert passed(gates.floors(judged, binary, Rules(floors={"roc_auc": 0.7, "brier": 0.2}))) == {
        "floor roc_auc": True,
        "floor brier": True,
    }
    strict = Rules(floors={"roc_auc": 0.71, "brier": 0.19, "speed": 1.0})
    assert not any(passed(gates.floors(judged, binary, strict)).values())


def test_a_budget_without_a_measurement_is_not_kept_and_one_without_a_limit_is_not_asked_for():
    rules = Rules(load_ratio_max=None)
    found = passed(gates.budgets({"latency_p50": Cost("latency_p50", 1e5, None)}, rules))
    assert set(found) == {"latency_p50", "latency_p99", "resident", "cost_1k"}
    assert not any(found.values())


@given(st.floats(1, 1e9), st.floats(0, 1e9), st.sampled_from(sorted(ALLOWANCES)))
def test_what_is_less_than_the_allowance_more_counts_as_nothing(before: float, more: float, name: str):
    ratio = Cost(name, before, before + more).ratio
    assert ratio is not None
    if (before + more) - before <= ALLOWANCES[name]:
        assert ratio <= 1.0
    else:
        assert ratio == pytest.approx((before + more) / before)


def test_versions_may_not_take_over_faster_than_the_rules_say():
    log = [entry(1, 1, 0), entry(2, 2, 3000), entry(4, 2, 3500)]  # the last only ended a canary
    cool = Rules(cooldown_s=3600)
    assert not passed(gates.pace(log, 4000 * S, cool))["cooldown_s"]
    assert passed(gates.pace(log, 6600 * S, cool))["cooldown_s"]
    assert passed(gates.pace([], 0, cool)) == {"promotions_today": True}
    few = Rules(promotions_per_day_max=2)
    assert not passed(gates.pace(log, 4000 * S, few))["promotions_today"]
    assert passed(gates.pace(log, (86_400 + 1) * S, few))["promotions_today"]
