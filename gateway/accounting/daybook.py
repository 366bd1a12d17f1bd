"""THE HOT PATH of accounting: for each request a receipt at once, its part in the interval's sums, and its line.

Integers only, on the event loop's thread. `gateway.accounting.meter` owns the one day book of a life and gives it each interval.
Why receipts telescope: infra/decisions/0002-receipts-telescope.md.
"""

from collections.abc import Callable
from math import log

from gateway.accounting.ceiling import Ceiling
from gateway.accounting.clock import Clock
from gateway.accounting.statement import MILLI, InferKey, InferTotals, Interval
from gateway.accounting.tariff import Tariff
from gateway.accounting.usage import Usage
from gateway.contract.ledger import Outcome, Request

_NEVER = 1 << 63


class Sample:
    """Which requests get a line: each with the same chance `share`, below 1, independently. `random` draws from [0, 1)."""

    def __init__(self, share: float, random: Callable[[], float]) -> None:
        self._share = share
        self._random = random
        self._skip = self._gap()

    def takes(self) -> bool:
        """Whether the next request is one of them."""
        if self._skip:
            self._skip -= 1
            return False
        self._skip = self._gap()
        return True

    def _gap(self) -> int:
        """How many pass before the next that is taken."""
        if self._share <= 0:
            return _NEVER
        return int(log(1 - self._random()) / log(1 - self._share))  # geometric


