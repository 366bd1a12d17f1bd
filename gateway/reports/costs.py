"""What each model version cost: its own postings, its share of what nobody owns, and a total that is exactly the bill.

`read` does everything from a store; `report` is the arithmetic over an open ledger. Money comes from postings and charges
only, never from request rows. A posting that names a model is that model's; the rest (idle, overhead, boot, requests that
reached no model) is shared: hour by hour over the models, in proportion to what each costs itself (`reports.spreading`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import duckdb
import msgspec

from gateway.contract.words import END_NS
from gateway.errors import ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import asof, cells, findings, spreading, tables, training, trends
from gateway.reports.finding import Finding
from gateway.reports.hours import Needs
from gateway.reports.query import Query
from gateway.reports.sync import LocalLedger, sync


class ModelCost(msgspec.Struct, frozen=True):
    """One model version. `full` = infer + resident + load + shared; `rows` are predictions answered (outcome ok).

    Costs per 1,000 rows carry everything, failed requests too; None when no row was answered. `training_picousd` is None when it
    is unpriced or unknown, and is in no sum; `training_wasted_picousd` is the part of it that interruptions cost.
    `with_training_per_1000_rows_picousd` is full plus all of training, spread over the rows answered in the report's period.
    """

    model: str
    version: int
    requests: int
    not_ok: int
    rows: int
    cpu_ns: int
    infer_picousd: int
    resident_picousd: int
    load_picousd: int
    shared_picousd: int
    full_picousd: int
    infer_per_1000_rows_picousd: int | None
    full_per_1000_rows_picousd: int | None
    training_picousd: int | None = None
    training_wasted_picousd: int | None = None
    with_training_per_1000_rows_picousd: int | None = None


class AccountCost(msgspec.Struct, frozen=True):
    """What one shared account holds, before it is split over models. `infer` is CPU of requests that reached no model."""

    account: str
    cost_picousd: int


class Billed(msgspec.Struct, frozen=True):
    """Containers of one size on one platform: how long they lived in the period, and for how long that is billed.

    `billed_ns` has the platform's steps and minimum, which are billed when a life ends.
    """

    platform: str
    vcpu_milli: int
    memory_bytes: int
    containers: int
    container_ns: int
    cost_picousd: int
    billed_ns: int


class CostReport(msgspec.Struct, frozen=True):
    """Costs of the segments that begin in [since_ns, until_ns); they cover [from_ns, to_ns].

    When `balanced`: sum of full + `other_models_picousd` + `unallocated_picousd` == `charged_picousd`. `unallocated` is the whole
    bill as long as no model cost anything. `corrected` is the part of `charged` that bills of the provider added (`billed` has none
    of it), below zero where they took away. `training_spent` is beside the bill, not in it.
    `training_unknown` are the versions whose training cost could not be looked up, which is another thing than one without a price.
    """

    since_ns: int | None
    until_ns: int | None
    model: str | None
    segments: int
    from_ns: int
    to_ns: int
    models: tuple[ModelCost, ...]
    other_models_picousd: int
    accounts: tuple[AccountCost, ...]
    unallocated_picousd: int
    billed: tuple[Billed, ...]
    posted_picousd: int
    charged_picousd: int
    balanced: bool
    findings: tuple[Finding, ...]
    training_spent: training.Spent | None = None
    corrected_picousd: int = 0
    trend: trends.Trend | None = None
    as_of: asof.AsOf | None = None
    training_unknown: tuple[tuple[str, int], ...] = ()
    schema_version: int = 1

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Why the total is not to be trusted; empty when it is."""
        return tuple(finding for finding in self.findings if finding.is_fault)


_MODELS = """
SELECT model, version,
       sum(p.requests),
       coalesce(sum(p.requests) FILTER (outcome <> 'ok'), 0),
       coalesce(sum(rows) FILTER (outcome = 'ok'), 0),
       coalesce(sum(quantity) FILTER (account = 'infer' AND p.requests > 0), 0) // 1000,
       coalesce(sum(p.cost_picousd) FILTER (account = 'infer'), 0),
       coalesce(sum(p.cost_picousd) FILTER (account = 'resident'), 0),
       coalesce(sum(p.cost_picousd) FILTER (account = 'load'), 0)
FROM postings AS p JOIN segments AS s USING (filename)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND model <> '' AND account IN ('infer', 'resident', 'load')
GROUP BY ALL ORDER BY model, version
"""

