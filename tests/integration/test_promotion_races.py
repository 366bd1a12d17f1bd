"""Publishers that decide at the same moment, on a folder and on a real S3 server: the log has one entry for each generation, the
alias ends where the log does, and nobody takes over from a champion that was not looked at.
"""

import asyncio
import contextlib
from pathlib import Path

import pytest

from gateway.contract import codec, layout
from gateway.contract.promotions import Decision
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry
from tests.support import stores
from tests.support.promotions import MODEL, decided, made, published
from trainers.promotion.decision import Candidate, Decided

ERRORS = (0.8, 0.0)  # either may win the race; only the second one may take over from the other


@pytest.fixture(params=["local", "moto"])
def url(request: pytest.FixtureRequest) -> str:
    return stores.empty(request)


async def decide_from_afar(url: str, candidate: Candidate) -> Decided:
    """Each publisher has a connection of its own."""
    async with contextlib.aclosing(open_store(url)) as store:
        return await decided(store, candidate)


async def raced(url: str, folder: Path, number: int) -> list[Decided]:
    """Two publishers who both look at the same champion."""
    async with contextlib.aclosing(open_store(url, create=True)) as store:
        found = [await decided(store, await published(store, folder, "before", error=1.5))]
        pair = [await published(store, folder, f"run-{i}", error, data=made(number)) for i, error in enumerate(ERRORS)]
        found += await asyncio.gather(*(decide_from_afar(url, candidate) for candidate in pair))
        await require_sound(store, found)
        return found


async def require_sound(store: ObjectStore, found: list[Decided]) -> None:
    registry = Registry(store)
    log = await registry.history(MODEL)
    assert [entry.generation for entry in log] == list(range(1, len(log) + 1))
    assert (await registry.alias(MODEL)).promotion == log[-1]
    before = {entry.version: earlier for earlier, entry in zip([None, *log][:-1], log, strict=True)}
    for one in found:
        stored = codec.decode((await store.get(layout.decision(one.decision.run_id))).body, Decision)
        assert stored == one.decision
        if one.promotion:
            earlier = before[one.decision.version]
            assert (earlier and earlier.version) == one.decision.champion_version
        else:
            assert one.decision.verdict == "hold"


@pytest.mark.parametrize("rounds", [4, pytest.param(20, marks=pytest.mark.e2e)])
async def test_two_publishers_race_to_be_the_champion(url: str, tmp_path: Path, rounds: int):
    for number in range(rounds):
        first, worse, better = await raced(f"{url}/{number}", tmp_path / str(number), number)
        assert (first.decision.verdict, better.decision.verdict) == ("first", "promote")
        # The worse one is either overtaken or held back: by the better one it can only lose.
        assert worse.decision.champion_version == (1 if worse.promotion else better.decision.version)


async def test_a_crowd_of_first_versions_has_one_first(tmp_path: Path):
    url = str(tmp_path / "store")
    async with contextlib.aclosing(open_store(url, create=True)) as store:
        crowd = [await published(store, tmp_path, f"run-{i}", error=0.1 * i, data=made(i)) for i in range(5)]
        found = await asyncio.gather(*(decide_from_afar(url, candidate) for candidate in crowd))
        await require_sound(store, found)
        assert [one.decision.verdict for one in found].count("first") == 1
