"""The simulated fleet: conservation, one thing at a time, and the formulas of queueing theory on long runs."""

import random
from itertools import accumulate, pairwise
from math import factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.advice.simulation import PERIOD_NS, SETTLE_NS, Fleet, simulate

SECOND = 10**9
REQUESTS = 60_000

fleets = st.builds(
    Fleet,
    replicas_min=st.integers(0, 2),
    replicas_max=st.integers(2, 5),
    workers=st.integers(1, 3),
    cold_start_ns=st.sampled_from([0, SECOND, 20 * SECOND]),
    objective_ns=st.sampled_from([0, SECOND // 10]),
    batch_max=st.integers(1, 4),
    mate_saves_ns=st.integers(0, SECOND),
)
loads = st.lists(st.tuples(st.integers(0, 90 * SECOND), st.integers(1, 30 * SECOND)), max_size=60)


@given(loads, fleets)
@settings(max_examples=150, deadline=None)
def test_every_request_is_handled_once_and_no_worker_does_two_things(load: list[tuple[int, int]], fleet: Fleet):
    arrivals = list(accumulate(gap for gap, _ in load))
    services = [service for _, service in load]
    seen = simulate(arrivals, services, fleet)
    assert [one.arrived_ns for one in seen.handled] == arrivals
    assert all(one.arrived_ns <= one.started_ns < one.ended_ns for one in seen.handled)
    assert [one.started_ns for one in seen.handled] == sorted(
        one.started_ns for one in seen.handled
    )  # first come first served
    runs = {(one.worker, one.started_ns, one.ended_ns) for one in seen.handled}
    for (worker, _, ended), (other, began, _) in pairwise(sorted(runs)):
        assert worker != other or ended <= began
    assert sum(ended - began for _, began, ended in runs) == seen.busy_ns
    assert seen.utilisation <= 1
    assert seen.busy_ns <= seen.ready_ns * fleet.workers <= seen.replica_ns * fleet.workers
    assert simulate(arrivals, services, fleet) == seen


def poisson(rate: float, rng: random.Random) -> list[int]:
    return list(accumulate(round(rng.expovariate(rate) * SECOND) for _ in range(REQUESTS)))


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (1, 0.8), (4, 0.7), (8, 0.85)])
def test_mean_wait_is_that_of_m_m_c(workers: int, load: float):
    rng = random.Random(7)
    rate = workers * load  # services of one second
    services = [max(1, round(rng.expovariate(1) * SECOND)) for _ in range(REQUESTS)]
    seen = simulate(poisson(rate, rng), services, Fleet(workers=workers))
    waited = seen.mean_latency_ns / SECOND - sum(services) / len(services) / SECOND
    offered = rate**workers / factorial(workers) / (1 - load)
    erlang_c = offered / (sum(rate**k / factorial(k) for k in range(workers)) + offered)
    assert waited == pytest.approx(erlang_c / (workers - rate), rel=0.1)
    assert seen.utilisation == pytest.approx(load, rel=0.03)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_is_that_of_m_d_1(load: float):
    seen = simulate(poisson(load, random.Random(3)), [SECOND] * REQUESTS, Fleet())
    assert seen.mean_latency_ns / SECOND - 1 == pytest.approx(load / (2 * (1 - load)), rel=0.06)


def test_a_floor_of_zero_pays_for_no_silence_and_makes_the_first_caller_wait():
    arrivals = [0, 2 * 3600 * SECOND]
    fleet = Fleet(replicas_min=0, replicas_max=3, cold_start_ns=20 * SECOND)
    seen = simulate(arrivals, [SECOND, SECOND], fleet)
    assert [one.latency_ns for one in seen.handled] == [21 * SECOND, 21 * SECOND]
    assert seen.cold_starts == 2
    assert seen.replica_ns < 2 * (21 * SECOND + SETTLE_NS + 2 * PERIOD_NS)


def test_the_scaler_adds_replicas_until_the_target_is_held():
    arrivals = [
        number * SECOND // 3 for number in range(3 * 1200)
    ]  # three a second for twenty minutes, a second of work each
    seen = simulate(arrivals, [SECOND] * len(arrivals), Fleet(replicas_max=20, cold_start_ns=10 * SECOND, target=0.6))
    assert seen.replicas_peak >= 5  # 3 / 0.6
    late = [one.latency_ns for one in seen.handled[-600:]]
    assert max(late) == SECOND


def test_a_batch_takes_less_than_its_members_alone():
    seen = simulate([0, 1, 2, 3], [1000] * 4, Fleet(batch_max=8, mate_saves_ns=900))
    assert [one.ended_ns for one in seen.handled] == [1000, 2200, 2200, 2200]


@pytest.mark.parametrize(
    "wrong", [{"replicas_min": 3}, {"replicas_max": 0, "replicas_min": 0}, {"target": 0.0}, {"batch_max": 0}]
)
def test_refuses_a_fleet_that_cannot_be(wrong: dict[str, int]):
    with pytest.raises(ValueError, match=r"fleet|target"):
        Fleet(**wrong)


def test_refuses_arrivals_out_of_order():
    with pytest.raises(ValueError, match="ascend"):
        simulate([2, 1], [1, 1], Fleet())
