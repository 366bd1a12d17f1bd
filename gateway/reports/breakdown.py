"""Costs grouped by whatever one asks for, and always the whole bill: `steelyard costs --by`, the page and the exports rest on this.

Every row is a sum of `cells`, so the rows of any grouping, together with what a filter leaves out, are exactly what was charged.
Training is beside the bill: other machines, another day.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter
from pathlib import Path

import duckdb
import msgspec

from gateway.contract.energy import NOTHING, Coefficients, Footprint, ProcessorName, sci_per_thousand_ng
from gateway.contract.energy import Span as Range
from gateway.contract.words import END_NS
from gateway.errors import InvalidInput, ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import amortizing, asof, cells, findings, powered, spreading, tables, trainingbeside, trends
from gateway.reports.amortizing import Amortized
from gateway.reports.cells import Cell, HourUse, Span
from gateway.reports.finding import Finding
from gateway.reports.hours import Needs
from gateway.reports.query import DIMENSIONS, Dimension, Query
from gateway.reports.sync import LocalLedger, sync
from gateway.reports.trainingpower import Begun
from gateway.reports.trends import Trend
from gateway.wording import moment

IDLE = frozenset({"idle_cpu", "idle_mem"})
Costs = dict[tuple[object, ...], int]
"""Pico-dollars by the values of a grouping."""
ROWS_MAX = 1_000_000  # of one report: more is for SQL over the ledger itself


class Row(msgspec.Struct, frozen=True):
    """One group; None in what it is not grouped by, "" or 0 where the ledger names nothing.

    `direct` was posted here, `shared` was moved here by the view, `cost` is both. `idle` is the part of cost that nobody used.
    `rows` are predictions answered; per thousand of them None without any. `compared` and `previous` are the costs that the trend
    compares: this period's and the one's before, or those of whole days; None when there are none. CPU and memory stay where they
    were measured, whatever the view: `cpu_ns` is the vCPU time that the money was weighed by, also what idled, so that all rows are
    what was provided; `cpu_used_ns` is what of it was used. Energy and carbon (`footprint`, and SCI per thousand predictions
    answered) go where the money goes, None where they were not asked for.
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
    cpu_used_ns: int = 0


class Energy(msgspec.Struct, frozen=True):
    """Of all of the period, and of what the filters leave out: the rows' footprints + `others` == `whole`, each figure of them.

    `region` says whose grids; `notes` say what was assumed. `training` began in the period, and is in none of the others.
    """

    whole: Footprint
    others: Footprint
    region: str
    notes: tuple[str, ...]
    training: Begun | None = None


class Breakdown(msgspec.Struct, frozen=True):
    """When `balanced`: sum of the rows' cost + `others_picousd` == `charged_picousd`. `others` is what the filters leave out.

    `previous_charged_picousd` is the whole bill of the period before, None when the query has no `since_ns` or nothing was
    written since. `trend` says which periods are compared, None where none can be.
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
    as_of: asof.AsOf | None = None
    schema_version: int = 1

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Why the total is not to be trusted; empty when it is."""
        return tuple(finding for finding in self.findings if finding.is_fault)


