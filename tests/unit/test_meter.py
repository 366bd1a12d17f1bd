"""Receipts: exact at once, never more than the box. Intervals: contiguous, within an hour, closable when their bill covers them."""

import itertools
from collections import Counter
from collections.abc import Callable
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting.meter import Meter
from gateway.accounting.tariff import Tariff
from gateway.contract import prices
from gateway.contract.ledger import ProvisionedSku
from gateway.errors import SettingsError
from tests.support import meters
from tests.support.manualclock import ManualClock
from tests.support.meters import BOOT_NS, CPU_RATE, HOUR_NS, SECOND_NS, VCPU


@pytest.fixture
def clock() -> ManualClock:
    """A process that has run for two seconds, with one second of CPU."""
    clock = ManualClock(BOOT_NS)
    clock.work(2 * SECOND_NS, cpu_ns=SECOND_NS)
    return clock


@pytest.fixture
def meter(clock: ManualClock) -> Meter:
    meter = meters.meter(clock)
    meter.mark_ready()
    return meter


def test_a_receipt_is_the_cpu_at_list_price(meter: Meter) -> None:
    assert meters.charge(meter, 5_000_000) == 56_222  # 5 ms at $0.04048 an hour


@given(st.lists(st.integers(min_value=0, max_value=10**7), max_size=200))
def test_receipts_add_up_without_rounding_drift(cpu_ns: list[int]) -> None:
    clock = ManualClock(BOOT_NS)
    clock.work(2 * SECOND_NS)
    meter = meters.meter(clock)
    receipts = [meters.charge(meter, used_ns) for used_ns in cpu_ns]
    assert sum(receipts) == floor(CPU_RATE * sum(cpu_ns))
    assert all(abs(receipt - CPU_RATE * used_ns) < 1 for receipt, used_ns in zip(receipts, cpu_ns, strict=True))
    assert meter.capped == 0


def test_requests_at_once_never_bill_more_than_the_box(clock: ManualClock, meter: Meter) -> None:
    """64 requests each report the wall time of a second as CPU, which two vCPUs cannot have given."""
    receipts = []
    for _ in range(20):
        clock.work(SECOND_NS, cpu_ns=2 * SECOND_NS)
        receipts += [meters.charge(meter, SECOND_NS) for _ in range(64)]
    ahead_ns = SECOND_NS
    assert sum(receipts) <= meters.bill_picousd(clock.now_ns() + ahead_ns - BOOT_NS)[VCPU]
    assert meter.capped > 0
    assert min(receipts) >= 0


def test_work_that_the_process_cannot_have_done_is_counted_and_takes_nothing_from_others(
    clock: ManualClock, meter: Meter
) -> None:
    clock.work(SECOND_NS, cpu_ns=SECOND_NS // 2)
    meters.charge(meter, clock.cpu_ns())  # all that it used, boot included
    meter.close_interval(clock.now_ns())
    assert meter.skewed == 0
    for expected in (1, 2):
        clock.work(SECOND_NS, cpu_ns=SECOND_NS // 10)
        meters.charge(meter, SECOND_NS // 2)
        meter.close_interval(clock.now_ns())
        assert meter.skewed == expected
    clock.work(SECOND_NS, cpu_ns=SECOND_NS)
    meter.close_interval(clock.now_ns())
    assert meter.skewed == 2


def test_a_run_that_began_intervals_before_its_charge_is_no_skew(clock: ManualClock, meter: Meter) -> None:
    for _ in range(3):
        clock.work(SECOND_NS, cpu_ns=SECOND_NS)
        meter.close_interval(clock.now_ns())
    clock.work(1_000_000)
    meters.charge(meter, 3 * SECOND_NS)
    clock.work(3 * SECOND_NS)
    meter.close_interval(clock.now_ns())
    assert meter.skewed == 0


@given(
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**9)), min_size=1, max_size=60),
    st.sampled_from([0, 10**9]),
)
def test_receipts_never_pass_the_bill(used: list[tuple[int, int]], ahead_ns: int) -> None:
    clock = ManualClock(BOOT_NS)
    meter = meters.meter(clock, ahead_ns=ahead_ns)
    total = 0
    for wall_ns, cpu_ns in used:
        clock.work(wall_ns)
        total += meters.charge(meter, cpu_ns)
        assert total <= meters.bill_picousd(clock.now_ns() + ahead_ns - BOOT_NS)[VCPU]


