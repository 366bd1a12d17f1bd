"""Which two periods a report's trend compares: the one asked for and the one before it, else the last two whole days or hours.

A day or an hour is whole when the ledger covers all of it, and the one before must be too: a first, short day would look like
growth.
"""

from collections.abc import Sequence
from typing import Literal

import duckdb
import msgspec

from gateway.contract.words import DAY_NS, HOUR_NS
from gateway.reports import cells, figures, spreading
from gateway.reports.cells import Cell, Span
from gateway.reports.query import Query
from gateway.wording import moment

Kind = Literal["period", "day", "hour"]


class Periods(msgspec.Struct, frozen=True):
    """[from_ns, to_ns) against [before_ns, from_ns)."""

    kind: Kind
    from_ns: int
    to_ns: int
    before_ns: int

    @property
    def words(self) -> str:
        """What is compared, as a sentence's beginning; empty for the period that was asked for."""
        if self.kind == "period":
            return ""
        return f"the last whole {self.kind}, {moment(self.from_ns)[: 10 if self.kind == 'day' else 16]}"


class Trend(msgspec.Struct, frozen=True):
    """The whole bills of both, whatever is filtered."""

    periods: Periods
    charged_picousd: int
    previous_picousd: int


def readable(connection: duckdb.DuckDBPyConnection, query: Query, span: Span) -> Periods | None:
    """As `periods`; None too where a segment of the earlier one was left unread (`tables.opened`)."""
    between = periods(query, span)
    return between if between is not None and _is_read(connection, between) else None


def periods(query: Query, span: Span) -> Periods | None:
    """None where nothing can be compared."""
    if query.since_ns is not None:
        end_ns = span.to_ns if query.until_ns is None else query.until_ns
        if end_ns <= query.since_ns:  # nothing was written since, so that nobody knows how long the period is
            return None
        return Periods("period", query.since_ns, end_ns, max(0, 2 * query.since_ns - end_ns))
    end_ns = span.to_ns if query.until_ns is None else min(span.to_ns, query.until_ns)
    kinds: tuple[tuple[Kind, int], ...] = (("day", DAY_NS), ("hour", HOUR_NS))
    for kind, length_ns in kinds:
        to_ns = end_ns // length_ns * length_ns
        if span.segments and to_ns - 2 * length_ns >= span.from_ns:
            return Periods(kind, to_ns - length_ns, to_ns, to_ns - 2 * length_ns)
    return None


def _is_read(connection: duckdb.DuckDBPyConnection, between: Periods) -> bool:
    """Whether all of the earlier period could be read: a comparison with a part of it would tell a wrong growth."""
    found = connection.execute(
        "SELECT count(*) FROM unread WHERE hour_ns < $until_ns AND hour_ns + $hour_ns > $since_ns",
        {"since_ns": between.before_ns, "until_ns": between.from_ns, "hour_ns": HOUR_NS},
    )
    return found.fetchall() == [(0,)]


def compared(
    connection: duckdb.DuckDBPyConnection, every: Sequence[Cell], query: Query, between: Periods | None
) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """Cells of the later and the earlier period. Days and hours are parts of what was read; another period is read."""
    if between is None:
        return (), ()
    if between.kind == "period":
        earlier = cells.read(connection, between.before_ns, between.from_ns)
        return tuple(every), tuple(spreading.spread(earlier, query.view))
    now = tuple(cell for cell in every if between.from_ns <= cell.hour_ns < between.to_ns)
    return now, tuple(cell for cell in every if between.before_ns <= cell.hour_ns < between.from_ns)


def sentence(trend: Trend | None) -> str:
    """The end of a sentence about the bill; empty when nothing is compared."""
    if trend is None:
        return ""
    which, before = trend.periods.words, trend.previous_picousd
    now = f"{which}: {figures.dollars(trend.charged_picousd)}, " if which else ""
    if not before:
        return f"; {now}the {trend.periods.kind} before has no costs"
    changed = figures.percent(trend.charged_picousd, before)
    return f"; {now}{changed} against the {trend.periods.kind} before ({figures.dollars(before)})"