class Sheet(msgspec.Struct, frozen=True):
    """All that was read for a query; groupings are made from it. All cells are spread, those `shown` are filtered.

    `compared` and `previous` are the periods that the trend compares, None where there are none. `energy` is what was taken, by the
    query's dimensions, and where it goes; None where it is not asked for.
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
    processors: frozenset[ProcessorName]
    as_of: asof.AsOf | None = None
    energy: tuple[powered.Taken, spreading.Moving] | None = None

    @property
    def posted_picousd(self) -> int:
        """Everything, also what the filters leave out."""
        return cells.total(self.every)


async def read(
    store: ObjectStore,
    folder: Path,
    query: Query,
    coefficients: Coefficients | None = None,
    *,
    now_ns: Callable[[], int] = time.time_ns,
) -> Breakdown:
    """The report of this store's ledger, copied to `folder` first. Energy only with its `coefficients`.

    Raises `StoreUnavailable`, `ManifestInvalid` for a ledger file that cannot be read, `ModelNotFound`, `InvalidInput`.
    """
    local = await sync(store, folder, Needs(query.since_ns, query.until_ns, is_compared=True), now_ns=now_ns)
    made, answered = await asyncio.to_thread(_compute, local, query, coefficients)
    training = trainingbeside.Source(store, local.training, answered, coefficients)
    return await with_training(report(made, query.by), made, training)


async def with_training(told: Breakdown, made: Sheet, source: trainingbeside.Source) -> Breakdown:
    """With what the period is to bear, where the query asks, and the energy of what began in it. Raises `StoreUnavailable`."""
    rows, begun = await trainingbeside.read(source, made.query, made.span.to_ns, _serving(made))
    energy = told.energy and msgspec.structs.replace(told.energy, training=begun)
    return msgspec.structs.replace(told, training=rows, energy=energy)


def _serving(made: Sheet) -> trainingbeside.Serving:
    """By version, of all tenants: training is for all of them."""
    if made.energy is None or made.query.amortize is None:
        return {}
    took = powered.grouped(*made.energy, lambda cell: (cell.model, cell.version))
    rows: dict[tuple[str, int], int] = defaultdict(int)
    for cell in made.every:
        rows[cell.model, cell.version] += cell.rows
    return {version: (took.get(version, NOTHING), answered) for version, answered in rows.items()}


def report(made: Sheet, by: Sequence[Dimension]) -> Breakdown:
    """The sheet's money by these dimensions. Raises `InvalidInput` for more than `ROWS_MAX` rows."""
    both = None
    if made.periods is not None and not {"day", "hour"} & set(by):
        both = (_costs(_filtered(made.compared, made.query), by), _costs(_filtered(made.previous, made.query), by))
    footprints = took(made, by)
    rows = grouped(made.shown, by, both, footprints)
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
        previous_charged_picousd=cells.total(made.previous) if _is_told(made.periods) else None,
        balanced=posted == charged and not any(finding.kind == "unbalanced" for finding in made.findings),
        training=(),
        findings=made.findings,
        energy=_energy(made, footprints),
        trend=Trend(made.periods, cells.total(made.compared), cells.total(made.previous)) if made.periods else None,
        as_of=made.as_of,
    )


def _is_told(periods: trends.Periods | None) -> bool:
    """Whether it is the period before the one that was asked for."""
    return periods is not None and periods.kind == "period"


Footprints = Mapping[powered.Group, Footprint]
"""By the values of a grouping; None is what the filters leave out."""


def took(made: Sheet, by: Sequence[Dimension]) -> Footprints | None:
    """Energy by these dimensions, which must be among those that were read; None where it was not asked for."""
    if made.energy is None:
        return None
    assert set(by) <= _kept(made.query) | {"day", "hour"}
    keyed = _keyed(by)
    return powered.grouped(*made.energy, lambda cell: keyed(cell) if _is_shown(cell, made.query) else None)


def _kept(query: Query) -> set[Dimension]:
    """Of what models took: what is asked for, filtered by, or told by the page."""
    return {*query.by, "model", "version"} | ({"tenant"} if query.tenant is not None else set())


def _energy(made: Sheet, footprints: Footprints | None) -> Energy | None:
    if made.energy is None or footprints is None:
        return None
    taken, _ = made.energy
    return Energy(taken.whole, footprints.get(None, NOTHING), taken.region, taken.notes)


