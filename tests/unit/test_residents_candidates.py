"""Canaries and shadows in memory: who answers a share, who is compared, and when each comes and leaves."""

from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.registry import releasing
from tests.support.releases import AUTHOR, CHAMPION, publish
from tests.support.repositories import CountingStore, WeighingLoader, followed, settled, until, weighing


@pytest.fixture
def store() -> Any:  # Any: a memory store keeps the protocol without listing folders
    return CountingStore()


async def publish_with_both(store: Any) -> None:
    """Version 1 is the champion of `a`, 3 its shadow and 4 its canary."""
    await publish(store, "a", versions=4)
    await releasing.shadow(store, model="a", version=3, sample_bp=10_000, **CHAMPION)
    await releasing.canary(store, model="a", version=4, weight_bp=5000, **CHAMPION)


async def test_canaries_answer_their_share_and_a_key_stays_with_one_version(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=3)
    await releasing.canary(store, model="a", version=2, weight_bp=1000, **CHAMPION)
    await releasing.canary(store, model="a", version=3, weight_bp=2000, **CHAMPION)
    async with weighing(store, tmp_path) as (repository, _, _):
        await repository.ready("a")
        keys = [f"customer-{number}" for number in range(20_000)]
        some = keys[:200]
        await until(lambda: {repository.resident("a", None, key).version for key in some} == {1, 2, 3})  # type: ignore[union-attr]
        first = {key: repository.resident("a", None, key).version for key in keys}  # type: ignore[union-attr]
        shares = [list(first.values()).count(version) / len(keys) for version in (1, 2, 3)]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
        assert {key: repository.resident("a", "champion", key).version for key in keys} == first  # type: ignore[union-attr]
        drawn = [repository.resident("a").version for _ in range(20_000)]  # type: ignore[union-attr]
        assert [drawn.count(version) / len(drawn) for version in (1, 2, 3)] == pytest.approx([0.7, 0.1, 0.2], abs=0.03)

        await releasing.canary(store, model="a", version=3, weight_bp=0, **CHAMPION)
        await releasing.canary(store, model="a", version=2, weight_bp=2500, **CHAMPION)
        await followed(repository, "a")
        after = {key: repository.resident("a", None, key).version for key in keys}  # type: ignore[union-attr]
        assert all(after[key] == 2 for key in keys if first[key] == 2)  # more weight takes callers, and gives none back
        assert sorted(r.version for r, _ in repository.residents()) == [1, 2]


async def test_a_canary_that_cannot_load_leaves_its_share_to_the_champion(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=3)
    async with weighing(store, tmp_path) as (repository, loader, observed):
        await repository.ready("a")
        loader.broken.add("a")
        await releasing.canary(store, model="a", version=2, weight_bp=10_000, **CHAMPION)
        await releasing.shadow(store, model="a", version=3, sample_bp=10_000, **CHAMPION)
        await followed(repository, "a")
        assert {repository.resident("a", None, str(key)).version for key in range(50)} == {1}  # type: ignore[union-attr]
        [serving] = repository.servings()
        assert [(c.version, c.is_loaded) for c in serving.canaries] == [(2, False)]
        assert serving.shadow_version is None
        assert "version 2 does not take part in alias 'champion': model 'a' is broken" in serving.problem
        assert "version 3 does not take part" in serving.problem
        assert observed.inside == {("a", 1)}
        loader.broken.clear()
        await followed(repository, "a")  # an artifact at fault is not tried again until somebody decides again
        assert repository.servings()[0].canaries[0].is_loaded is False


