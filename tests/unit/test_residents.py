"""What is in memory: loads coalesced and bounded, a budget kept, what must stay staying. Aliases: `test_residents_following.py`."""

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ModelNotFound, ModelNotReady, UnsupportedModel
from gateway.objectstore.local import LocalStore
from tests.support.releases import publish
from tests.support.repositories import CountingStore, WeighingLoader, real, until, weighing


@pytest.fixture
def store() -> Any:  # Any: a memory store keeps the protocol without listing folders
    return CountingStore()


async def test_a_hundred_first_calls_make_one_load(store: Any, tmp_path: Path) -> None:
    await publish(store, "a")
    store.reads.clear()
    async with weighing(store, tmp_path) as (repository, loader, _):
        residents = await asyncio.gather(*(repository.ready("a") for _ in range(100)))
        assert len({id(resident) for resident in residents}) == 1
        assert loader.built == {"a": 1}
        assert store.reads == {"aliases": 1, "manifests": 1, "blobs": 1}


async def test_a_name_and_its_number_asked_for_at_once_are_one_load(store: Any, tmp_path: Path) -> None:
    await publish(store, "a")
    async with weighing(store, tmp_path) as (repository, loader, _):
        by_name, by_number, by_alias = await asyncio.gather(
            repository.ready("a"), repository.ready("a", "1"), repository.ready("a", "champion")
        )
        assert by_name is by_number is by_alias
        assert loader.built == {"a": 1}
        assert repository.resident("a") is repository.resident("a", "1") is repository.resident("a", "champion")


async def test_loads_at_once_are_bounded(store: Any, tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(12)]
    for name in names:
        await publish(store, name)
    async with weighing(store, tmp_path, loads_max=3) as (repository, loader, _):
        loader.gate.clear()
        loads = asyncio.gather(*map(repository.ready, names))
        await until(lambda: loader.building == 3)
        loader.gate.set()
        assert len(await loads) == 12
        assert loader.building_max == 3


async def test_a_caller_that_leaves_does_not_end_the_load_of_the_others(store: Any, tmp_path: Path) -> None:
    await publish(store, "a")
    async with weighing(store, tmp_path) as (repository, loader, _):
        loader.gate.clear()
        first, second = (asyncio.create_task(repository.ready("a")) for _ in range(2))
        await until(lambda: loader.building)
        first.cancel()
        loader.gate.set()
        assert (await second).name == "a"
        assert loader.built == {"a": 1}


@pytest.mark.parametrize("version", ["9", "beta", "001", "no such thing", "../x", "", "12345678901234567890"])
async def test_a_version_that_is_neither_number_nor_alias_is_not_found(tmp_path: Path, version: str) -> None:
    (tmp_path / "store").mkdir()
    store = LocalStore(tmp_path / "store")
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path) as (repository, _, _):
        for _ in range(2):
            with pytest.raises(ModelNotFound, match=r"model 'a' has no version .*: 1, 2"):
                await repository.ready("a", version)


async def test_the_least_valuable_model_makes_room(store: Any, tmp_path: Path) -> None:
    for name in ("often", "rare", "new"):
        await publish(store, name)
    async with weighing(store, tmp_path, memory_bytes_max=2500) as (repository, _, observed):
        await repository.ready("often")
        await repository.ready("rare")
        for _ in range(1000):  # outweighs any difference in what loading took
            assert repository.resident("often")
        await repository.ready("new")
        assert observed.inside == {("often", 1), ("new", 1)}
        assert repository.resident("rare") is None
        assert repository.memory_bytes == (2000, 2500)
        assert repository.counts.evictions == 1
        assert (await repository.ready("rare")).name == "rare"  # and back again
        assert len(observed.inside) == 2


async def test_any_mix_of_calls_stays_within_the_budget(store: Any, tmp_path: Path) -> None:
    weights = {f"m{number}": 100 + 130 * number for number in range(10)}
    for name in weights:
        await publish(store, name)
    loader = WeighingLoader(weights)
    async with weighing(store, tmp_path, loader, memory_bytes_max=3000, loads_max=2) as (repository, _, observed):
        for start in range(20):
            names = [f"m{(start * 7 + step * 3) % 10}" for step in range(6)]
            residents = await asyncio.gather(*map(repository.ready, names))
            assert [resident.name for resident in residents] == names
            assert sum(weights[name] for name, _ in observed.inside) <= 3000
            assert repository.memory_bytes[0] == sum(weights[name] for name, _ in observed.inside)


