"""Which hours of the ledger are compacted, and local copies of those of their files that a report needs.

Of an hour that lies wholly in or out of what is asked its sums are enough; one that a bound cuts is read segment by segment. Files
are kept by their digest: one that is there is never fetched again, whatever its key. `gateway.reports.sync` calls this.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.contract import layout
from gateway.contract.compacted import Contents, File, Manifest, Table
from gateway.contract.words import HOUR_NS
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import copied, copies

DETAIL: tuple[Table, ...] = ("segments", "charges", "postings")

Hour = tuple[str, str]
"""dt and hr."""


class Needs(msgspec.Struct, frozen=True):
    """What a report asks of a ledger: the bounds of its period (None: none), and whether the one before is compared with.

    `requests_max`: read so many request rows of compacted hours, the newest first and by whole files; 0 reads none.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    is_compared: bool = False
    requests_max: int = 0


class LocalHour(msgspec.Struct, frozen=True):
    """One generation's copies: `sums`, or `detail` (segments, charges, postings) where the hour is cut; `requests` where wanted."""

    name: str
    sums: Path | None = None
    detail: tuple[Path, ...] = ()
    requests: Path | None = None


def of_segment(key: str) -> Hour:
    """The hour that a segment's key names."""
    dt, hr = key.removeprefix(layout.LEDGER).split("/", 2)[:2]
    return dt.removeprefix("dt="), hr.removeprefix("hr=")


def of_manifest(key: str) -> Hour:
    """The hour that a manifest's key names."""
    dt, hr = key.removeprefix(layout.compacted("manifests")).split("/", 2)[:2]
    return dt.removeprefix("dt="), hr.removeprefix("hr=")


def by_hour(folder: Path, manifests: Iterable[str]) -> dict[Hour, list[Path]]:
    """Copies of manifests."""
    found: dict[Hour, list[Path]] = defaultdict(list)
    for key in sorted(manifests):
        found[of_manifest(key)].append(folder / key)
    return dict(found)


def uncompacted(segments: Iterable[str], manifests: Mapping[Hour, list[Path]]) -> Iterator[str]:
    """Of these keys, in key order, those that no manifest lists; one hour's inputs are in memory at a time. Blocking."""
    at, listed = ("", ""), frozenset[str]()
    for key in segments:
        hour = of_segment(key)
        if hour != at:
            at, listed = hour, inputs(manifests.get(hour, []))
        if key not in listed:
            yield key


def inputs(paths: Iterable[Path]) -> frozenset[str]:
    """Keys of the segments that these manifests list. Blocking."""
    read = (copied.record(path, Manifest, "ledger manifest") for path in paths)
    return frozenset(given.key for manifest in read for given in manifest.inputs)


async def synced(
    store: ObjectStore, folder: Path, manifests: Mapping[Hour, list[Path]], needs: Needs, newest: Hour | None
) -> tuple[LocalHour, ...]:
    """Copy what is needed of all compacted hours. `newest` is the last hour of the ledger, compacted or not.

    Raises `StoreUnavailable`, and `ManifestInvalid` for a file that is not what its manifest says.
    """
    contents = await asyncio.to_thread(_contents, manifests)
    cut = _cut(needs, newest)
    wanted_requests = _requests(contents, needs)
    found, files = [], []
    for one in contents:
        tables = {file.table: file for file in one.files}
        is_whole = "sums" in tables and (one.dt, one.hr) not in cut  # the first version wrote no sums
        read = [tables["sums"]] if is_whole else [tables[table] for table in DETAIL]
        rows = tables["requests"] if tables["requests"].key in wanted_requests else None
        paths = tuple(copies.by_digest(folder, file) for file in read)
        name = f"{one.dt}T{one.hr}/{one.generation}"
        requests = copies.by_digest(folder, rows) if rows else None
        found.append(LocalHour(name, paths[0] if is_whole else None, () if is_whole else paths, requests))
        files += read + ([rows] if rows else [])
    await copies.fetch_files(store, folder, files)
    return tuple(found)


def _contents(manifests: Mapping[Hour, list[Path]]) -> list[Contents]:
    paths = [path for _, found in sorted(manifests.items()) for path in found]
    return [copied.record(path, Contents, "ledger manifest") for path in paths]


def _cut(needs: Needs, newest: Hour | None) -> set[Hour]:
    """The hours that a bound lies within: of such an hour only some segments are asked for."""
    bounds = [bound for bound in (needs.since_ns, needs.until_ns) if bound is not None]
    if needs.is_compared and needs.since_ns is not None:
        if needs.until_ns is not None:
            bounds.append(2 * needs.since_ns - needs.until_ns)
        elif newest is not None:  # the period ends when the ledger does, somewhere in its last hour
            end_ns = begin_ns(newest)
            bounds += [2 * needs.since_ns - end_ns - part * HOUR_NS // 2 for part in (0, 1, 2)]
    cut_ns = {bound for bound in bounds if bound > 0 and bound % HOUR_NS}
    return {_named(bound) for bound in cut_ns}


def begin_ns(hour: Hour) -> int:
    """The hour's first nanosecond."""
    begin = datetime.fromisoformat(f"{hour[0]}T{hour[1]}:00:00+00:00")
    return int(begin.timestamp()) * 10**9


def _named(at_ns: int) -> Hour:
    at = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{at:%Y-%m-%d}", f"{at:%H}"


def _requests(contents: Iterable[Contents], needs: Needs) -> set[str]:
    """Keys of the newest files within the period that together have enough rows."""
    left, keys = needs.requests_max, set()
    for one in sorted(contents, key=lambda one: (one.dt, one.hr, one.generation), reverse=True):
        from_ns = begin_ns((one.dt, one.hr))
        is_asked = from_ns < (needs.until_ns or 2**63) and from_ns + HOUR_NS > (needs.since_ns or 0)
        if left > 0 and is_asked:
            file = _file(one.files, "requests")
            left -= file.rows
            keys.add(file.key)
    return keys


def _file(files: Iterable[File], table: Table) -> File:
    return next(file for file in files if file.table == table)
