"""A name follows its alias: the new version beside the old one, which stays when it must; sleepers; looks that are spread."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import layout
from gateway.registry import releasing
from tests.support.releases import AUTHOR, CHAMPION, publish
from tests.support.repositories import CountingStore, followed, until, weighing


@pytest.fixture
def store() -> Any:  # Any: a memory store keeps the protocol without listing folders
    return CountingStore()


async def test_a_promotion_is_swapped_in_beside_the_old_version(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path, memory_bytes_max=1500) as (repository, _, observed):
        old = await repository.ready("a")
        await releasing.promote(store, model="a", version=2, **CHAMPION)
        assert repository.resident("a") is old
        await followed(repository, "a")
        resident = repository.resident("a")
        assert resident is not None
        assert resident.version == 2
        assert observed.events == [("in", "a", 1), ("in", "a", 2), ("out", "a", 1)]


async def test_a_broken_release_is_refused_once_and_the_old_one_stays(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=3)
    async with weighing(store, tmp_path) as (repository, loader, _):
        await repository.ready("a")
        loader.broken.add("a")
        await releasing.promote(store, model="a", version=2, **CHAMPION)
        store.reads.clear()
        for _ in range(3):
            await followed(repository, "a")
        assert store.reads["manifests"] == 1
        [(resident, problem)] = repository.residents()
        assert (resident.version, problem) == (1, "version 2 is refused: model 'a' is broken")
        loader.broken.clear()
        await releasing.promote(store, model="a", version=3, **CHAMPION)
        await followed(repository, "a")
        [(resident, problem)] = repository.residents()
        assert (resident.version, problem) == (3, "")


async def test_a_store_that_is_away_is_reported_and_asked_again(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path) as (repository, _, _):
        await repository.ready("a")
        await releasing.promote(store, model="a", version=2, **CHAMPION)
        store.is_down = True
        await followed(repository, "a")
        assert repository.residents()[0][1] == "the store is down"
        store.is_down = False
        await followed(repository, "a")
        assert [(r.version, problem) for r, problem in repository.residents()] == [(2, "")]


async def test_two_aliases_share_a_version_and_move_apart(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    await releasing.promote(store, model="a", version=1, alias="beta", author=AUTHOR)
    async with weighing(store, tmp_path) as (repository, loader, observed):
        assert await repository.ready("a") is await repository.ready("a", "beta")
        await releasing.promote(store, model="a", version=2, alias="beta", author=AUTHOR)
        await followed(repository, "a", "beta")
        assert repository.resident("a").version == 1  # type: ignore[union-attr]
        assert repository.resident("a", "beta").version == 2  # type: ignore[union-attr]
        assert observed.inside == {("a", 1), ("a", 2)}
        assert loader.built == {"a": 2}


async def test_a_name_nobody_calls_sleeps_and_is_looked_at_before_its_next_answer(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path, idle_s=3600.0, wake_s=60.0) as (repository, _, _):
        await repository.ready("a")
        serving = repository._roster.following["a", "champion"]
        assert repository._follower._due() == [serving]
        serving.used_s -= 3600
        assert repository._follower._due() == []
        assert repository.resident("a") is None
        await releasing.promote(store, model="a", version=2, **CHAMPION)
        assert (await repository.ready("a")).version == 2
        assert repository.resident("a") is not None
        assert repository._follower._due() == [serving]


async def test_a_sleeper_answers_with_what_it_has_when_the_store_is_away(store: Any, tmp_path: Path) -> None:
    await publish(store, "a")
    async with weighing(store, tmp_path) as (repository, _, _):
        await repository.ready("a")
        repository._roster.sleep(repository._roster.following["a", "champion"])
        store.is_down = True
        assert (await repository.ready("a")).version == 1
        assert repository.residents()[0][1] == "the store is down"


async def test_looks_are_spread_over_the_interval_and_bounded(store: Any, tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(20)]
    for name in names:
        await publish(store, name)
    async with weighing(store, tmp_path, poll_s=0.02) as (repository, _, _):
        await asyncio.gather(*map(repository.ready, names))
        store.reads.clear()
        follow = asyncio.create_task(repository.follow())
        await until(lambda: store.reads["aliases"] >= 60)
        follow.cancel()
        await asyncio.gather(follow, return_exceptions=True)
        looked = [serving.looked_s for serving in repository._roster.following.values()]
        assert len(set(looked)) == len(looked)  # one after the other


async def test_the_alias_of_another_model_is_refused(store: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        await publish(store, name)
    store.objects[layout.alias("a", "champion")] = store.objects[layout.alias("b", "champion")]
    async with weighing(store, tmp_path) as (repository, _, _):
        with pytest.raises(Exception, match="its alias is for 'b'"):
            await repository.ready("a")
