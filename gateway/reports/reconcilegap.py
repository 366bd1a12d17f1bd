"""How far a bill and the ledger are apart, and how old that news is: the gap in percent, the bill's newest row, what came after it.

Pure. A gap of nothing says little when the bill ends last week: `gateway.reports.reconcile` and `reconcileresources` tell both.
"""

from collections.abc import Iterable

import msgspec

from gateway.contract.words import DAY_NS, HOUR_NS
from gateway.reports import figures
from gateway.reports.bills import Row
from gateway.wording import moment


class Gap(msgspec.Struct, frozen=True):
    """`percent` is bill less ledger, of the ledger with its corrections; None where that has nothing.

    `newest_ns` is the end of the bill's newest row (of those that begin last; its beginning where the bill has no ends), `age_ns`
    how long ago that was. `since_picousd` is what the ledger charged from then on, until `since_to_ns`: no row of this bill is for
    it. Both 0 where nothing came after.
    """

    percent: float | None
    newest_ns: int
    age_ns: int
    since_picousd: int
    since_to_ns: int


def gap(
    rows: Iterable[Row], ledger_picousd: int, bill_picousd: int, hours: Iterable[tuple[int, int]], now_ns: int
) -> Gap:
    """`hours` are the ledger's charges by when an hour begins, in any order; one hour may come more than once."""
    begin_ns, end_ns = max((row.from_ns, row.to_ns) for row in rows)
    newest_ns = max(begin_ns, min(end_ns, now_ns))  # a fee for the month ends in the future
    later = [(hour_ns, cost) for hour_ns, cost in hours if hour_ns >= newest_ns]
    return Gap(
        percent=round(100 * (bill_picousd - ledger_picousd) / ledger_picousd, 4) if ledger_picousd else None,
        newest_ns=newest_ns,
        age_ns=max(0, now_ns - newest_ns),
        since_picousd=sum(cost for _, cost in later),
        since_to_ns=max((hour_ns + HOUR_NS for hour_ns, _ in later), default=0),
    )


def sentence(found: Gap) -> str:
    """For people, in one line."""
    size = "the ledger has nothing" if found.percent is None else f"{found.percent:+,.4g} % of the ledger"
    text = f"gap: {size}; the bill's newest row ends {moment(found.newest_ns)}, {_age(found.age_ns)} ago"
    if not found.since_to_ns:
        return text
    since = figures.dollars(found.since_picousd)
    return f"{text}; not reconciled: {since} that the ledger has from then until {moment(found.since_to_ns)}"


def _age(age_ns: int) -> str:
    return f"{age_ns / DAY_NS:,.1f} days" if age_ns >= 2 * DAY_NS else figures.duration(age_ns)
