"""Brings the ledger's objects from the store into a local folder, where DuckDB reads them.

Ledger objects never change, so one whose copy has the listed size is not fetched again, and `listing` does not list again where
nothing can be new. What is listed is what is reported: a file that only the folder has is ignored. Several reports may share a
folder: a file appears in it whole or not at all.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from gateway.contract import codec, layout, ledgerkeys
from gateway.contract.ledger import Open
from gateway.contract.ledgerkeys import Kind
from gateway.errors import ManifestInvalid, ObjectNotFound
from gateway.objectstore.protocol import ObjectInfo, ObjectStore
from gateway.reports import listing

FETCHES = 8  # enough to hide S3's first-byte latency (tens of ms); at most that many segments are in memory

LISTED = ".listed.json"
"""No key begins with a dot; a folder that lost this file lists everything again, and fetches nothing twice."""


class LocalLedger(msgspec.Struct, frozen=True):
    """Local copies of all that the store listed. `foreign` are keys under the ledger's prefix that this version cannot read."""

    segments: tuple[Path, ...]
    opens: tuple[Path, ...]
    closes: tuple[Path, ...]
    training: tuple[Path, ...] = ()
    ended: tuple[Path, ...] = ()
    books: tuple[Path, ...] = ()
    corrections: tuple[Path, ...] = ()
    foreign: tuple[str, ...] = ()


def default_folder(url: str, environ: Mapping[str, str]) -> Path:
    """A cache folder of this store's own, below $XDG_CACHE_HOME or ~/.cache."""
    caches = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "steelyard" / "ledger" / codec.sha256(url.encode())[:16]


async def sync(
    store: ObjectStore, folder: Path, *, is_whole: bool = False, now_ns: Callable[[], int] = time.time_ns
) -> LocalLedger:
    """Copy what is new into `folder`, making it where missing. `is_whole`: list everything, whatever is known.

    Raises `StoreUnavailable`.
    """
    before = None if is_whole else await asyncio.to_thread(listing.read, folder / LISTED)
    found = await listing.listed(store, before, now_ns())
    infos = [ObjectInfo(key, size) for key, size in sorted(found.sizes.items())]
    known = [info for info in infos if ledgerkeys.parse(info.key) is not None]
    missing = iter(await asyncio.to_thread(lambda: [info for info in known if not _has(folder, info)]))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(FETCHES):
                group.create_task(_fetch(store, folder, missing))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    if listing.is_worth_keeping(found):
        await asyncio.to_thread(_write, folder / LISTED, msgspec.json.encode(found))
    opens = _paths(folder, known, "open")
    return LocalLedger(
        segments=_paths(folder, known, "segment"),
        opens=opens,
        closes=_paths(folder, known, "close"),
        training=_paths(folder, known, "training"),
        ended=_paths(folder, known, "ended"),
        books=await _books(store, folder, opens),
        corrections=_paths(folder, known, "correction"),
        foreign=tuple(info.key for info in infos if ledgerkeys.parse(info.key) is None),
    )


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
                    await asyncio.to_thread(_write, path, body)
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


def _has(folder: Path, info: ObjectInfo) -> bool:
    try:
        return (folder / info.key).stat().st_size == info.size
    except FileNotFoundError:
        return False


async def _fetch(store: ObjectStore, folder: Path, missing: Iterator[ObjectInfo]) -> None:
    """One of several that share the iterator."""
    for info in missing:
        stored = await store.get(info.key)
        await asyncio.to_thread(_write, folder / info.key, stored.body)


def _write(path: Path, body: bytes) -> None:
    """Not synced to disk: after a crash the size is wrong and the object is fetched again, or DuckDB refuses the file by name."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)  # a ledger names tenants and request ids
            file.write(body)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _paths(folder: Path, known: list[ObjectInfo], kind: Kind) -> tuple[Path, ...]:
    return tuple(folder / info.key for info in known if (named := ledgerkeys.parse(info.key)) and named.kind == kind)
