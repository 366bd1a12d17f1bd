"""The ledger against a provider's bill (FOCUS or AWS CUR, CSV or Parquet), by day and service. It tells, and changes nothing.

A bill is rounded, discounted and has minimums that the ledger does not know; a service's row may hold more than Steelyard's
containers. So differences are expected, and their size and sign are the news. The ledger's side is with what was corrected so far;
`gateway.reports.reconcileresources` compares by resource, and can post what differs.
"""

import asyncio
from pathlib import Path

import msgspec

from gateway.objectstore.protocol import ObjectStore
from gateway.reports import bills, focusrows, reconcilegap, tables
from gateway.reports.bills import Bill, Flag
from gateway.reports.reconcilegap import Gap
from gateway.reports.sync import LocalLedger, sync
from gateway.wording import moment


class Difference(msgspec.Struct, frozen=True):
    """One day (UTC) of one service; 0 where one side has nothing. `difference` is bill less ledger."""

    day: str
    service: str
    ledger_picousd: int
    bill_picousd: int
    difference_picousd: int


class Reconciliation(msgspec.Struct, frozen=True):
    """`shape` is what the bill was read as. `ledger_picousd` covers the days that the bill has."""

    shape: str
    first_day: str
    last_day: str
    rows: tuple[Difference, ...]
    ledger_picousd: int
    bill_picousd: int
    flags: tuple[Flag, ...] = ()
    gap: Gap | None = None
    schema_version: int = 1


_CHARGED = """
SELECT CAST(make_timestamp(CAST(s.from_ns // 1000 AS BIGINT)) AS DATE)::VARCHAR AS day,
       coalesce(platform, split_part(sku, '/', 1)) AS platform, sum(c.cost_picousd)
FROM charges AS c JOIN segments AS s USING (filename) LEFT JOIN opens AS o USING (container, boot_ns)
WHERE s.seq > -2
GROUP BY ALL ORDER BY ALL
"""

_CORRECTED = """
SELECT CAST(make_timestamp(CAST(hour_ns // 1000 AS BIGINT)) AS DATE)::VARCHAR AS day, service, sum(cost_picousd)
FROM corrections GROUP BY ALL ORDER BY ALL
"""

_HOURS = """
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, sum(c.cost_picousd)
FROM charges AS c JOIN segments AS s USING (filename)
WHERE s.seq > -2
GROUP BY ALL ORDER BY ALL
"""

Costs = dict[tuple[str, str], int]
"""Pico-dollars by day and service."""
Hours = list[tuple[int, int]]
"""When an hour begins, and pico-dollars charged in it."""


async def read(store: ObjectStore, folder: Path, path: Path, *, now_ns: int) -> Reconciliation:
    """Raises `InvalidInput` for a bill that cannot be read, and as `sync` and `tables.opened` do."""
    bill = await asyncio.to_thread(bills.read, path)
    local = await sync(store, folder)
    return compare(bill, *await asyncio.to_thread(ledger_costs, local), now_ns=now_ns)


def compare(bill: Bill, charged: Costs, hours: Hours, *, now_ns: int) -> Reconciliation:
    """By day and service, for the days from the bill's first to its last."""
    billed: Costs = {}
    for row in bill.rows:
        key = moment(row.from_ns)[:10], row.service
        billed[key] = billed.get(key, 0) + row.cost_picousd
    days = sorted(day for day, _ in billed)
    charged = {key: cost for key, cost in charged.items() if days[0] <= key[0] <= days[-1]}
    rows = tuple(
        Difference(*key, charged.get(key, 0), billed.get(key, 0), billed.get(key, 0) - charged.get(key, 0))
        for key in sorted(charged.keys() | billed.keys())
    )
    sums = sum(charged.values()), sum(billed.values())
    gap = reconcilegap.gap(bill.rows, *sums, hours, now_ns)
    return Reconciliation(bill.shape, days[0], days[-1], rows, *sums, bill.flags, gap)


def ledger_costs(local: LocalLedger) -> tuple[Costs, Hours]:
    """What was charged, and corrected; and what was charged by hours. Blocking."""
    costs: Costs = {}
    with tables.opened(local) as connection:
        for day, platform, cost in connection.execute(_CHARGED).fetchall():
            key = day, focusrows.service(platform)[1]
            costs[key] = costs.get(key, 0) + cost
        for day, service, cost in connection.execute(_CORRECTED).fetchall():
            costs[day, service] = costs.get((day, service), 0) + cost
        hours = connection.execute(_HOURS).fetchall()
    return costs, [(int(hour_ns), int(cost)) for hour_ns, cost in hours]
