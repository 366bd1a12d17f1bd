"""Weighs a container's life: its phases, loads and memory, in intervals whose receipts add up to what is posted.

Requests are weighed by its day book (`gateway.accounting.daybook`), which is the hot path. Every method runs on the event loop's
thread. What an interval's numbers mean is `gateway.accounting.statement`; when one is closed and where it goes is
`gateway.accounting.ledger`.
"""

import random
from collections import deque
from collections.abc import Callable

import msgspec

from gateway.accounting import billedtime
from gateway.accounting.ceiling import Ceiling
from gateway.accounting.clock import Clock
from gateway.accounting.container import Container
from gateway.accounting.daybook import Daybook, Sample
from gateway.accounting.loading import Loading
from gateway.accounting.statement import Interval, PhaseName, Version
from gateway.accounting.tariff import Tariff, tariff
from gateway.contract import prices
from gateway.contract.ledger import Phases
from gateway.contract.words import HOUR_NS

_NEVER_NS = 1 << 63
SKEW_NS = 10_000_000
"""By how much two CPU clocks may differ before it is counted: what a process used and what its threads did are read one by one."""


class Meter:
    """One container's meter. `charge` is its day book's, `quoted` says what a caller is told of a receipt: the direct cost, and an
    estimate of the full one; None where nobody knows.
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
        self._time = billedtime.counted(self._rule, container.boot_ns)
        self._requests = 0
        self._counted: set[str] = set()  # requests under way that are in `_requests` already
        self._draining_since_ns: int | None = None
        self._clock = clock
        self._ceiling = Ceiling(
            self.vcpu,
            self._time,
            boot_ns=container.boot_ns,
            ahead_ns=ahead_ns if self._rule.billed == "lifetime" else None,
        )
        self._daybook = Daybook(
            clock,
            self.vcpu,
            self._ceiling,
            sample=Sample(detail_share, random) if detail_share < 1 else None,
            rows_max=detail_rows_max,
            fee=None if self.fee is None else self._count,
            hour_is_over=self._now,
        )
        self.loading = Loading(window_ns, is_priced=not self.unpriced)
        # Not methods around these: every answer passes here.
        self.charge = self._daybook.charge
        self.quoted: Callable[[int], tuple[int | None, int | None]] = (
            self.loading.quoted if self.vcpu.is_priced else _unpriced
        )
        self._phase: PhaseName = "boot"
        self._resident: dict[Version, int] = {}
        self._mark_age_ns = 0
        self._mark_cpu_ns = 0
        self._mark_rss_bytes = clock.rss_bytes()
        self.skewed = 0
        self._named_beyond_ns = 0
        self._skew_ns = SKEW_NS
        self._begin(container.boot_ns)

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
        return self._interval.hour_end_ns

    @property
    def closable_ns(self) -> int:
        """The earliest end the open interval can have: its bill then covers its receipts. At most `ahead_ns` after the last."""
        return self._ceiling.closable_ns(self._daybook.receipts_picousd)

    @property
    def capped(self) -> int:
        """Receipts cut to what the box can have cost."""
        return self._daybook.capped

    @property
    def collapsed(self) -> int:
        """Requests whose detail was to be kept and found no room."""
        return self._daybook.collapsed

    def on_full(self, rows: int, call: Callable[[], None]) -> None:
        """Have `charge` call this whenever the open interval keeps the detail of `rows` requests or more, and one is added."""
        self._daybook.on_full(rows, call)

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
        self._note_skew()
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
        self._daybook.hour_end_ns = _NEVER_NS
        return ended_ns

    def billed_picousd(self, interval: Interval) -> int:
        """What a closed interval costs, all skus together."""
        to_age_ns = interval.to_age_ns + interval.beyond_ns
        cost = sum(each.charge(interval.from_age_ns, to_age_ns).cost_picousd for each in (self.vcpu, self.memory))
        if self.fee is not None:
            cost += self.fee.charge(interval.from_requests, interval.to_requests).cost_picousd
        return cost

    def _note_skew(self) -> None:
        """Count in `skewed` that work which was weighed adds up to more CPU than the process has used. Over its life: a long run is
        charged where it ends, and may have begun intervals before. Nobody pays for it: `overhead` is then nothing.
        """
        interval = self._interval
        used_ns = interval.boot.cpu_ns + interval.serving.cpu_ns + interval.draining.cpu_ns
        self._named_beyond_ns += interval.named_ns + interval.ledger_cpu_ns - used_ns
        if self._named_beyond_ns > self._skew_ns:
            self.skewed += 1
            self._skew_ns = self._named_beyond_ns + SKEW_NS

    def _load_window(self) -> None:
        """Tell the loading factor what the interval cost, and what of that receipts are."""
        interval = self._interval
        receipts_picousd = sum(totals.cost_picousd + totals.fee_picousd for totals in interval.infer.values())
        self.loading.add(interval.from_ns, interval.to_ns, self.billed_picousd(interval), receipts_picousd)

    def _begin(self, from_ns: int) -> None:
        age_ns = self._time.age_ns(from_ns)
        self._interval = Interval(
            from_ns,
            from_age_ns=age_ns,
            from_requests=self._requests,
            is_dated=self._rule.billed == "lifetime",
        )
        self._daybook.begin(self._interval)

    def _now(self) -> int:
        """The time, after closing hours that have ended: nothing is ever measured into an hour that is over."""
        now_ns = self._clock.now_ns()
        while now_ns >= self._daybook.hour_end_ns:
            self.close_interval(self._interval.hour_end_ns)
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


def _unpriced(_: int) -> tuple[None, None]:
    """What a receipt is told as where vCPUs have no price."""
    return None, None