_ACCOUNTS = """
SELECT account, sum(p.cost_picousd) AS cost_picousd
FROM postings AS p JOIN segments AS s USING (filename)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND NOT (model <> '' AND account IN ('infer', 'resident', 'load'))
GROUP BY ALL ORDER BY cost_picousd DESC, account
"""

_BILLED = """
WITH held AS (
    SELECT container, boot_ns, to_ns - from_ns AS span_ns, sum(c.cost_picousd) AS cost_picousd,
           coalesce(sum(quantity) FILTER (unit = 'milli-vcpu-ns'), 0) AS vcpu,
           coalesce(sum(quantity) FILTER (unit = 'byte-ns'), 0) AS memory,
           bool_or(unit = 'requests') AS is_counted,
           coalesce(max(beyond // nullif(quantity // (to_ns - from_ns), 0)), 0) AS beyond_ns,
           min(split_part(sku, '/', 1)) AS sku_family
    FROM charges AS c JOIN segments AS s USING (filename)
    WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND s.to_ns > s.from_ns -- so no corrections
    GROUP BY filename, container, boot_ns, from_ns, to_ns
), sized AS (
    -- Where requests are billed, not all of the time is: the size is then the opening record's, which lists vCPUs first.
    SELECT held.*, platform, CASE WHEN is_counted THEN (provisioned -> '$[0].amount')::HUGEINT END AS amount
    FROM held LEFT JOIN opens USING (container, boot_ns)
), lasting AS (SELECT *, coalesce(vcpu // amount, span_ns) AS length_ns FROM sized)
SELECT coalesce(platform, sku_family) AS platform, coalesce(amount, vcpu // span_ns) AS vcpu_milli,
       coalesce(memory // nullif(length_ns, 0), 0) AS memory_bytes, count(DISTINCT (container, boot_ns)),
       sum(length_ns), sum(cost_picousd) AS cost_picousd, sum(length_ns + beyond_ns)
FROM lasting WHERE length_ns > 0 OR cost_picousd > 0
GROUP BY ALL ORDER BY cost_picousd DESC, platform, vcpu_milli
"""

_CHARGED = """
SELECT coalesce(sum(c.cost_picousd), 0), coalesce(sum(c.cost_picousd) FILTER (seq = -2), 0)
FROM charges AS c JOIN segments AS s USING (filename)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
"""


