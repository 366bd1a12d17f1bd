"""What the cost page shows beside its table: the same cells over time, per thousand predictions, idle against use, latency, and
traffic against the rate from which a GPU would cost less.

Read while the ledger is open, in a thread or a process of its own. Money is integers until `gateway.reports.page` draws it.
"""

import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec

from gateway.contract import offers
from gateway.contract.energy import Coefficients
from gateway.contract.words import END_NS
from gateway.errors import ManifestInvalid
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import amortizing, breakdown, breakeven, tables, training, trainingbeside
from gateway.reports.breakdown import Breakdown, Row, Sheet
from gateway.reports.breakeven import Figures, Standing
from gateway.reports.cells import CPU_MEASURED
from gateway.reports.hours import Needs
from gateway.reports.query import Dimension, Query
from gateway.reports.sync import LocalLedger, sync
from gateway.wording import moment

DAYS_FROM_NS = 7 * 24 * 3600 * 10**9  # up to a week hours are told apart; more columns than 168 are no longer seen
STANDINGS_MAX = 12  # models compared with GPUs, the busiest: as many lanes as a plot has, two small reads each
VERSIONS: tuple[Dimension, ...] = ("model", "version")
REQUESTS_MAX = 1_000_000  # whose latency is looked at: some seconds of reading, and a quantile needs no more


class HourIdle(msgspec.Struct, frozen=True):
    """How much of an hour's vCPU time was used, and of its bill was idle; both of 1."""

    hour: str
    used: float
    idle: float


class Latency(msgspec.Struct, frozen=True):
    """Of a model version's answered requests (queue and run, without reading and writing), and what one cost directly."""

    model: str
    version: int
    requests: int
    p50_ns: int
    p95_ns: int
    cost_picousd: int


class PageData(msgspec.Struct, frozen=True):
    """The page's figures. `over_time` is by day or hour, and account; `per_model` by model and version."""

    report: Breakdown
    step: Dimension
    over_time: tuple[Row, ...]
    per_model: tuple[Row, ...]
    idle: tuple[HourIdle, ...]
    latency: tuple[Latency, ...]
    standings: tuple[Standing, ...]
    models: tuple[str, ...]
    tenants: tuple[str, ...]


_LATENCY = """
WITH looked_at AS (
    SELECT model, version, queue_ns + run_ns AS took_ns, cost_picousd
    FROM requests
    WHERE outcome = 'ok' AND model <> '' AND at_ns >= $since_ns AND at_ns < $until_ns
          AND $model IN ('', model) AND $tenant IN ('', tenant)
    LIMIT $requests_max
)
SELECT model, version, count(*), CAST(quantile_disc(took_ns, 0.5) AS BIGINT), CAST(quantile_disc(took_ns, 0.95) AS BIGINT),
       CAST(sum(cost_picousd) // count(*) AS BIGINT)
FROM looked_at GROUP BY ALL ORDER BY ALL
"""


async def read(
    store: ObjectStore,
    folder: Path,
    query: Query,
    coefficients: Coefficients | None = None,
    *,
    now_ns: Callable[[], int] = time.time_ns,
) -> PageData:
    """As `breakdown.read`, and raises the same."""
    # Reading blocks: the command has nothing else to do, and the live page calls this in a process of its own.
    needs = Needs(query.since_ns, query.until_ns, is_compared=True, requests_max=REQUESTS_MAX)
    local = await sync(store, folder, needs, now_ns=now_ns)
    data, made, answered = gather(local, query, coefficients)
    known = await training.costs(store, [(one.demand.model, one.demand.version) for one in data.standings])
    figures = {version: found.gpu for version, found in known.items() if found.gpu}
    source = trainingbeside.Source(store, local.training, answered, coefficients)
    return msgspec.structs.replace(
        data,
        standings=standings(made, figures) if figures else data.standings,
        report=await breakdown.with_training(data.report, made, source),
    )


def gather(
    local: LocalLedger, query: Query, coefficients: Coefficients | None
) -> tuple[PageData, Sheet, amortizing.Answered]:
    """Everything but training. Blocking."""
    with tables.opened(local, *query.read_ns) as connection:
        made = breakdown.sheet(connection, query, breakdown.source(local, coefficients), local.listed_ns)
        since_ns = query.since_ns or 0
        answered = amortizing.answered(connection, since_ns, query.until_ns, query.model) if query.amortize else {}
        return _data(made, latency(connection, query)), made, answered


def standings(made: Sheet, figures: Figures) -> tuple[Standing, ...]:
    """Against offers of this release, on the architecture that the ledger's containers have."""
    is_arm = made.processors == {"arm"}
    busiest = breakeven.demand(made)[:STANDINGS_MAX]
    return breakeven.standings(busiest, offers.load(), figures, "arm" if is_arm else "x86")


def latency(connection: duckdb.DuckDBPyConnection, query: Query) -> tuple[Latency, ...]:
    """Of at most `REQUESTS_MAX` requests that have a line of their own in the ledger. Raises `ManifestInvalid`."""
    limits = {
        "since_ns": query.since_ns or 0,
        "until_ns": END_NS if query.until_ns is None else query.until_ns,
        "model": query.model or "",
        "tenant": query.tenant or "",
        "requests_max": REQUESTS_MAX,
    }
    try:
        rows = connection.execute(_LATENCY, limits).fetchall()
    except (duckdb.IOException, duckdb.InvalidInputException) as error:  # only here the lines of requests are read
        raise ManifestInvalid(
            f"requests of the ledger cannot be read ({str(error).splitlines()[0]}): delete the copy that this names and run again; "
            "if that says the same, the object in the store is damaged, and `steelyard ledger verify` names all that are"
        ) from error
    return tuple(Latency(*row) for row in rows)


def _data(made: Sheet, found: tuple[Latency, ...]) -> PageData:
    took = breakdown.took(made, VERSIONS)
    step: Dimension = "day" if made.span.to_ns - made.span.from_ns > DAYS_FROM_NS else "hour"
    return PageData(
        report=breakdown.report(made, made.query.by),
        step=step,
        over_time=breakdown.grouped(made.shown, (step, "activity"), None),
        per_model=tuple(row for row in breakdown.grouped(made.shown, VERSIONS, None, took) if row.model),
        idle=_idle(made),
        latency=found,
        standings=standings(made, {}),
        models=tuple(sorted({cell.model for cell in made.every} - {""})),
        tenants=tuple(sorted({cell.tenant for cell in made.every} - {""})),
    )


def _idle(made: Sheet) -> tuple[HourIdle, ...]:
    """Of the whole bill, whatever the filters: a container idles for all."""
    provided = {moment(use.hour_ns): use.vcpu_ns for use in made.use}
    hours: dict[str, list[Row]] = {}
    for row in breakdown.grouped(made.every, ("hour", "activity"), None):
        hours.setdefault(row.hour or "", []).append(row)
    found = []
    for hour, rows in hours.items():
        used_ns = sum(row.cpu_ns for row in rows if row.activity in CPU_MEASURED)
        cost, idle = sum(row.cost_picousd for row in rows), sum(row.idle_picousd for row in rows)
        if cost and provided.get(hour):
            found.append(HourIdle(hour, min(1.0, used_ns / provided[hour]), idle / cost))
    return tuple(found)
