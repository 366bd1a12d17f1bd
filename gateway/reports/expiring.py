"""Deletes segments that compacted files hold as well: `steelyard ledger expire`. No rule by age alone could know which those are.

Afterwards the compacted files are the only copy, so nothing is taken on trust: per generation of an hour the files are fetched and
held against their manifest, then the rows of each segment that is left against the files. Opening, closing and other records stay.
Safe to run again, beside another, and to kill anywhere: what is deleted was proven, what is not is the next run's.
"""

import asyncio
import filecmp
import gzip
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any  # Any: a line's JSON before it is a struct

import duckdb
import msgspec

from gateway.audit import archive, compactions
from gateway.audit import hours as audited
from gateway.audit.archive import FETCHES
from gateway.audit.compactions import Records
from gateway.audit.findings import Finding
from gateway.contract import codec, layout
from gateway.contract.compacted import TABLES, Input, Manifest, Plan, Table
from gateway.contract.ledger import Charge, Phases, Posting, Request, Segment
from gateway.contract.words import DAY_NS, HOUR_NS
from gateway.errors import ManifestInvalid, ObjectNotFound, SettingsError
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import hourfiles, hourproof, hours

AGE_MIN_NS = 7 * DAY_NS
"""Of an hour's end and of its manifest. No report, audit or compaction that began without the manifest runs for so long, and what
is listed incrementally is listed whole every day (`listing.WHOLE_EVERY_NS`). It also leaves time to doubt the compacted files."""

_LINES = (Segment, Charge, Posting, Request)
_FIELDS: dict[str, set[str]] = {
    str(kind.__struct_config__.tag): {"type"} | {field.name for field in msgspec.structs.fields(kind)}
    for kind in _LINES
}
_PHASES = {field.name for field in msgspec.structs.fields(Phases)}


class Expired(msgspec.Struct, frozen=True):
    """What was deleted, or would be, of one generation of an hour."""

    dt: str
    hr: str
    generation: int
    segments: int
    size_bytes: int


class Expiry(msgspec.Struct, frozen=True):
    """What a run did. Of what `refused` is about nothing was deleted."""

    expired: tuple[Expired, ...]
    refused: tuple[Finding, ...]
    is_dry_run: bool


async def expire(store: ObjectStore, *, older_ns: int, now_ns: int, is_dry_run: bool = False) -> Expiry:
    """Delete what lies in hours that ended `older_ns` ago and that a manifest as old as that lists.

    Raises `StoreUnavailable`; `SettingsError` for less than `AGE_MIN_NS`. A fault in the records of compaction refuses all.
    """
    if older_ns < AGE_MIN_NS:
        raise SettingsError(
            f"segments are kept for at least {AGE_MIN_NS // DAY_NS} days after their hour: what lists or compacts the ledger now "
            "may still read them, and until then the compacted files are not the only copy"
        )
    before_ns = now_ns - older_ns
    written = {info.key: info.modified_ns async for info in store.list(layout.compacted("manifests"))}
    records, found = await archive.read_records(store)
    faults = [one for one in (*found, *compactions.check(records)) if one.is_fault]
    if faults:
        return Expiry((), tuple(faults), is_dry_run)
    sizes = {info.key: info.size async for info in store.list(layout.segments())}
    waiting = {given.key for plan in _unfinished(records) for given in plan.inputs}
    expired: list[Expired] = []
    for key, manifest in sorted(records.manifests.items()):
        left = [given for given in manifest.inputs if given.key in sizes and given.key not in waiting]
        if not left or not 0 < written.get(key, 0) <= before_ns or _end_ns(manifest) > before_ns:
            continue
        proven, problems = await _proven(store, key, manifest, left)
        faults += problems
        if proven and not is_dry_run:
            await archive.each(proven, store.delete, at_once=FETCHES)
        if proven:
            size_bytes = sum(sizes[name] for name in proven)
            expired.append(Expired(manifest.dt, manifest.hr, manifest.generation, len(proven), size_bytes))
    return Expiry(tuple(expired), tuple(faults), is_dry_run)


