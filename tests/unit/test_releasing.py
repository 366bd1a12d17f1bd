"""Decisions about who answers: what each does, what it refuses, and that log and alias agree whatever crashes or races."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import codec, layout
from gateway.contract.registry import Promotion, VersionRecord
from gateway.errors import GatewayError, InvalidInput, ModelNotFound, ReleaseConflict
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from gateway.registry.reading import Registry
from tests.support.faults import Crash, CrashingStore
from tests.support.memorystore import MemoryStore

AUTHOR = releasing.Author(actor="anna", reason="to see", now_ns=1)
TINY: dict[str, Any] = {"model": "tiny", "alias": "champion", "author": AUTHOR}


async def claim(store: ObjectStore, versions: int = 5) -> None:
    for number in range(1, versions + 1):
        record = VersionRecord("tiny", number, f"{number:064x}", 1, 1, "run")
        await store.put_if_absent(layout.version("tiny", number), codec.encode(record))


@pytest.fixture
async def store() -> ObjectStore:
    memory: Any = MemoryStore()
    await claim(memory)
    return memory


async def alias(store: ObjectStore, name: str = "champion") -> Promotion:
    return (await Registry(store).alias("tiny", name)).promotion


def state(entry: Promotion) -> tuple[int, dict[int, int], int | None]:
    """Champion, canaries' weights, shadow."""
    return entry.version, {c.version: c.weight_bp for c in entry.canaries}, entry.shadow and entry.shadow.version


async def test_each_decision_is_an_entry_with_the_whole_state(store: ObjectStore) -> None:
    await releasing.promote(store, version=1, **TINY)
    await releasing.canary(store, version=2, weight_bp=500, **TINY)
    await releasing.canary(store, version=3, weight_bp=1000, **TINY)
    await releasing.shadow(store, version=4, sample_bp=2500, **TINY)
    await releasing.canary(store, version=2, weight_bp=2000, **TINY)
    await releasing.canary(store, version=3, weight_bp=0, **TINY)
    assert state(await alias(store)) == (1, {2: 2000}, 4)
    await releasing.promote(store, version=2, **TINY)
    await releasing.shadow(store, version=4, sample_bp=0, **TINY)
    entries = await Registry(store).history("tiny", "champion")
    assert [state(entry) for entry in entries] == [
        (1, {}, None),
        (1, {2: 500}, None),
        (1, {2: 500, 3: 1000}, None),
        (1, {2: 500, 3: 1000}, 4),
        (1, {2: 2000, 3: 1000}, 4),
        (1, {2: 2000}, 4),
        (2, {}, 4),
        (2, {}, None),
    ]
    assert [entry.generation for entry in entries] == list(range(1, 9))
    assert (await alias(store)) == entries[-1]
    assert {(entry.actor, entry.reason) for entry in entries} == {("anna", "to see")}


async def test_a_decision_made_against_another_release_is_refused(store: ObjectStore) -> None:
    first = await releasing.promote(store, version=1, over=None, **TINY)
    seen = releasing.release_of(first)
    await releasing.promote(store, version=2, over=seen, **TINY)
    for over in (None, seen):
        with pytest.raises(ReleaseConflict, match="answers with version 2 meanwhile; compare with that"):
            await releasing.promote(store, version=3, over=over, **TINY)
    with pytest.raises(ReleaseConflict, match="alias 'next' of model 'tiny' answers with nothing meanwhile"):
        await releasing.promote(store, version=3, over=seen, **(TINY | {"alias": "next"}))
    assert (await alias(store)).version == 2
    again = await releasing.promote(store, version=2, over=seen, **TINY)  # what is wanted already is no conflict
    assert again.generation == 2


async def test_a_canary_keeps_its_place_among_others_whatever_its_weight_becomes(store: ObjectStore) -> None:
    """Callers are shared out in this order: one that moved to the end would swap callers with the other."""
    await releasing.promote(store, version=1, **TINY)
    for version, weight_bp in ((2, 500), (3, 500), (2, 1000)):
        await releasing.canary(store, version=version, weight_bp=weight_bp, **TINY)
    assert [(c.version, c.weight_bp) for c in (await alias(store)).canaries] == [(2, 1000), (3, 500)]


