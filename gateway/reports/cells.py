"""The smallest parts a report is made of: the ledger's postings summed by clock hour, model, version, tenant, outcome and account.

Few even for many requests: a ledger of a year with fifty models has some millions. A segment counts to the hour (and period) that
it begins in; it never crosses an hour.
"""

from collections.abc import Iterable

import duckdb
import msgspec

OWNED = frozenset({"infer", "resident", "load"})
"""Accounts that are a model's own when they name one; everything else is shared."""

CPU_MEASURED = frozenset({"infer", "load", "overhead", "ledger"})
"""Accounts whose vCPU time is CPU that the process used, not time that passed."""


class Cell(msgspec.Struct, frozen=True):
    """One part. `cpu_ns` is vCPU time and `memory_byte_ns` memory times time that the postings were weighed by.

    `own_picousd` is what was posted here, `shared_picousd` what `gateway.reports.spreading` moved here. `boots` are containers
    that began, `loads` are segments in which the model was loaded.
    """

    hour_ns: int
    model: str
    version: int
    tenant: str
    outcome: str
    activity: str
    own_picousd: int = 0
    shared_picousd: int = 0
    requests: int = 0
    not_ok: int = 0
    rows: int = 0
    cpu_ns: int = 0
    memory_byte_ns: int = 0
    loads: int = 0
    boots: int = 0

    @property
    def is_owned(self) -> bool:
        """Whether its money is a model's own."""
        return bool(self.model) and self.activity in OWNED


class Span(msgspec.Struct, frozen=True):
    """The segments of a period: how many, and the time they cover. Zeros when there is nothing; 1 where only corrections are, or
    what no segment claims.
    """

    segments: int
    from_ns: int
    to_ns: int
    charged_picousd: int


class HourUse(msgspec.Struct, frozen=True):
    """What was provided in an hour: vCPU time, in nanoseconds of one vCPU."""

    hour_ns: int
    vcpu_ns: int


_CELLS = """
WITH units AS (SELECT sku, min(unit) AS unit FROM charges GROUP BY sku)
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, model, version, tenant, outcome, account,
       sum(p.cost_picousd), 0,
       coalesce(sum(p.requests), 0),
       coalesce(sum(p.requests) FILTER (outcome NOT IN ('ok', '')), 0),
       coalesce(sum(p.rows) FILTER (outcome = 'ok'), 0),
       coalesce(sum(p.quantity) FILTER (unit = 'milli-vcpu-ns'), 0) // 1000,
       coalesce(sum(p.quantity) FILTER (unit = 'byte-ns'), 0),
       coalesce(sum(entries) FILTER (account = 'load' AND unit = 'milli-vcpu-ns'), 0)
FROM postings AS p JOIN segments AS s USING (filename) LEFT JOIN units USING (sku)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
GROUP BY ALL ORDER BY ALL
"""

_BOOTS = """
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, count(*) FROM segments AS s
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND s.seq = 0 GROUP BY ALL ORDER BY ALL
"""

_SPAN = """
SELECT greatest(coalesce(sum(segments) FILTER (s.seq >= 0), 0), least(count(*), 1)), coalesce(min(from_ns), 0),
       coalesce(max(to_ns), 0),
       (SELECT coalesce(sum(c.cost_picousd), 0) FROM charges AS c JOIN segments AS s USING (filename)
        WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns)
FROM segments AS s WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
"""

_USE = """
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, sum(c.quantity) // 1000
FROM charges AS c JOIN segments AS s USING (filename)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND unit = 'milli-vcpu-ns' GROUP BY ALL ORDER BY ALL
"""


def read(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> list[Cell]:
    """All cells of the period, in the order of their keys; boots stand in cells of their own."""
    period = {"since_ns": since_ns, "until_ns": until_ns}
    found = [Cell(*row) for row in connection.execute(_CELLS, period).fetchall()]
    boots = connection.execute(_BOOTS, period).fetchall()
    return found + [Cell(hour_ns, "", 0, "", "", "boot", boots=count) for hour_ns, count in boots]


def span(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> Span:
    """What the cells of the period rest on."""
    [row] = connection.execute(_SPAN, {"since_ns": since_ns, "until_ns": until_ns}).fetchall()
    return Span(*row)


def use(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> list[HourUse]:
    """What was provided, by hour."""
    rows = connection.execute(_USE, {"since_ns": since_ns, "until_ns": until_ns}).fetchall()
    return [HourUse(*row) for row in rows]


def total(cells: Iterable[Cell]) -> int:
    """Their money."""
    return sum(cell.own_picousd + cell.shared_picousd for cell in cells)
