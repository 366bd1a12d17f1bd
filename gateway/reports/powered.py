"""Energy and carbon of the ledger's cells: what each container took in each hour, split by the weights that its money went by.

The ledger names a container's platform and its price book, and so its processor and region where these say so. What it does not
name, or names otherwise than the coefficients, is `assumed` and said. Boot's own CPU and that of unattributed time is in no record:
it counts as idle, and as busy only in the high end. What a platform bills beyond a life (a minimum) took no energy.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import duckdb
import msgspec

from gateway.accounting import footprint
from gateway.accounting.footprint import Claim, Held
from gateway.contract.energy import NOTHING, Coefficients, Footprint, ProcessorName, Span, processor_of, weakest
from gateway.contract.prices import PriceBook
from gateway.reports.cells import CPU_MEASURED, Cell
from gateway.reports.figures import printable

UNKNOWN_WORK = frozenset({"boot", "unattributed", "unpriced"})
UNITS = ("milli-vcpu-ns", "byte-ns")
MILLI = 1000

Key = tuple[int, str, int, str, str, str]
"""A cell's: hour, model, version, tenant, outcome, activity."""
Hour = tuple[str, int, str, str, int]
"""Of one container's life: its name, its boot, its platform and price book, the hour. Folded: without a name and a boot."""

HOURS_MAX = 5000
"""Of containers, each by itself: a month of seven containers, some 6 s. Of more, those of one platform, book and hour are taken
together: all is linear, so only where the last nanojoule of each is rounded changes, and the sums stay exact."""


class Source(msgspec.Struct, frozen=True):
    """What the figures rest on: `regions` are those of price books, by digest."""

    coefficients: Coefficients
    regions: Mapping[str, str]


class Taken(msgspec.Struct, frozen=True):
    """`whole` is the sum of `footprints`. `notes` say what was assumed; `processors` are those there were."""

    footprints: dict[Key, Footprint]
    whole: Footprint
    region: str
    notes: tuple[str, ...]
    processors: frozenset[ProcessorName] = frozenset()


_COUNT = """
SELECT count(DISTINCT (container, boot_ns, from_ns // 3600000000000)) FROM segments
WHERE from_ns >= $since_ns AND from_ns < $until_ns
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
WITH units AS (SELECT sku, min(unit) AS unit FROM charges GROUP BY sku)
SELECT CASE WHEN $is_folded THEN '' ELSE s.container END AS life, CASE WHEN $is_folded THEN 0 ELSE s.boot_ns END AS boot,
       coalesce(o.platform, '') AS platform, s.price_book_sha256 AS book, s.from_ns // 3600000000000 * 3600000000000 AS hour_ns,
       p.model, p.version, p.tenant, p.outcome, p.account, coalesce(unit, ''), sum(p.quantity)
FROM postings AS p JOIN segments AS s USING (filename) LEFT JOIN units USING (sku)
     LEFT JOIN opens AS o ON o.container = s.container AND o.boot_ns = s.boot_ns
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
GROUP BY ALL ORDER BY ALL
"""


def regions(books: Iterable[Path]) -> dict[str, str]:
    """By the digest that such a file is named by. Raises `SettingsError` for one that is no price book."""
    return {path.name: PriceBook(path.read_bytes(), name=str(path)).region for path in books}


def taken(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int, source: Source) -> Taken:
    """Of the period's segments. Raises `SettingsError` when a processor has no coefficients."""
    period: dict[str, int | bool] = {"since_ns": since_ns, "until_ns": until_ns}
    [(hours,)] = connection.execute(_COUNT, period).fetchall()
    period["is_folded"] = hours > HOURS_MAX
    claims: dict[Hour, dict[Key, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for *hour, model, version, tenant, outcome, account, unit, quantity in connection.execute(
        _CLAIMED, period
    ).fetchall():
        claims[tuple(hour)][hour[-1], model, version, tenant, outcome, account][unit] = quantity
    parts: dict[Key, list[Footprint]] = defaultdict(list)
    notes: dict[str, None] = {}
    processors: set[ProcessorName] = set()
    for life, boot_ns, platform, sha256, hour_ns, milli_ns, byte_ns, *beyond in connection.execute(
        _HELD, period
    ).fetchall():
        if not milli_ns and not byte_ns:
            continue  # money without time: nothing ran
        processor, assumed = _named(platform, source.regions.get(sha256, ""), source)
        processors.add(processor)
        notes |= dict.fromkeys(assumed)
        found = claims[life, boot_ns, platform, sha256, hour_ns] or {(hour_ns, "", 0, "", "", "unattributed"): {}}
        _take_away(found, dict(zip(UNITS, beyond[:2], strict=True)), ("boot", "unpriced"))
        _take_away(found, dict(zip(UNITS, beyond[2:], strict=True)), ("unattributed",))
        shares = footprint.of_container(
            processor,
            Held(milli_ns, byte_ns),
            [_claim(key, units) for key, units in found.items()],
            source.coefficients,
        )
        if not assumed and shares[0].tier == "assumed":
            notes[f"energy is assumed: the coefficients of '{processor}' are a stand-in, as their file says"] = None
        for key, share in zip(found, shares, strict=True):
            parts[key].append(msgspec.structs.replace(share, tier="assumed") if assumed else share)
    footprints = {key: together(shares) for key, shares in parts.items()}
    return Taken(
        footprints, together(footprints.values()), source.coefficients.region, tuple(notes), frozenset(processors)
    )


def attached(cells: Iterable[Cell], found: Taken) -> list[Cell]:
    """The cells with their footprints, and cells of their own for what has no posting."""
    left = dict(found.footprints)
    every = []
    for cell in cells:
        key = (cell.hour_ns, cell.model, cell.version, cell.tenant, cell.outcome, cell.activity)
        every.append(msgspec.structs.replace(cell, footprint=left.pop(key, NOTHING)))
    return every + [Cell(*key, footprint=one) for key, one in left.items()]


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


def _named(platform: str, region: str, source: Source) -> tuple[ProcessorName, list[str]]:
    """The processor, and what had to be assumed."""
    processor, own = processor_of(platform), source.coefficients.region
    assumed = []
    if processor is None:
        what = f"platform '{printable(platform)}'" if platform else "a container without an opening record"
        assumed.append(f"energy is assumed: {what} does not name its processor; taken for x86")
    if region != own:
        where = f"of {printable(region)}" if region else "not there"
        assumed.append(
            f"energy is assumed: coefficients are of {printable(own)}, the price book is {where}; see --energy-book"
        )
    return processor or "x86", assumed


def _claim(key: Key, units: Mapping[str, int]) -> Claim:
    account, milli_ns = key[-1], units.get("milli-vcpu-ns", 0)
    return Claim(
        vcpu_milli_ns=milli_ns,
        byte_ns=units.get("byte-ns", 0),
        cpu_ns=milli_ns // MILLI if account in CPU_MEASURED else 0,
        perhaps_cpu_ns=milli_ns // MILLI if account in UNKNOWN_WORK else 0,
    )


def _take_away(found: dict[Key, dict[str, int]], beyond: Mapping[str, int], accounts: Sequence[str]) -> None:
    """What was billed after the end is in the weights of the first of these accounts that there is; nothing ran then.

    A life that ended in a segment has it in `boot`, without a price in `unpriced`; a killed one in `unattributed`.
    """
    for unit, quantity in beyond.items():
        holders = [
            units for account in accounts for key, units in found.items() if key[-1] == account and unit in units
        ]
        if holders and quantity:
            holders[0][unit] = max(0, holders[0][unit] - quantity)
