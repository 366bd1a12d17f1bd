"""Makes Parquet of the ledger's closed hours: `steelyard ledger compact`. Safe to run again, beside another, and to kill anywhere.

Per hour: check the segments that no manifest lists, claim a plan of them, write the files that the plan determines, commit the
manifest. A plan without a manifest is finished by whoever comes next. Segments stay where they are; `expiring` deletes them a week
after their manifest at the earliest. A segment is of one generation only, so none needs the inputs of another.
"""

import asyncio
import contextlib
import hashlib
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.audit import lives, segments
from gateway.audit.findings import Finding
from gateway.audit.lives import Life
from gateway.contract import codec, layout, ledgerkeys
from gateway.contract.compacted import TABLES, Contents, File, Input, Manifest, Plan, Table
from gateway.contract.ledger import Open
from gateway.contract.prices import PriceBook
from gateway.contract.words import HOUR_NS
from gateway.errors import ManifestInvalid, ObjectNotFound, PreconditionFailed, SettingsError
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import copied, copies, heads, hourfiles, hourlimits, hours
from gateway.reports.hours import Hour

GRACE_NS = 15 * 60 * 10**9
"""After an hour's end its segments come within seconds; what an outage keeps longer is the next generation."""
CHUNK_BYTES = 1 << 20

T = TypeVar("T", bound=msgspec.Struct)
LifeName = tuple[str, int]
"""Container and boot."""


class Compacted(msgspec.Struct, frozen=True):
    """What a run did. `refused` are findings about segments that must be put right first; their hours were left alone."""

    committed: tuple[Manifest, ...]
    refused: tuple[Finding, ...]


def _unheard(_done: int, _total: int, _following: str) -> None:
    """Where nobody waits."""


async def compact(
    store: ObjectStore,
    folder: Path,
    *,
    now_ns: int,
    grace_ns: int = GRACE_NS,
    note: Callable[[int, int, str], None] = _unheard,
) -> Compacted:
    """Compact all hours that ended `grace_ns` ago, with copies of segments in `folder`.

    `note` is told before each hour how many are done, of how many, and which is next; "" at the end.

    Raises `StoreUnavailable`: what was written stays and the next run goes on there; `ManifestInvalid` when an object that a plan
    determines was changed.
    """
    manifests = {(one.dt, one.hr, one.generation) for one in await _records(store, folder, "manifests", Contents)}
    plans = await _records(store, folder, "plans", Plan)
    listed = [info async for info in store.list(layout.LEDGER)]
    unfinished = [plan for plan in plans if (plan.dt, plan.hr, plan.generation) not in manifests]
    done = {given.key for plan in plans for given in plan.inputs}
    left = _by_hour((info.key for info in listed), done, now_ns - grace_ns)
    wanted = {given.key for plan in unfinished for given in plan.inputs}.union(*left.values())
    opened = [info for info in listed if (named := ledgerkeys.parse(info.key)) is not None and named.kind == "open"]
    total = len(unfinished) + len(left)
    note(0, total, "copying their segments")
    await copies.fetch(store, folder, [*opened, *(info for info in listed if info.key in wanted)])
    committed = []
    for before, plan in enumerate(unfinished):
        note(before, total, f"{plan.dt}T{plan.hr}:00Z")
        committed.append(await _finish(store, folder, plan))
    generations: dict[Hour, int] = defaultdict(int)
    for plan in plans:
        generations[plan.dt, plan.hr] = max(generations[plan.dt, plan.hr], plan.generation + 1)
    opens = await asyncio.to_thread(_opens, [folder / info.key for info in opened])
    books = await _books(store, (record.price_book_sha256 for record in opens.values()))
    refused: list[Finding] = []
    for before, (hour, keys) in enumerate(sorted(left.items()), start=len(unfinished)):
        note(before, total, f"{hour[0]}T{hour[1]}:00Z")
        inputs, found = await _checked(folder, keys, opens, books)
        refused += found
        if not found:
            plan = await _claimed(store, Plan(*hour, generations[hour], inputs))
            committed.append(await _finish(store, folder, plan))
    note(total, total, "")
    return Compacted(tuple(committed), tuple(refused))


async def _records(store: ObjectStore, folder: Path, kind: str, record: type[T]) -> list[T]:
    """All of a kind; they never change, so copies are as good."""
    infos = [info async for info in store.list(layout.compacted(kind))]
    await copies.fetch(store, folder, infos)
    return await asyncio.to_thread(
        lambda: [codec.decode((folder / info.key).read_bytes(), record, what=info.key) for info in infos]
    )


def _by_hour(keys: Iterable[str], done: set[str], closed_ns: int) -> dict[Hour, list[str]]:
    """Segments that no plan has, of hours that ended by `closed_ns`, in key order."""
    found: dict[Hour, list[str]] = defaultdict(list)
    for key in keys:
        named = ledgerkeys.parse(key)
        if named is None or named.kind != "segment" or key in done:
            continue
        if named.hour_ns + HOUR_NS <= closed_ns:
            found[hours.of_segment(key)].append(key)
    return {hour: sorted(left) for hour, left in found.items()}