async def read(
    store: ObjectStore,
    folder: Path,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    model: str | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> CostReport:
    """The report of this store's ledger, copied to `folder` first, with training costs from its registry.

    Raises `StoreUnavailable`, `ManifestInvalid` for a ledger file that cannot be read, `ModelNotFound`.
    """
    local = await sync(store, folder, Needs(since_ns, until_ns, is_compared=True), now_ns=now_ns)
    computed = await asyncio.to_thread(_compute, local, since_ns, until_ns, model)
    costs = await training.costs(store, [(row.model, row.version) for row in computed.models])
    until = END_NS if until_ns is None else until_ns
    spent = await asyncio.to_thread(training.spent, local.training, since_ns or 0, until, model)
    return msgspec.structs.replace(_with_training(computed, costs, _foreign(local)), training_spent=spent)


def report(
    connection: duckdb.DuckDBPyConnection,
    since_ns: int | None = None,
    until_ns: int | None = None,
    model: str | None = None,
    now_ns: int = 0,
) -> CostReport:
    """The report of an open ledger, without training costs; `now_ns` as for `findings.find`.

    Raises `ModelNotFound` naming the models that have costs.
    """
    period = {"since_ns": since_ns or 0, "until_ns": END_NS if until_ns is None else until_ns}
    span = cells.span(connection, **period)
    accounts = tuple(AccountCost(*row) for row in connection.execute(_ACCOUNTS, period).fetchall())
    shared = sum(account.cost_picousd for account in accounts)
    every = cells.read(connection, **period)
    moved = spreading.shared_by_version(every)
    models = _with_shared(connection.execute(_MODELS, period).fetchall(), moved)
    shown = tuple(row for row in models if model in {None, row.model})
    if span.segments and not shown and model is not None:
        raise ModelNotFound(f"model '{model}' has no costs here; models that have: {_names(models)}")
    full = sum(row.full_picousd for row in models)
    unallocated = 0 if models else shared
    [(charged, corrected)] = connection.execute(_CHARGED, period).fetchall()
    found = findings.find(connection, **period, now_ns=now_ns)
    return CostReport(
        since_ns=since_ns,
        until_ns=until_ns,
        model=model,
        segments=span.segments,
        from_ns=span.from_ns,
        to_ns=span.to_ns,
        models=shown,
        other_models_picousd=full - sum(row.full_picousd for row in shown),
        accounts=accounts,
        unallocated_picousd=unallocated,
        billed=tuple(Billed(*row) for row in connection.execute(_BILLED, period).fetchall()),
        posted_picousd=full + unallocated,
        charged_picousd=charged,
        corrected_picousd=corrected,
        balanced=full + unallocated == charged and not any(finding.kind == "unbalanced" for finding in found),
        findings=found,
        trend=_trend(connection, every, Query(since_ns=since_ns, until_ns=until_ns, view="direct"), span),
        as_of=asof.read(connection, now_ns),
    )


def _trend(
    connection: duckdb.DuckDBPyConnection, every: list[cells.Cell], query: Query, span: cells.Span
) -> trends.Trend | None:
    periods = trends.readable(connection, query, span)
    if periods is None:
        return None
    now, before = trends.compared(connection, every, query, periods)
    return trends.Trend(periods, cells.total(now), cells.total(before))


def _compute(local: LocalLedger, since_ns: int | None, until_ns: int | None, model: str | None) -> CostReport:
    with tables.opened(local, since_ns, until_ns) as connection:
        return report(connection, since_ns, until_ns, model, local.listed_ns)


Measured = tuple[str, int, int, int, int, int, int, int, int]
"""A row of `_MODELS`."""


def _with_shared(rows: list[Measured], moved: Mapping[tuple[str, int], int]) -> tuple[ModelCost, ...]:
    return tuple(
        ModelCost(
            *row,
            shared_picousd=moved[row[0], row[1]],
            full_picousd=sum(row[6:9]) + moved[row[0], row[1]],
            infer_per_1000_rows_picousd=_per_1000(row[6], row[4]),
            full_per_1000_rows_picousd=_per_1000(sum(row[6:9]) + moved[row[0], row[1]], row[4]),
        )
        for row in rows
    )


def _per_1000(cost_picousd: int, rows: int) -> int | None:
    return round(Fraction(cost_picousd * 1000, rows)) if rows else None


def _names(models: Iterable[ModelCost]) -> str:
    """Quoted: a name may have commas."""
    return ", ".join(f"'{name}'" for name in sorted({row.model for row in models})) or "none"


def _with_training(
    computed: CostReport, costs: Mapping[tuple[str, int], training.Known], notes: tuple[Finding, ...]
) -> CostReport:
    unknown = tuple(
        Finding("training_unknown", f"training cost of {name}@{version}: {known.reason}", False)
        for (name, version), known in costs.items()
        if known.reason
    )
    return msgspec.structs.replace(
        computed,
        models=tuple(_trained(row, costs[row.model, row.version]) for row in computed.models),
        findings=computed.findings + unknown + notes,
        training_unknown=tuple(version for version, known in costs.items() if known.reason),
    )


def _trained(row: ModelCost, known: training.Known) -> ModelCost:
    full = None if known.cost_picousd is None else row.full_picousd + known.cost_picousd
    return msgspec.structs.replace(
        row,
        training_picousd=known.cost_picousd,
        training_wasted_picousd=known.wasted_picousd,
        with_training_per_1000_rows_picousd=None if full is None else _per_1000(full, row.rows),
    )


def _foreign(local: LocalLedger) -> tuple[Finding, ...]:
    if not local.foreign:
        return ()
    count, first = len(local.foreign), local.foreign[0]
    return (Finding("foreign_object", f"{count:,} objects in the ledger are not read, such as {first}", False),)
