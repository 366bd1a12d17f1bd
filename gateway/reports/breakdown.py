"""Costs grouped by whatever one asks for, and always the whole bill: `steelyard costs --by`, the page and the exports rest on this.

Every row is a sum of `cells`, so the rows of any grouping, together with what a filter leaves out, are exactly what was charged.
Training is beside the bill: other machines, another day.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import duckdb
import msgspec

from gateway.contract.energy import NOTHING, Coefficients, Footprint, load, sci_per_thousand_ng
from gateway.contract.energy import Span as Range
from gateway.errors import InvalidInput, ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import amortizing, cells, findings, powered, spreading, tables, trends
from gateway.reports.amortizing import Amortized
from gateway.reports.cells import Cell, HourUse, Span
from gateway.reports.findings import Finding
from gateway.reports.hours import Needs
from gateway.reports.query import DIMENSIONS, Dimension, Query
from gateway.reports.sync import LocalLedger, sync
from gateway.reports.trends import Trend
from gateway.wording import moment

IDLE = frozenset({"idle_cpu", "idle_mem"})
END_NS = 2**63 - 1
Costs = dict[tuple[object, ...], int]
"""Pico-dollars by the values of a grouping."""
ROWS_MAX = 1_000_000  # of one report: more is for SQL over the ledger itself


class Row(msgspec.Struct, frozen=True):
    """One group; None in what it is not grouped by, "" or 0 where the ledger names nothing.

    `direct` was posted here, `shared` was moved here by the view, `cost` is both. `idle` is the part of cost that nobody used.
    `rows` are predictions answered; per thousand of them None without any. `compared` and `previous` are the costs that the trend
    compares: this period's and the one's before, or those of whole days; None when there are none. CPU and memory stay where they
    were measured, whatever the view; energy and carbon (`footprint`, and SCI per thousand predictions answered) go where the money
    goes, None where they were not asked for.
    """

    day: str | None
    hour: str | None
    model: str | None
    version: int | None
    tenant: str | None
    outcome: str | None
    activity: str | None
    requests: int
    not_ok: int
    rows: int
    cpu_ns: int
    memory_byte_ns: int
    boots: int
    loads: int
    direct_picousd: int
    shared_picousd: int
    cost_picousd: int
    idle_picousd: int
    per_1000_rows_picousd: int | None
    previous_picousd: int | None = None
    compared_picousd: int | None = None
    footprint: Footprint | None = None
    sci_per_1000_rows_ng: Range | None = None


class Energy(msgspec.Struct, frozen=True):
    """Of all of the period, and of what the filters leave out: the rows' footprints + `others` == `whole`, each figure of them.

    `region` is the coefficients'; `notes` say what was assumed.
    """

    whole: Footprint
    others: Footprint
    region: str
    notes: tuple[str, ...]


class Breakdown(msgspec.Struct, frozen=True):
    """When `balanced`: sum of the rows' cost + `others_picousd` == `charged_picousd`. `others` is what the filters leave out.

    `previous_charged_picousd` is the whole bill of the period before, None when the query has no `since_ns`. `trend` says which
    periods are compared, None where none can be.
    """

    query: Query
    segments: int
    from_ns: int
    to_ns: int
    rows: tuple[Row, ...]
    others_picousd: int
    charged_picousd: int
    previous_charged_picousd: int | None
    balanced: bool
    training: tuple[Amortized, ...]
    findings: tuple[Finding, ...]
    energy: Energy | None = None
    trend: Trend | None = None
    schema_version: int = 1

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Why the total is not to be trusted; empty when it is."""
        return tuple(finding for finding in self.findings if finding.is_fault)


class Sheet(msgspec.Struct, frozen=True):
    """All that was read for a query; groupings are made from it. All cells are spread, those `shown` are filtered.

    `compared` and `previous` are the periods that the trend compares, None where there are none.
    """

    query: Query
    span: Span
    every: tuple[Cell, ...]
    shown: tuple[Cell, ...]
    periods: trends.Periods | None
    compared: tuple[Cell, ...]
    previous: tuple[Cell, ...]
    use: tuple[HourUse, ...]
    findings: tuple[Finding, ...]
    taken: powered.Taken | None = None

    @property
    def posted_picousd(self) -> int:
        """Everything, also what the filters leave out."""
        return cells.total(self.every)


