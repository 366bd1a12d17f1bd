"""Training's cost told in portions: by predictions answered (units of production) or by days since it was published.

Per version: what earlier periods took, this one takes and what remains are the whole cost, as integers; periods that follow each
other add up. Its energy and carbon are told in the same portions. Nothing of it is in the bill. When a version is retired
(`gateway.registry.retiring`), what remained is written off to it in that period.
"""

from collections.abc import Callable, Mapping

import duckdb
import msgspec

from gateway.contract.energy import Coefficients
from gateway.contract.words import DAY_NS, END_NS
from gateway.errors import SettingsError
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry
from gateway.registry.retiring import retirements
from gateway.reports import training
from gateway.reports.query import Plan
from gateway.reports.trainingpower import Divided, Portions, of_attempts, portions

NO_PRICE = "its training has no price"

Answered = Mapping[tuple[str, int], tuple[int, int]]
"""Per model and version: predictions answered before the period, and up to its end."""


class Amortized(msgspec.Struct, frozen=True):
    """`earlier + expensed + remaining == cost`, and `written_off` is a part of `expensed`.

    All None when the cost is unknown or unpriced (`NO_PRICE`), then `reason` says why. `energy` is None where nobody asked for it,
    and where it is unknown: then `energy_reason` says why.
    """

    model: str
    version: int
    cost_picousd: int | None
    earlier_picousd: int | None = None
    expensed_picousd: int | None = None
    remaining_picousd: int | None = None
    written_off_picousd: int | None = None
    reason: str = ""
    energy: Portions | None = None
    energy_reason: str = ""


_ANSWERED = """
SELECT model, version, coalesce(sum(p.rows) FILTER (s.from_ns < $since_ns), 0), sum(p.rows)
FROM postings AS p JOIN segments AS s USING (filename)
WHERE s.from_ns < $until_ns AND account = 'infer' AND outcome = 'ok' AND model <> '' AND $model IN ('', model)
GROUP BY ALL ORDER BY ALL
"""


def answered(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int | None, model: str | None) -> Answered:
    """Of every version that ever answered, or of one model's."""
    limits = {"since_ns": since_ns, "until_ns": END_NS if until_ns is None else until_ns, "model": model or ""}
    rows = connection.execute(_ANSWERED, limits).fetchall()
    return {(name, version): (before, up_to) for name, version, before, up_to in rows}


async def amortized(
    store: ObjectStore,
    chosen: Plan,
    found: Answered,
    since_ns: int,
    until_ns: int,
    coefficients: Coefficients | None = None,
) -> tuple[Amortized, ...]:
    """For each version that answered, with its energy where there are coefficients. Raises `StoreUnavailable`."""
    known = await training.costs(store, found)
    registry, retired = Registry(store), {}
    for model in sorted({model for (model, _), one in known.items() if one.published_ns is not None}):
        for version, at_ns in retirements(await registry.history(model)).items():
            retired[model, version] = at_ns
    return tuple(
        portion(version, known[version], chosen, counts, (since_ns, until_ns), retired.get(version), coefficients)
        for version, counts in found.items()
    )


def portion(
    version: tuple[str, int],
    known: training.Known,
    chosen: Plan,
    counts: tuple[int, int],
    period: tuple[int, int],
    retired_ns: int | None,
    coefficients: Coefficients | None = None,
) -> Amortized:
    """One version's. `counts` are answers before the period and up to its end."""
    cost, published_ns = known.cost_picousd, known.published_ns
    if published_ns is None:
        return Amortized(*version, cost, reason=known.reason or NO_PRICE, energy_reason=known.unused)

    def divided(amount: int) -> Divided:
        return _divided(amount, published_ns, chosen, counts, period, retired_ns)

    energy, energy_reason = _energy(known, coefficients, divided)
    if cost is None:
        return Amortized(*version, None, reason=known.reason or NO_PRICE, energy=energy, energy_reason=energy_reason)
    return Amortized(*version, cost, *divided(cost), energy=energy, energy_reason=energy_reason)


def _divided(
    amount: int,
    published_ns: int,
    chosen: Plan,
    counts: tuple[int, int],
    period: tuple[int, int],
    retired_ns: int | None,
) -> Divided:
    if retired_ns is not None and retired_ns < period[0]:
        return amount, 0, 0, 0
    if chosen.over == "rows":
        earlier, used = (spent(amount, count, chosen.amount) for count in counts)
    else:
        earlier, used = (spent(amount, at_ns - published_ns, chosen.amount * DAY_NS) for at_ns in period)
    used = max(used, earlier)
    written_off = amount - used if retired_ns is not None and retired_ns < period[1] else 0
    return earlier, used - earlier + written_off, amount - used - written_off, written_off


def spent(amount: int, done: int, whole: int) -> int:
    """What is used up after `done` of `whole`: a floor of a sum so far, so that steps add up exactly."""
    return amount * min(max(done, 0), whole) // whole


def _energy(
    known: training.Known, coefficients: Coefficients | None, divided: Callable[[int], Divided]
) -> tuple[Portions | None, str]:
    """Its portions, else why they are not known; neither where nobody asks."""
    if coefficients is None:
        return None, ""
    if known.uses is None:
        return None, known.unused
    try:
        return portions(of_attempts(known.uses, coefficients), divided), ""
    except SettingsError as error:
        return None, str(error)
