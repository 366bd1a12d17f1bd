"""The part of a container's bill that no segment claims: what a kill or a lost segment leaves, exact to the pico-dollar.

Pure: the audit and reports call it with what they found of a life. Charges are differences of the same rounded bill that segments
charge by (`gateway.accounting.tariff`), so segments and gaps together are always the bill of the whole life.
"""

from collections.abc import Iterable, Sequence

import msgspec

from gateway.accounting.tariff import tariff
from gateway.contract.ledger import Charge, Close, Ended, Open
from gateway.contract.prices import PriceBook

HOUR_NS = 3600 * 10**9
Span = tuple[int, int]
"""[from_ns, to_ns)."""


class Gap(msgspec.Struct, frozen=True):
    """A stretch of a life in no segment, and what the platform bills for it: all of that is `unattributed`."""

    from_ns: int
    to_ns: int
    charges: tuple[Charge, ...]

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


def gaps(opened: Open, book: PriceBook, spans: Sequence[Span], until_ns: int) -> tuple[Gap, ...]:
    """Where [boot, until) is in no span, cut at full hours as segments are.

    Raises `SettingsError` when the book does not price what the container held.
    """
    tariffs = [tariff(book, provisioned) for provisioned in opened.provisioned]
    return tuple(
        Gap(
            from_ns,
            to_ns,
            tuple(priced.charge(from_ns - opened.boot_ns, to_ns - opened.boot_ns) for priced in tariffs),
        )
        for gap in _between(spans, opened.boot_ns, until_ns)
        for from_ns, to_ns in _hours(*gap)
    )


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
