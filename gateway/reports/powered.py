"""Energy and carbon of a report's groups: what each container took in each hour, split by the weights that its money went by.

The ledger names a container's platform and its price book, and so its processor and region where these say so. What it does not
name, or where the coefficients have no grid for it, is `assumed` and said. Boot's own CPU and that of unattributed time is in no
record: it counts as idle, and as busy only in the high end. What a platform bills beyond a life (a minimum) took no energy.

Models' own shares are summed before they are split, by what is asked for and no finer: a month has thousands of container hours,
and each a hundred combinations of model, tenant and outcome. `breakdown` calls this, and only where energy is asked for.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import duckdb
import msgspec

from gateway.accounting import footprint
from gateway.accounting.footprint import Claim, Held
from gateway.contract.energy import Coefficients, Footprint, ProcessorName, Span, processor_of, weakest
from gateway.contract.prices import PriceBook
from gateway.reports.cells import CPU_MEASURED, OWNED, Cell
from gateway.reports.figures import printable
from gateway.reports.query import DIMENSIONS, Dimension
from gateway.reports.spreading import Moving

UNKNOWN_WORK = frozenset({"boot", "unattributed", "unpriced"})
MILLI = 1000

Place = tuple[int, str, int, str, str, str]
"""Hour, model, version, tenant, outcome, activity; of a model's own empty in what is not asked for."""
Group = tuple[object, ...] | None
"""A row's key; None is what filters leave out."""
Hour = tuple[str, int, str, str, int]
"""Of one container's life: its name, its boot, its platform and price book, the hour. Folded: without a name and a boot."""

HOURS_MAX = 5000
"""Of containers, each by itself: a month of seven containers, some 2 s. Of more, those of one platform, book and hour are taken
together: all is linear, so only where the last nanojoule of each is rounded changes, and the sums stay exact."""


class Source(msgspec.Struct, frozen=True):
    """What the figures rest on: `regions` are those of price books, by digest."""

    coefficients: Coefficients
    regions: Mapping[str, str]


class Taken(msgspec.Struct, frozen=True):
    """`own` is the models', `shared` nobody's; `whole` is the sum of both. `notes` say what was assumed, `region` whose grids."""

    own: dict[Place, Footprint]
    shared: dict[Place, Footprint]
    whole: Footprint
    region: str
    notes: tuple[str, ...]

    @property
    def footprints(self) -> dict[Place, Footprint]:
        """All: a place is a model's own or nobody's."""
        return self.own | self.shared


class _Posted(msgspec.Struct):
    """Of a place in a container's hour: vCPU thousandths and bytes, each times nanoseconds, and CPU nanoseconds."""

    place: Place
    is_owned: bool
    milli_ns: int
    byte_ns: int
    cpu_ns: int


_COUNT = """
SELECT count(DISTINCT (container, boot_ns, from_ns // 3600000000000)) FROM segments
WHERE from_ns >= $since_ns AND from_ns < $until_ns
"""

_PLATFORMS = """
SELECT DISTINCT coalesce(o.platform, '')
FROM segments AS s LEFT JOIN opens AS o ON o.container = s.container AND o.boot_ns = s.boot_ns
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns AND s.to_ns > s.from_ns -- so no corrections
"""

_HELD = """
SELECT CASE WHEN $is_folded THEN '' ELSE s.container END AS life, CASE WHEN $is_folded THEN 0 ELSE s.boot_ns END AS boot,
       coalesce(o.platform, '') AS platform, s.price_book_sha256 AS book, s.from_ns // 3600000000000 * 3600000000000 AS hour_ns,
       coalesce(sum(c.quantity) FILTER (unit = 'milli-vcpu-ns'), 0), coalesce(sum(c.quantity) FILTER (unit = 'byte-ns'), 0),
       coalesce(sum(c.beyond) FILTER (unit = 'milli-vcpu-ns' AND seq >= 0), 0),
       coalesce(sum(c.beyond) FILTER (unit = 'byte-ns' AND seq >= 0), 0),
       coalesce(sum(c.beyond) FILTER (unit = 'milli-vcpu-ns' AND seq < 0), 0),
       coalesce(sum(c.beyond) FILTER (unit = 'byte-ns' AND seq < 0), 0)
FROM charges AS c JOIN segments AS s USING (filename)
     LEFT JOIN opens AS o ON o.container = s.container AND o.boot_ns = s.boot_ns
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
GROUP BY ALL ORDER BY ALL
"""

