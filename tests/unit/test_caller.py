"""What one key may do: models, rights, rate, concurrency and money, each refused with a sentence that says when or who to ask."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.caller import Caller
from gateway.errors import BudgetExceeded, Forbidden
from tests.support.accesskeys import HOUR_NS, NOON_NS, SECOND_NS, Now, new

USD = 10**12


def caller(now: Now, **fields: Any) -> Caller:
    return Caller(now, new(**fields)[1])


@pytest.mark.parametrize(
    ("models", "allowed", "refused"),
    [
        (("*",), ["flights", "", "anything at all"], []),
        (("flights",), ["flights"], ["flights2", "Flights", "xflights", "", "flights\n"]),
        (("flights", "digits"), ["flights", "digits"], ["flights,digits"]),
        (("search-*",), ["search-", "search-a", "search-a-b"], ["search", "xsearch-a"]),
        (("*-eu", "a*b*c"), ["x-eu", "abc", "a1b2c"], ["x-eu2", "abcd", "a-eu\n"]),
        (("a.b",), ["a.b"], ["axb"]),
        (("a.*",), ["a.b"], ["axb"]),
    ],
)
def test_a_key_reaches_the_models_it_lists(models: tuple[str, ...], allowed: list[str], refused: list[str]) -> None:
    someone = caller(Now(), models=models)
    for model in allowed:
        someone.check(model)
        assert someone.may(model)
    for model in refused:
        assert not someone.may(model)
        with pytest.raises(Forbidden) as refusal:
            someone.check(model)
        assert f"key '{someone.key_id}' of tenant 'search' may not call model '{model}'" in str(refusal.value)


def test_no_name_makes_a_glob_slow() -> None:
    someone = caller(Now(), models=("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b",))
    assert not someone.may("a" * 50_000)  # a backtracking match would take longer than the universe


def test_a_hostile_model_name_is_cut_in_the_sentence() -> None:
    with pytest.raises(Forbidden) as refusal:
        caller(Now(), models=("flights",)).check("x" * 10_000)
    assert len(str(refusal.value)) < 200


def test_rights_do_not_imply_each_other() -> None:
    admin = caller(Now(), rights=("admin",))
    admin.require("admin")
    with pytest.raises(Forbidden, match=r"needs the right 'predict'; key '\w+' of tenant 'search' has: admin"):
        admin.check("flights")
    with pytest.raises(Forbidden, match="'costs'"):
        admin.require("costs")


def test_nobody_in_particular_may_do_everything() -> None:
    nobody = Caller(Now())
    assert (nobody.tenant, nobody.key_id) == ("", "")
    for right in ("predict", "costs", "admin"):
        nobody.require(right)
    for _ in range(1000):
        nobody.check("anything")
        nobody.enter()
    assert nobody.in_flight == 1000


def test_a_rate_refuses_and_says_when_to_come_back() -> None:
    now = Now()
    someone = caller(now, rps=4)
    for _ in range(4):  # a burst is one second's worth
        someone.enter()
    with pytest.raises(BudgetExceeded, match="may send 4 requests per second; the next one in 250 ms") as refusal:
        someone.enter()
    assert (refusal.value.retry_after_ms, someone.in_flight) == (250, 4)
    now.ns += SECOND_NS // 4
    someone.enter()


def test_a_burst_of_its_own_replaces_the_seconds_worth() -> None:
    someone = caller(Now(), rps=100, burst=2)
    someone.enter()
    someone.enter()
    with pytest.raises(BudgetExceeded):
        someone.enter()


def test_concurrency_counts_what_is_in_flight_and_a_refusal_takes_no_token() -> None:
    someone = caller(Now(), concurrency=2, rps=3)
    someone.enter()
    someone.enter()
    for _ in range(10):
        with pytest.raises(BudgetExceeded, match="has 2 requests in flight and may have 2") as refusal:
            someone.enter()
    assert refusal.value.retry_after_ms == 1000
    someone.leave(0)
    someone.enter()  # the third token is still there


def test_a_spent_budget_refuses_until_midnight_utc() -> None:
    now = Now(NOON_NS + 1)
    someone = caller(now, budget_picousd_per_day=2 * USD + USD // 2)
    someone.enter()
    someone.leave(2 * USD)
    someone.enter()  # half a dollar is left, and what it will cost nobody knows yet
    someone.leave(USD // 2)
    with pytest.raises(BudgetExceeded, match=r"\$2\.5 a day; it resets at 2026-11-26T00:00:00Z") as refusal:
        someone.enter()
    assert refusal.value.retry_after_ms == 12 * 3_600_000
    assert someone.in_flight == 0
    now.ns = NOON_NS + 12 * HOUR_NS - 1
    with pytest.raises(BudgetExceeded):
        someone.enter()
    now.ns += 1
    someone.enter()


def test_a_receipt_counts_to_the_day_its_request_ends_in() -> None:
    now = Now(NOON_NS + 12 * HOUR_NS - 1)
    someone = caller(now, budget_picousd_per_day=10)
    someone.enter()
    now.ns += 1
    someone.leave(10)
    with pytest.raises(BudgetExceeded, match="2026-11-27T00:00:00Z"):
        someone.enter()


def test_a_failed_requests_receipt_counts_apart_from_its_leaving() -> None:
    someone = caller(Now(), budget_picousd_per_day=10)
    someone.enter()
    someone.charge(10)
    someone.leave()
    assert someone.in_flight == 0
    with pytest.raises(BudgetExceeded):
        someone.enter()
    Caller(Now()).charge(10)  # nobody in particular has no budget


def test_what_others_spent_counts() -> None:
    someone = caller(Now(), budget_picousd_per_day=10)
    someone.enter()
    someone.leave(4)
    assert someone.purse is not None
    someone.purse.others_picousd = 6
    with pytest.raises(BudgetExceeded):
        someone.enter()


def test_new_limits_keep_what_is_in_flight_and_spent() -> None:
    now = Now()
    _, record = new(budget_picousd_per_day=10, rps=2, concurrency=1)
    someone = Caller(now, record)
    someone.enter()
    someone.leave(9)
    someone.enter()
    _, changed = new(budget_picousd_per_day=11, models=("flights",))
    someone.update(changed)
    someone.enter()  # neither the rate nor the concurrency that it had
    assert someone.in_flight == 2
    someone.leave(2)
    with pytest.raises(BudgetExceeded):
        someone.enter()
    with pytest.raises(Forbidden):
        someone.check("digits")


@given(
    st.lists(st.tuples(st.integers(0, 40 * HOUR_NS), st.integers(0, 5), st.booleans()), max_size=60),
    st.integers(1, 20),
    st.integers(1, 4),
)
def test_no_day_costs_more_than_its_budget_and_what_was_in_flight(
    steps: list[tuple[int, int, bool]], budget: int, concurrency: int
) -> None:
    now = Now()
    someone = caller(now, budget_picousd_per_day=budget, concurrency=concurrency)
    spent: dict[int, int] = {}
    for gap_ns, cost, is_entering in steps:
        now.ns += gap_ns
        if is_entering or not someone.in_flight:
            try:
                someone.enter()
            except BudgetExceeded:
                continue
        else:
            someone.leave(cost)
            day = now.ns // (24 * HOUR_NS)
            spent[day] = spent.get(day, 0) + cost
    assert 0 <= someone.in_flight <= concurrency
    assert all(total < budget + 5 * concurrency for total in spent.values())