def _unfinished(records: Records) -> Iterator[Plan]:
    """What a compaction may be writing files of."""
    for plan in records.plans.values():
        if layout.compacted("manifests", plan.dt, plan.hr, plan.generation) not in records.manifests:
            yield plan


def _end_ns(manifest: Manifest) -> int:
    return hours.begin_ns((manifest.dt, manifest.hr)) + HOUR_NS


async def _proven(
    store: ObjectStore, key: str, manifest: Manifest, left: Iterable[Input]
) -> tuple[list[str], list[Finding]]:
    """The keys of those that may go: all that are left, or none and why."""
    with tempfile.TemporaryDirectory(prefix="steelyard-expire-") as scratch:
        folder = Path(scratch)
        paths, found = await audited.fetched(store, manifest, folder)
        if found:
            return [], found
        try:
            contents = await asyncio.to_thread(hourproof.read, paths)
        except ManifestInvalid as error:
            return [], [Finding("damaged", f"the files of {key} {error}", key=key)]
        # No opening records and price books: whether a charge is right is the audit's question, not whether it is kept.
        _, found = await asyncio.to_thread(audited.check, key, manifest, contents, {}, {})
        segments, changed = await _fetched(store, left, folder / "segments")
        found += changed
        if segments and not found:
            problem = await asyncio.to_thread(_difference, segments, paths, folder / "again")
            found += [Finding("unbalanced", f"{key}: {problem}", key=key)] if problem else []
    return [] if found else sorted(segments), found


async def _fetched(store: ObjectStore, left: Iterable[Input], folder: Path) -> tuple[dict[str, Path], list[Finding]]:
    """What the store has of these, never a copy from before; one that another run has deleted meanwhile is not missed."""
    paths: dict[str, Path] = {}
    found: list[Finding] = []

    async def one(given: Input) -> None:
        try:
            data = (await store.get(given.key)).body
        except ObjectNotFound:
            return
        if codec.sha256(data) != given.sha256:
            text = f"{given.key} is not the segment that was compacted: its digest was {given.sha256}"
            found.append(Finding("broken_chain", text, key=given.key))
            return
        if unknown := await asyncio.to_thread(_unknown, data):
            text = (
                f"{given.key} has what this Steelyard does not know ({unknown}) and did not compact: upgrade it first"
            )
            found.append(Finding("newer_version", text, key=given.key))
            return
        paths[given.key] = folder / given.key
        await asyncio.to_thread(_write, paths[given.key], data)

    await archive.each(left, one, at_once=FETCHES)
    return paths, found


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _unknown(data: bytes) -> str:
    """The first field that no column was made of; "" when there is none."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    for text in gzip.decompress(data).splitlines():
        line = decoder.decode(text)
        names = line.keys() - _FIELDS.get(line["type"], set())
        names |= (line.get("phases") or {}).keys() - _PHASES
        if names:
            return min(names)
    return ""


def _difference(segments: Mapping[str, Path], files: Mapping[Table, Path], folder: Path) -> str:
    """Whether the files hold just what these segments make, whatever else they hold; "" when they do."""
    folder.mkdir()
    again = hourfiles.write([segments[key] for key in sorted(segments)], folder)
    for table in TABLES:
        if table == "sums":  # over all segments of the hour, and proven by `hourproof`
            continue
        try:
            is_same = filecmp.cmp(
                files[table], again[table][0], shallow=False
            )  # all are left, and the same DuckDB wrote
            if not is_same and not hourfiles.same_rows_of(files[table], again[table][0], again["segments"][0]):
                return f"its file of {table} does not hold the rows of its segments"
        except duckdb.BinderException as error:  # an older Steelyard made it
            return f"its file of {table} has other columns than are written now ({str(error).splitlines()[0]})"
    return ""
