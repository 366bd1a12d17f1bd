"""Brings the ledger's objects from the store into a local folder, where DuckDB reads them.

Ledger objects never change, so one whose copy has the listed size is not fetched again, and `listing` does not list again where
nothing can be new. What is listed is what is reported: a file that only the folder has is ignored. A segment that a manifest lists
is read from the compacted files (`hours`), and only there; it is not fetched, and its copy is deleted in time (`evicting`).
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from gateway.contract import codec, layout, ledgerkeys
from gateway.contract.ledger import Open
from gateway.contract.ledgerkeys import Kind
from gateway.errors import ManifestInvalid, ObjectNotFound
from gateway.objectstore.protocol import ObjectInfo, ObjectStore
from gateway.reports import copies, evicting, hours, listing
from gateway.reports.hours import LocalHour, Needs
from gateway.reports.listing import Listing, Sizes

LISTED = ".listed.json"
"""No key begins with a dot; a folder that lost this file lists everything again, and fetches nothing twice."""
EVERYTHING = Needs()
RECORDS: tuple[Kind, ...] = ("open", "close", "training", "ended", "correction")


class LocalLedger(msgspec.Struct, frozen=True):
    """Local copies of all that the store listed. `foreign` are keys under the ledger's prefix that this version cannot read.

    `hours` are compacted, `segments` are not. `listed_ns` is when the store was asked; 0 where nobody was.
    """

    segments: tuple[Path, ...]
    opens: tuple[Path, ...]
    closes: tuple[Path, ...]
    training: tuple[Path, ...] = ()
    ended: tuple[Path, ...] = ()
    books: tuple[Path, ...] = ()
    corrections: tuple[Path, ...] = ()
    foreign: tuple[str, ...] = ()
    hours: tuple[LocalHour, ...] = ()
    listed_ns: int = 0


def default_folder(url: str, environ: Mapping[str, str]) -> Path:
    """A cache folder of this store's own, below $XDG_CACHE_HOME or ~/.cache."""
    caches = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "steelyard" / "ledger" / codec.sha256(url.encode())[:16]


async def sync(
    store: ObjectStore,
    folder: Path,
    needs: Needs = EVERYTHING,
    *,
    is_whole: bool = False,
    now_ns: Callable[[], int] = time.time_ns,
) -> LocalLedger:
    """Copy what is new and needed into `folder`, making it where missing. `is_whole`: list everything, whatever is known.

    Raises `StoreUnavailable`, and `ManifestInvalid` for a compacted file that is not what its manifest says.
    """
    before = None if is_whole else await asyncio.to_thread(listing.read, folder / LISTED)
    listed_ns = now_ns()
    found = await listing.listed(store, before, listed_ns)
    kinds, foreign = await asyncio.to_thread(_by_kind, found.sizes)
    manifests = await _manifests(store, folder, found, kinds["segment"])
    found = msgspec.structs.replace(found, manifests=manifests)
    compacted = hours.by_hour(folder, manifests)
    segments = await asyncio.to_thread(lambda: list(hours.uncompacted(kinds["segment"], compacted)))
    records = [key for kind in RECORDS for key in kinds[kind]]
    await copies.fetch(store, folder, [ObjectInfo(key, found.sizes[key]) for key in (*records, *segments)])
    if listing.is_worth_keeping(found):
        await asyncio.to_thread(copies.write, folder / LISTED, msgspec.json.encode(found))
    await asyncio.to_thread(evicting.evict, folder, compacted, now_ns())
    newest = max([*compacted, *(hours.of_segment(key) for key in segments[-1:])], default=None)
    opens = _paths(folder, kinds["open"])
    return LocalLedger(
        segments=_paths(folder, segments),
        opens=opens,
        closes=_paths(folder, kinds["close"]),
        training=_paths(folder, kinds["training"]),
        ended=_paths(folder, kinds["ended"]),
        books=await _books(store, folder, opens),
        corrections=_paths(folder, kinds["correction"]),
        foreign=foreign,
        hours=await hours.synced(store, folder, compacted, needs, newest),
        listed_ns=listed_ns,
    )


async def _manifests(store: ObjectStore, folder: Path, found: Listing, segments: list[str]) -> Sizes:
    """All of them, copied. A new one can only be of an hour that has segments without one, or of a later one."""
    known, begin = dict(found.manifests), ""
    if known:
        await copies.fetch(store, folder, [ObjectInfo(key, size) for key, size in known.items()])
        compacted = hours.by_hour(folder, known)
        first = await asyncio.to_thread(lambda: next(hours.uncompacted(segments, compacted), None))
        if first is None:
            return known
        begin = layout.compacted("manifests", *hours.of_segment(first)).rpartition("/")[0]
    infos = [info async for info in store.list(layout.compacted("manifests"), start_after=begin)]
    await copies.fetch(store, folder, infos)
    return known | {info.key: info.size for info in infos}


def _by_kind(keys: Iterable[str]) -> tuple[dict[Kind, list[str]], tuple[str, ...]]:
    """Keys in their order by kind, and those that this version does not know."""
    kinds: dict[Kind, list[str]] = defaultdict(list)
    foreign = []
    for key in sorted(keys):
        named = ledgerkeys.parse(key)
        if named is None:
            foreign.append(key)
        else:
            kinds[named.kind].append(key)
    return kinds, tuple(foreign)


async def _books(store: ObjectStore, folder: Path, opens: Iterable[Path]) -> tuple[Path, ...]:
    """The price books that the bills were made with. One that is missing, or not what it was, is the audit's to name."""
    digests = await asyncio.to_thread(_digests, opens)
    found = []
    for sha256 in digests:
        path = folder / layout.price_book(sha256)
        if not await asyncio.to_thread(path.is_file):
            with contextlib.suppress(ObjectNotFound):
                body = (await store.get(layout.price_book(sha256))).body
                if codec.sha256(body) == sha256:
                    await asyncio.to_thread(copies.write, path, body)
                    found.append(path)
        else:
            found.append(path)
    return tuple(found)


def _digests(opens: Iterable[Path]) -> list[str]:
    """Records that cannot be read are left to who reads them next."""
    found = set()
    for path in opens:
        with contextlib.suppress(ManifestInvalid):
            found.add(codec.decode(path.read_bytes(), Open).price_book_sha256)
    return sorted(found)


def _paths(folder: Path, keys: Iterable[str]) -> tuple[Path, ...]:
    return tuple(folder / key for key in keys)