async def test_what_is_preloaded_and_what_is_running_stays(store: Any, tmp_path: Path) -> None:
    for name in ("kept", "running", "idle", "new", "other"):
        await publish(store, name)
    async with weighing(store, tmp_path, kept=("kept",), memory_bytes_max=3000) as (repository, _, observed):
        await repository.ready("kept")
        running = await repository.ready("running")
        running.use.running += 1
        await repository.ready("idle")
        for _ in range(100):
            repository.resident("idle")
        await repository.ready("new")
        assert observed.inside == {("kept", 1), ("running", 1), ("new", 1)}
        (await repository.ready("new")).use.running += 1
        await repository.ready("other")  # now one that runs must go; its request keeps what it holds
        assert ("kept", 1) in observed.inside
        assert len(observed.inside) == 3


async def test_a_model_larger_than_the_budget_is_refused_before_it_is_fetched(store: Any, tmp_path: Path) -> None:
    await publish(store, "huge")
    store.reads.clear()
    async with weighing(store, tmp_path, WeighingLoader({"huge": 5001}), memory_bytes_max=5000) as (repository, _, _):
        with pytest.raises(UnsupportedModel, match=r"needs 5,001 bytes .* 5,000 \(repository.memory_bytes_max\)"):
            await repository.ready("huge")
        assert store.reads["blobs"] == 0


async def test_no_room_beside_preloaded_models_says_so(store: Any, tmp_path: Path) -> None:
    for name in ("kept", "new"):
        await publish(store, name)
    async with weighing(store, tmp_path, kept=("kept",), memory_bytes_max=1500) as (repository, _, observed):
        await repository.ready("kept")
        with pytest.raises(ModelNotReady, match=r"needs 1,000 bytes of memory; 1,000 of 1,500"):
            await repository.ready("new")
        assert observed.inside == {("kept", 1)}


async def test_the_budget_is_a_share_of_the_container(store: Any, tmp_path: Path) -> None:
    for options, budget_bytes in (({}, 6000), ({"memory_bytes_max": 777}, 777)):
        async with weighing(store, tmp_path, container_bytes=10_000, **options) as (repository, _, _):
            assert repository.memory_bytes == (0, budget_bytes)


async def test_eviction_frees_the_model(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = LocalStore(tmp_path / "store")
    for name in ("a", "b"):
        await publish(store, name)
    async with real(store, tmp_path, memory_bytes_max=3000) as repository:
        gone = weakref.ref((await repository.ready("a")).model)
        await repository.ready("b")
        gc.disable()  # reference counting alone must do it: a cycle would hold the memory until some later collection
        try:
            await until(lambda: gone() is None)
        finally:
            gc.enable()


async def test_unload_takes_everything_of_a_name_out(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path) as (repository, _, observed):
        await repository.ready("a")
        await repository.ready("a", "2")
        assert repository.unload("a")
        assert observed.inside == set()
        assert repository.resident("a") is None
        assert not repository.unload("a")
        assert (await repository.ready("a")).version == 1


async def test_pinned_versions_that_nobody_used_lately_go(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=4)
    async with weighing(store, tmp_path, pinned_max=2) as (repository, _, observed):
        await repository.ready("a")
        for version in ("2", "3", "2", "4", "1"):
            await repository.ready("a", version)
        assert observed.inside == {("a", 1), ("a", 4)}  # 1 is the champion's too


async def test_a_load_says_where_its_time_went(store: Any, tmp_path: Path) -> None:
    await publish(store, "a")
    for is_cached in (False, True):
        async with weighing(store, tmp_path) as (repository, _, observed):
            resident = await repository.ready("a")
            [spent] = observed.spent
            assert (spent.download_ns == 0) is is_cached
            assert spent.verify_ns > 0
            assert spent.session_ns > 0
            assert resident.reload_ns == spent.verify_ns + spent.session_ns