def sheet(
    connection: duckdb.DuckDBPyConnection, query: Query, source: powered.Source | None = None, now_ns: int = 0
) -> Sheet:
    """Read the period, with its energy where there is a source for it, and the one before; `now_ns` as for `findings.find`.

    Raises `ModelNotFound` or `InvalidInput` naming the models or tenants that have costs.
    """
    since_ns, until_ns = query.since_ns or 0, END_NS if query.until_ns is None else query.until_ns
    span = cells.span(connection, since_ns, until_ns)
    posted, energy = cells.read(connection, since_ns, until_ns), None
    if source is not None:
        taken = powered.taken(connection, since_ns, until_ns, source, _kept(query))
        energy = taken, spreading.Moving(posted, query.view)
    every = spreading.spread(posted, query.view)
    _refuse_unknown(every, query)
    periods = trends.readable(connection, query, span)
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
        processors=powered.processors(connection, since_ns, until_ns),
        as_of=asof.read(connection, now_ns),
        energy=energy,
    )


def grouped(
    shown: Iterable[Cell],
    by: Sequence[Dimension],
    both: tuple[Costs, Costs] | None,
    footprints: Footprints | None = None,
) -> tuple[Row, ...]:
    """One row per key, in the order of the keys. `both` are costs of the compared periods, by key."""
    groups: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    keyed = _keyed(by)
    for cell in shown:
        groups[keyed(cell)].append(cell)
    for key in footprints or ():
        if key is not None:
            groups[key]  # time that nothing was posted for has energy and no cell
    return tuple(_row(by, key, groups[key], both, footprints) for key in sorted(groups))


def _compute(local: LocalLedger, query: Query, coefficients: Coefficients | None) -> tuple[Sheet, amortizing.Answered]:
    with tables.opened(local, *query.read_ns) as connection:
        made = sheet(connection, query, source(local, coefficients), local.listed_ns)
        answered = (
            amortizing.answered(connection, query.since_ns or 0, query.until_ns, query.model) if query.amortize else {}
        )
    return made, answered


def source(local: LocalLedger, coefficients: Coefficients | None) -> powered.Source | None:
    """Of energy; none without coefficients: then it costs nothing. Raises `SettingsError` for a damaged price book."""
    return None if coefficients is None else powered.Source(coefficients, powered.regions(local.books))


def _filtered(found: Iterable[Cell], query: Query) -> Iterable[Cell]:
    return (cell for cell in found if _is_shown(cell, query))


def _is_shown(cell: Cell, query: Query) -> bool:
    return query.model in {None, cell.model} and query.tenant in {None, cell.tenant}


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
    footprints: Footprints | None,
) -> Row:
    direct, shared, rows = (sum(map(attrgetter(name), found)) for name in ("own_picousd", "shared_picousd", "rows"))
    names = {**dict.fromkeys(DIMENSIONS), **dict(zip(by, key, strict=True))}
    counts = {name: sum(map(attrgetter(name), found)) for name in _COUNTS}
    footprint = None if footprints is None else footprints.get(key, NOTHING)
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
        cpu_used_ns=sum(cell.cpu_ns for cell in found if cell.activity in cells.CPU_MEASURED),
    )


_COUNTS = ("requests", "not_ok", "cpu_ns", "memory_byte_ns", "boots", "loads")


def _names(names: Iterable[str]) -> str:
    """Quoted: a name may have commas."""
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"


def _costs(found: Iterable[Cell], by: Sequence[Dimension]) -> Costs:
    costs: dict[tuple[object, ...], int] = defaultdict(int)
    keyed = _keyed(by)
    for cell in found:
        costs[keyed(cell)] += cell.own_picousd + cell.shared_picousd
    return costs


def _keyed(by: Sequence[Dimension]) -> Callable[[Cell], tuple[object, ...]]:
    """The values of these dimensions. Made once for a grouping: a month has hundreds of thousands of cells."""
    values: list[Callable[[Cell], object]] = [
        _TIMES[dimension] if dimension in _TIMES else attrgetter(dimension) for dimension in by
    ]
    return lambda cell: tuple([value(cell) for value in values])


@lru_cache(maxsize=10_000)  # a year has 8,760
def _hour(hour_ns: int) -> str:
    return moment(hour_ns)


_TIMES: dict[Dimension, Callable[[Cell], object]] = {
    "day": lambda cell: _hour(cell.hour_ns)[:10],
    "hour": lambda cell: _hour(cell.hour_ns),
}