def test_receipts_just_before_the_hour_stay_within_its_bill(clock: ManualClock, meter: Meter) -> None:
    meter.close_interval(clock.now_ns())
    clock.work(meter.next_boundary_ns - clock.now_ns() - SECOND_NS // 2)
    meter.close_interval(clock.now_ns())
    meters.charge(meter, 100 * SECOND_NS)
    clock.work(SECOND_NS)
    meter.note_ledger(0)
    statement = meters.statement(meter, meter.closed[-1])
    assert 0 <= statement.charges[0].cost_picousd - meters.costs(statement.postings, "infer") <= 1


def test_after_the_cap_receipts_are_again_exact(clock: ManualClock, meter: Meter) -> None:
    meters.charge(meter, 100 * SECOND_NS)
    clock.work(5 * SECOND_NS)
    assert abs(meters.charge(meter, 5_000_000) - 56_222) <= 1
    assert meter.capped == 1


def test_cpu_used_before_the_interval_began_is_still_paid_in_full(clock: ManualClock, meter: Meter) -> None:
    """A request that ends just after a close; without running ahead its receipt would be next to nothing."""
    strict = meters.meter(clock, ahead_ns=0)
    receipts = []
    for each in (meter, strict):
        each.close_interval(clock.now_ns())
    clock.work(10_000)
    receipts = [meters.charge(each, 5_000_000) for each in (meter, strict)]
    assert receipts == [56_222, 224]  # two vCPUs cost 224.9 in 10 us


def test_an_interval_stays_open_until_its_bill_covers_its_receipts(clock: ManualClock, meter: Meter) -> None:
    meter.close_interval(clock.now_ns())
    meters.charge(meter, 5_000_000)
    assert meter.closable_ns == pytest.approx(clock.now_ns() + 2_500_000, abs=200)
    with pytest.raises(AssertionError):
        meter.close_interval(clock.now_ns())
    clock.work(meter.closable_ns - clock.now_ns())
    assert meters.costs(meters.close(meter, clock).postings, "infer") == 56_222


def test_a_life_may_end_while_receipts_are_ahead(clock: ManualClock, meter: Meter) -> None:
    meter.close_interval(clock.now_ns())
    meters.charge(meter, 5_000_000)
    ended_ns = meter.close_last()
    assert clock.now_ns() < ended_ns <= clock.now_ns() + SECOND_NS
    assert meters.costs(meters.statement(meter, meter.closed[-1]).postings, "infer") == 56_222


def test_nothing_closes_itself_after_the_last_interval(clock: ManualClock, meter: Meter) -> None:
    meter.close_last()
    clock.work(2 * HOUR_NS)
    meter.note_ledger(5)
    assert len(meter.closed) == 1


def test_a_request_after_the_hour_is_in_the_next_interval(clock: ManualClock, meter: Meter) -> None:
    meters.charge(meter, 1000, request_id="before")
    clock.work(HOUR_NS)
    meters.charge(meter, 1000, request_id="after")
    [hour] = meter.closed
    assert (hour.from_ns, hour.to_ns, hour.to_ns % HOUR_NS) == (BOOT_NS, meter.from_ns, 0)
    assert [request.id for request in hour.requests] == ["before"]


def test_every_hour_of_a_sleep_gets_its_interval(clock: ManualClock, meter: Meter) -> None:
    clock.work(3 * HOUR_NS)
    meter.note_load("digits", 1, 5)
    assert [interval.to_ns - interval.from_ns for interval in meter.closed] == [600 * SECOND_NS, HOUR_NS, HOUR_NS]


def test_beyond_the_cap_requests_are_counted_and_not_kept(clock: ManualClock) -> None:
    meter = meters.meter(clock, detail_rows_max=3)
    receipts = [meters.charge(meter, 5_000_000) for _ in range(5)]
    statement = meters.close(meter, clock)
    assert (len(statement.requests), statement.request_count, meter.collapsed) == (3, 5, 2)
    assert meters.costs(statement.postings, "infer") == sum(receipts)


def test_the_listener_hears_while_the_interval_is_full(clock: ManualClock, meter: Meter) -> None:
    heard: list[int] = []
    meter.on_full(2, lambda: heard.append(1))
    for expected in (0, 1, 2):
        meters.charge(meter, 10)
        assert len(heard) == expected
    meter.close_interval(clock.now_ns())
    meters.charge(meter, 10)
    assert len(heard) == 2


@pytest.mark.parametrize(("age_ns", "bill"), [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_a_bill_is_rounded_half_to_even(age_ns: int, bill: int) -> None:
    half_a_picousd = Tariff(ProvisionedSku("sku", "byte-ns", 1), numerator=1, denominator=2)
    assert half_a_picousd.billed_picousd(age_ns) == bill


def test_an_unpriced_platform_is_refused(clock: ManualClock) -> None:
    book = prices.PriceBook(b'currency="USD"\nregion="r"\nprice=[]\nplatform=[]', name="empty.toml")
    with pytest.raises(SettingsError, match=r"empty\.toml has no platform 'fargate-x86'"):
        Meter(meters.CONTAINER, book, clock)


def _close_if_possible(meter: Meter, clock: ManualClock) -> None:
    meter.note_ledger(0)  # lets the hours that have ended close
    if meter.closable_ns <= clock.now_ns():
        meter.close_interval(clock.now_ns())


Step = Callable[[Meter, ManualClock], None]
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda cpu: lambda meter, _: meters.charge(meter, cpu) and None, st.integers(0, 10**10)),
    st.builds(
        lambda wall, cpu: lambda _, clock: clock.work(wall, cpu_ns=cpu), st.integers(0, 10**12), st.integers(0, 10**12)
    ),
    st.builds(lambda cpu: lambda meter, _: meter.note_load("digits", 2, cpu), st.integers(0, 10**10)),
    st.builds(lambda cpu: lambda meter, _: meter.note_ledger(cpu), st.integers(0, 10**9)),
    st.builds(lambda size: lambda meter, _: meter.note_resident("digits", 1, size), st.integers(0, 10**11)),
    st.builds(lambda rss: lambda _, clock: setattr(clock, "resident_bytes", rss), st.integers(0, 10**11)),
    st.just(lambda meter, _: meter.note_unloaded("digits", 1)),
    st.just(lambda meter, _: meter.mark_ready()),
    st.just(lambda meter, _: meter.mark_draining()),
    st.just(_close_if_possible),
)


@given(st.lists(steps, max_size=40))
def test_whatever_happens_the_postings_of_a_life_are_its_bill(steps: list[Step]) -> None:
    """Any order of requests, loads, sleeps, closes and phases, with any CPU and memory, plausible or not."""
    clock = ManualClock(BOOT_NS)
    meter = meters.meter(clock, detail_rows_max=10)
    for step in steps:
        step(meter, clock)
    ended_ns = meter.close_last()

    statements = [meters.statement(meter, interval) for interval in meter.closed]
    posted = Counter[str]()
    for statement in statements:
        for posting in statement.postings:
            assert posting.cost_picousd >= 0
            assert posting.quantity >= 0
            posted[posting.sku] += posting.cost_picousd
    assert posted == Counter(meters.life_picousd(ended_ns - BOOT_NS))
    assert (statements[0].from_ns, statements[-1].to_ns) == (BOOT_NS, ended_ns)
    assert all(one.to_ns == next_one.from_ns for one, next_one in itertools.pairwise(statements))
    assert all(one.from_ns // HOUR_NS == (one.to_ns - 1) // HOUR_NS for one in statements)
