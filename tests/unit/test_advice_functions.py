"""A function's sandboxes: no call waits for another, each start is counted, and the share of cold calls is that of theory."""

import random
from itertools import accumulate
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.advice import functions
from gateway.advice.functions import invoke

SECOND = 10**9
COLD_NS = 3 * SECOND

calls = st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 2 * SECOND)), max_size=60)


@given(calls, st.integers(0, 30 * SECOND), st.integers(0, 3))
def test_a_call_takes_its_own_time_or_a_cold_start_and_waits_for_nobody(
    load: list[tuple[int, int]], keep_alive_ns: int, warm: int
):
    arrivals = list(accumulate(gap for gap, _ in load))
    runs = [run for _, run in load]
    seen = invoke(arrivals, runs, cold_ns=COLD_NS, keep_alive_ns=keep_alive_ns, warm=warm)
    assert len(seen.latency_ns) == len(load)
    assert all(took in {run, COLD_NS} for took, run in zip(seen.latency_ns, runs, strict=True))
    assert seen.cold_starts == sum(took == COLD_NS for took in seen.latency_ns)
    at_once = [
        sum(came <= at < came + took for came, took in zip(arrivals, seen.latency_ns, strict=True)) for at in arrivals
    ]
    assert max(at_once, default=0) <= seen.peak <= seen.cold_starts + warm


def test_each_concurrent_call_has_a_sandbox_of_its_own():
    seen = invoke([0, 1, 2], [SECOND] * 3, cold_ns=COLD_NS, keep_alive_ns=600 * SECOND)
    assert (seen.cold_starts, seen.peak) == (3, 3)
    after = invoke([0, 4 * SECOND, 8 * SECOND], [SECOND] * 3, cold_ns=COLD_NS, keep_alive_ns=600 * SECOND)
    assert after.latency_ns == (COLD_NS, SECOND, SECOND)


def test_an_idle_sandbox_is_kept_just_so_long():
    ends_ns = COLD_NS
    for gap_ns, is_cold in ((10 * SECOND, False), (10 * SECOND + 1, True)):
        seen = invoke([0, ends_ns + gap_ns], [1, 1], cold_ns=COLD_NS, keep_alive_ns=10 * SECOND)
        assert seen.latency_ns[1] == (COLD_NS if is_cold else 1)


def test_the_sandbox_used_last_is_taken_so_that_the_other_one_ends():
    arrivals = [0, 0, *(number * SECOND for number in range(4, 20)), 20 * SECOND, 20 * SECOND]
    seen = invoke(arrivals, [1] * len(arrivals), cold_ns=COLD_NS, keep_alive_ns=10 * SECOND)
    assert [took == COLD_NS for took in seen.latency_ns] == [True, True, *[False] * 17, True]


@pytest.mark.parametrize("rps", [0.0005, 0.002, 0.005])
def test_rare_calls_are_cold_as_often_as_a_gap_is_longer_than_the_keep_alive(rps: float):
    rng = random.Random(5)
    arrivals = list(accumulate(round(rng.expovariate(rps) * SECOND) for _ in range(20_000)))
    seen = invoke(arrivals, [SECOND // 1000] * 20_000, cold_ns=COLD_NS, keep_alive_ns=functions.KEEP_ALIVE_NS)
    assert functions.cold_share_at(rps) == pytest.approx(exp(-600 * rps))
    assert seen.cold_starts / 20_000 == pytest.approx(functions.cold_share_at(rps), abs=0.01)
