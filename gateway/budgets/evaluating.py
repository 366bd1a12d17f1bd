"""What was spent of each budget, by the ledger, and where the current rate leads to: whole pico-dollars, whole clock hours.

A rolling period are the last N clock hours with the one that runs. The forecast adds to what was spent what the newest 24th of the
period cost, for as long as the period still lasts; of a rolling period it is that rate for all of it.
"""

import asyncio
import fnmatch
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Literal

import msgspec

from gateway.budgets.budgetfile import Budget
from gateway.contract.words import DAY_NS, HOUR_NS
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import cells, spreading, tables
from gateway.reports.cells import Cell
from gateway.reports.query import View
from gateway.reports.sync import LocalLedger, sync

NEWEST = 24

Kind = Literal["spent", "forecast"]


class Period(msgspec.Struct, frozen=True):
    """[from_ns, to_ns) is looked at. `key` says once for which an alert is sent: a day, a month, a block of N hours."""

    from_ns: int
    to_ns: int
    key: str


class Threshold(msgspec.Struct, frozen=True):
    """A factor of the amount, of what was `spent` or what is `forecast`."""

    kind: Kind
    factor: str
    is_crossed: bool

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.factor}"


class Standing(msgspec.Struct, frozen=True):
    """One budget now. `segments` of the ledger lie in its period: with none nothing is known, and nothing crossed."""

    budget: Budget
    period: Period
    segments: int
    spent_picousd: int
    forecast_picousd: int
    thresholds: tuple[Threshold, ...]

    @property
    def crossed(self) -> tuple[Threshold, ...]:
        return tuple(threshold for threshold in self.thresholds if threshold.is_crossed)


async def read(store: ObjectStore, folder: Path, budgets: Sequence[Budget], now_ns: int) -> tuple[Standing, ...]:
    """In the file's order; copies of the ledger are kept in `folder`.

    Raises `StoreUnavailable`, `ManifestInvalid` for a ledger file that cannot be read.
    """
    local = await sync(store, folder)
    return await asyncio.to_thread(evaluate, local, budgets, now_ns)


def evaluate(local: LocalLedger, budgets: Sequence[Budget], now_ns: int) -> tuple[Standing, ...]:
    """As `read`. Blocking."""
    known: dict[tuple[int, View], tuple[int, list[Cell]]] = {}
    with tables.opened(local) as connection:

        def found(from_ns: int, view: View) -> tuple[int, list[Cell]]:
            if (from_ns, view) not in known:
                every = spreading.spread(cells.read(connection, from_ns, now_ns), view)
                known[from_ns, view] = cells.span(connection, from_ns, now_ns).segments, every
            return known[from_ns, view]

        return tuple(_standing(budget, now_ns, found) for budget in budgets)


def period(budget: Budget, now_ns: int) -> Period:
    """The one that runs at this moment, in UTC."""
    hour_ns = now_ns // HOUR_NS * HOUR_NS
    if budget.hours:
        block = now_ns // (budget.hours * HOUR_NS) * budget.hours
        return Period(
            max(0, hour_ns - (budget.hours - 1) * HOUR_NS), hour_ns + HOUR_NS, f"hours-{budget.hours}-{block}"
        )
    at = datetime.fromtimestamp(now_ns // 10**9, UTC)
    if budget.period == "day":
        from_ns = now_ns // DAY_NS * DAY_NS
        return Period(from_ns, from_ns + DAY_NS, f"{at:%Y-%m-%d}")
    first = datetime(at.year, at.month, 1, tzinfo=UTC)
    following = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    from_ns, to_ns = (round(moment.timestamp()) * 10**9 for moment in (first, following))
    return Period(from_ns, to_ns, f"{at:%Y-%m}")


def _standing(budget: Budget, now_ns: int, found: Callable[[int, View], tuple[int, list[Cell]]]) -> Standing:
    now = period(budget, now_ns)
    segments, every = found(now.from_ns, budget.view)
    costs = [
        (cell.hour_ns, cell.own_picousd + cell.shared_picousd)
        for cell in every
        if fnmatch.fnmatchcase(cell.model, budget.model) and fnmatch.fnmatchcase(cell.tenant, budget.tenant)
    ]
    spent = sum(cost for _, cost in costs)
    forecast = forecasted(budget, now, now_ns, costs)
    limit = budget.limit_picousd
    pairs: tuple[tuple[Kind, int, tuple[str, ...]], ...] = (
        ("spent", spent, budget.thresholds),
        ("forecast", forecast, budget.forecast),
    )
    thresholds = tuple(
        Threshold(kind, factor, bool(segments) and amount >= Fraction(factor) * limit)
        for kind, amount, factors in pairs
        for factor in sorted(factors, key=Fraction)
    )
    return Standing(budget, now, segments, spent, forecast, thresholds)


def forecasted(budget: Budget, now: Period, now_ns: int, costs: Sequence[tuple[int, int]]) -> int:
    """Where the period ends at the rate of its newest part, of which at least the hour that runs and the one before it count."""
    spent = sum(cost for _, cost in costs)
    length_ns = now.to_ns - now.from_ns
    since_ns = max(now.from_ns, (now_ns - max(HOUR_NS, length_ns // NEWEST)) // HOUR_NS * HOUR_NS)
    newest = sum(cost for hour_ns, cost in costs if hour_ns >= since_ns)
    rate = Fraction(newest, max(1, now_ns - since_ns))
    if budget.hours:
        return max(spent, round(rate * length_ns))
    return spent + round(rate * (now.to_ns - now_ns))
