"""Lambda and request-billed Cloud Run, weighed while they run: only billed time, to the pico-dollar, whatever comes in which order.

The witness is `tests.support.wholelife`, which knows the whole life, and the price list as fractions.
"""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting.container import Container
from gateway.accounting.meter import Meter
from gateway.accounting.statement import Statement, settle
from gateway.accounting.usage import Usage
from gateway.contract import prices
from tests.support import wholelife
from tests.support.manualclock import ManualClock
from tests.support.wholelife import Life

MS, SECOND_NS, GIB = 10**6, 10**9, 1 << 30
BOOT_NS = 1_793_883_000 * SECOND_NS  # 2026-11-05T12:50:00Z
COUNTED = ("lambda-x86", "lambda-arm", "cloud-run-requests")
FEE = {"lambda-x86": 200_000, "lambda-arm": 200_000, "cloud-run-requests": 400_000}
"""Pico-dollars of one request, from the price lists: $0.20 and $0.40 a million."""

sizes = st.tuples(st.integers(50, 10_000), st.integers(128 << 20, 32 << 30))
events = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "charge", "shadow", "close", "idle", "load", "hold"]),
        st.integers(1, 5 * 10**11) | st.integers(1, 3 * MS),
        st.integers(0, 10),
        st.integers(0, 2 * SECOND_NS),
    ),
    max_size=40,
)


class Simulated:
    """One container, its requests, and what has to come out."""

    def __init__(self, name: str, size: tuple[int, int], *, ready_ns: int = 0) -> None:
        self.clock = ManualClock(BOOT_NS)
        self.book = prices.shipped_for(name)
        self.container = Container("c", BOOT_NS, name, *size)
        self.rule = self.book.platform(name)
        self.meter = Meter(self.container, self.book, self.clock)
        self.running: list[tuple[int, str]] = []
        self.answered: list[tuple[int, int]] = []
        self.receipts = 0
        self.charged = 0
        self.clock.work(ready_ns, cpu_ns=ready_ns)
        self.ready_ns = self.clock.now_ns()
        self.meter.mark_ready()

    def begin(self) -> None:
        self.running.append((self.meter.begin_request(), ""))

    def charge(self, index: int, cpu_ns: int) -> None:
        """Of one that was not charged yet."""
        waiting = [place for place, (_, name) in enumerate(self.running) if not name]
        if waiting:
            place = waiting[index % len(waiting)]
            self.charged += 1
            self.running[place] = (self.running[place][0], f"r{self.charged}")
            self.receipts += self._weigh(f"r{self.charged}", cpu_ns, is_request=True)

    def shadow(self, cpu_ns: int) -> None:
        self.receipts += self._weigh("shadow", cpu_ns, is_request=False)

    def _weigh(self, request_id: str, cpu_ns: int, *, is_request: bool) -> int:
        return self.meter.charge(
            request_id=request_id,
            model="m",
            version=1,
            outcome="ok",
            usage=Usage(cpu_ns, rows=1),
            is_request=is_request,
        )

    def end(self, index: int) -> None:
        if self.running:
            began_ns, name = self.running.pop(index % len(self.running))
            self.meter.end_request(began_ns, name)
            self.answered.append((began_ns, self.clock.now_ns()))

    def close(self) -> None:
        if self.meter.closable_ns <= self.clock.now_ns() < self.meter.next_boundary_ns:
            self.meter.close_interval(self.clock.now_ns())

    def step(self, what: str, index: int, cpu_ns: int) -> None:
        match what:
            case "begin":
                self.begin()
            case "charge":
                self.charge(index, cpu_ns)
            case "shadow":
                self.shadow(cpu_ns)
            case "end":
                self.end(index)
            case "load":
                self.meter.note_load("m", 1, cpu_ns)
            case "hold":
                self.meter.note_resident("m", 1, index << 20)
            case "close":
                self.close()
                self.clock.work(1)  # so that what happens next is after the window by the clock, too

    def finish(self) -> tuple[Life, list[Statement]]:
        draining_ns = self.clock.now_ns()
        self.meter.mark_draining()
        while self.running:
            self.clock.work(MS)
            self.end(0)
        self.clock.work(MS)
        ended_ns = self.meter.close_last()
        meter = self.meter
        statements = [settle(each, vcpu=meter.vcpu, memory=meter.memory, fee=meter.fee) for each in meter.closed]
        return Life(BOOT_NS, self.ready_ns, ended_ns, tuple(self.answered), draining_ns), statements


