"""The saturation gauge: 0 when idle, the same in any size of container, and 1 no later than requests are refused."""

import asyncio
from time import thread_time_ns

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.runtime.admission import Admission, AdmissionOptions
from gateway.telemetry import definitions as d
from gateway.telemetry.saturation import Saturation, Totals, parts
from tests.support.manualclock import until

SECOND_NS = 10**9
OBJECTIVE_NS = 100_000_000


def totals(second: int, **counters: int) -> Totals:
    fields = dict.fromkeys(("process_cpu_ns", "loop_busy_ns", "waited_ns", "answered", "lag_ns", "looks"), 0) | counters
    return Totals(second * SECOND_NS, **fields)


def shares(last: Totals, *, vcpu_milli: int = 2000, predicted_wait_ns: int = 0) -> dict[str, float]:
    return parts(totals(0), last, vcpu_milli=vcpu_milli, objective_ns=OBJECTIVE_NS, predicted_wait_ns=predicted_wait_ns)


def test_an_idle_process_reads_as_zero_although_its_upkeep_costs_a_little() -> None:
    upkeep = totals(10, process_cpu_ns=20_000_000, loop_busy_ns=15_000_000, lag_ns=50_000_000, looks=100)
    assert shares(upkeep) == {"cpu": 0, "loop": 0, "wait": 0}
    assert parts(totals(0), totals(0), vcpu_milli=1000, objective_ns=1) == {"cpu": 0, "loop": 0, "wait": 0}


@given(st.integers(1, 64), st.integers(1, 100))
def test_the_same_share_of_a_container_reads_the_same_whatever_its_size(vcpus: int, percent: int) -> None:
    used = totals(10, process_cpu_ns=vcpus * 10 * SECOND_NS * percent // 100)
    assert shares(used, vcpu_milli=vcpus * 1000)["cpu"] == pytest.approx(percent / 100, abs=0.001)


def test_a_full_event_loop_saturates_a_large_container() -> None:
    busy = totals(10, process_cpu_ns=10 * SECOND_NS, loop_busy_ns=10 * SECOND_NS)
    found = shares(busy, vcpu_milli=16_000)
    assert (found["cpu"], found["loop"]) == (0.062, 1.0)


def test_waiting_as_long_as_the_objective_is_saturation_and_so_is_a_prediction_of_it() -> None:
    waited = totals(10, waited_ns=50 * OBJECTIVE_NS, answered=100, looks=10)
    assert shares(waited)["wait"] == 0.5
    assert shares(waited, predicted_wait_ns=2 * OBJECTIVE_NS)["wait"] == 2.0
    assert shares(waited, predicted_wait_ns=OBJECTIVE_NS // 4)["wait"] == 0.5
    late = totals(10, lag_ns=10 * OBJECTIVE_NS, looks=10)
    assert shares(late)["wait"] == 1.0


async def test_a_limit_is_reached_when_the_next_request_is_refused() -> None:
    admission = Admission(AdmissionOptions(requests_max=4))
    gauge = Saturation(vcpu_milli=1_000_000, objective_ms=60_000, window_s=10, waits=lambda: (0, 0))
    gauge.watch("requests", lambda: admission.requests / 4)
    seen = []
    async with gauge:
        for _ in range(4):
            admission.check()
            admission.enter(0)
            seen.append({metric.name: value for metric, labels, value in gauge.read() if not labels})
        with pytest.raises(Exception, match="requests_max"):
            admission.check()
    assert [found[d.SATURATION.name] for found in seen] == [0.25, 0.5, 0.75, 1.0]


async def test_the_probe_sees_how_late_the_loop_is_and_ends_with_it() -> None:
    gauge = Saturation(vcpu_milli=1000, objective_ms=100, window_s=10, waits=lambda: (0, 0))
    assert gauge.parts() == {"cpu": 0, "loop": 0, "wait": 0}
    async with gauge:
        await until(lambda: gauge.lag.count >= 3)
    before = gauge.lag.count
    await asyncio.sleep(0)
    assert gauge.lag.count == before
    assert set(gauge.parts()) == {"cpu", "loop", "wait"}


async def test_work_in_the_event_loop_is_seen_by_the_loop_and_cpu_parts() -> None:
    """In a container so small that the work fills it for a second, however long this process has to wait for a CPU."""
    gauge = Saturation(vcpu_milli=100, objective_ms=100, window_s=10, waits=lambda: (0, 0))
    async with gauge:
        until_ns = thread_time_ns() + 100_000_000
        while thread_time_ns() < until_ns:
            pass
        await until(lambda: gauge.lag.count >= 2)
        found = gauge.parts()
    assert found["loop"] > 0.05
    assert found["cpu"] > 0.05
