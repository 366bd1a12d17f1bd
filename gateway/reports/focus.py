"""The bill as FOCUS rows (FinOps Open Cost and Usage Specification), for tools that read bills: `steelyard costs --focus`.

One row per clock hour, container, sku, account, model, version, tenant and outcome: each is a part of a provider's charge, and the
parts' costs are that charge exactly, in every version. What a provider's bill corrected are rows of their own (ChargeClass
Correction). The sum of EffectiveCost is the bill as reported, that of x_EnergyNanoJoule its energy; `gateway.reports.focusrows`
makes the rows.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import duckdb
import msgspec

from gateway.contract.energy import NOTHING, Coefficients, Footprint, load
from gateway.contract.prices import PriceBook
from gateway.contract.words import END_NS
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import cells, export, findings, focusrows, parquet, powered, tables
from gateway.reports.finding import Finding
from gateway.reports.focuscolumns import COLUMNS, TEXT, Version
from gateway.reports.focusrows import Account, Origin, Part
from gateway.reports.hours import Needs
from gateway.reports.sync import LocalLedger, sync

Form = Literal["parquet", "csv"]


class Books(msgspec.Struct, frozen=True):
    """Price books by digest, and the one for what none of them priced."""

    other: PriceBook
    stored: Mapping[str, PriceBook] = {}

    def of(self, sha256: str) -> PriceBook:
        """The book that this digest names."""
        return self.stored.get(sha256, self.other)


class Export(msgspec.Struct, frozen=True):
    """A file of what so many segments say, and why its sum is not to be trusted; no faults when it is."""

    data: bytes
    segments: int
    faults: tuple[Finding, ...] = ()


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
       coalesce(min(platform), min(split_part(sku, '/', 1))), coalesce(min(o.resource), '')
FROM charges AS c JOIN segments AS s USING (filename) LEFT JOIN opens AS o USING (container, boot_ns)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND s.seq > -2
GROUP BY ALL ORDER BY ALL
"""

_CORRECTIONS = """
WITH platforms AS (
    SELECT container, min(platform) AS platform, min(price_book_sha256) AS book_sha256, min(resource) AS named
    FROM opens GROUP BY container
)
SELECT id, hour_ns, sku, model, version, tenant, outcome, c.cost_picousd, reason, bill_sha256, posted_ns, service,
       CASE WHEN container = '' THEN resource ELSE container END, coalesce(platform, ''), coalesce(named, ''),
       coalesce(book_sha256, '')
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
    coefficients: Coefficients | None = None,
) -> Export:
    """All rows of the period. `book` is for what the store's own books do not price. Raises as `breakdown.read` does."""
    local = await sync(store, folder, Needs(since_ns, until_ns))
    period = (since_ns or 0, END_NS if until_ns is None else until_ns)
    return await asyncio.to_thread(_export, local, account, book, period, (version, form), coefficients or load())


def rows(
    connection: duckdb.DuckDBPyConnection,
    account: Account,
    books: Books,
    since_ns: int,
    until_ns: int,
    footprints: Mapping[powered.Place, Footprint] | None = None,
) -> Iterator[dict[str, object]]:
    """By column, those of all versions; money and quantities as decimal text. A charge's quantity is split like its cost.

    `footprints` are those of all containers together, by hour, activity and user (`powered.taken`).
    """
    period = {"since_ns": since_ns, "until_ns": until_ns}
    origins = {tuple(row[:4]): Origin(*row[4:]) for row in connection.execute(_ORIGINS, period).fetchall()}
    found = [Part(*row) for row in connection.execute(_PARTS, period).fetchall()]
    parts: dict[tuple[object, ...], list[Part]] = defaultdict(list)
    for part in found if footprints is None else _powered(found, footprints):
        parts[part.hour_ns, part.container, part.sku, part.book_sha256].append(part)
    for key, of_charge in parts.items():
        yield from focusrows.of_origin(of_charge, origins[key], account, books.of(of_charge[0].book_sha256))
    corrections: dict[tuple[object, ...], list[focusrows.Corrected]] = defaultdict(list)
    for *row, book_sha256 in connection.execute(_CORRECTIONS, period).fetchall():
        corrections[*row[:3], book_sha256].append(focusrows.Corrected(*row))
    for (*_, book_sha256), entries in corrections.items():
        yield from focusrows.of_correction(entries, account, books.of(str(book_sha256)))


def _powered(found: Iterable[Part], footprints: Mapping[powered.Place, Footprint]) -> Iterator[Part]:
    """In another order; no nanojoule is lost between the parts."""
    users: dict[powered.Place, list[Part]] = defaultdict(list)
    for part in found:
        users[part.hour_ns, part.model, part.version, part.tenant, part.outcome, part.activity].append(part)
    for key, parts in users.items():
        taken = footprints.get(key, NOTHING)
        yield from focusrows.powered(parts, taken.energy_nj.value, taken.carbon_ng.value)


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


def _export(
    local: LocalLedger,
    account: Account,
    book: PriceBook,
    period: tuple[int, int],
    wanted: tuple[Version, Form],
    coefficients: Coefficients,
) -> Export:
    stored = [PriceBook(path.read_bytes(), name=str(path)) for path in local.books]
    books = Books(book, {one.sha256: one for one in stored})
    source = powered.Source(coefficients, {one.sha256: one.region for one in stored})
    with tables.opened(local, *period) as connection:
        taken = powered.taken(connection, *period, source)
        data = encoded(*wanted, rows(connection, account, books, *period, taken.footprints))
        found, span = findings.find(connection, *period, local.listed_ns), cells.span(connection, *period)
    return Export(data, span.segments, tuple(finding for finding in found if finding.is_fault))