@pytest.mark.parametrize("name", COUNTED)
@given(size=sizes, steps=events, ready_ns=st.integers(0, 10**10))
def test_every_window_is_charged_its_billed_time_and_every_pico_dollar_has_an_account(
    name: str, size: tuple[int, int], steps: list[tuple[str, int, int, int]], ready_ns: int
) -> None:
    """Requests that overlap, end in any order, last over hours; shadows, loads and windows in between."""
    box = Simulated(name, size, ready_ns=ready_ns)
    for what, wall_ns, index, cpu_ns in steps:
        box.clock.work(wall_ns, cpu_ns=min(cpu_ns, wall_ns))
        box.step(what, index, cpu_ns)
    life, statements = box.finish()

    boundaries = [BOOT_NS, *(statement.to_ns for statement in statements)]
    for index, priced in enumerate((box.meter.vcpu, box.meter.memory)):
        due = wholelife.charges(box.rule, life, priced, boundaries)
        assert [each.charges[index].cost_picousd for each in statements] == list(due)
        total_ns = wholelife.billed_ns(box.rule, life)
        assert sum(due) == priced.billed_picousd(total_ns)
        assert sum(each.charges[index].quantity for each in statements) == priced.provisioned.amount * total_ns
    for statement in statements:
        posted, charged = Counter[str](), Counter[str]()
        for posting in statement.postings:
            posted[posting.sku] += posting.cost_picousd
        for charge in statement.charges:
            charged[charge.sku] += charge.cost_picousd
        assert posted == charged
    infer = [each for statement in statements for each in statement.postings if each.account == "infer"]
    assert sum(each.cost_picousd for each in infer) == box.receipts
    fee = box.rule.request_sku
    assert sum(each.cost_picousd for each in infer if each.sku == fee) == FEE[name] * box.charged
    assert sum(each.charges[2].cost_picousd for each in statements) == FEE[name] * len(box.answered)
    assert sum(each.requests for each in infer) == sum(statement.request_count for statement in statements)
    since = [0, 0, 0]
    for statement in statements:  # so that an auditor can say what each charge must be
        assert [charge.since for charge in statement.charges] == since
        amounts = [box.meter.vcpu.provisioned.amount, box.meter.memory.provisioned.amount, 1]
        since = [
            charge.since + charge.quantity // amount for charge, amount in zip(statement.charges, amounts, strict=True)
        ]


def test_a_frozen_function_costs_nothing_and_each_call_its_milliseconds() -> None:
    box = Simulated("lambda-x86", (1000, 1769 << 20), ready_ns=812 * MS + 1)
    for _ in range(3):
        box.clock.work(600 * SECOND_NS)  # ten minutes in which nobody calls
        box.begin()
        box.clock.work(4 * MS + 1, cpu_ns=4 * MS)
        box.charge(0, 4 * MS)
        box.end(0)
    _, statements = box.finish()
    gb_s = Fraction(1769, 1024) * (813 + 3 * 5) / 1000
    requests = 3 * FEE["lambda-x86"]
    assert sum(each.cost_picousd for each in statements) == round(gb_s * Fraction("0.0000166667") * 10**12) + requests


def test_what_overlaps_on_cloud_run_is_paid_once_and_on_lambda_each() -> None:
    costs = {}
    for name in ("cloud-run-requests", "lambda-x86"):
        box = Simulated(name, (1000, GIB))
        box.clock.work(SECOND_NS)
        for _ in range(10):
            box.begin()
        box.clock.work(250 * MS)
        for _ in range(10):
            box.end(0)
        box.clock.work(60 * SECOND_NS)
        before = box.meter.billed_picousd
        box.close()
        costs[name] = box.meter.closed[-1].to_age_ns
        assert before(box.meter.closed[-1]) > 0
    assert costs == {"cloud-run-requests": 300 * MS, "lambda-x86": 10 * 250 * MS}


def test_a_health_check_is_paid_by_nobody_in_particular() -> None:
    box = Simulated("cloud-run-requests", (1000, GIB))
    box.clock.work(SECOND_NS)
    box.begin()
    box.clock.work(MS)
    box.end(0)
    box.begin()
    box.clock.work(MS)
    box.charge(0, MS // 2)
    box.end(0)
    _, statements = box.finish()
    fee = Counter[str]()
    for posting in statements[-1].postings:
        if posting.sku == "cloud-run-requests/requests":
            fee[posting.account] += posting.cost_picousd
    assert fee == {"infer": 400_000, "overhead": 400_000}


def test_a_receipt_is_never_more_than_what_the_call_has_been_billed_until_then() -> None:
    """A function with a third of a vCPU may still use a whole one for some milliseconds."""
    box = Simulated("lambda-x86", (333, 589 << 20))
    box.clock.work(SECOND_NS)
    box.begin()
    box.clock.work(5 * MS, cpu_ns=5 * MS)
    box.charge(0, 5 * MS)
    bill = box.meter.vcpu.covered_picousd(5 * MS)
    assert box.receipts - FEE["lambda-x86"] <= bill
    assert box.receipts - FEE["lambda-x86"] >= bill - 20  # what one more CPU nanosecond would cost
    assert box.meter.capped == 1


def test_a_request_without_a_price_is_unpriced_and_counted() -> None:
    data = prices.shipped_for("cloud-run-requests").data.replace(
        b'\nsku = "cloud-run-requests/requests"', b'\nsku = "away"'
    )
    box = Simulated("cloud-run-requests", (1000, GIB))
    box.book = prices.PriceBook(data, name="own.toml")
    box.meter = Meter(box.container, box.book, box.clock)
    box.meter.mark_ready()
    assert box.meter.unpriced == ("cloud-run-requests/requests",)
    for _ in range(2):
        box.begin()
        box.clock.work(MS)
    box.charge(0, 0)
    assert box.receipts == 0
    _, statements = box.finish()
    fee = [each for each in statements[-1].postings if each.sku == "cloud-run-requests/requests"]
    assert [(each.account, each.quantity, each.cost_picousd) for each in fee] == [("infer", 1, 0), ("unpriced", 1, 0)]
