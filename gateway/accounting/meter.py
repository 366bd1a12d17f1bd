"""Weighs requests: a receipt at once for each, and intervals whose receipts add up to what is posted.

On the hot path: one `charge` per request, integers only. Every method runs on the event loop's thread. What an interval's numbers
mean is `gateway.accounting.statement`; when one is closed and where it goes is `gateway.accounting.ledger`.
Why receipts telescope and may run a little ahead of the bill: infra/decisions/0002-receipts-telescope.md.
"""

import random
from collections import deque
from collections.abc import Callable
from math import log

import msgspec

from gateway.accounting import billedtime
from gateway.accounting.clock import Clock
from gateway.accounting.container import Container
from gateway.accounting.loading import Loading
from gateway.accounting.statement import MILLI, InferTotals, Interval, PhaseName, Version
from gateway.accounting.tariff import Tariff, tariff
from gateway.contract import prices
from gateway.contract.ledger import Outcome, Phases, Request

HOUR_NS = 3600 * 10**9
_NEVER_NS = _NEVER = 1 << 63


class Meter:
    """One container's meter. `capped` counts receipts cut to what the box can have cost, `collapsed` requests whose detail was to
    be kept and found no room.
    """

    def __init__(
        self,
        container: Container,
        book: prices.PriceBook,
        clock: Clock,
        *,
        detail_rows_max: int = 100_000,
        ahead_ns: int = 1_000_000_000,
        window_ns: int = HOUR_NS,
        detail_share: float = 1.0,
        random: Callable[[], float] = random.random,
    ) -> None:
        """`detail_rows_max`: requests that an interval keeps one by one (about 0.3 KB each); more only enter its sums. Of all
        requests, a random `detail_share` is to be kept so: none at 0. `random` draws from [0, 1).

        `ahead_ns`: how far receipts may run ahead of the interval's bill, for CPU that was used before the interval began.
        `window_ns`: what of the past tells how full costs follow direct ones.
        Raises `SettingsError` when the book does not know the container's platform. What the platform bills by and has no price is
        `unpriced`: receipts are then 0, and the ledger's postings say so.
        """
        self._rule = book.platform(container.platform)
        vcpu, memory = container.provisioned(self._rule)
        self.vcpu = tariff(book, vcpu)
        self.memory = tariff(book, memory)
        fee = container.requests(self._rule)
        self.fee = None if fee is None else tariff(book, fee)
        self.boot_ns = container.boot_ns
        self.closed: deque[Interval] = deque()
        self.capped = 0
        self.collapsed = 0
        self._time = billedtime.counted(self._rule, container.boot_ns)
        self._requests = 0
        self._counted: set[str] = set()  # requests under way that are in `_requests` already
        self._draining_since_ns: int | None = None
        self._clock = clock
        self._epoch_ns, self._steady_ns = clock.epoch_ns, clock.steady_ns
        self._detail_rows_max = detail_rows_max
        self._detail_share = detail_share
        self._random = random
        self._skip = self._gap() if detail_share < 1 else 0
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
        self._is_priced = self.vcpu.is_priced
        self._phase: PhaseName = "boot"
        self._resident: dict[Version, int] = {}
        self._mark_age_ns = 0
        self._mark_cpu_ns = 0
        self._mark_rss_bytes = clock.rss_bytes()
        self._begin(container.boot_ns)

    def charge(
        self,
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
        is_request: bool = True,
    ) -> int:
        """The receipt in pico-dollars: what `cpu_ns` costs, and the request where the platform bills it (`is_request`: it came to
        the container as one). `model` and `tenant` are resolved names, never a caller's free text.

        By position from where every request passes: keywords would take a tenth of the time.
        """
        now_ns = self._epoch_ns + self._steady_ns()
        if now_ns >= self._hour_end_ns:
            now_ns = self._now()
        assert cpu_ns >= 0
        # The difference of two floors, so that rounding never adds up. Here and not in a method: this runs once per request.
        charged_cpu_ns = self._charged_cpu_ns + cpu_ns
        receipts_picousd = charged_cpu_ns * self._rate_numerator // self._rate_denominator
        if receipts_picousd > self._ceiling_picousd:
            charged_cpu_ns, receipts_picousd = self._covered(now_ns, charged_cpu_ns, receipts_picousd)
        cpu_picousd = cost_picousd = receipts_picousd - self._receipts_picousd
        self._charged_cpu_ns = charged_cpu_ns
        self._receipts_picousd = receipts_picousd

        key = (model, version, tenant, outcome)
        totals = self._infer.get(key)
        if totals is None:
            totals = self._infer[key] = InferTotals()
        if self.fee is not None and is_request:
            fee_picousd = self._count(request_id)
            totals.fee_picousd += fee_picousd
            totals.calls += 1
            cost_picousd += fee_picousd
        totals.cost_picousd += cpu_picousd
        totals.cpu_ns += cpu_ns
        totals.requests += 1
        totals.rows += rows
        if self._free:
            self._free -= 1
        elif not self._is_kept():
            return cost_picousd
        # Positional, in the order of `Request`: seven times as fast as by keyword (1.2 us).
        self._keep(Request(
            request_id, now_ns, model, version, outcome, rows, cpu_ns, cost_picousd,
            request_bytes, response_bytes, queue_ns, run_ns, batch_rows, variant, tenant, door,
        ))  # fmt: skip
        if not self._free and len(self._interval.requests) >= self._full_rows:
            self._on_full()
        return cost_picousd

    def _is_kept(self) -> bool:
        """Whether this request gets a line, where that is not plain; `_free` more do before anybody needs to ask again."""
        if self._skip:
            self._skip -= 1
            return False
        if self._detail_share < 1:
            self._skip = self._gap()
        if len(self._interval.requests) < self._detail_rows_max:
            return True
        self.collapsed += 1
        if len(self._interval.requests) >= self._full_rows:
            self._on_full()
        return False

    def _count_free(self) -> None:
        limit = min(self._detail_rows_max, self._full_rows - 1) if self._detail_share >= 1 else 0
        self._free = max(0, limit - len(self._interval.requests))

    def _covered(self, now_ns: int, charged_cpu_ns: int, receipts_picousd: int) -> tuple[int, int]:
        """CPU and receipts so far where the known ceiling is reached: as they are, or cut to what the box can have cost."""
        self._raise_ceiling(now_ns)
        if receipts_picousd <= self._ceiling_picousd:
            return charged_cpu_ns, receipts_picousd
        self.capped += 1
        # The most CPU that costs no more than the ceiling: the floor stays true for the CPU charged.
        charged_cpu_ns = ((self._ceiling_picousd + 1) * self._rate_denominator - 1) // self._rate_numerator
        return charged_cpu_ns, charged_cpu_ns * self._rate_numerator // self._rate_denominator

    def _gap(self) -> int:
        """How many requests pass before the next that is kept, each with the same chance and independently."""
        if self._detail_share <= 0:
            return _NEVER
        return int(log(1 - self._random()) / log(1 - self._detail_share))  # geometric

    def _raise_ceiling(self, now_ns: int) -> None:
        """This interval's receipts may reach its bill, a little ahead of now but not past the hour. Cached: the bill only grows."""
        if self._rule.billed == "lifetime":
            now_ns = min(now_ns + self._ahead_ns, self.next_boundary_ns)
        age_ns = self._time.age_ns(now_ns)  # elsewhere nobody knows how much will yet be billed
        bill_picousd = self.vcpu.covered_picousd(age_ns) - self._earlier_bill_picousd
        self._ceiling_picousd = max(self._ceiling_picousd, self._earlier_receipts_picousd + bill_picousd)

    @property
    def is_counting_requests(self) -> bool:
        """Whether the platform bills by requests, so that `begin_request` and `end_request` must be called."""
        return self._rule.billed != "lifetime"

    def begin_request(self) -> int:
        """One has come; the moment is for `end_request`."""
        now_ns = self._now()
        self._time.begin(now_ns)
        return now_ns

    def end_request(self, began_ns: int, request_id: str = "") -> None:
        """It is answered, or its caller has left. One that was charged is given by the id it was charged with."""
        now_ns = self._now()
        self._time.end(began_ns, now_ns)
        if request_id in self._counted:
            self._counted.remove(request_id)
        else:
            self._requests += 1

    def _count(self, request_id: str) -> int:
        """What this request itself costs: the bill for it and all before, less that for all before."""
        assert self.fee is not None
        before_picousd = self.fee.billed_picousd(self._requests)
        self._counted.add(request_id)
        self._requests += 1
        return self.fee.billed_picousd(self._requests) - before_picousd

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
            now_ns = self._enter("serving")
            self._time.end(self.boot_ns, now_ns)

    def mark_draining(self) -> None:
        """No new work is accepted: idle time is from now on the price of stopping."""
        if self._phase == "draining":
            return
        has_booted = self._phase != "boot"
        now_ns = self._enter("draining")
        if self._rule.billed == "requests":  # shutting down is billed, at Cloud Run
            self._draining_since_ns = now_ns
            self._time.begin(now_ns)
        if not has_booted:
            self._time.end(self.boot_ns, now_ns)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """What the container is billed by and the book has no price for."""
        return tuple(each.provisioned.sku for each in self.tariffs if not each.is_priced)

    @property
    def tariffs(self) -> tuple[Tariff, ...]:
        """All that the container is billed by."""
        return (self.vcpu, self.memory) if self.fee is None else (self.vcpu, self.memory, self.fee)

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
        if self._rule.billed != "lifetime":
            return self._interval.from_ns + 1  # receipts were never ahead
        owed_picousd = self._earlier_bill_picousd + self._receipts_picousd - self._earlier_receipts_picousd
        covered_age_ns = self.vcpu.covering_age_ns(owed_picousd)
        return max(self._interval.from_ns + 1, min(self.boot_ns + covered_age_ns, self.next_boundary_ns))

    def on_full(self, rows: int, call: Callable[[], None]) -> None:
        """Have `charge` call this whenever the open interval keeps the detail of `rows` requests or more, and one is added."""
        self._full_rows = rows
        self._on_full = call
        self._count_free()

    def close_interval(self, to_ns: int) -> None:
        """End the open interval, append it to `closed` and begin the next. Nothing is computed per request.

        `to_ns` is between `closable_ns` and `next_boundary_ns`. An hour that ends before anybody closes it closes itself.
        """
        assert self.closable_ns <= to_ns <= self.next_boundary_ns
        self._integrate(to_ns)
        if self._phase == "boot":
            self._interval.boot_named_ns = self._interval.named_ns
        self._interval.to_ns = to_ns
        self._interval.to_age_ns = self._time.age_ns(to_ns)
        self._interval.to_requests = self._requests
        self._load_window()
        self.closed.append(self._interval)
        self._begin(to_ns)

    def close_last(self) -> int:
        """End the life now, or as soon as its bill covers the receipts. Returns that moment; what comes later is lost.

        The last interval also bears what the platform bills beyond the end, by its minimum and its steps.
        """
        ended_ns = max(self._now(), self.closable_ns)
        if self._phase == "boot":
            self._time.end(self.boot_ns, ended_ns)
        if self._draining_since_ns is not None:
            self._time.end(self._draining_since_ns, ended_ns)
        self._interval.beyond_ns = self._time.last_ns(self._time.age_ns(ended_ns))
        self.close_interval(ended_ns)
        self._hour_end_ns = _NEVER_NS
        return ended_ns

    def quoted(self, cost_picousd: int) -> tuple[int | None, int | None]:
        """A receipt as its caller is told it: the direct cost, and an estimate of the full one; None where nobody knows."""
        loading = self.loading  # its numbers and not its method: every answer passes here
        full_picousd = cost_picousd * loading.numerator // loading.denominator if loading.denominator else None
        return (cost_picousd if self._is_priced else None), full_picousd

    def billed_picousd(self, interval: Interval) -> int:
        """What a closed interval costs, all skus together."""
        to_age_ns = interval.to_age_ns + interval.beyond_ns
        cost = sum(each.charge(interval.from_age_ns, to_age_ns).cost_picousd for each in (self.vcpu, self.memory))
        if self.fee is not None:
            cost += self.fee.charge(interval.from_requests, interval.to_requests).cost_picousd
        return cost

    def _load_window(self) -> None:
        """Tell the loading factor what the interval cost, and what of that receipts are."""
        interval = self._interval
        receipts_picousd = self._receipts_picousd - self._earlier_receipts_picousd
        if self.fee is not None:
            receipts_picousd += sum(totals.fee_picousd for totals in interval.infer.values())
        self.loading.add(interval.from_ns, interval.to_ns, self.billed_picousd(interval), receipts_picousd)

    def _begin(self, from_ns: int) -> None:
        age_ns = self._time.age_ns(from_ns)
        self._interval = Interval(
            from_ns,
            from_age_ns=age_ns,
            from_requests=self._requests,
            is_dated=self._rule.billed == "lifetime",
        )
        self._infer = self._interval.infer
        self._keep = self._interval.requests.append
        self._count_free()
        self._hour_end_ns = self.next_boundary_ns
        self._earlier_bill_picousd = self.vcpu.billed_picousd(age_ns)
        self._earlier_receipts_picousd = self._receipts_picousd
        self._ceiling_picousd = self._receipts_picousd

    def _now(self) -> int:
        """The time, after closing hours that have ended: nothing is ever measured into an hour that is over."""
        now_ns = self._clock.now_ns()
        while now_ns >= self._hour_end_ns:
            self.close_interval(self._hour_end_ns)
        return now_ns

    def _enter(self, phase: PhaseName) -> int:
        """The moment at which the phase began."""
        now_ns = self._now()
        self._integrate(now_ns)
        if self._phase == "boot":
            self._interval.boot_named_ns = self._interval.named_ns
        self._phase = phase
        return now_ns

    def _integrate(self, now_ns: int) -> None:
        """Add the billed time since the last call to the running phase and, after boot, memory times that (rss by its mean)."""
        age_ns = self._time.age_ns(now_ns)
        elapsed_ns = age_ns - self._mark_age_ns
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
        self._mark_age_ns, self._mark_cpu_ns, self._mark_rss_bytes = age_ns, cpu_ns, rss_bytes


def _nobody_listens() -> None:
    """Until there is a ledger writer."""
