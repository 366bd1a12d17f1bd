"""Weighs requests: a receipt at once for each, and intervals whose receipts add up to what is posted.

On the hot path: one `charge` per request, integers only. Every method runs on the event loop's thread. What an interval's numbers
mean is `gateway.accounting.statement`; when one is closed and where it goes is `gateway.accounting.ledger`.
Why receipts telescope and may run a little ahead of the bill: infra/decisions/0002-receipts-telescope.md.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from gateway.accounting.billing import beyond_ns
from gateway.accounting.clock import Clock
from gateway.accounting.container import Container
from gateway.accounting.loading import Loading
from gateway.accounting.statement import MILLI, InferTotals, Interval, PhaseName, Version
from gateway.accounting.tariff import tariff
from gateway.contract import prices
from gateway.contract.ledger import Outcome, Phases, Request

HOUR_NS = 3600 * 10**9
_NEVER_NS = 1 << 63


class Meter:
    """One container's meter. `capped` counts receipts cut to what the box can have cost, `collapsed` requests without detail."""

    def __init__(
        self,
        container: Container,
        book: prices.PriceBook,
        clock: Clock,
        *,
        detail_rows_max: int = 100_000,
        ahead_ns: int = 1_000_000_000,
        window_ns: int = HOUR_NS,
    ) -> None:
        """`detail_rows_max`: requests that an interval keeps one by one (about 0.3 KB each); more only enter its sums.

        `ahead_ns`: how far receipts may run ahead of the interval's bill, for CPU that was used before the interval began.
        `window_ns`: what of the past tells how full costs follow direct ones.
        Raises `SettingsError` when the book does not know the container's platform. What the platform bills by and has no price is
        `unpriced`: receipts are then 0, and the ledger's postings say so.
        """
        self._rule = book.platform(container.platform)
        vcpu, memory = container.provisioned(self._rule)
        self.vcpu = tariff(book, vcpu)
        self.memory = tariff(book, memory)
        self.boot_ns = container.boot_ns
        self.closed: deque[Interval] = deque()
        self.capped = 0
        self.collapsed = 0
        self._clock = clock
        self._detail_rows_max = detail_rows_max
        self._ahead_ns = ahead_ns
        self._full_rows = 0
        self._on_full: Callable[[], None] = _nobody_listens

        # Receipts so far are the floor of a rate (pico-dollars per CPU-nanosecond) times the CPU charged so far, always.
        rate = self.vcpu.rate * MILLI / vcpu.amount
        self._rate_numerator, self._rate_denominator = rate.numerator, rate.denominator
        self._charged_cpu_ns = 0
        self._receipts_picousd = 0
        self._ceiling_picousd = 0

        self.loading = Loading(window_ns, is_priced=not self.unpriced)
        self._phase: PhaseName = "boot"
        self._resident: dict[Version, int] = {}
        self._mark_ns = container.boot_ns
        self._mark_cpu_ns = 0
        self._mark_rss_bytes = clock.rss_bytes()
        self._begin(container.boot_ns)

    def charge(
        self,
        *,
        request_id: str,
        model: str,
        version: int,
        outcome: Outcome,
        rows: int,
        cpu_ns: int,
        variant: str = "",
        tenant: str = "",
        door: str = "",
        request_bytes: int = 0,
        response_bytes: int = 0,
        queue_ns: int = 0,
        run_ns: int = 0,
        batch_rows: int = 0,
    ) -> int:
        """The receipt in pico-dollars: what `cpu_ns` costs. `model` and `tenant` are resolved names, never a caller's free text."""
        now_ns = self._now()
        cost_picousd = self._receipt(now_ns, cpu_ns)
        interval = self._interval
        key = (model, version, tenant, outcome)
        totals = interval.infer.get(key)
        if totals is None:
            totals = interval.infer[key] = InferTotals()
        totals.cost_picousd += cost_picousd
        totals.cpu_ns += cpu_ns
        totals.requests += 1
        totals.rows += rows
        interval.request_count += 1
        if interval.request_count > self._detail_rows_max:
            self.collapsed += 1
        else:
            # Positional, in the order of `Request`: seven times as fast as by keyword (1.2 us).
            row = Request(
                request_id, now_ns, model, version, outcome, rows, cpu_ns, cost_picousd,
                request_bytes, response_bytes, queue_ns, run_ns, batch_rows, variant, tenant, door,
            )  # fmt: skip
            interval.requests.append(row)
        if interval.request_count >= self._full_rows:
            self._on_full()
        return cost_picousd

    def _receipt(self, now_ns: int, cpu_ns: int) -> int:
        """The difference of two floors, so that rounding never adds up."""
        assert cpu_ns >= 0
        charged_cpu_ns = self._charged_cpu_ns + cpu_ns
        receipts_picousd = charged_cpu_ns * self._rate_numerator // self._rate_denominator
        if receipts_picousd > self._ceiling_picousd:
            self._raise_ceiling(now_ns)
            if receipts_picousd > self._ceiling_picousd:
                self.capped += 1
                # The most CPU that costs no more than the ceiling: the floor above stays true for the CPU charged.
                charged_cpu_ns = ((self._ceiling_picousd + 1) * self._rate_denominator - 1) // self._rate_numerator
                receipts_picousd = charged_cpu_ns * self._rate_numerator // self._rate_denominator
        cost_picousd = receipts_picousd - self._receipts_picousd
        self._charged_cpu_ns = charged_cpu_ns
        self._receipts_picousd = receipts_picousd
        return cost_picousd

    def _raise_ceiling(self, now_ns: int) -> None:
        """This interval's receipts may reach its bill, a little ahead of now but not past the hour. Cached: the bill only grows."""
        age_ns = min(now_ns + self._ahead_ns, self.next_boundary_ns) - self.boot_ns
        bill_picousd = self.vcpu.covered_picousd(age_ns) - self._earlier_bill_picousd
        self._ceiling_picousd = max(self._ceiling_picousd, self._earlier_receipts_picousd + bill_picousd)

    def note_load(self, model: str, version: int, cpu_ns: int, phases: Phases | None = None) -> None:
        """A model was loaded, or failed to be: the CPU that took, and where its time went (the last load's, of several)."""
        self._now()
        loads = self._interval.loads
        loads[model, version] = loads.get((model, version), 0) + cpu_ns
        if phases is not None:
            self._interval.load_phases[model, version] = msgspec.structs.replace(phases)

    def note_start(self, phases: Phases) -> None:
        """Where the time of boot went, as far as known; may be told again. Kept while the interval in which boot ended is open."""
        self._now()
        if self._interval.boot.wall_ns:
            self._interval.boot_phases = msgspec.structs.replace(phases)

    def note_ledger(self, cpu_ns: int) -> None:
        """CPU that accounting itself used. Before `mark_ready` it is part of boot."""
        self._now()
        if self._phase != "boot":
            self._interval.ledger_cpu_ns += cpu_ns

    def note_report(self, cpu_ns: int) -> None:
        """CPU of a process of ours that made a cost report and has ended: this process's clock does not count it."""
        self._integrate(self._now())
        phase = {"boot": self._interval.boot, "serving": self._interval.serving, "draining": self._interval.draining}
        phase[self._phase].cpu_ns += cpu_ns
        self.note_ledger(cpu_ns)

    def note_resident(self, model: str, version: int, resident_bytes: int) -> None:
        """From now on this version holds so much memory."""
        self._integrate(self._now())
        self._resident[model, version] = resident_bytes

    def note_unloaded(self, model: str, version: int) -> None:
        """From now on this version holds no memory."""
        self._integrate(self._now())
        self._resident.pop((model, version), None)

    def mark_ready(self) -> None:
        """Boot is over. Without effect after `mark_draining`."""
        if self._phase == "boot":
            self._enter("serving")

    def mark_draining(self) -> None:
        """No new work is accepted: idle time is from now on the price of stopping."""
        if self._phase != "draining":
            self._enter("draining")

    @property
    def unpriced(self) -> tuple[str, ...]:
        """What the container is billed by and the book has no price for."""
        return tuple(each.provisioned.sku for each in (self.vcpu, self.memory) if not each.is_priced)

    @property
    def from_ns(self) -> int:
        """Where the open interval begins."""
        return self._interval.from_ns

    @property
    def next_boundary_ns(self) -> int:
        """The end of the hour (UTC) that the open interval began in: the latest end it can have."""
        return (self._interval.from_ns // HOUR_NS + 1) * HOUR_NS

    @property
    def closable_ns(self) -> int:
        """The earliest end the open interval can have: its bill then covers its receipts. At most `ahead_ns` after the last."""
        owed_picousd = self._earlier_bill_picousd + self._receipts_picousd - self._earlier_receipts_picousd
        covered_age_ns = self.vcpu.covering_age_ns(owed_picousd)
        return max(self._interval.from_ns + 1, min(self.boot_ns + covered_age_ns, self.next_boundary_ns))

    def on_full(self, rows: int, call: Callable[[], None]) -> None:
        """Have `charge` call this whenever the open interval holds `rows` requests or more."""
        self._full_rows = rows
        self._on_full = call

    def close_interval(self, to_ns: int) -> None:
        """End the open interval, append it to `closed` and begin the next. Nothing is computed per request.

        `to_ns` is between `closable_ns` and `next_boundary_ns`. An hour that ends before anybody closes it closes itself.
        """
        assert self.closable_ns <= to_ns <= self.next_boundary_ns
        self._integrate(to_ns)
        if self._phase == "boot":
            self._interval.boot_named_ns = self._interval.named_ns
        self._interval.to_ns = to_ns
        self._load_window()
        self.closed.append(self._interval)
        self._begin(to_ns)

    def close_last(self) -> int:
        """End the life now, or as soon as its bill covers the receipts. Returns that moment; what comes later is lost.

        The last interval also bears what the platform bills beyond the end, by its minimum and its steps.
        """
        ended_ns = max(self._now(), self.closable_ns)
        self._interval.beyond_ns = beyond_ns(self._rule, ended_ns - self.boot_ns)
        self.close_interval(ended_ns)
        self._hour_end_ns = _NEVER_NS
        return ended_ns

    def quoted(self, cost_picousd: int) -> tuple[int | None, int | None]:
        """A receipt as its caller is told it: the direct cost, and an estimate of the full one; None where nobody knows."""
        return (cost_picousd if self.vcpu.is_priced else None), self.loading.full_picousd(cost_picousd)

    def _load_window(self) -> None:
        """Tell the loading factor what the interval cost, and what of that receipts are."""
        ages = (self._interval.from_ns - self.boot_ns, self._interval.to_ns - self.boot_ns)
        bill_picousd = sum(
            each.billed_picousd(ages[1]) - each.billed_picousd(ages[0]) for each in (self.vcpu, self.memory)
        )
        receipts_picousd = self._receipts_picousd - self._earlier_receipts_picousd
        self.loading.add(self._interval.from_ns, self._interval.to_ns, bill_picousd, receipts_picousd)

    def _begin(self, from_ns: int) -> None:
        self._interval = Interval(from_ns)
        self._hour_end_ns = self.next_boundary_ns
        self._earlier_bill_picousd = self.vcpu.billed_picousd(from_ns - self.boot_ns)
        self._earlier_receipts_picousd = self._receipts_picousd
        self._ceiling_picousd = self._receipts_picousd

    def _now(self) -> int:
        """The time, after closing hours that have ended: nothing is ever measured into an hour that is over."""
        now_ns = self._clock.now_ns()
        while now_ns >= self._hour_end_ns:
            self.close_interval(self._hour_end_ns)
        return now_ns

    def _enter(self, phase: PhaseName) -> None:
        self._integrate(self._now())
        if self._phase == "boot":
            self._interval.boot_named_ns = self._interval.named_ns
        self._phase = phase

    def _integrate(self, now_ns: int) -> None:
        """Add the time since the last call to the running phase and, after boot, memory times that time (rss by its mean)."""
        elapsed_ns = now_ns - self._mark_ns
        if elapsed_ns <= 0:  # a container's last interval may end a little ahead of the clock
            return
        cpu_ns, rss_bytes = self._clock.cpu_ns(), self._clock.rss_bytes()
        phase = {"boot": self._interval.boot, "serving": self._interval.serving, "draining": self._interval.draining}
        phase[self._phase].wall_ns += elapsed_ns
        phase[self._phase].cpu_ns += cpu_ns - self._mark_cpu_ns
        if self._phase != "boot":
            self._interval.rss_byte_ns += (self._mark_rss_bytes + rss_bytes) * elapsed_ns // 2
            held = self._interval.resident_byte_ns
            for version, resident_bytes in self._resident.items():
                held[version] = held.get(version, 0) + resident_bytes * elapsed_ns
        self._mark_ns, self._mark_cpu_ns, self._mark_rss_bytes = now_ns, cpu_ns, rss_bytes


def _nobody_listens() -> None:
    """Until there is a ledger writer."""