async def test_a_decision_that_changes_nothing_writes_nothing(store: ObjectStore) -> None:
    first = await releasing.promote(store, version=1, **TINY)
    canary = await releasing.canary(store, version=2, weight_bp=500, **TINY)
    assert await releasing.promote(store, version=1, **TINY) == canary
    assert await releasing.canary(store, version=2, weight_bp=500, **TINY) == canary
    assert await releasing.canary(store, version=3, weight_bp=0, **TINY) == canary
    assert await releasing.shadow(store, version=3, sample_bp=0, **TINY) == canary
    assert canary.generation == first.generation + 1


@pytest.mark.parametrize(
    ("decide", "error", "message"),
    [
        (lambda s: releasing.promote(s, version=9, **TINY), ModelNotFound, "no version 9; published: 1, 2, 3, 4, 5"),
        (lambda s: releasing.canary(s, version=9, weight_bp=1, **TINY), ModelNotFound, "no version 9"),
        (lambda s: releasing.canary(s, version=1, weight_bp=1, **TINY), InvalidInput, "is the champion"),
        (lambda s: releasing.canary(s, version=3, weight_bp=4001, **TINY), InvalidInput, "at most 40 %"),
        (lambda s: releasing.shadow(s, version=1, sample_bp=1, **TINY), InvalidInput, "nothing to compare it with"),
        (lambda s: releasing.shadow(s, version=3, sample_bp=0, **TINY), InvalidInput, "version 4 is"),
        (lambda s: releasing.shadow(s, version=3, sample_bp=10_001, **TINY), InvalidInput, "at most 100 %"),
        (lambda s: releasing.rollback(s, to=7, **TINY), InvalidInput, "no generation 7; its latest: 1, 2, 3"),
        (lambda s: releasing.promote(s, version=1, **TINY | {"alias": "7"}), InvalidInput, "would hide version 7"),
        (lambda s: releasing.promote(s, version=1, **TINY | {"alias": "../x"}), InvalidInput, "must be lower case"),
        (lambda s: releasing.promote(s, version=1, **TINY | {"model": "../x"}), InvalidInput, "must be lower case"),
        (lambda s: releasing.rollback(s, **TINY | {"alias": "beta"}), ModelNotFound, "aliases: champion"),
        (
            lambda s: releasing.canary(s, version=2, weight_bp=1, **TINY | {"alias": "beta"}),
            InvalidInput,
            "no champion yet",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused_and_recorded_nowhere(
    store: ObjectStore, decide: Any, error: type[GatewayError], message: str
) -> None:
    await releasing.promote(store, version=1, **TINY)
    await releasing.canary(store, version=2, weight_bp=6000, **TINY)
    before = await releasing.shadow(store, version=4, sample_bp=1, **TINY)
    with pytest.raises(error, match=message):
        await decide(store)
    assert (await Registry(store).history("tiny"))[-1] == before


async def test_rollback_goes_further_back_each_time_and_never_returns_to_what_was_left(store: ObjectStore) -> None:
    for version in (1, 2, 3):
        await releasing.promote(store, version=version, **TINY)
    await releasing.canary(store, version=4, weight_bp=100, **TINY)
    states = [state(await releasing.rollback(store, **TINY)) for _ in range(3)]
    assert states == [(3, {}, None), (2, {}, None), (1, {}, None)]
    with pytest.raises(InvalidInput, match="no earlier state"):
        await releasing.rollback(store, **TINY)
    assert state(await releasing.rollback(store, to=4, **TINY)) == (3, {4: 100}, None)
    assert state(await releasing.rollback(store, **TINY)) == (3, {}, None)


async def test_rollback_skips_other_aliases(store: ObjectStore) -> None:
    await releasing.promote(store, version=1, **TINY)
    await releasing.promote(store, version=5, **TINY | {"alias": "beta"})
    await releasing.promote(store, version=2, **TINY)
    assert state(await releasing.rollback(store, **TINY)) == (1, {}, None)
    assert (await alias(store, "beta")).version == 5


DECISIONS = {
    "promote": lambda s: releasing.promote(s, version=3, **TINY),
    "canary": lambda s: releasing.canary(s, version=3, weight_bp=100, **TINY),
    "shadow": lambda s: releasing.shadow(s, version=3, sample_bp=100, **TINY),
    "rollback": lambda s: releasing.rollback(s, to=1, **TINY),
}


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("decision", DECISIONS)
async def test_a_crash_at_any_operation_is_completed_by_deciding_again(
    tmp_path: Path, decision: str, after_effect: bool
) -> None:
    crashes = 0
    while True:
        store = open_store(str(tmp_path / f"store{crashes}"), create=True)
        await claim(store)
        for version in (1, 2):
            await releasing.promote(store, version=version, **TINY)
        before = await alias(store)
        try:
            await DECISIONS[decision](CrashingStore(store, crash_at=crashes + 1, after_effect=after_effect))
            break
        except Crash:
            crashes += 1
        assert await alias(store) == before or (await Registry(store).history("tiny"))[-1] == await alias(store)
        after = await DECISIONS[decision](store)
        assert await alias(store) == after == (await Registry(store).history("tiny"))[-1]
    assert crashes > 4  # version, alias, log, entry, alias at least
    assert after.generation in {3, 4}  # a rollback after a crash behind its entry is a decision of its own


async def test_an_alias_left_behind_by_a_crash_is_brought_up_by_the_next_decision(store: ObjectStore) -> None:
    await releasing.promote(store, version=1, **TINY)
    stale = await store.get(layout.alias("tiny", "champion"))
    await releasing.canary(store, version=2, weight_bp=500, **TINY)
    current = await store.get(layout.alias("tiny", "champion"))
    await store.put_if_match(layout.alias("tiny", "champion"), stale.body, current.etag)

    await releasing.shadow(store, version=3, sample_bp=100, **TINY)

    assert state(await alias(store)) == (1, {2: 500}, 3)


async def test_of_racing_decisions_the_losers_are_told_and_nothing_is_lost(store: ObjectStore) -> None:
    await releasing.promote(store, version=1, **TINY)
    racing = [releasing.canary(store, version=number, weight_bp=1000, **TINY) for number in (2, 3, 4, 5)]
    results = await asyncio.gather(*racing, return_exceptions=True)
    won = [result for result in results if isinstance(result, Promotion)]
    assert won
    assert all(isinstance(result, Promotion | ReleaseConflict) for result in results)
    newest = max(won, key=lambda entry: entry.generation)
    assert await alias(store) == newest
    assert len(newest.canaries) == len(won)  # each winner saw the one before


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["promote", "canary", "shadow", "rollback"]),
        st.integers(1, 5),
        st.integers(0, 10_000),
        st.integers(0, 12),
    ),
    max_size=12,
)


@given(STEPS)
def test_any_sequence_of_decisions_and_crashes_leaves_a_valid_alias_that_is_the_logs_newest(
    steps: list[tuple[str, int, int, int]],
) -> None:
    async def play() -> None:
        store: Any = MemoryStore()
        await claim(store)
        for what, version, share_bp, crash_at in steps:
            crashing = CrashingStore(store, crash_at=crash_at)
            decisions = {
                "promote": lambda s, v=version: releasing.promote(s, version=v, **TINY),
                "canary": lambda s, v=version, w=share_bp: releasing.canary(s, version=v, weight_bp=w, **TINY),
                "shadow": lambda s, v=version, w=share_bp: releasing.shadow(s, version=v, sample_bp=w, **TINY),
                "rollback": lambda s: releasing.rollback(s, **TINY),
            }
            try:
                await decisions[what](crashing)
            except (Crash, InvalidInput, ModelNotFound):
                continue
            entries = await Registry(store).history("tiny", "champion")
            assert await alias(store) == entries[-1]
            assert [entry.generation for entry in entries] == list(range(1, len(entries) + 1))

    asyncio.run(play())
