"""The ledger against a provider's bill (FOCUS or AWS CUR, CSV or Parquet), by day and service. It tells, and changes nothing.

A bill is rounded, discounted and has minimums that the ledger does not know; a service's row may hold more than Steelyard's
containers. So differences are expected, and their size and sign are the news.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import duckdb
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.errors import InvalidInput
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import figures, focusrows, render, tables
from gateway.reports.breakdownview import percent
from gateway.reports.sync import LocalLedger, sync

_SHAPES: tuple[tuple[str, str, str, str], ...] = (
    ("FOCUS", "ChargePeriodStart", "ServiceName", "EffectiveCost"),
    ("CUR 2.0", "line_item_usage_start_date", "line_item_product_code", "line_item_unblended_cost"),
    ("CUR", "lineItem/UsageStartDate", "lineItem/ProductCode", "lineItem/UnblendedCost"),
)
"""Columns of time, service and cost."""

_PRODUCTS: Mapping[str, str] = {
    "AmazonECS": "AWS Fargate",
    "AWSLambda": "AWS Lambda",
    "AmazonEC2": "Amazon Elastic Compute Cloud",
}
"""Product codes of the CUR under FOCUS's names."""


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
    schema_version: int = 1


_CHARGED = """
SELECT CAST(make_timestamp(CAST(s.from_ns // 1000 AS BIGINT)) AS DATE)::VARCHAR AS day,
       coalesce(platform, split_part(sku, '/', 1)) AS platform, sum(c.cost_picousd)
FROM charges AS c JOIN segments AS s USING (filename) LEFT JOIN opens AS o USING (container, boot_ns)
GROUP BY ALL ORDER BY ALL
"""

Costs = dict[tuple[str, str], int]
"""Pico-dollars by day and service."""


async def read(store: ObjectStore, folder: Path, bill: Path) -> Reconciliation:
    """Raises `InvalidInput` for a bill that cannot be read, and as `sync` and `tables.opened` do."""
    shape, billed = await asyncio.to_thread(bill_costs, bill)
    local = await sync(store, folder)
    return compare(shape, await asyncio.to_thread(ledger_costs, local), billed)


def compare(shape: str, charged: Costs, billed: Costs) -> Reconciliation:
    """By day and service, for the days from the bill's first to its last."""
    days = sorted(day for day, _ in billed)
    if not days:
        raise InvalidInput("the bill has no rows")
    charged = {key: cost for key, cost in charged.items() if days[0] <= key[0] <= days[-1]}
    rows = tuple(
        Difference(*key, charged.get(key, 0), billed.get(key, 0), billed.get(key, 0) - charged.get(key, 0))
        for key in sorted(charged.keys() | billed.keys())
    )
    return Reconciliation(shape, days[0], days[-1], rows, sum(charged.values()), sum(billed.values()))


def ledger_costs(local: LocalLedger) -> Costs:
    """What was charged. Blocking."""
    costs: Costs = {}
    with tables.opened(local) as connection:
        for day, platform, cost in connection.execute(_CHARGED).fetchall():
            key = day, focusrows.service(platform)[1]
            costs[key] = costs.get(key, 0) + cost
    return costs


def bill_costs(bill: Path) -> tuple[str, Costs]:
    """The bill's shape and costs, rounded once per row to pico-dollars. Blocking. Raises `InvalidInput`."""
    costs: Costs = {}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            relation = _opened(connection, bill)
            shape, at, service, cost = _shape(relation.columns, bill)
            found = relation.project(
                f'CAST(CAST("{at}" AS TIMESTAMPTZ) AS DATE)::VARCHAR, "{service}"::VARCHAR, '
                f'CAST(round(CAST("{cost}" AS DECIMAL(38, 17)) * 1000000000000) AS HUGEINT)'
            )
            for day, name, picousd in found.fetchall():
                key = day or "", _PRODUCTS.get(name or "", name or "")
                costs[key] = costs.get(key, 0) + int(picousd or 0)
        except duckdb.Error as error:
            raise InvalidInput(f"bill {bill} cannot be read: {str(error).splitlines()[0]}") from error
    return shape, costs


def _opened(connection: duckdb.DuckDBPyConnection, bill: Path) -> duckdb.DuckDBPyRelation:
    """Every value of a CSV is text first: guessing types would make floats of money."""
    if bill.suffix == ".parquet":
        return connection.read_parquet(str(bill))
    return connection.read_csv(str(bill), all_varchar=True, header=True)


def _shape(columns: list[str], bill: Path) -> tuple[str, str, str, str]:
    for shape in _SHAPES:
        if set(shape[1:]) <= set(columns):
            return shape
    raise InvalidInput(
        f"bill {bill} has neither FOCUS columns (ChargePeriodStart, ServiceName, EffectiveCost) nor those of a CUR"
    )


def show(found: Reconciliation, console: Console) -> None:
    """Print it. Nothing in it can be taken for markup or terminal control."""
    scale = figures.scale(max(found.ledger_picousd, found.bill_picousd))
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("day", min_width=10)
    table.add_column("service", overflow="fold", min_width=12)
    for heading in ("ledger", "bill", "bill - ledger", "%"):
        table.add_column(heading, justify="right", no_wrap=True)
    whole = Difference("all", "", found.ledger_picousd, found.bill_picousd, found.bill_picousd - found.ledger_picousd)
    for row in (*found.rows, whole):
        table.add_row(
            row.day,
            Text(figures.printable(row.service)),
            scale.amount(row.ledger_picousd),
            scale.amount(row.bill_picousd),
            scale.amount(row.difference_picousd),
            percent(row.bill_picousd, row.ledger_picousd),
        )
    render.show_table(
        console, f"Ledger against bill ({found.shape}) in {scale.unit}, {found.first_day} to {found.last_day}", table
    )
