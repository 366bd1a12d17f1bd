"""The bill as FOCUS rows (FinOps Open Cost and Usage Specification), for tools that read bills: `steelyard costs --focus`.

One row per clock hour, container, sku, account, model, version, tenant and outcome: each is a part of a provider's charge, and the
parts' costs are that charge exactly, in every version. What a provider's bill corrected are rows of their own (ChargeClass
Correction). The sum of EffectiveCost is the bill as reported; `gateway.reports.focusrows` makes the rows.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import duckdb

from gateway.contract.prices import PriceBook
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import export, focusrows, parquet, tables
from gateway.reports.focuscolumns import COLUMNS, TEXT, Version
from gateway.reports.focusrows import Account, Origin, Part
from gateway.reports.hours import Needs
from gateway.reports.sync import LocalLedger, sync

Form = Literal["parquet", "csv"]

_PARTS = """
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, container, sku, s.price_book_sha256, account, model, version, tenant,
       outcome, sum(p.cost_picousd), sum(p.requests), sum(p.quantity)
FROM postings AS p JOIN segments AS s USING (filename)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND s.seq > -2
GROUP BY ALL ORDER BY ALL
"""

_ORIGINS = """
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, container, sku, s.price_book_sha256,
       min(unit), sum(c.quantity + c.beyond),
       coalesce(min(platform), min(split_part(sku, '/', 1)))
FROM charges AS c JOIN segments AS s USING (filename) LEFT JOIN opens AS o USING (container, boot_ns)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND s.seq > -2
GROUP BY ALL ORDER BY ALL
"""

_CORRECTIONS = """
WITH platforms AS (SELECT container, min(platform) AS platform FROM opens GROUP BY container)
SELECT id, hour_ns, sku, model, version, tenant, outcome, c.cost_picousd, reason, bill_sha256, posted_ns, service,
       CASE WHEN container = '' THEN resource ELSE container END, coalesce(platform, '')
FROM corrections AS c LEFT JOIN platforms USING (container)
WHERE hour_ns >= $since_ns AND hour_ns < $until_ns
ORDER BY ALL
"""


async def read(
    store: ObjectStore,
    folder: Path,
    account: Account,
    book: PriceBook,
    since_ns: int | None,
    until_ns: int | None,
    *,
    version: Version = "1.2",
    form: Form = "parquet",
) -> bytes:
    """A file with all rows of the period. Raises as `breakdown.read` does."""
    local = await sync(store, folder, Needs(since_ns, until_ns))
    period = (since_ns or 0, 2**63 - 1 if until_ns is None else until_ns)
    return await asyncio.to_thread(_encoded, local, account, book, period, (version, form))


def rows(
    connection: duckdb.DuckDBPyConnection, account: Account, book: PriceBook, since_ns: int, until_ns: int
) -> Iterator[dict[str, object]]:
    """By column, those of all versions; money and quantities as decimal text. A charge's quantity is split like its cost."""
    period = {"since_ns": since_ns, "until_ns": until_ns}
    origins = {tuple(row[:4]): Origin(*row[4:]) for row in connection.execute(_ORIGINS, period).fetchall()}
    parts: dict[tuple[object, ...], list[Part]] = defaultdict(list)
    for row in connection.execute(_PARTS, period).fetchall():
        parts[tuple(row[:4])].append(Part(*row))
    for key, found in parts.items():
        yield from focusrows.of_origin(found, origins[key], account, book)
    corrections: dict[tuple[object, ...], list[focusrows.Corrected]] = defaultdict(list)
    for row in connection.execute(_CORRECTIONS, period).fetchall():
        corrections[tuple(row[:3])].append(focusrows.Corrected(*row))
    for entries in corrections.values():
        yield from focusrows.of_correction(entries, account, book)


def encoded(version: Version, form: Form, found: Iterable[Mapping[str, object]]) -> bytes:
    """The file. In CSV a text that a spreadsheet would run as a formula has an apostrophe before it."""
    columns = COLUMNS[version]
    if form == "parquet":
        return parquet.encoded(columns, found)
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(name), kind) for name, kind in columns.items()) for row in found]
    return "\n".join([*lines, ""]).encode()


def _cell(value: object, kind: str) -> str:
    """Nothing is an empty cell, and every text is quoted, so that an empty text is not nothing."""
    if value is None:
        return ""
    if kind != TEXT:
        return str(value)
    text = str(export.cell(str(value))).replace('"', '""')
    return f'"{text}"'


def _encoded(
    local: LocalLedger, account: Account, book: PriceBook, period: tuple[int, int], wanted: tuple[Version, Form]
) -> bytes:
    with tables.opened(local) as connection:
        return encoded(*wanted, rows(connection, account, book, *period))