_CLAIMED = """
WITH units AS (SELECT sku, min(unit) AS unit FROM charges GROUP BY sku),
posted AS (
    SELECT CASE WHEN $is_folded THEN '' ELSE s.container END AS life, CASE WHEN $is_folded THEN 0 ELSE s.boot_ns END AS boot,
           coalesce(o.platform, '') AS platform, s.price_book_sha256 AS book,
           s.from_ns // 3600000000000 * 3600000000000 AS hour_ns,
           p.model, p.version, p.tenant, p.outcome, p.account, p.model <> '' AND list_contains($owned, p.account) AS is_owned,
           coalesce(sum(p.quantity) FILTER (unit = 'milli-vcpu-ns'), 0) AS milli_ns,
           coalesce(sum(p.quantity) FILTER (unit = 'byte-ns'), 0) AS byte_ns
    FROM postings AS p JOIN segments AS s USING (filename) LEFT JOIN units USING (sku)
         LEFT JOIN opens AS o ON o.container = s.container AND o.boot_ns = s.boot_ns
    WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
    GROUP BY ALL
)
SELECT life, boot, platform, book, hour_ns,
       CASE WHEN is_owned AND NOT list_contains($kept, 'model') THEN '' ELSE model END AS model,
       CASE WHEN is_owned AND NOT list_contains($kept, 'version') THEN 0 ELSE version END AS version,
       CASE WHEN is_owned AND NOT list_contains($kept, 'tenant') THEN '' ELSE tenant END AS tenant,
       CASE WHEN is_owned AND NOT list_contains($kept, 'outcome') THEN '' ELSE outcome END AS outcome,
       CASE WHEN is_owned AND NOT list_contains($kept, 'activity') THEN '' ELSE account END AS activity,
       is_owned, sum(milli_ns), sum(byte_ns),
       coalesce(sum(milli_ns // 1000) FILTER (list_contains($measured, account)), 0)
FROM posted GROUP BY ALL ORDER BY ALL
"""


def regions(books: Iterable[Path]) -> dict[str, str]:
    """By the digest that such a file is named by. Raises `SettingsError` for one that is no price book."""
    return {path.name: PriceBook(path.read_bytes(), name=str(path)).region for path in books}


