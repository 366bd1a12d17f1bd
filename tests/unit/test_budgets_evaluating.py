"""What was spent of a budget: the ledger's own sums in the period, exact thresholds, and a forecast by the newest rate."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.budgets import evaluating
from gateway.budgets.budgetfile import Budget
from gateway.budgets.evaluating import Period, Standing, period
from gateway.contract.ledger import Charge, Posting
from gateway.contract.words import DAY_NS
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger

SERVED = Posting("infer", VCPU, 600, 2_000_000, "digits", 1, "acme", "ok", 2, 4)
OTHER = Posting("infer", VCPU, 200, 1_000_000, "flights", 7, "beta", "ok", 1, 1)
IDLE = Posting("idle_cpu", VCPU, 800, 4_000_000)
NOON_NS = T0_NS  # 2026-11-05T12:00:00Z


def segment(*postings: Posting) -> list[Charge | Posting]:
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*ledgers.charges(bill[VCPU], bill[MEMORY]), *postings]


def budget(usd: str = "0.000000002", **changed: object) -> Budget:
    return Budget("b", **({"period": "day", "usd": usd} | changed))  # type: ignore[arg-type]


def standing(ledger: Ledger, one: Budget, now_ns: int = NOON_NS + HOUR_NS) -> Standing:
    with tempfile.TemporaryDirectory() as folder:
        [found] = evaluating.evaluate(ledgers.write(Path(folder), ledger), [one], now_ns)
        return found


def crossed(found: Standing) -> list[str]:
    return [threshold.id for threshold in found.crossed]


# Spent


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["full", "direct", "idle-to-cause"]))
def test_budgets_of_everybody_are_the_whole_bill_and_models_are_its_parts(seed: int, view: str):
    ledger = ledgers.random_ledger(seed)
    bill = sum(line.cost_picousd for line in ledgers.all_lines(ledger) if isinstance(line, Charge))
    patterns = ["*", "digits", "flights", "=1+1", "[!df=]*"]
    with tempfile.TemporaryDirectory() as folder:
        found = evaluating.evaluate(
            ledgers.write(Path(folder), ledger),
            [budget(model=pattern, view=view) for pattern in patterns],
            NOON_NS + 6 * HOUR_NS,
        )
    spent = [one.spent_picousd for one in found]
    assert spent[0] == bill
    assert sum(spent[1:]) <= bill
    if view != "direct" and any(spent[1:4]):
        assert sum(spent[1:4]) == bill


def test_patterns_choose_models_and_tenants_and_shared_costs_follow_the_view():
    ledger = ledgers.container("c", [segment(SERVED, OTHER, IDLE)])
    assert standing(ledger, budget(model="dig*")).spent_picousd == 1200
    assert standing(ledger, budget(model="dig*", view="direct")).spent_picousd == 600
    assert standing(ledger, budget(tenant="b?ta", view="direct")).spent_picousd == 200
    assert standing(ledger, budget(model="digits", tenant="beta")).spent_picousd == 0


@pytest.mark.parametrize(
    ("usd", "expected"), [("0.0000000006", ["spent-0.8", "spent-1"]), ("0.000000000601", ["spent-0.8"])]
)
def test_a_threshold_is_crossed_at_the_pico_dollar(usd: str, expected: list[str]):
    ledger = ledgers.container("c", [segment(SERVED)])
    assert crossed(standing(ledger, budget(usd))) == expected


def test_only_the_running_period_counts():
    ledger = ledgers.container("old", [segment(SERVED)], boot_ns=NOON_NS - 20 * HOUR_NS)
    ledger |= ledgers.container("new", [segment(OTHER)])
    assert standing(ledger, budget(period="day")).spent_picousd == 200
    assert standing(ledger, budget(period="month")).spent_picousd == 800
    assert standing(ledger, budget(period="hours:21")).spent_picousd == 200
    assert standing(ledger, budget(period="hours:22")).spent_picousd == 800
    assert standing(ledger, budget(period="day"), NOON_NS + 13 * HOUR_NS).spent_picousd == 0


def test_an_empty_period_crosses_nothing_and_says_so():
    found = standing({}, budget())
    assert (found.segments, found.spent_picousd, found.forecast_picousd, found.crossed) == (0, 0, 0, ())


# Periods


def test_periods_are_days_months_and_blocks_in_utc():
    assert period(budget(), NOON_NS) == Period(NOON_NS - 12 * HOUR_NS, NOON_NS + 12 * HOUR_NS, "2026-11-05")
    month = period(budget(period="month"), NOON_NS)
    assert (month.key, month.to_ns - month.from_ns) == ("2026-11", 30 * DAY_NS)
    december = period(budget(period="month"), NOON_NS + 30 * DAY_NS)
    assert (december.key, december.from_ns, december.to_ns - december.from_ns) == ("2026-12", month.to_ns, 31 * DAY_NS)


@settings(deadline=None)
@given(st.integers(0, 2**61), st.sampled_from(["day", "month", "hours:1", "hours:24", "hours:744"]))
def test_now_is_always_in_its_period(now_ns: int, name: str):
    found = period(budget(period=name), now_ns)
    assert found.from_ns <= now_ns < found.to_ns
    assert found.from_ns % HOUR_NS == found.to_ns % HOUR_NS == 0


def test_a_rolling_budget_alerts_once_per_block():
    keys = {period(budget(period="hours:6"), NOON_NS + hour * HOUR_NS).key for hour in range(6)}
    assert len(keys) == 1
    assert period(budget(period="hours:6"), NOON_NS + 6 * HOUR_NS).key not in keys


# Forecast


def test_forecast_goes_on_at_the_newest_hours_rate():
    ledger = ledgers.container("early", [segment(SERVED)], boot_ns=NOON_NS - 10 * HOUR_NS)
    ledger |= ledgers.container("now", [segment(OTHER)])
    found = standing(ledger, budget("0.0000000031", forecast=("1",)), NOON_NS + HOUR_NS)
    assert found.forecast_picousd == 800 + 200 * 11  # eleven hours of the day remain
    assert crossed(found) == []
    assert crossed(standing(ledger, budget("0.000000003", forecast=("1",)))) == ["forecast-1"]


def test_forecast_of_a_rolling_period_is_its_newest_rate_for_all_of_it():
    ledger = ledgers.container("now", [segment(OTHER)])
    found = standing(ledger, budget(period="hours:48"), NOON_NS + HOUR_NS)
    assert found.forecast_picousd == 200 * 48 // 2  # two hours are a 24th of it


@settings(deadline=None)
@given(st.integers(0, 10**15), st.integers(1, 24 * 3600 * 10**9 - 1))
def test_forecast_is_never_below_what_was_spent(cost: int, after_ns: int):
    one, now_ns = budget(), NOON_NS - 12 * HOUR_NS + after_ns
    now = period(one, now_ns)
    costs = [(now_ns // HOUR_NS * HOUR_NS, cost)]
    assert evaluating.forecasted(one, now, now_ns, costs) >= cost