class Daybook:
    """`capped` counts receipts cut to the ceiling, `collapsed` requests whose line was to be kept and found no room.
    `receipts_picousd` is the sum of all receipts, the platform's fees left out.
    """

    # Slots, and no more than these: a served request finds attributes in a dict as cold memory.
    __slots__ = (
        "_ceiling",
        "_ceiling_picousd",
        "_charged_cpu_ns",
        "_epoch_ns",
        "_fee",
        "_free",
        "_full_rows",
        "_hour_is_over",
        "_infer",
        "_lines",
        "_on_full",
        "_rate_denominator",
        "_rate_numerator",
        "_rows_max",
        "_sample",
        "_steady_ns",
        "capped",
        "collapsed",
        "hour_end_ns",
        "receipts_picousd",
    )

    def __init__(
        self,
        clock: Clock,
        vcpu: Tariff,
        ceiling: Ceiling,
        *,
        sample: Sample | None,
        rows_max: int,
        fee: Callable[[str], int] | None,
        hour_is_over: Callable[[], int],
    ) -> None:
        """`sample`: None takes every request. `rows_max`: lines that an interval keeps. `fee`: counts a request by its id and says
        what the platform bills for it.

        `hour_is_over` closes intervals until `hour_end_ns` is after now, which it returns.
        Call `begin` before anything else.
        """
        # Receipts so far are the floor of a rate (pico-dollars per CPU-nanosecond) times the CPU charged so far, always.
        rate = vcpu.rate * MILLI / vcpu.provisioned.amount
        self._rate_numerator, self._rate_denominator = rate.numerator, rate.denominator
        self._charged_cpu_ns = self.receipts_picousd = self._ceiling_picousd = 0
        self._epoch_ns, self._steady_ns = clock.epoch_ns, clock.steady_ns
        self._ceiling = ceiling
        self._sample = sample
        self._rows_max = rows_max
        self._fee = fee
        self._hour_is_over = hour_is_over
        self._full_rows = _NEVER
        self._on_full: Callable[[], None] = _nobody_listens
        self.capped = self.collapsed = 0

    def charge(
        self,
        request_id: str,
        model: str,
        version: int,
        outcome: Outcome,
        usage: Usage,
        variant: str = "",
        tenant: str = "",
        door: str = "",
        is_request: bool = True,
    ) -> int:
        """The receipt in pico-dollars: what the usage's CPU costs, and the request where the platform bills it (`is_request`: it
        came to the container as one). `model` and `tenant` are resolved names, never a caller's free text.

        By position from where every request passes.
        """
        now_ns = self._epoch_ns + self._steady_ns()
        if now_ns >= self.hour_end_ns:
            now_ns = self._hour_is_over()
        cpu_ns = usage.cpu_ns
        assert cpu_ns >= 0
        # The difference of two floors, so that rounding never adds up.
        charged_cpu_ns = self._charged_cpu_ns + cpu_ns
        receipts_picousd = charged_cpu_ns * self._rate_numerator // self._rate_denominator
        if receipts_picousd > self._ceiling_picousd:
            charged_cpu_ns, receipts_picousd = self._covered(now_ns, charged_cpu_ns, receipts_picousd)
        cost_picousd = receipts_picousd - self.receipts_picousd
        self._charged_cpu_ns = charged_cpu_ns
        self.receipts_picousd = receipts_picousd
        totals = self._infer.get((model, version, tenant, outcome))
        if totals is None:
            totals = self._infer[model, version, tenant, outcome] = InferTotals()
        totals.cost_picousd += cost_picousd
        totals.cpu_ns += cpu_ns
        totals.requests += 1
        totals.rows += usage.rows
        if self._fee is not None and is_request:
            fee_picousd = self._fee(request_id)
            totals.fee_picousd += fee_picousd
            totals.calls += 1
            cost_picousd += fee_picousd
        if self._free:
            self._free -= 1
        elif not self._is_kept():
            return cost_picousd
        # Positional, in the order of `Request`: seven times as fast as by keyword (1.2 us).
        self._lines.append(Request(
            request_id, now_ns, model, version, outcome, usage.rows, cpu_ns, cost_picousd, usage.request_bytes,
            usage.response_bytes, usage.queue_ns, usage.run_ns, usage.batch_rows, variant, tenant, door,
        ))  # fmt: skip
        if not self._free and len(self._lines) >= self._full_rows:
            self._on_full()
        return cost_picousd

    def _is_kept(self) -> bool:
        """Whether this request gets a line, where that is not plain; `_free` more do before anybody needs to ask again."""
        if self._sample is not None and not self._sample.takes():
            return False
        if len(self._lines) < self._rows_max:
            return True
        self.collapsed += 1
        if len(self._lines) >= self._full_rows:
            self._on_full()
        return False

    def _covered(self, now_ns: int, charged_cpu_ns: int, receipts_picousd: int) -> tuple[int, int]:
        """CPU and receipts so far where the known ceiling is reached: as they are, or cut to what the box can have cost."""
        self._ceiling_picousd = self._ceiling.at_picousd(now_ns)
        if receipts_picousd <= self._ceiling_picousd:
            return charged_cpu_ns, receipts_picousd
        self.capped += 1
        # The most CPU that costs no more than the ceiling: the floor stays true for the CPU charged.
        charged_cpu_ns = ((self._ceiling_picousd + 1) * self._rate_denominator - 1) // self._rate_numerator
        return charged_cpu_ns, charged_cpu_ns * self._rate_numerator // self._rate_denominator

    def begin(self, interval: Interval) -> None:
        """Write into this one from now on."""
        self._infer: dict[InferKey, InferTotals] = interval.infer
        self._lines = interval.requests
        self.hour_end_ns = interval.hour_end_ns
        self._ceiling.begin(interval, self.receipts_picousd)
        self._ceiling_picousd = self.receipts_picousd
        self._count_free()

    def on_full(self, rows: int, call: Callable[[], None]) -> None:
        """Have `charge` call this whenever the interval keeps `rows` lines or more, and another was to be kept."""
        self._full_rows = rows
        self._on_full = call
        self._count_free()

    def _count_free(self) -> None:
        limit = min(self._rows_max, self._full_rows - 1) if self._sample is None else 0
        self._free = max(0, limit - len(self._lines))


def _nobody_listens() -> None:
    """Until there is a ledger writer."""
