"""Ten thousand segments are listed once and fetched once; afterwards only where something can be new. By counting store calls."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.contract import codec, layout
from gateway.contract.compacted import File, Input, Manifest
from gateway.objectstore.protocol import ObjectInfo, StoredObject
from gateway.reports import hourfiles, hours
from gateway.reports.compaction import compact
from gateway.reports.listing import PAGE
from gateway.reports.sync import LISTED, sync
from tests.support.memorystore import MemoryStore

PAST = "past"
HOUR_NS = 3600 * 10**9
T0_NS = 1_793_880_000 * 10**9  # 2026-11-05T12:00:00Z


class Counting(MemoryStore):
    """`rows` are keys that listings returned, by prefix; `fetched` are objects.

    It begins with the segments of a container that closed long ago: a small ledger is listed whole every time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects[layout.container_open(PAST, T0_NS)] = self.objects[layout.container_close(PAST, T0_NS)] = b"{}"
        for seq in range(PAGE):
            key = layout.segment(from_ns=T0_NS - 40 * HOUR_NS, container=PAST, boot_ns=T0_NS, seq=seq)
            self.objects[key] = b"segment"
        self.rows = Counter[str]()
        self.lists = 0
        self.fetched: list[str] = []

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.lists += 1
        async for info in super().list(prefix, start_after=start_after):
            self.rows[prefix] += 1
            yield info

    async def get(self, key: str) -> StoredObject:
        self.fetched.append(key)
        return await super().get(key)

    def forget(self) -> None:
        self.rows.clear()
        self.lists = 0
        self.fetched.clear()


def begin(store: Counting, container: str, boot_ns: int = T0_NS) -> None:
    store.objects[layout.container_open(container, boot_ns)] = b"{}"


def write(store: Counting, container: str, seqs: range, *, from_ns: int = T0_NS, step_ns: int = 10**10) -> list[str]:
    keys = [
        layout.segment(from_ns=from_ns + seq * step_ns, container=container, boot_ns=T0_NS, seq=seq) for seq in seqs
    ]
    store.objects |= dict.fromkeys(keys, b"segment")
    return keys


def end(store: Counting, container: str) -> None:
    store.objects[layout.container_close(container, T0_NS)] = b"{}"


async def synced(store: Counting, folder: Path, hours: float) -> set[str]:
    """The segments that a report would read, that long after the first life began."""
    store.forget()
    local = await sync(store, folder, now_ns=lambda: T0_NS + round(hours * HOUR_NS))
    return {key for path in local.segments if f"/{PAST}/" not in (key := path.relative_to(folder).as_posix())}


async def test_ten_thousand_segments_are_listed_and_fetched_once(tmp_path: Path) -> None:
    store = Counting()
    begin(store, "box")
    old = write(store, "box", range(10_000))  # 28 hours
    assert await synced(store, tmp_path, 28) == set(old)
    assert (store.lists, sum(store.rows.values()), len(store.fetched)) == (2, 10_003 + PAGE, 10_003 + PAGE)
    new = write(store, "box", range(10_000, 10_006))
    assert await synced(store, tmp_path, 28.1) == {*old, *new}
    assert store.fetched == new
    assert store.rows[layout.segments()] < 400  # of one hour
    assert store.rows[layout.containers()] == 3
    assert await synced(store, tmp_path, 28.2) == {*old, *new}
    assert store.fetched == []


async def test_nothing_is_listed_of_lives_that_have_closed(tmp_path: Path) -> None:
    store = Counting()
    begin(store, "box")
    keys = write(store, "box", range(50))
    end(store, "box")
    await synced(store, tmp_path, 1)
    assert await synced(store, tmp_path, 2) == set(keys)
    assert (store.lists, store.rows[layout.segments()]) == (4, 0)  # records, training, corrections, manifests


async def test_what_came_with_the_close_record_is_not_missed(tmp_path: Path) -> None:
    """Listed before the last segments, and after the close: the close alone must not end the listing."""
    store = Counting()
    begin(store, "box")
    keys = write(store, "box", range(5))
    await synced(store, tmp_path, 1)
    keys += write(store, "box", range(5, 900))
    end(store, "box")
    assert await synced(store, tmp_path, 3) == set(keys)
    await synced(store, tmp_path, 3.1)
    assert store.rows[layout.segments()] == 0


async def test_late_segments_of_an_outage_are_found_in_their_hours(tmp_path: Path) -> None:
    """One container lost the store for five hours while another went on."""
    store = Counting()
    begin(store, "cut-off")
    begin(store, "other")
    keys = write(store, "cut-off", range(10)) + write(store, "other", range(1800))
    assert await synced(store, tmp_path, 5) == set(keys)
    keys += write(store, "cut-off", range(10, 1800)) + write(store, "other", range(1800, 1900))
    assert await synced(store, tmp_path, 5.5) == set(keys)


async def test_a_new_container_is_found_from_its_boot_on(tmp_path: Path) -> None:
    store = Counting()
    begin(store, "old")
    keys = write(store, "old", range(2000))
    await synced(store, tmp_path, 5.5)
    late_boot = T0_NS + HOUR_NS  # it could not reach the store until now
    begin(store, "new", late_boot)
    key = layout.segment(from_ns=late_boot, container="new", boot_ns=late_boot, seq=0)
    store.objects[key] = b"segment"
    assert await synced(store, tmp_path, 5.6) == {*keys, key}


