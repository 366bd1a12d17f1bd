"""The part of a container's bill that no segment claims: what a kill or a lost segment leaves, exact to the pico-dollar.

Pure: the audit and reports call it with what they found of a life. Charges are differences of the same rounded bill that segments
charge by (`gateway.accounting.tariff`), so segments and gaps together are always the bill of the whole life.
"""

from collections.abc import Iterable, Sequence

import msgspec

from gateway.accounting.billing import beyond_ns
from gateway.accounting.tariff import tariff
from gateway.contract.ledger import Charge, Close, Ended, Open
from gateway.contract.prices import PriceBook
from gateway.contract.words import HOUR_NS

ALIVE_NS = 3 * 60 * 10**9
"""A gateway writes a segment at least once a minute (`flush_interval_s`), idle or not: one that was heard of so lately runs."""

Span = tuple[int, int]
"""[from_ns, to_ns)."""


class Gap(msgspec.Struct, frozen=True):
    """A stretch of a life in no segment, and what the platform bills for it, and `beyond_ns` after it where the life ends: all of
    that is `unattributed`.
    """

    from_ns: int
    to_ns: int
    charges: tuple[Charge, ...]
    beyond_ns: int = 0

    @property
    def cost_picousd(self) -> int:
        """All skus together."""
        return sum(charge.cost_picousd for charge in self.charges)


def end_ns(
    opened: Open, spans: Iterable[Span], *, closed: Close | None, ended: Ended | None, next_boot_ns: int | None
) -> int:
    """When the bill of this life ended, by the best witness: the container itself, its platform, the next life in the same
    container (it was held all the while), else the last sign of life, which is early by a flush interval at most: a gateway
    writes a segment every interval, idle or not, so segments are its heartbeats.
    """
    seen_ns = max([opened.opened_ns, opened.boot_ns, *(to_ns for _, to_ns in spans)])
    if closed is not None:
        return max(seen_ns, closed.closed_ns)
    if ended is not None:
        return max(seen_ns, ended.ended_ns)
    return max(seen_ns, next_boot_ns or 0)


def missing(
    opened: Open,
    book: PriceBook,
    spans: Sequence[Span],
    *,
    closed: Close | None,
    ended: Ended | None,
    next_boot_ns: int | None,
    is_over: bool,
) -> tuple[Gap, ...]:
    """What of this life's bill is in no segment, up to its end and what the platform bills beyond that: its minimum, its steps.

    `is_over`: a segment bills the end already. A life whose container goes on with the next has no end of its own. One that may
    still run is owed its minimum all the same; what its segments come to claim, this no longer does.
    Raises `SettingsError` when the book does not know what the container held.
    """
    after_ns = None if is_over else next_boot_ns
    until_ns = end_ns(opened, spans, closed=closed, ended=ended, next_boot_ns=after_ns)
    goes_on = closed is None and ended is None and next_boot_ns is not None
    is_told = closed is not None and any(to_ns >= until_ns for _, to_ns in spans)
    if is_over or goes_on or is_told:
        return gaps(opened, book, spans, until_ns)
    return gaps(opened, book, spans, until_ns, beyond_ns(book.platform(opened.platform), until_ns - opened.boot_ns))


def gaps(
    opened: Open, book: PriceBook, spans: Sequence[Span], until_ns: int, billed_beyond_ns: int = 0
) -> tuple[Gap, ...]:
    """Where [boot, until) is in no span, cut at full hours as segments are; the last bears what is billed beyond it. None where
    not the lifetime is billed: then nobody knows from the time alone what a stretch without a segment cost.
    """
    if book.platform(opened.platform).billed != "lifetime":
        return ()
    tariffs = [tariff(book, provisioned) for provisioned in opened.provisioned]
    found = [hour for gap in _between(spans, opened.boot_ns, until_ns) for hour in _hours(*gap)]
    if billed_beyond_ns and (not found or found[-1][1] < until_ns):
        found.append((until_ns, until_ns))
    made = []
    for from_ns, to_ns in found:
        from_age_ns, to_age_ns = from_ns - opened.boot_ns, to_ns - opened.boot_ns
        beyond = billed_beyond_ns if to_ns == until_ns else 0
        charges = tuple(priced.charge(from_age_ns, to_age_ns, to_age_ns + beyond) for priced in tariffs)
        made.append(Gap(from_ns, to_ns, charges, beyond))
    return tuple(made)


def _hours(from_ns: int, to_ns: int) -> Iterable[Span]:
    while from_ns < to_ns:
        until_ns = min(to_ns, (from_ns // HOUR_NS + 1) * HOUR_NS)
        yield from_ns, until_ns
        from_ns = until_ns


def _between(spans: Sequence[Span], from_ns: int, until_ns: int) -> Iterable[Span]:
    for begin_ns, end_ns_ in sorted(spans):
        if begin_ns > from_ns:
            yield from_ns, min(begin_ns, until_ns)
        from_ns = max(from_ns, end_ns_)
        if from_ns >= until_ns:
            return
    if from_ns < until_ns:
        yield from_ns, until_ns