async def test_a_canary_that_the_store_kept_back_is_tried_again(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path) as (repository, _, _):
        await repository.ready("a")
        await releasing.canary(store, model="a", version=2, weight_bp=5000, **CHAMPION)
        serving = repository._roster.following["a", "champion"]
        load = repository._memory.load

        async def unavailable(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("the store is down")

        repository._memory.load = unavailable  # type: ignore[method-assign]
        await followed(repository, "a")
        assert "the store is down" in serving.problem
        repository._memory.load = load  # type: ignore[method-assign]
        await followed(repository, "a")
        assert serving.problem == ""
        assert repository.servings()[0].canaries[0].is_loaded


async def test_a_canary_makes_no_room_at_the_cost_of_its_champion(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path, memory_bytes_max=1500) as (repository, _, observed):
        await repository.ready("a")
        await releasing.canary(store, model="a", version=2, weight_bp=5000, **CHAMPION)
        await followed(repository, "a")
        assert observed.inside == {("a", 1)}
        assert "needs 1,000 bytes" in repository.servings()[0].problem


async def test_an_evicted_champion_takes_its_canary_with_it_and_both_come_back(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    await publish(store, "b")
    await releasing.canary(store, model="a", version=2, weight_bp=5000, **CHAMPION)
    loader = WeighingLoader({"b": 2500})
    async with weighing(store, tmp_path, loader, memory_bytes_max=3000) as (repository, _, observed):
        await repository.ready("a")
        await settled(repository)
        assert len(observed.inside) == 2
        await repository.ready("b")
        assert observed.inside == {("b", 1)}
        assert repository.counts.evictions == 2
        assert [serving.name for serving in repository.servings()] == ["b"]
        await repository.ready("a")
        await until(lambda: observed.inside == {("a", 1), ("a", 2)})


async def test_aliases_whose_canaries_are_each_others_champions_leave_together(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    await publish(store, "b")
    await releasing.promote(store, model="a", version=2, alias="beta", author=AUTHOR)
    await releasing.canary(store, model="a", version=2, weight_bp=5000, **CHAMPION)
    await releasing.canary(store, model="a", version=1, weight_bp=5000, alias="beta", author=AUTHOR)
    async with weighing(store, tmp_path, memory_bytes_max=2500) as (repository, _, observed):
        await repository.ready("a")
        await repository.ready("a", "beta")
        await until(lambda: all(s.canaries[0].is_loaded for s in repository.servings()))
        await repository.ready("b")
        assert observed.inside == {("b", 1)}
        assert [serving.name for serving in repository.servings()] == ["b"]


async def test_a_promoted_canary_is_not_loaded_again(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    async with weighing(store, tmp_path) as (repository, _, observed):
        await repository.ready("a")
        await releasing.canary(store, model="a", version=2, weight_bp=5000, **CHAMPION)
        await followed(repository, "a")
        await releasing.promote(store, model="a", version=2, **CHAMPION)
        await followed(repository, "a")
        assert {repository.resident("a", None, str(key)).version for key in range(20)} == {2}  # type: ignore[union-attr]
        assert observed.events == [("in", "a", 1), ("in", "a", 2), ("out", "a", 1)]


async def test_a_shadow_belongs_to_one_champion_and_leaves_when_it_is_ended(store: Any, tmp_path: Path) -> None:
    await publish_with_both(store)
    async with weighing(store, tmp_path) as (repository, _, observed):
        await repository.ready("a")
        await settled(repository)
        assert len(observed.inside) == 3
        one, two, four = [await repository.ready("a", version) for version in ("1", "2", "4")]
        before = repository.shadow("a", None, one)
        assert before is not None
        assert before.version == 3
        assert repository.shadow("a", "champion", one) is before
        assert repository.shadow("a", "1", one) is None  # asked for by number, which is nobody's alias
        assert repository.shadow("a", None, four) is None  # only what the champion answers is mirrored

        await releasing.promote(store, model="a", version=2, **CHAMPION)
        await followed(repository, "a")
        assert repository.shadow("a", None, one) is None  # it began before
        after = repository.shadow("a", None, two)
        assert after is not None
        assert after is not before  # it is compared with another champion now
        assert after.version == 3

        await releasing.shadow(store, model="a", version=3, sample_bp=0, **CHAMPION)
        await followed(repository, "a")
        assert repository.shadow("a", None, two) is None
        assert ("a", 3) not in observed.inside


async def test_two_aliases_of_one_version_have_a_shadow_each(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=3)
    await releasing.promote(store, model="a", version=1, alias="beta", author=AUTHOR)
    await releasing.shadow(store, model="a", version=2, sample_bp=10_000, **CHAMPION)
    await releasing.shadow(store, model="a", version=3, sample_bp=10_000, alias="beta", author=AUTHOR)
    async with weighing(store, tmp_path) as (repository, _, observed):
        one = await repository.ready("a")
        assert await repository.ready("a", "beta") is one
        await settled(repository)
        assert len(observed.inside) == 3
        runs = [repository.shadow("a", alias, one) for alias in (None, "beta")]
        assert [run and run.version for run in runs] == [2, 3]

        await releasing.shadow(store, model="a", version=3, sample_bp=0, alias="beta", author=AUTHOR)
        await followed(repository, "a", "beta")
        assert [repository.shadow("a", alias, one) for alias in (None, "beta")] == [runs[0], None]


async def test_what_a_release_keeps_is_not_loaded_again(store: Any, tmp_path: Path) -> None:
    await publish_with_both(store)
    async with weighing(store, tmp_path) as (repository, _, observed):
        await repository.ready("a")
        await settled(repository)
        assert len(observed.inside) == 3
        await releasing.promote(store, model="a", version=2, **CHAMPION)
        await followed(repository, "a")
        assert observed.events[3:] == [("in", "a", 2), ("out", "a", 1)]
        await releasing.canary(store, model="a", version=3, weight_bp=1000, **CHAMPION)  # now it answers
        await releasing.shadow(store, model="a", version=3, sample_bp=0, **CHAMPION)
        await followed(repository, "a")
        assert len(observed.events) == 5
        assert {c.version: c.is_loaded for c in repository.servings()[0].canaries} == {3: True, 4: True}


async def test_a_shadow_leaves_with_its_champion(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    await releasing.shadow(store, model="a", version=2, sample_bp=10_000, **CHAMPION)
    async with weighing(store, tmp_path) as (repository, _, observed):
        champion = await repository.ready("a")
        await settled(repository)
        assert len(observed.inside) == 2
        assert repository.unload("a")
        assert observed.inside == set()
        assert repository.shadow("a", None, champion) is None  # a request that is still running mirrors nothing


async def test_a_canary_asked_for_by_number_too_leaves_with_its_champion_only(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    await publish(store, "b")
    await releasing.canary(store, model="a", version=2, weight_bp=5000, **CHAMPION)
    async with weighing(store, tmp_path, memory_bytes_max=3000) as (repository, _, observed):
        await repository.ready("a")
        await settled(repository)
        assert len(observed.inside) == 2
        await repository.ready("a", "2")
        for _ in range(100):
            repository.resident("a", None, "x")
            repository.resident("a", "1")
        await repository.ready("b")
        await publish(store, "c")
        await repository.ready("c")
        in_memory = {version for name, version in observed.inside if name == "a"}
        assert in_memory in ({1, 2}, set(), {2})  # never the champion without the canary it sends callers to
        for serving in repository.servings():
            assert all(canary.is_loaded for canary in serving.canaries)


async def test_what_was_just_loaded_is_not_dropped_before_it_is_put_to_use(store: Any, tmp_path: Path) -> None:
    await publish(store, "a")
    async with weighing(store, tmp_path) as (repository, _, observed):
        await repository.ready("a")
        with repository._memory.claim(("a", 1)), repository._memory.claim(("a", 1)):
            repository._memory.drop_unless("a", ())
        assert observed.inside == {("a", 1)}
        repository._memory.drop_unless("a", ())
        assert observed.inside == set()