def processors(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> frozenset[ProcessorName]:
    """Of the containers that ran in the period; x86 where the platform does not say."""
    found = connection.execute(_PLATFORMS, {"since_ns": since_ns, "until_ns": until_ns}).fetchall()
    return frozenset(processor_of(platform) or "x86" for (platform,) in found)


def taken(
    connection: duckdb.DuckDBPyConnection,
    since_ns: int,
    until_ns: int,
    source: Source,
    kept: Iterable[Dimension] = DIMENSIONS,
) -> Taken:
    """Of the period's segments, by these dimensions. Raises `SettingsError` when a processor has no coefficients."""
    period: dict[str, object] = {"since_ns": since_ns, "until_ns": until_ns}
    [(hours,)] = connection.execute(_COUNT, period).fetchall()
    period["is_folded"] = hours > HOURS_MAX
    claims: dict[Hour, list[_Posted]] = defaultdict(list)
    lists = {"kept": sorted(kept), "owned": sorted(OWNED), "measured": sorted(CPU_MEASURED)}
    for row in connection.execute(_CLAIMED, period | lists).fetchall():
        claims[row[:5]].append(_Posted(row[4:10], *row[10:]))
    parts: dict[bool, dict[Place, list[Footprint]]] = {is_owned: defaultdict(list) for is_owned in (True, False)}
    notes: dict[str, None] = {}
    grids: set[str] = set()
    named = lru_cache(maxsize=None)(lambda platform, region: _named(platform, region, source))  # some, of every hour
    for life, boot_ns, platform, sha256, hour_ns, milli_ns, byte_ns, *beyond in connection.execute(
        _HELD, period
    ).fetchall():
        if not milli_ns and not byte_ns:
            continue  # money without time: nothing ran
        processor, here, assumed = named(platform, source.regions.get(sha256, ""))
        notes |= dict.fromkeys(assumed)
        grids.add(here.region)
        nobody = _Posted((hour_ns, "", 0, "", "", "unattributed"), False, 0, 0, 0)
        found = claims.get((life, boot_ns, platform, sha256, hour_ns)) or [nobody]
        _take_away(found, beyond[:2], ("boot", "unpriced"))
        _take_away(found, beyond[2:], ("unattributed",))
        shares = footprint.of_container(processor, Held(milli_ns, byte_ns), [_claim(posted) for posted in found], here)
        if not assumed and shares[0].tier == "assumed":
            notes[f"energy is assumed: the coefficients of '{processor}' are a stand-in, as their file says"] = None
        for posted, share in zip(found, shares, strict=True):
            tier = "assumed" if assumed else share.tier
            parts[posted.is_owned][posted.place].append(msgspec.structs.replace(share, tier=tier))
    own, shared = (
        {place: together(shares) for place, shares in found.items()} for found in (parts[True], parts[False])
    )
    whole = together([*own.values(), *shared.values()])
    return Taken(own, shared, whole, ", ".join(sorted(grids)) or source.coefficients.region, tuple(notes))


def grouped(found: Taken, moving: Moving, key: Callable[[Cell], Group]) -> dict[Group, Footprint]:
    """By `key` of where it is in the end; each figure of them adds up to the whole's."""
    groups: dict[Group, list[Footprint]] = defaultdict(list)
    for place, took in found.own.items():
        groups[key(Cell(*place))].append(took)
    if not moving.is_any:
        for place, took in found.shared.items():
            groups[key(Cell(*place))].append(took)
        return {group: together(every) for group, every in groups.items()}
    for weights, took in _moved(found.shared, moving, key):
        for group, part in zip(weights, footprint.share(took, [*weights.values()]), strict=True):
            groups[group].append(part)
    return {group: together(every) for group, every in groups.items()}


def _moved(
    shared: Mapping[Place, Footprint], moving: Moving, key: Callable[[Cell], Group]
) -> Iterator[tuple[Mapping[Group, int], Footprint]]:
    """What goes to the same groups by the same weights, together."""
    alike: dict[tuple[tuple[Group, int], ...], list[Footprint]] = defaultdict(list)
    for place, took in shared.items():
        hour_ns, activity = place[0], place[-1]
        weights: dict[Group, int] = defaultdict(int)
        for owner, weight in moving.of(hour_ns, activity).items():
            weights[key(Cell(hour_ns, *owner, activity))] += weight
        alike[tuple(weights.items())].append(took)
    for weighed, every in alike.items():
        yield dict(weighed), together(every)


def together(footprints: Iterable[Footprint]) -> Footprint:
    """Their sum, figure by figure; nothing without any."""
    found = list(footprints)
    if len(found) == 1:
        return found[0]
    return Footprint(
        energy_nj=_sum([one.energy_nj for one in found]),
        operational_ng=_sum([one.operational_ng for one in found]),
        embodied_ng=_sum([one.embodied_ng for one in found]),
        tier=weakest([one.tier for one in found if not one.is_nothing]),
    )


def _sum(spans: Sequence[Span]) -> Span:
    return Span(sum(span.low for span in spans), sum(span.value for span in spans), sum(span.high for span in spans))


def _named(platform: str, region: str, source: Source) -> tuple[ProcessorName, Coefficients, list[str]]:
    """The processor, the coefficients with its region's grid, and what had to be assumed."""
    processor, own = processor_of(platform), source.coefficients
    here, assumed = own.in_region(region), []
    if processor is None:
        what = f"platform '{printable(platform)}'" if platform else "a container without an opening record"
        assumed.append(f"energy is assumed: {what} does not name its processor; taken for x86")
    if here is None:
        where = f"of {printable(region)}" if region else "not there"
        assumed.append(
            f"energy is assumed: coefficients are of {printable(own.region)}, the price book is {where}; see --energy-book"
        )
    return processor or "x86", here or own, assumed


def _claim(posted: _Posted) -> Claim:
    perhaps_ns = posted.milli_ns // MILLI if posted.place[-1] in UNKNOWN_WORK else 0
    return Claim(posted.milli_ns, posted.byte_ns, posted.cpu_ns, perhaps_ns)


def _take_away(found: Iterable[_Posted], beyond: Sequence[int], accounts: Sequence[str]) -> None:
    """What was billed after the end is in the weights of the first of these accounts that there is; nothing ran then.

    A life that ended in a segment has it in `boot`, without a price in `unpriced`; a killed one in `unattributed`.
    """
    for unit, quantity in zip(("milli_ns", "byte_ns"), beyond, strict=True):
        holders = [
            posted for account in accounts for posted in found if posted.place[-1] == account and getattr(posted, unit)
        ]
        if holders and quantity:
            setattr(holders[0], unit, max(0, getattr(holders[0], unit) - quantity))