async def _checked(
    folder: Path, keys: list[str], opens: Mapping[LifeName, Open], books: dict[str, PriceBook]
) -> tuple[tuple[Input, ...], list[Finding]]:
    """What is compacted is proven before: each segment by itself, and the chain between those of one life."""
    found: list[Finding] = []
    read: dict[LifeName, Life] = {}
    inputs: list[Input] = []
    for key in keys:
        named = ledgerkeys.parse(key)
        assert named is not None
        name = named.container, named.boot_ns
        data = await asyncio.to_thread((folder / key).read_bytes)
        inputs.append(Input(key, codec.sha256(data)))
        checked, problems = await asyncio.to_thread(segments.check, key, data, opens.get(name), books)
        found += problems
        if not problems:
            head = await asyncio.to_thread(heads.read, folder / key)
            found += hourlimits.check(key, head)
        if checked is not None:
            read.setdefault(name, Life(*name)).read.append(checked)
    for life in read.values():
        life.read.sort(key=lambda one: (one.header.seq, one.key))
        found += lives.chain(life)
    return tuple(inputs), found


def _opens(paths: Iterable[Path]) -> dict[LifeName, Open]:
    """Raises `ManifestInvalid` for one that is damaged."""
    records = [copied.record(path, Open, "ledger record") for path in paths]
    return {(record.container, record.boot_ns): record for record in records}


async def _books(store: ObjectStore, digests: Iterable[str]) -> dict[str, PriceBook]:
    """A missing or edited one is the audit's to name; sums are checked without it."""
    books: dict[str, PriceBook] = {}
    for sha256 in sorted(set(digests)):
        with contextlib.suppress(ObjectNotFound, SettingsError):
            data = (await store.get(layout.price_book(sha256))).body
            if codec.sha256(data) == sha256:
                books[sha256] = PriceBook(data, name=layout.price_book(sha256))
    return books


async def _claimed(store: ObjectStore, plan: Plan) -> Plan:
    """This plan, or the one that another compactor claimed for the same generation."""
    key = layout.compacted("plans", plan.dt, plan.hr, plan.generation)
    try:
        await store.put_if_absent(key, codec.encode(plan))
    except PreconditionFailed:
        return codec.decode((await store.get(key)).body, Plan, what=key)
    return plan


async def _finish(store: ObjectStore, folder: Path, plan: Plan) -> Manifest:
    paths = [await _input(store, folder, given) for given in plan.inputs]
    with tempfile.TemporaryDirectory(prefix="steelyard-compact-") as scratch:
        written = await asyncio.to_thread(hourfiles.write, paths, Path(scratch))
        files = [await _stored(store, plan, table, *written[table]) for table in TABLES]
    found = [heads.read(path).segment for path in paths]
    manifest = Manifest(
        dt=plan.dt,
        hr=plan.hr,
        generation=plan.generation,
        inputs=plan.inputs,
        files=tuple(files),
        cost_picousd=sum(header.cost_picousd for header in found),
        requests=sum(header.requests for header in found),
    )
    key = layout.compacted("manifests", plan.dt, plan.hr, plan.generation)
    try:
        await store.put_if_absent(key, codec.encode(manifest))
    except PreconditionFailed:
        return codec.decode((await store.get(key)).body, Manifest, what=key)
    return manifest


async def _input(store: ObjectStore, folder: Path, given: Input) -> Path:
    """The local copy with exactly the planned bytes."""
    path = folder / given.key
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError as error:
        raise ManifestInvalid(
            f"{given.key} was planned and is gone: put it back from a copy, then run again"
        ) from error
    if codec.sha256(data) != given.sha256:
        raise copied.damaged("ledger segment", path, "it was changed since it was planned")
    return path


async def _stored(store: ObjectStore, plan: Plan, table: Table, path: Path, rows: int) -> File:
    """Created, or found there with the same rows: by an earlier run whose bytes another DuckDB may have written."""
    key = layout.compacted(table, plan.dt, plan.hr, plan.generation)
    sha256, size = await asyncio.to_thread(_measured, path)
    try:
        await store.put_stream_if_absent(key, _chunks(path), sha256=sha256, size=size)
    except PreconditionFailed:
        found = path.with_suffix(".found")
        await asyncio.to_thread(found.write_bytes, (await store.get(key)).body)
        there, size = await asyncio.to_thread(_measured, found)
        if there != sha256 and not await asyncio.to_thread(hourfiles.same_rows, path, found):
            raise ManifestInvalid(f"{key} does not hold what its plan determines; delete it and run again") from None
        sha256 = there
    return File(table, key, sha256, size, rows)


def _measured(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