async def test_a_killed_container_does_not_hold_the_listing_back(tmp_path: Path) -> None:
    store = Counting()
    begin(store, "killed")
    begin(store, "alive")
    write(store, "killed", range(300))
    write(store, "alive", range(300), step_ns=10**12)  # three and a half days
    await synced(store, tmp_path, 83)
    await synced(store, tmp_path, 84)
    assert 0 < store.rows[layout.segments()] < 10


@pytest.mark.parametrize("hours", [24.5, -1.0])
async def test_everything_is_listed_again_after_a_day_or_a_jump_of_the_clock(tmp_path: Path, hours: float) -> None:
    """What the rules leave out is found then: here a segment of a life that had closed, and one that was deleted."""
    store = Counting()
    begin(store, "box")
    keys = write(store, "box", range(20))
    end(store, "box")
    await synced(store, tmp_path, 0)
    del store.objects[keys[3]]
    keys += write(store, "box", range(20, 22))
    assert await synced(store, tmp_path, hours) == {*keys} - {keys[3]}
    assert store.rows == {layout.LEDGER: 25 + PAGE}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", json.dumps({"whole_ns": 0, "sizes": {}, "schema_version": 2}).encode()]
)
async def test_a_damaged_or_newer_list_is_made_again(tmp_path: Path, body: bytes) -> None:
    store = Counting()
    begin(store, "box")
    keys = write(store, "box", range(20))
    await synced(store, tmp_path, 0)
    (tmp_path / LISTED).write_bytes(body)
    assert await synced(store, tmp_path, 0.1) == set(keys)
    assert store.fetched == []


def compacted(store: Counting, scratch: Path, keys: list[str], generation: int = 0) -> str:
    """The key of a manifest that lists these segments of one hour, with files of no rows."""
    dt, hr = hours.of_segment(keys[0])
    files = []
    for table, (path, rows) in hourfiles.write([], scratch).items():
        key, body = layout.compacted(table, dt, hr, generation), path.read_bytes()
        store.objects[key] = body
        files.append(File(table, key, codec.sha256(body), len(body), rows))
    inputs = tuple(Input(key, "0" * 64) for key in keys)
    key = layout.compacted("manifests", dt, hr, generation)
    store.objects[key] = codec.encode(Manifest(dt, hr, generation, inputs, tuple(files), 0, 0))
    return key


async def test_of_compacted_hours_only_new_manifests_are_listed(tmp_path: Path) -> None:
    """A new one is of an hour that had segments without one, or of a later hour: also long after, and in a second generation."""
    scratch, folder = tmp_path / "scratch", tmp_path / "copies"
    scratch.mkdir()
    store = Counting()
    compacted(store, scratch, [key for key in store.objects if f"/{PAST}/" in key and key.endswith("gz")])
    begin(store, "box")
    keys = write(store, "box", range(1080))  # three hours
    hour = 360
    compacted(store, scratch, keys[:hour])
    assert await synced(store, folder, 3) == set(keys[hour:])
    assert store.fetched
    assert not {*store.fetched} & {*keys[:hour]}
    new = [compacted(store, scratch, keys[at : at + hour]) for at in (hour, 2 * hour)]
    assert await synced(store, folder, 3.1) == set()
    assert [key for key in store.fetched if key.startswith(layout.COMPACTED)] == new  # the files are as known ones
    assert store.rows[layout.compacted("manifests")] == 2
    assert await synced(store, folder, 3.2) == set()
    assert (store.fetched, store.rows[layout.compacted("manifests")]) == ([], 0)
    late = [layout.segment(from_ns=T0_NS + HOUR_NS, container="box", boot_ns=T0_NS, seq=9000)]
    store.objects[late[0]] = b"segment"
    assert await synced(store, folder, 27.3) == set(late)
    again = compacted(store, scratch, late, generation=1)
    assert await synced(store, folder, 27.4) == set()
    assert store.fetched == [again]


async def test_a_small_ledger_is_listed_whole_and_keeps_no_list(tmp_path: Path) -> None:
    store = MemoryStore()
    key = layout.segment(from_ns=T0_NS, container="box", boot_ns=T0_NS, seq=0)
    store.objects |= {key: b"segment", layout.container_close("box", T0_NS): b"{}"}
    assert len((await sync(store, tmp_path)).segments) == 1
    del store.objects[key]
    assert (await sync(store, tmp_path)).segments == ()
    assert not (tmp_path / LISTED).exists()


async def test_compaction_lists_everything(tmp_path: Path) -> None:
    """What a report may see a day later, a manifest must not miss."""
    store = Counting()
    begin(store, "box")
    end(store, "box")
    await synced(store, tmp_path, 0)
    late = write(store, "box", range(3))
    for name in (PAST, "box"):
        del store.objects[layout.container_open(name, T0_NS)]  # they are no real records either
    done = await compact(store, tmp_path, now_ns=T0_NS + 2 * HOUR_NS)
    assert set(late) <= {finding.key for finding in done.refused}  # nor segments
