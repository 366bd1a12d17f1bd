"""What an interval's receipts may come to: never more than the box can have cost.

`gateway.accounting.daybook` asks when receipts have reached the last answer, which is once in a second or less.
Why receipts may run a little ahead of the bill: infra/decisions/0002-receipts-telescope.md.
"""

from gateway.accounting.billedtime import BilledTime
from gateway.accounting.statement import Interval
from gateway.accounting.tariff import Tariff


class Ceiling:
    """Of one container. Receipts and bills are those of its whole life so far, of the vCPUs alone."""

    def __init__(self, vcpu: Tariff, time: BilledTime, *, boot_ns: int, ahead_ns: int | None) -> None:
        """`ahead_ns`: how far receipts may run ahead of the bill; None where nobody knows how much will yet be billed."""
        self._vcpu = vcpu
        self._time = time
        self._boot_ns = boot_ns
        self._ahead_ns = ahead_ns
        self._from_ns = self._hour_end_ns = boot_ns
        self._bill_picousd = self._receipts_picousd = self._picousd = 0

    def begin(self, interval: Interval, receipts_picousd: int) -> None:
        """From here on receipts are held against this interval's bill; those given out before were."""
        self._from_ns, self._hour_end_ns = interval.from_ns, interval.hour_end_ns
        self._bill_picousd = self._vcpu.billed_picousd(interval.from_age_ns)
        self._receipts_picousd = self._picousd = receipts_picousd

    def at_picousd(self, now_ns: int) -> int:
        """The most that receipts may have reached by now: the bill a little ahead, but not past the hour. It only grows."""
        if self._ahead_ns is not None:
            now_ns = min(now_ns + self._ahead_ns, self._hour_end_ns)
        bill_picousd = self._vcpu.covered_picousd(self._time.age_ns(now_ns)) - self._bill_picousd
        self._picousd = max(self._picousd, self._receipts_picousd + bill_picousd)
        return self._picousd

    def closable_ns(self, receipts_picousd: int) -> int:
        """The earliest end of the interval at which its bill covers what receipts have come to."""
        if self._ahead_ns is None:
            return self._from_ns + 1  # receipts were never ahead
        owed_picousd = self._bill_picousd + receipts_picousd - self._receipts_picousd
        covered_ns = self._boot_ns + self._vcpu.covering_age_ns(owed_picousd)
        return max(self._from_ns + 1, min(covered_ns, self._hour_end_ns))
