"""What is in memory and who answers: loads coalesced, a budget kept, aliases followed, the old version staying when it must."""

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import layout
from gateway.errors import ModelNotFound, ModelNotReady, StoreUnavailable, UnsupportedModel
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from tests.support import models
from tests.support.repositories import CountingStore, WeighingLoader, followed, real, until, weighing

AUTHOR = releasing.Author(actor="tests", reason="", now_ns=1)
CHAMPION: dict[str, Any] = {"alias": "champion", "author": AUTHOR}


async def publish(store: ObjectStore, name: str, versions: int = 1) -> None:
    for seed in range(versions):
        await models.publish_mlp(store, name, seed=seed, hidden=8, promote_to="champion" if seed == 0 else None)


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
        await until(lambda: len(observed.inside) == 2)
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


async def test_the_alias_of_another_model_is_refused(store: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        await publish(store, name)
    store.objects[layout.alias("a", "champion")] = store.objects[layout.alias("b", "champion")]
    async with weighing(store, tmp_path) as (repository, _, _):
        with pytest.raises(Exception, match="its alias is for 'b'"):
            await repository.ready("a")


async def test_a_shadow_belongs_to_one_champion_and_leaves_when_it_is_ended(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=4)
    await releasing.shadow(store, model="a", version=3, sample_bp=10_000, **CHAMPION)
    await releasing.canary(store, model="a", version=4, weight_bp=5000, **CHAMPION)
    async with weighing(store, tmp_path) as (repository, _, observed):
        await repository.ready("a")
        await until(lambda: len(observed.inside) == 3)
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
        await until(lambda: len(observed.inside) == 3)
        runs = [repository.shadow("a", alias, one) for alias in (None, "beta")]
        assert [run and run.version for run in runs] == [2, 3]

        await releasing.shadow(store, model="a", version=3, sample_bp=0, alias="beta", author=AUTHOR)
        await followed(repository, "a", "beta")
        assert [repository.shadow("a", alias, one) for alias in (None, "beta")] == [runs[0], None]


async def test_what_a_release_keeps_is_not_loaded_again(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=4)
    await releasing.shadow(store, model="a", version=3, sample_bp=10_000, **CHAMPION)
    await releasing.canary(store, model="a", version=4, weight_bp=5000, **CHAMPION)
    async with weighing(store, tmp_path) as (repository, _, observed):
        await repository.ready("a")
        await until(lambda: len(observed.inside) == 3)
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
        await until(lambda: len(observed.inside) == 2)
        assert repository.unload("a")
        assert observed.inside == set()
        assert repository.shadow("a", None, champion) is None  # a request that is still running mirrors nothing


async def test_a_canary_asked_for_by_number_too_leaves_with_its_champion_only(store: Any, tmp_path: Path) -> None:
    await publish(store, "a", versions=2)
    await publish(store, "b")
    await releasing.canary(store, model="a", version=2, weight_bp=5000, **CHAMPION)
    async with weighing(store, tmp_path, memory_bytes_max=3000) as (repository, _, observed):
        await repository.ready("a")
        await until(lambda: len(observed.inside) == 2)
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
