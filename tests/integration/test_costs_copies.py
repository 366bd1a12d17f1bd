"""Local copies of a ledger: made once, whole, a few at a time, and never of what is no ledger."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from gateway.contract import layout
from gateway.errors import StoreUnavailable
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import StoredObject
from gateway.reports.copies import FETCHES
from gateway.reports.sync import default_folder, sync
from tests.support import ledgers


@pytest.fixture
def ledger() -> ledgers.Ledger:
    return ledgers.random_ledger(11)


@pytest.fixture
def root(tmp_path: Path, ledger: ledgers.Ledger) -> Path:
    ledgers.write(tmp_path / "store", ledger)
    return tmp_path / "store"


class CountingStore:
    """A local store that counts gets, and how many run at once."""

    def __init__(self, root: Path) -> None:
        self._store = LocalStore(root)
        self.list = self._store.list
        self.gets: Counter[str] = Counter()
        self.running = self.running_max = 0
        self.failing = ""

    async def get(self, key: str) -> StoredObject:
        if key.startswith(layout.LEDGER):  # not the price book, which these ledgers have none of
            self.gets[key] += 1
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await asyncio.sleep(0)
            if key == self.failing:
                raise StoreUnavailable("gone")
            return await self._store.get(key)
        finally:
            self.running -= 1


async def test_every_object_is_fetched_once(tmp_path: Path):
    many = ledgers.container("c", [ledgers.charges(1, 1)] * 40)
    ledgers.write(tmp_path / "store", many)
    store = CountingStore(tmp_path / "store")

    await sync(store, tmp_path / "copy")
    ledgers.write(tmp_path / "store", ledgers.container("d", [ledgers.charges(1, 1)]))
    local = await sync(store, tmp_path / "copy")

    assert set(store.gets.values()) == {1}
    assert store.running_max == FETCHES
    assert (len(local.segments), len(local.opens), len(local.closes)) == (41, 2, 2)
    assert all(
        path.read_bytes() == (tmp_path / "store" / path.relative_to(tmp_path / "copy")).read_bytes()
        for path in local.segments
    )


async def test_copy_of_another_size_is_fetched_again(tmp_path: Path, root: Path):
    store = CountingStore(root)
    first = await sync(store, tmp_path / "copy")
    first.segments[0].write_bytes(b"cut short")
    await sync(store, tmp_path / "copy")
    assert sorted(store.gets.values())[-2:] == [1, 2]


async def test_two_reports_at_once_see_whole_files(tmp_path: Path, root: Path):
    both = await asyncio.gather(
        *(sync(LocalStore(root), tmp_path / "copy", now_ns=lambda: ledgers.T0_NS) for _ in range(2))
    )
    assert both[0] == both[1]
    assert sorted(path for path in (tmp_path / "copy").rglob("*") if path.is_file()) == sorted(
        (*both[0].segments, *both[0].opens, *both[0].closes)
    )


async def test_what_the_store_no_longer_lists_is_not_reported(tmp_path: Path, root: Path):
    before = await sync(LocalStore(root), tmp_path / "copy")
    (root / before.segments[0].relative_to(tmp_path / "copy")).unlink()
    after = await sync(LocalStore(root), tmp_path / "copy")
    assert after.segments == before.segments[1:]


async def test_foreign_objects_are_named_and_never_become_files(tmp_path: Path):
    ledgers.write(tmp_path / "store", {"ledger/v1/dt=2026-11-05/hr=12/compacted.parquet": b"PAR1"})
    local = await sync(LocalStore(tmp_path / "store"), tmp_path / "copy")
    assert local.foreign == ("ledger/v1/dt=2026-11-05/hr=12/compacted.parquet",)
    assert not (tmp_path / "copy").exists()


async def test_store_that_fails_midway_is_one_error(tmp_path: Path, root: Path, ledger: ledgers.Ledger):
    store = CountingStore(root)
    store.failing = max(ledger)
    with pytest.raises(StoreUnavailable, match="gone"):
        await sync(store, tmp_path / "copy")


def test_each_store_has_its_own_cache_folder():
    one, other = (default_folder(url, {"XDG_CACHE_HOME": "/cache"}) for url in ("s3://a", "s3://b"))
    assert one != other
    assert one.parent == Path("/cache/steelyard/ledger")
