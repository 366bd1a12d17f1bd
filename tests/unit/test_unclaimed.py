"""What no segment claims of a life is the rest of its bill, to the pico-dollar: also the minimum of a life that nobody closed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import unclaimed
from gateway.accounting.unclaimed import Gap, Span
from gateway.contract.ledger import Close, Ended, Open
from tests.support import meters
from tests.support.manualclock import ManualClock
from tests.support.meters import BOOK, BOOT_NS, HOUR_NS, MEMORY, SECOND_NS, VCPU

METER = meters.meter(ManualClock(BOOT_NS))
OPENED = Open(
    "c0",
    BOOT_NS,
    BOOT_NS + SECOND_NS,
    "fargate-x86",
    (METER.vcpu.provisioned, METER.memory.provisioned),
    BOOK.sha256,
    "steelyard",
)


def missing(
    *spans: Span, closed_s: float = 0, ended_s: float = 0, next_s: float = 0, is_over: bool = False
) -> list[Gap]:
    """Spans and ends in seconds after the boot."""
    return list(
        unclaimed.missing(
            OPENED,
            BOOK,
            [(at(from_s), at(to_s)) for from_s, to_s in spans],
            closed=Close("c0", BOOT_NS, at(closed_s), 1, "", 0) if closed_s else None,
            ended=Ended("c0", BOOT_NS, at(ended_s), "task stopped") if ended_s else None,
            next_boot_ns=at(next_s) if next_s else None,
            is_over=is_over,
        )
    )


def at(seconds: float) -> int:
    return BOOT_NS + round(seconds * SECOND_NS)


def bill(seconds: float) -> dict[str, int]:
    return meters.bill_picousd(round(seconds * SECOND_NS))


def costs(gaps: list[Gap]) -> dict[str, int]:
    return {
        sku: sum(charge.cost_picousd for gap in gaps for charge in gap.charges if charge.sku == sku)
        for sku in (VCPU, MEMORY)
    }


def less(whole: dict[str, int], part: dict[str, int]) -> dict[str, int]:
    return {sku: whole[sku] - part[sku] for sku in whole}


@pytest.mark.parametrize(
    ("seen_s", "ended_s", "billed_s"),
    [
        (12.5, 0, 60),
        (60, 0, 60),
        (61.25, 0, 62),
        (12.5, 30, 60),
        (12.5, 75.5, 76),
        (3000, 0, 3000),
        (700, 900.001, 901),
    ],
)
def test_a_killed_life_without_a_successor_owes_what_the_platform_bills(
    seen_s: float, ended_s: float, billed_s: float
) -> None:
    found = missing((0, seen_s), ended_s=ended_s)
    assert costs(found) == less(bill(billed_s), bill(seen_s))


def test_a_life_killed_before_its_first_segment_owes_the_minimum_too() -> None:
    assert costs(missing()) == bill(60)


def test_a_container_that_goes_on_has_no_end_to_bill() -> None:
    assert costs(missing((0, 12.5), next_s=20.5)) == less(bill(20.5), bill(12.5))
    assert missing((0, 12.5), next_s=12.5) == []


def test_what_its_own_last_segment_bills_is_not_billed_again() -> None:
    assert missing((0, 12.5), is_over=True) == []
    assert missing((0, 12.5), closed_s=12.5) == []


def test_a_lost_last_segment_takes_the_minimum_with_it() -> None:
    assert costs(missing((0, 5), closed_s=12.5)) == less(bill(60), bill(5))


def test_the_minimum_is_in_the_hour_of_the_end_and_no_time_of_anybody() -> None:
    """The boot is ten minutes before an hour ends."""
    [first, last] = missing((0, 500), ended_s=700.5)
    assert (first.to_ns % HOUR_NS, first.beyond_ns) == (0, 0)
    assert (last.from_ns, last.beyond_ns) == (first.to_ns, SECOND_NS // 2)
    [only] = missing((0, 700.5))
    assert (only.from_ns, only.to_ns, only.beyond_ns) == (at(700.5), at(700.5), SECOND_NS // 2)
    assert [charge.quantity for charge in only.charges] == [0, 0]


@given(st.lists(st.integers(min_value=1, max_value=100), max_size=6), st.integers(min_value=0, max_value=200))
def test_segments_and_what_is_missing_are_the_bill_of_the_life(lengths: list[int], after: int) -> None:
    """Every second segment is lost."""
    spans, from_s, held = list[Span](), 0.0, {VCPU: 0, MEMORY: 0}
    for number, length in enumerate(lengths):
        to_s = from_s + length / 7
        if number % 2:
            spans.append((from_s, to_s))  # type: ignore[arg-type]
            held = {sku: held[sku] + bill(to_s)[sku] - bill(from_s)[sku] for sku in held}
        from_s = to_s
    end_s = max(1.0, spans[-1][1] if spans else 0) + after / 3
    found = missing(*spans, ended_s=end_s)
    assert {sku: held[sku] + costs(found)[sku] for sku in held} == meters.life_picousd(round(end_s * SECOND_NS))
