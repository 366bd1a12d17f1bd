"""Whatever order requests, closes, sleeps and full intervals come in, sums, lines and receipts are those of plain bookkeeping."""

from collections import Counter
from dataclasses import dataclass, field
from math import floor, log
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.accounting.meter import Meter
from gateway.accounting.statement import Interval
from gateway.accounting.usage import Usage
from gateway.contract.ledger import Outcome
from tests.support.manualclock import ManualClock
from tests.support.meters import BOOK, BOOT_NS, CONTAINER, CPU_RATE, HOUR_NS, SECOND_NS

OUTCOMES: tuple[Outcome, ...] = ("ok", "failed", "shed")
Sums = Counter[tuple[str, str, str]]


@dataclass
class Page:
    """One interval of the reference: sums by what they are of, and the ids of its lines."""

    from_ns: int
    sums: Sums = field(default_factory=Counter)
    lines: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Plain:
    """The reference: no cached limits, no totals kept in objects, one step at a time."""

    share: float
    rows_max: int
    full_rows: int
    random: Random
    pages: list[Page] = field(default_factory=lambda: [Page(BOOT_NS)])
    collapsed: int = 0
    skip: int | None = None

    def until(self, now_ns: int) -> None:
        while now_ns // HOUR_NS > self.pages[-1].from_ns // HOUR_NS:
            self.pages.append(Page((self.pages[-1].from_ns // HOUR_NS + 1) * HOUR_NS))

    def charge(self, now_ns: int, request_id: str, who: tuple[str, Outcome], usage: Usage, receipt: int) -> bool:
        """Whether somebody is to be told that the interval is full."""
        self.until(now_ns)
        page = self.pages[-1]
        for what, amount in (("cost", receipt), ("cpu", usage.cpu_ns), ("requests", 1), ("rows", usage.rows)):
            page.sums[(*who, what)] += amount
        if not self._is_drawn():
            return False
        if len(page.lines) < self.rows_max:
            page.lines.append((request_id, receipt))
        else:
            self.collapsed += 1
        return len(page.lines) >= self.full_rows

    def _is_drawn(self) -> bool:
        if self.share == 1:
            return True
        if self.skip is None:
            self.skip = self._gap()
        if self.skip:
            self.skip -= 1
            return False
        self.skip = self._gap()
        return True

    def _gap(self) -> int:
        return 10**9 if self.share == 0 else int(log(1 - self.random.random()) / log(1 - self.share))


def page_of(interval: Interval) -> Page:
    found = Page(interval.from_ns, lines=[(line.id, line.cost_picousd) for line in interval.requests])
    for (model, _, _, outcome), totals in interval.infer.items():
        sums = (("cost", totals.cost_picousd), ("cpu", totals.cpu_ns), ("requests", totals.requests))
        for what, amount in (*sums, ("rows", totals.rows)):
            found.sums[model, outcome, what] += amount
    return found


charges = st.tuples(
    st.just("charge"), st.integers(0, 2), st.integers(0, 10**8), st.integers(0, 3)
)  # whose, CPU in ns, rows
sleeps = st.tuples(st.just("sleep"), st.sampled_from([0, 1, 10**6, SECOND_NS, HOUR_NS]), st.just(0), st.just(0))
closes = st.tuples(st.just("close"), st.just(0), st.just(0), st.just(0))


@settings(deadline=None)
@given(
    st.lists(st.one_of(charges, charges, charges, sleeps, closes), max_size=80),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 5),
)
def test_any_order_of_events_is_booked_as_plainly_as_one_by_one(
    steps: list[tuple[str, int, int, int]],
    share: float,
    rows_max: int,
    full_rows: int,
    closes_when_full: bool,
    seed: int,
) -> None:
    """A listener that closes a full interval when it can, and one that does not because the store is away."""
    clock = ManualClock(BOOT_NS)
    clock.work(2 * SECOND_NS)
    meter = Meter(CONTAINER, BOOK, clock, detail_rows_max=rows_max, detail_share=share, random=Random(seed).random)
    plain = Plain(share, rows_max, full_rows, Random(seed))
    told: list[int] = []
    used_ns = receipts = 0

    def full() -> None:
        told.append(clock.now_ns())
        if closes_when_full and meter.closable_ns <= clock.now_ns() < meter.next_boundary_ns:
            meter.close_interval(clock.now_ns())

    meter.on_full(full_rows, full)
    for number, (step, whose, cpu_ns, rows) in enumerate(steps):
        closed = len(meter.closed)
        if step == "sleep":
            clock.work(whose)
            continue
        if step == "close":
            meter.note_ledger(0)  # ends the hours that are over
            plain.until(clock.now_ns())
            if meter.closable_ns <= clock.now_ns() < meter.next_boundary_ns:
                meter.close_interval(clock.now_ns())
                plain.pages.append(Page(clock.now_ns()))
            continue
        usage = Usage(cpu_ns=cpu_ns, rows=rows)
        before, hours = len(told), clock.now_ns() // HOUR_NS - meter.from_ns // HOUR_NS
        who = (f"model{whose}", OUTCOMES[whose])
        receipt = meter.charge(str(number), who[0], 1, who[1], usage)
        assert plain.charge(clock.now_ns(), str(number), who, usage, receipt) == (len(told) > before)
        if len(meter.closed) > closed + hours:
            plain.pages.append(Page(clock.now_ns()))
        used_ns, receipts = used_ns + cpu_ns, receipts + receipt
    plain.until(clock.now_ns())
    meter.close_last()

    assert [page_of(interval) for interval in meter.closed] == plain.pages
    assert meter.collapsed == plain.collapsed
    assert meter.capped or receipts == floor(CPU_RATE * used_ns)
