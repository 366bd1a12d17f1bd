"""Reads the compacted part of a ledger for an audit: every plan, manifest and file, fetched from the store, hour by hour.

`gateway.audit.verifying` calls it, and goes on with the segments that it returns as with those it reads itself.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.audit import compactions, hours
from gateway.audit.compactions import Records
from gateway.audit.findings import Finding
from gateway.audit.hours import Reader
from gateway.audit.segments import Checked
from gateway.contract import layout
from gateway.contract.compacted import Manifest
from gateway.contract.ledger import Open
from gateway.contract.prices import PriceBook
from gateway.errors import ManifestInvalid, ObjectNotFound
from gateway.objectstore.protocol import ObjectStore

FETCHES = 8
"""Of records. Hides S3's first byte; a record is some tens of kilobytes."""
HOURS = 2
"""At the same time: an hour's files may be hundreds of megabytes of disk, and reading them is one thread's work."""

T = TypeVar("T")


class Archive(msgspec.Struct, frozen=True):
    """`segments` are those of the hours that were read, by their keys; `listed` are the keys of all hours."""

    segments: Mapping[str, Checked]
    listed: frozenset[str]
    findings: tuple[Finding, ...]


async def read(
    store: ObjectStore,
    holds: Callable[[int], bool],
    opens: Mapping[tuple[str, int], Open | None],
    books: dict[str, PriceBook],
    reader: Reader,
) -> Archive:
    """`holds` says of an hour, by its first nanosecond, whether its files are read. Raises `StoreUnavailable`."""
    records, found = await read_records(store)
    found += compactions.check(records)
    segments: dict[str, Checked] = {}

    async def hour(key: str) -> None:
        manifest = records.manifests[key]
        if not holds(_begin_ns(manifest)) or not hours.has_all_files(manifest):
            return
        with tempfile.TemporaryDirectory(prefix="steelyard-verify-") as folder:
            paths, wrong = await hours.fetched(store, manifest, Path(folder))
            found.extend(wrong)
            if len(paths) < len(manifest.files):
                return
            try:
                contents = await asyncio.to_thread(reader, paths)
            except ManifestInvalid as error:
                found.append(Finding("damaged", f"the files of {key} {error}", key=key))
                return
        read, wrong = await asyncio.to_thread(hours.check, key, manifest, contents, opens, books)
        found.extend(wrong)
        segments.update(read)

    await each(sorted(records.manifests), hour, at_once=HOURS)
    listed = frozenset(given.key for manifest in records.manifests.values() for given in manifest.inputs)
    return Archive(segments, listed, tuple(found))


async def each(keys: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """All of them, so many at a time; the first failure ends it."""
    left = iter(keys)

    async def some() -> None:
        for key in left:
            await work(key)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(some())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def read_records(store: ObjectStore) -> tuple[Records, list[Finding]]:
    """All plans and manifests, and about those that cannot be read or are none. Raises `StoreUnavailable`."""
    records, found, keys = Records({}, {}, []), list[Finding](), list[str]()
    async for info in store.list(layout.COMPACTED):
        kind = compactions.kind_of(info.key)
        if kind in {"plans", "manifests"}:
            keys.append(info.key)
        elif kind:
            records.files.append(info.key)
        else:
            text = f"{info.key} is none of this Steelyard's keys: from a newer one, or not of the ledger"
            found.append(Finding("foreign_object", text, is_fault=False, key=info.key))

    async def one(key: str) -> None:
        try:
            data = (await store.get(key)).body
        except ObjectNotFound:
            found.append(Finding("missing_file", f"{key} was removed during the audit", key=key))
            return
        found.extend(compactions.decoded(records, key, data))

    await each(keys, one, at_once=FETCHES)
    return records, found


def _begin_ns(manifest: Manifest) -> int:
    return int(datetime.fromisoformat(f"{manifest.dt}T{manifest.hr}:00:00+00:00").timestamp()) * 10**9
