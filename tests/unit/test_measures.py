"""The figures of every call: exact sums, runs counted once however many requests share them, and bounds on what is kept."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting.usage import Usage
from gateway.calls import Call, Sent
from gateway.contract.ledger import Outcome
from gateway.errors import BucketNotFound, DeadlineExceeded, GatewayError, InvalidInput, Overloaded
from gateway.telemetry.measures import OTHER, Measures, TelemetryOptions
from gateway.telemetry.reasons import REASONS, reason_of
from gateway.telemetry.series import BATCH_SIZES_MAX, Span, VersionMeasures


def observe(
    measures: Measures,
    usage: Usage,
    *,
    model: str = "mlp",
    version: int = 1,
    outcome: Outcome = "ok",
    tenant: str = "",
    arrived_ns: int = 1_000,
    cost_picousd: int = 7,
) -> None:
    door: Any = SimpleNamespace(name="rows")
    caller: Any = SimpleNamespace(tenant=tenant)
    call = Call("id", model, None, Sent(b""), door, arrived_ns, caller)
    resident: Any = SimpleNamespace(name=model, version=version)
    measures.observe(call, resident, usage, outcome, cost_picousd)


def usage(*, rows: int = 1, batch_rows: int = 1, run_ns: int = 100, decode_ns: int = 10, encode_ns: int = 20) -> Usage:
    return Usage(
        cpu_ns=50, decode_ns=decode_ns, encode_ns=encode_ns, queue_ns=5, run_ns=run_ns, total_ns=200, rows=rows,
        batch_rows=batch_rows, request_bytes=300, response_bytes=30,
    )  # fmt: skip


def test_the_statistics_are_sums_over_the_calls() -> None:
    measures = Measures()
    observe(measures, usage(rows=3, batch_rows=3))
    observe(measures, usage())
    observe(measures, Usage(total_ns=1000), outcome="failed")
    found = measures.snapshot("mlp", 1)
    assert found.success == Span(2, 400)
    assert found.fail == Span(1, 1000)
    assert found.queue == Span(2, 10)
    assert found.decode == Span(2, 20)
    assert found.run == Span(2, 200)
    assert found.encode == Span(2, 40)
    assert (found.rows, found.executions) == (4, 2)
    assert set(found.batches) == {1, 3}


def test_a_batch_of_many_requests_is_one_run_that_took_its_time_once() -> None:
    measures = Measures()
    for rows in (1, 2, 5):
        observe(measures, usage(rows=rows, batch_rows=8, run_ns=1_000_003))
    found = measures.snapshot("mlp", 1)
    assert found.executions == 1
    assert found.batches[8].run == Span(1, 1_000_003)
    assert found.batches[8].decode == Span(1, 30)
    assert found.run == Span(3, 3 * 1_000_003)


def test_a_batch_half_answered_is_not_counted_as_a_run_yet() -> None:
    measures = Measures()
    observe(measures, usage(rows=4, batch_rows=8))
    assert measures.snapshot("mlp", 1).executions == 0
    observe(measures, usage(rows=4, batch_rows=8))
    assert measures.snapshot("mlp", 1).executions == 1


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), max_size=40))
def test_every_run_is_counted_once_whatever_the_batches(batches: list[list[int]]) -> None:
    measures = Measures()
    for number, batch in enumerate(batches):
        for rows in batch:
            observe(measures, usage(rows=rows, batch_rows=sum(batch), run_ns=1000 + number))
    found = measures.snapshot("mlp", 1)
    assert found.executions == len(batches)
    assert found.rows == sum(map(sum, batches))
    assert sum(batch.run.count for batch in found.batches.values()) == len(batches)
    assert sum(batch.run.ns for batch in found.batches.values()) == sum(1000 + n for n in range(len(batches)))
    [series] = measures.series() or [None]
    if series is not None:
        rows_per_run = series.batch_rows()
        assert (rows_per_run.count, rows_per_run.total) == (len(batches), found.rows)


def test_more_sizes_of_batches_than_are_listed_still_count_every_run() -> None:
    measures = Measures()
    for size in range(1, BATCH_SIZES_MAX + 50):
        for rows in (1,) * size:  # as many requests as rows: the smallest fractions there are
            observe(measures, usage(rows=rows, batch_rows=size))
    found = measures.snapshot("mlp", 1)
    assert found.executions == BATCH_SIZES_MAX + 49
    assert len(found.batches) == BATCH_SIZES_MAX
    [series] = measures.series()
    assert series.batch_rows().count == found.executions
    assert found.rows == sum(range(1, BATCH_SIZES_MAX + 50))


def test_a_version_that_was_never_called_is_all_zero() -> None:
    assert Measures().snapshot("nobody", 1) == VersionMeasures()


def test_last_is_when_the_last_call_ended_in_unix_time() -> None:
    measures = Measures()
    before_ns = time.time_ns()
    observe(measures, Usage(total_ns=0), arrived_ns=time.perf_counter_ns())
    after_ns = time.time_ns()
    # The two clocks are read one after the other when `Measures` is made; NTP may bend one of them a little in between.
    assert before_ns - 10**8 <= measures.snapshot("mlp", 1).last_ns <= after_ns + 10**8


def test_the_longest_silent_version_joins_the_others_and_no_sum_changes() -> None:
    measures = Measures(TelemetryOptions(versions_max=2))
    for version in range(1, 6):
        observe(measures, usage(), version=version, arrived_ns=version * 1000, cost_picousd=version)
        observe(measures, Usage(total_ns=3), version=version, outcome="invalid", arrived_ns=version * 1000 + 1)
    series = {(each.name, each.version): each for each in measures.series()}
    assert len(series) == 3
    assert (OTHER, 0) in series
    assert ("mlp", 5) in series
    assert sum(each.cost_picousd for each in series.values()) == 1 + 2 + 3 + 4 + 5 + 35
    assert sum(each.outcomes["ok"] for each in series.values()) == 5
    assert sum(each.outcomes["invalid"] for each in series.values()) == 5
    assert sum(each.executions for each in series.values()) == 5
    assert sum(each.total.total for each in series.values()) == 5 * 200
    assert measures.snapshot(OTHER, 0).rows == 3


def test_tenants_are_counted_only_when_wanted_and_up_to_their_number() -> None:
    silent, counting = Measures(), Measures(TelemetryOptions(tenants_max=2))
    for measures in (silent, counting):
        for tenant in ("a", "b", "c", "d", "a", ""):
            observe(measures, usage(), tenant=tenant)
    assert silent.tenants == {}
    assert {name: totals.requests for name, totals in counting.tenants.items()} == {"a": 2, "b": 1, OTHER: 2}
    assert counting.tenants["a"].cost_picousd == 14


def test_refusals_are_counted_by_a_bounded_set_of_reasons() -> None:
    measures = Measures()
    measures.refused("overloaded")
    measures.refused("whatever a caller wrote")
    assert set(measures.refusals) == set(REASONS)
    assert measures.refusals["overloaded"] == 1
    assert measures.refusals["internal"] == 1


def test_every_error_has_a_reason_and_a_bug_is_internal() -> None:
    kinds = [GatewayError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert reason_of(kind("x")) in REASONS
    assert reason_of(InvalidInput("x")) == "invalid"
    assert reason_of(Overloaded("x")) == "overloaded"
    assert reason_of(DeadlineExceeded("x")) == "deadline"
    assert reason_of(BucketNotFound("x")) == "store"
    assert reason_of(ValueError("x")) == "internal"
    assert reason_of(asyncio.CancelledError()) == "internal"