async def read(store: ObjectStore, folder: Path, query: Query, coefficients: Coefficients | None = None) -> Breakdown:
    """The report of this store's ledger, copied to `folder` first. `coefficients` of energy: those of this release without any.

    Raises `StoreUnavailable`, `ManifestInvalid` for a ledger file that cannot be read, `ModelNotFound`, `InvalidInput`.
    """
    local = await sync(store, folder, Needs(query.since_ns, query.until_ns, is_compared=True))
    made, answered = await asyncio.to_thread(_compute, local, query, coefficients or load())
    return report(made, query.by, await trained(store, made, answered))


async def trained(store: ObjectStore, made: Sheet, answered: amortizing.Answered) -> tuple[Amortized, ...]:
    """The training that the period is to bear; nothing unless the query asks. Raises `StoreUnavailable`."""
    query = made.query
    if query.amortize is None:
        return ()
    end_ns = made.span.to_ns if query.until_ns is None else query.until_ns
    return await amortizing.amortized(store, query.amortize, answered, query.since_ns or 0, end_ns)


def report(made: Sheet, by: Sequence[Dimension], training: Sequence[Amortized] = ()) -> Breakdown:
    """The sheet's money by these dimensions. Raises `InvalidInput` for more than `ROWS_MAX` rows."""
    both = None
    if made.periods is not None and not {"day", "hour"} & set(by):
        both = (_costs(_filtered(made.compared, made.query), by), _costs(_filtered(made.previous, made.query), by))
    rows = grouped(made.shown, by, both)
    if len(rows) > ROWS_MAX:
        raise InvalidInput(
            f"this report has {len(rows):,} rows, at most {ROWS_MAX:,} are made; ask for a shorter period"
        )
    shown = sum(row.cost_picousd for row in rows)
    posted, charged = made.posted_picousd, made.span.charged_picousd
    return Breakdown(
        query=msgspec.structs.replace(made.query, by=tuple(by)),
        segments=made.span.segments,
        from_ns=made.span.from_ns,
        to_ns=made.span.to_ns,
        rows=rows,
        others_picousd=posted - shown,
        charged_picousd=charged,
        previous_charged_picousd=None if made.query.since_ns is None else cells.total(made.previous),
        balanced=posted == charged and not any(finding.kind == "unbalanced" for finding in made.findings),
        training=tuple(training),
        findings=made.findings,
        energy=None if made.taken is None else _energy(made.taken, made),
        trend=Trend(made.periods, cells.total(made.compared), cells.total(made.previous)) if made.periods else None,
    )


def _energy(taken: powered.Taken, made: Sheet) -> Energy:
    shown = {id(cell) for cell in made.shown}
    others = powered.together(cell.footprint or NOTHING for cell in made.every if id(cell) not in shown)
    return Energy(taken.whole, others, taken.region, taken.notes)


def sheet(
    connection: duckdb.DuckDBPyConnection, query: Query, source: powered.Source | None = None, now_ns: int = 0
) -> Sheet:
    """Read the period, with its energy where there is a source for it, and the one before; `now_ns` as for `findings.find`.

    Raises `ModelNotFound` or `InvalidInput` naming the models or tenants that have costs.
    """
    since_ns, until_ns = query.since_ns or 0, END_NS if query.until_ns is None else query.until_ns
    span = cells.span(connection, since_ns, until_ns)
    posted, taken = cells.read(connection, since_ns, until_ns), None
    if source is not None:
        taken = powered.taken(connection, since_ns, until_ns, source)
        posted = powered.attached(posted, taken)
    every = spreading.spread(posted, query.view)
    _refuse_unknown(every, query)
    periods = trends.periods(query, span)
    compared, previous = trends.compared(connection, every, query, periods)
    return Sheet(
        query=query,
        span=span,
        every=tuple(every),
        shown=tuple(_filtered(every, query)),
        periods=periods,
        compared=compared,
        previous=previous,
        use=tuple(cells.use(connection, since_ns, until_ns)),
        findings=findings.find(connection, since_ns=since_ns, until_ns=until_ns, now_ns=now_ns),
        taken=taken,
    )


