"""Reports say the same of a ledger whether it is compacted, partly or wholly, with its segments or without; to the pico-dollar."""

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import duckdb
import msgspec
import pytest

from gateway.contract import codec, energy, layout, prices
from gateway.contract.compacted import File, Manifest
from gateway.errors import ManifestInvalid
from gateway.objectstore.protocol import StoredObject
from gateway.reports import breakdown, compaction, costs, evicting, focus, hourly, plotdata, query
from gateway.reports.hours import Needs
from gateway.reports.sync import sync
from tests.support import ledgersim
from tests.support.memorystore import MemoryStore

HOUR_NS = 3600 * 10**9
LATER_NS = ledgersim.START_NS + 30 * 24 * HOUR_NS
FIRST_NS = ledgersim.START_NS // HOUR_NS * HOUR_NS  # the lives begin 100 s before its end
SECOND_NS = 10**9
PERIODS = [
    (None, None),
    (FIRST_NS + HOUR_NS, None),
    (None, FIRST_NS + 2 * HOUR_NS),
    (FIRST_NS + HOUR_NS + 777 * SECOND_NS, None),
    (FIRST_NS + HOUR_NS + 61 * SECOND_NS, FIRST_NS + 2 * HOUR_NS + 1),
    (LATER_NS, None),
]
GROUPINGS = (
    ("direct", ("model", "version", "outcome")),
    ("full", ("activity", "hour")),
    ("idle-to-cause", query.DIMENSIONS),
)


def listed() -> int:
    """When the store is asked, in all reports that are compared."""
    return LATER_NS


