"""Which account gets what: one life with numbers that can be checked by hand, then the edges."""

from collections import Counter
from fractions import Fraction

import pytest

from gateway.accounting.meter import Meter
from gateway.accounting.statement import Statement
from tests.support import meters
from tests.support.manualclock import ManualClock
from tests.support.meters import BOOT_NS, GIB, MEMORY, SECOND_NS, VCPU

UNIT_PICOUSD = {VCPU: Fraction("0.04048") * 10**12 / 3600, MEMORY: Fraction("0.004445") * 10**12 / 3600}
"""One vCPU second, one GiB second."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(BOOT_NS)


@pytest.fixture
def meter(clock: ManualClock) -> Meter:
    return meters.meter(clock)


def shares(statement: Statement, sku: str) -> dict[str, float]:
    """Each account's part of the sku's charge, in vCPU seconds or GiB seconds, to a millionth."""
    parts = Counter[str]()
    for posting in statement.postings:
        if posting.sku == sku:
            parts[posting.account] += posting.cost_picousd
    return {account: round(float(part / UNIT_PICOUSD[sku]), 6) for account, part in parts.items()}


def test_every_cpu_second_has_an_account(meter: Meter, clock: ManualClock) -> None:
    clock.work(3 * SECOND_NS, cpu_ns=2 * SECOND_NS)
    meter.note_load("digits", 1, SECOND_NS)
    meter.mark_ready()
    clock.work(10 * SECOND_NS, cpu_ns=8 * SECOND_NS)
    meters.charge(meter, 5 * SECOND_NS)
    meter.note_load("digits", 2, SECOND_NS // 2)
    meter.note_ledger(SECOND_NS // 2)
    meter.mark_draining()
    clock.work(2 * SECOND_NS, cpu_ns=SECOND_NS)
    statement = meters.close(meter, clock)
    assert shares(statement, VCPU) == {
        "infer": 5,
        "load": 1 + 0.5,
        "ledger": 0.5,
        "boot": 3 * 2 - 1,
        "overhead": 8 + 1 - 5 - 0.5 - 0.5,
        "drain": 2 * 2 - 1,
        "idle_cpu": 10 * 2 - 8,
    }
    loads = {posting.version: posting.quantity for posting in statement.postings if posting.account == "load"}
    assert loads == {1: 1000 * SECOND_NS, 2: 500 * SECOND_NS}


def test_every_byte_second_has_an_account(meter: Meter, clock: ManualClock) -> None:
    clock.resident_bytes = GIB
    clock.work(3 * SECOND_NS)
    meter.note_resident("digits", 1, GIB // 2)
    meter.mark_ready()
    clock.work(4 * SECOND_NS)
    clock.resident_bytes = 2 * GIB
    meter.note_unloaded("digits", 1)
    clock.work(6 * SECOND_NS)
    statement = meters.close(meter, clock)
    assert shares(statement, MEMORY) == {
        "boot": 3 * 4,
        "resident": 4 * 0.5,
        "overhead": 4 * 1.5 - 4 * 0.5 + 6 * 2,  # rss is the mean of its samples: 1 to 2 GiB, then 2
        "idle_mem": 4 * (4 - 1.5) + 6 * (4 - 2),
    }


def test_boot_owns_the_box_except_for_loads_and_requests(meter: Meter, clock: ManualClock) -> None:
    clock.resident_bytes = GIB
    clock.work(10 * SECOND_NS, cpu_ns=3 * SECOND_NS)
    meter.note_load("digits", 1, 2 * SECOND_NS)
    meter.note_ledger(SECOND_NS)
    meters.charge(meter, SECOND_NS)
    statement = meters.close(meter, clock)
    assert shares(statement, VCPU) == {"infer": 1, "load": 2, "boot": 17}
    assert shares(statement, MEMORY) == {"boot": 40}


def test_what_nobody_claims_is_idle(meter: Meter, clock: ManualClock) -> None:
    """The box was all used by requests, and flooring their receipts left a pico-dollar."""
    meter.mark_ready()
    clock.work(SECOND_NS, cpu_ns=2 * SECOND_NS)
    meters.charge(meter, 2 * SECOND_NS)
    statement = meters.close(meter, clock)
    assert shares(statement, VCPU) == {"infer": 2, "idle_cpu": 0}
    assert (
        sum(posting.cost_picousd for posting in statement.postings if posting.sku == VCPU)
        == meters.bill_picousd(SECOND_NS)[VCPU]
    )


def test_models_that_claim_more_than_the_box_share_it(meter: Meter, clock: ManualClock) -> None:
    meter.mark_ready()
    meter.note_resident("digits", 1, 6 * GIB)
    meter.note_resident("flights", 1, 2 * GIB)
    clock.work(SECOND_NS)
    postings = [posting for posting in meters.close(meter, clock).postings if posting.sku == MEMORY]
    assert [(posting.model, posting.account) for posting in postings] == [
        ("digits", "resident"),
        ("flights", "resident"),
    ]
    assert postings[0].cost_picousd == pytest.approx(3 * postings[1].cost_picousd, abs=4)


def test_infer_postings_are_per_model_tenant_and_outcome(meter: Meter, clock: ManualClock) -> None:
    clock.work(10 * SECOND_NS)
    receipts = [
        meters.charge(meter, 1_000_000, outcome="ok"),
        meters.charge(meter, 2_000_000, outcome="ok"),
        meters.charge(meter, 3_000_000, outcome="failed"),
        meters.charge(meter, 4_000_000, model="flights"),
    ]
    infer = [posting for posting in meters.close(meter, clock).postings if posting.account == "infer"]
    assert [(p.model, p.outcome, p.requests, p.rows, p.quantity, p.cost_picousd) for p in infer] == [
        ("digits", "failed", 1, 2, 3_000_000_000, receipts[2]),
        ("digits", "ok", 2, 4, 3_000_000_000, receipts[0] + receipts[1]),
        ("flights", "ok", 1, 2, 4_000_000_000, receipts[3]),
    ]


def test_charges_say_what_the_platform_bills(meter: Meter, clock: ManualClock) -> None:
    clock.work(7 * SECOND_NS)
    charges = {charge.sku: charge for charge in meters.close(meter, clock).charges}
    assert (charges[VCPU].unit, charges[VCPU].quantity) == ("milli-vcpu-ns", 2000 * 7 * SECOND_NS)
    assert (charges[MEMORY].unit, charges[MEMORY].quantity) == ("byte-ns", 4 * GIB * 7 * SECOND_NS)
    assert {sku: charge.cost_picousd for sku, charge in charges.items()} == meters.bill_picousd(7 * SECOND_NS)