def grouped(shown: Iterable[Cell], by: Sequence[Dimension], both: tuple[Costs, Costs] | None) -> tuple[Row, ...]:
    """One row per key, in the order of the keys. `both` are costs of the compared periods, by key."""
    groups: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in shown:
        groups[_key(cell, by)].append(cell)
    return tuple(_row(by, key, groups[key], both) for key in sorted(groups))


def _compute(local: LocalLedger, query: Query, coefficients: Coefficients) -> tuple[Sheet, amortizing.Answered]:
    with tables.opened(local) as connection:
        made = sheet(connection, query, powered.Source(coefficients, powered.regions(local.books)), local.listed_ns)
        answered = (
            amortizing.answered(connection, query.since_ns or 0, query.until_ns, query.model) if query.amortize else {}
        )
    return made, answered


def _filtered(found: Iterable[Cell], query: Query) -> Iterable[Cell]:
    for cell in found:
        if query.model in {None, cell.model} and query.tenant in {None, cell.tenant}:
            yield cell


def _refuse_unknown(every: Sequence[Cell], query: Query) -> None:
    models, tenants = ({cell.model for cell in every} - {""}, {cell.tenant for cell in every} - {""})
    if every and query.model is not None and query.model not in models:
        raise ModelNotFound(f"model '{query.model}' has no costs here; models that have: {_names(models)}")
    if every and query.tenant is not None and query.tenant not in tenants:
        raise InvalidInput(f"tenant '{query.tenant}' has no costs here; tenants that have: {_names(tenants)}")


def _row(
    by: Sequence[Dimension],
    key: tuple[object, ...],
    found: Sequence[Cell],
    both: tuple[Costs, Costs] | None,
) -> Row:
    direct, shared = (sum(getattr(cell, name) for cell in found) for name in ("own_picousd", "shared_picousd"))
    rows = sum(cell.rows for cell in found)
    names = {**dict.fromkeys(DIMENSIONS), **dict(zip(by, key, strict=True))}
    counts = {name: sum(getattr(cell, name) for cell in found) for name in _COUNTS}
    footprints = [cell.footprint for cell in found if cell.footprint is not None]
    footprint = powered.together(footprints) if footprints else None
    return Row(
        **names,  # type: ignore[arg-type] # the values are what the dimension says
        **counts,
        rows=rows,
        direct_picousd=direct,
        shared_picousd=shared,
        cost_picousd=direct + shared,
        idle_picousd=cells.total(cell for cell in found if cell.activity in IDLE),
        per_1000_rows_picousd=round(Fraction((direct + shared) * 1000, rows)) if rows else None,
        previous_picousd=both and both[1].get(key, 0),
        compared_picousd=both and both[0].get(key, 0),
        footprint=footprint,
        sci_per_1000_rows_ng=None if footprint is None else sci_per_thousand_ng(footprint, rows),
    )


_COUNTS = ("requests", "not_ok", "cpu_ns", "memory_byte_ns", "boots", "loads")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _costs(found: Iterable[Cell], by: Sequence[Dimension]) -> Costs:
    costs: dict[tuple[object, ...], int] = defaultdict(int)
    for cell in found:
        costs[_key(cell, by)] += cell.own_picousd + cell.shared_picousd
    return costs


def _key(cell: Cell, by: Sequence[Dimension]) -> tuple[object, ...]:
    return tuple(_value(cell, dimension) for dimension in by)


def _value(cell: Cell, dimension: Dimension) -> str | int:
    if dimension == "day":
        return moment(cell.hour_ns)[:10]
    if dimension == "hour":
        return moment(cell.hour_ns)
    value: str | int = getattr(cell, dimension)
    return value