class Counted(MemoryStore):
    """`read` are keys that were fetched."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects |= objects
        self.read: list[str] = []

    async def get(self, key: str) -> StoredObject:
        self.read.append(key)
        return await super().get(key)

    async def folders(self, prefix: str) -> list[str]:
        return sorted({key.removeprefix(prefix).split("/")[0] for key in self.keys(prefix)})


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    return ledgersim.killed_twice().disk.objects


async def compacted(objects: dict[str, bytes], folder: Path, *, without: Iterable[str] = ()) -> Counted:
    """`without` these segments, which come after."""
    late = set(without)
    store = Counted({key: body for key, body in objects.items() if key not in late})
    done = await compaction.compact(store, folder, now_ns=LATER_NS)
    assert done.committed
    assert done.refused == ()
    store.objects |= {key: objects[key] for key in late}
    return store


def expired(store: Counted) -> Counted:
    """Without the segments that a manifest lists, as a lifecycle rule leaves it."""
    keys = store.keys(layout.compacted("manifests"))
    gone = {given.key for key in keys for given in msgspec.json.decode(store.objects[key], type=Manifest).inputs}
    assert gone
    return Counted({key: body for key, body in store.objects.items() if key not in gone})


async def everything(store: MemoryStore, folder: Path) -> list[object]:
    """All that reports say of it, for several periods."""
    said: list[object] = []
    book = prices.load(None)
    for index, (since_ns, until_ns) in enumerate(PERIODS):
        said.append(await costs.read(store, folder, since_ns=since_ns, until_ns=until_ns, now_ns=listed))
        view, by = GROUPINGS[index % len(GROUPINGS)]
        asked = query.Query(by, since_ns, until_ns, view=view, amortize=query.Plan("rows", 1000))
        said.append(await breakdown.read(store, folder, asked, energy.load(), now_ns=listed))
    with focus.tables.opened(await sync(store, folder, Needs(PERIODS[3][0]))) as connection:
        rows = focus.rows(connection, focus.Account(), focus.Books(book), PERIODS[3][0] or 0, 2**63 - 1)
        said += sorted(map(str, rows))
    said.append(await hourly.requests(store, folder, "digits"))
    return said


async def test_reports_are_the_same_before_and_after(objects: dict[str, bytes], tmp_path: Path) -> None:
    before = await everything(Counted(objects), tmp_path / "segments")
    late = sorted(key for key in objects if key.startswith(layout.segments()))[-3:]
    assert await everything(expired(await compacted(objects, tmp_path / "w")), tmp_path / "expired") == before
    assert await everything(await compacted(objects, tmp_path / "w", without=late), tmp_path / "some") == before
    again = await compacted(objects, tmp_path / "w", without=late)
    assert [one.generation for one in (await compaction.compact(again, tmp_path / "w", now_ns=LATER_NS)).committed] == [
        1
    ]
    assert await everything(expired(again), tmp_path / "two generations") == before


async def test_of_compacted_hours_nothing_but_sums_is_fetched_and_that_once(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    store = await compacted(objects, tmp_path / "w")
    store.read.clear()
    await costs.read(store, tmp_path / "copies")
    assert [key for key in store.read if key.startswith(layout.segments())] == []
    manifests = len(store.keys(layout.compacted("manifests")))
    fetched = [path.suffix for path in (tmp_path / "copies" / "sha256").iterdir()]
    assert fetched == [".parquet"] * manifests
    store.read.clear()
    await costs.read(store, tmp_path / "copies")
    ledger = [key for key in store.read if not key.startswith(layout.MODELS)]
    assert ledger == []


def held(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / layout.LEDGER).glob("dt=*/**/*.gz"))


async def test_copies_of_segments_go_some_time_after_their_hour_is_compacted(
    objects: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = sorted(key for key in objects if key.startswith(layout.segments()))[-3:]
    store, copies = Counted(objects), tmp_path / "c"
    await sync(store, copies)
    every = held(copies)
    assert every == store.keys(layout.segments())
    store.objects |= (await compacted(objects, tmp_path / "w", without=late)).objects
    at_ns = time.time_ns()
    await sync(store, copies, now_ns=lambda: at_ns + evicting.GRACE_NS // 2)
    assert held(copies) == every  # a report of another process may be reading them
    monkeypatch.setattr(evicting, "EVICTED_MAX", 5)
    while len(before := held(copies)) > len(late):
        local = await sync(store, copies, now_ns=lambda: at_ns + 2 * evicting.GRACE_NS)
        assert held(copies) == before[5:] if len(before) > 8 else held(copies) == late
    assert [str(path.relative_to(copies)) for path in local.segments] == late
    assert (await costs.read(store, copies)).models == (await costs.read(store, tmp_path / "d")).models


async def test_an_hour_without_segments_leaves_no_folder_and_the_store_is_not_touched(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    store, copies = Counted(objects), tmp_path / "c"
    await sync(store, copies)
    store.objects |= (await compacted(objects, tmp_path / "w")).objects
    before = dict(store.objects)
    stranger = copies / held(copies)[0].replace("-0000", "-9999")
    stranger.write_bytes(b"no manifest lists this")
    await sync(store, copies, now_ns=lambda: time.time_ns() + 2 * evicting.GRACE_NS)
    assert held(copies) == [str(stranger.relative_to(copies))]
    stranger.unlink()
    await sync(store, copies, now_ns=lambda: time.time_ns() + 2 * evicting.GRACE_NS)
    assert list((copies / layout.LEDGER).glob("dt=*")) == []
    assert store.objects == before


async def test_an_hour_that_a_bound_cuts_is_read_in_detail(objects: dict[str, bytes], tmp_path: Path) -> None:
    store = await compacted(objects, tmp_path / "w")
    whole = await sync(store, tmp_path / "c", Needs(FIRST_NS + HOUR_NS, FIRST_NS + 2 * HOUR_NS, is_compared=True))
    assert all(hour.sums is not None for hour in whole.hours)
    cut = await sync(store, tmp_path / "c", Needs(FIRST_NS + HOUR_NS + 1, FIRST_NS + 2 * HOUR_NS))
    assert [hour.name for hour in cut.hours if hour.detail] == ["2026-11-05T13/0"]


async def test_latency_is_read_from_the_newest_files(objects: dict[str, bytes], tmp_path: Path) -> None:
    before = await plotdata.read(Counted(objects), tmp_path / "a", query.Query())
    store = expired(await compacted(objects, tmp_path / "w"))
    after = await plotdata.read(store, tmp_path / "b", query.Query())
    assert before.latency == after.latency != ()
    local = await sync(store, tmp_path / "b", Needs(requests_max=1))
    [newest] = [hour for hour in local.hours if hour.requests is not None]
    assert newest.name == max(hour.name for hour in local.hours)


def _as_the_first_version(store: Counted, file: File, scratch: Path) -> File:
    dropped = {"charges": "beyond", "postings": "phases"}.get(file.table)
    if dropped is None:
        return file
    path, old = scratch / "new.parquet", scratch / "old.parquet"
    path.write_bytes(store.objects[file.key])
    duckdb.connect().execute(f"COPY (SELECT * EXCLUDE ({dropped}) FROM '{path}') TO '{old}' (FORMAT parquet)")
    body = store.objects[file.key] = old.read_bytes()
    return msgspec.structs.replace(file, sha256=codec.sha256(body), size_bytes=len(body))


async def test_the_first_versions_hours_are_read_in_detail(objects: dict[str, bytes], tmp_path: Path) -> None:
    """Without sums, without what a charge bills beyond the end, without phases."""
    store = expired(await compacted(objects, tmp_path / "w"))
    for key in store.keys(layout.compacted("manifests")):
        found = msgspec.json.decode(store.objects[key], type=Manifest)
        files = [_as_the_first_version(store, file, tmp_path) for file in found.files[:4]]
        old = msgspec.structs.replace(found, files=tuple(files), schema_version=1)
        store.objects[key] = msgspec.json.encode(old)
    report = await costs.read(store, tmp_path / "copies")
    expected = await costs.read(Counted(objects), tmp_path / "segments")
    assert (report.models, report.charged_picousd) == (expected.models, expected.charged_picousd)


@pytest.mark.parametrize("change", ["missing", "flipped"])
async def test_a_file_that_is_not_the_manifests_is_refused_by_name(
    objects: dict[str, bytes], tmp_path: Path, change: str
) -> None:
    store = await compacted(objects, tmp_path / "w")
    key = store.keys(layout.compacted("sums"))[1]
    body = bytearray(store.objects.pop(key))
    if change == "flipped":
        body[len(body) // 2] ^= 1
        store.objects[key] = bytes(body)
    with pytest.raises(ManifestInvalid, match=f"{key} (is missing|was changed).*ledger verify"):
        await costs.read(store, tmp_path / "copies")
    assert not list((tmp_path / "copies").rglob(".*[!n]"))  # nothing half-written is left


async def test_a_copy_that_was_damaged_since_is_refused_by_name(objects: dict[str, bytes], tmp_path: Path) -> None:
    store = expired(await compacted(objects, tmp_path / "w"))
    await costs.read(store, tmp_path / "copies")
    copy = next((tmp_path / "copies" / "sha256").iterdir())
    copy.write_bytes(bytes(copy.stat().st_size))
    with pytest.raises(ManifestInvalid, match="delete that folder and run again"):
        await costs.read(store, tmp_path / "copies")
    shutil.rmtree(copy.parent)
    assert (await costs.read(store, tmp_path / "copies")).segments
