"""What a store's ledger holds, listed once and then only where something can have been added.

A gateway writes its objects in order: the opening record first, then segments by their hours, the close record last. So nothing new
lies before the last known segment of a life that has not closed, and nothing at all is new of one that has. What this leaves out
(a container that was silent for days and writes again, an object that was deleted) the whole listing finds that comes once a day;
the audit never relies on this.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.contract import layout, ledgerkeys
from gateway.contract.words import HOUR_NS
from gateway.objectstore.protocol import ObjectInfo, ObjectStore

PAGE = 1000
"""Keys that S3 lists per call: up to so many, listing everything is one call, and less than asking in parts."""
WHOLE_EVERY_NS = 24 * 3600 * 10**9
"""A listing of 10,000 keys is ten calls; once a day it costs nothing and bounds how long a report can miss what is late."""
SILENT_NS = 48 * 3600 * 10**9
"""A killed container has no close record: it must not hold the listing's begin back for ever."""

_RECORDS = (layout.containers(), layout.TRAINING, layout.CORRECTIONS)
"""Few, and written at any time: listed again every time."""

Sizes = dict[str, int]
"""Objects by key."""
Life = tuple[str, int]


class Listing(msgspec.Struct, frozen=True):
    """All keys below the ledger's prefix, as far as known. `whole_ns` is when all of them were listed together.

    `manifests` are those of compacted hours; empty when all of them are to be listed.
    """

    whole_ns: int
    sizes: Sizes
    manifests: Sizes = {}
    schema_version: int = 2


def read(path: Path) -> Listing | None:
    """None when there is none, or none that this version wrote: then everything is listed again."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Listing)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.schema_version == 2 else None


def is_worth_keeping(found: Listing) -> bool:
    """A small ledger is listed whole every time."""
    return len(found.sizes) + len(found.manifests) > PAGE


async def listed(store: ObjectStore, before: Listing | None, now_ns: int) -> Listing:
    """What there is now. Raises `StoreUnavailable`."""
    if before is None or not 0 <= now_ns - before.whole_ns < WHOLE_EVERY_NS:
        return Listing(now_ns, _sizes([info async for info in store.list(layout.LEDGER)]))
    records = [info for prefix in _RECORDS async for info in store.list(prefix)]
    sizes = {key: size for key, size in before.sizes.items() if not key.startswith(_RECORDS)}
    sizes |= _sizes(records)
    begin_ns = _begin_ns(before.sizes, (info.key for info in records), now_ns)
    if begin_ns is not None:
        begin = _hour(begin_ns)
        sizes = {key: size for key, size in sizes.items() if not key.startswith(layout.segments()) or key < begin}
        sizes |= _sizes([info async for info in store.list(layout.segments(), start_after=begin)])
    return Listing(before.whole_ns, sizes, before.manifests)


def _sizes(found: Iterable[ObjectInfo]) -> Sizes:
    return {info.key: info.size for info in found}


def _hour(at_ns: int) -> str:
    """What all keys of this hour and later ones are greater than."""
    at = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{layout.LEDGER}dt={at:%Y-%m-%d}/hr={at:%H}/"


def _begin_ns(known: Iterable[str], records: Iterable[str], now_ns: int) -> int | None:
    """The first hour that can have got a segment since; None when none can."""
    last_ns: dict[Life, int] = {}
    closed: set[Life] = set()
    for key in known:
        named = ledgerkeys.parse(key)
        if named is None or named.kind in {"training", "correction"}:
            continue
        life = named.container, named.boot_ns
        if named.kind == "close":
            closed.add(life)
        last_ns[life] = max(last_ns.get(life, 0), named.hour_ns or named.boot_ns // HOUR_NS * HOUR_NS)
    for key in records:
        named = ledgerkeys.parse(key)
        if named is not None and named.kind == "open":
            last_ns.setdefault((named.container, named.boot_ns), named.boot_ns // HOUR_NS * HOUR_NS)
    growing = [at_ns for life, at_ns in last_ns.items() if life not in closed and at_ns > now_ns - SILENT_NS]
    return min(growing, default=None)
