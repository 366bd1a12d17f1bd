"""Attempts at one run, in real stores: whoever began before the newest is fenced, and the pointer never goes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import codec, layout
from gateway.contract.checkpoint import Latest
from gateway.errors import StoreUnavailable
from gateway.objectstore.local import LocalStore
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import stores
from tests.support.checkpoints import ORIGIN, RUN, pointer, resumed_step, saved, snapshot
from tests.support.faults import CrashingStore
from tests.support.memorystore import MemoryStore
from trainers.checkpoint.store import open_run
from trainers.errors import Fenced


@pytest.fixture(params=["local", "moto"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    async with contextlib.aclosing(open_store(stores.empty(request))) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


async def test_an_attempt_is_fenced_as_soon_as_a_newer_one_begins(store: ObjectStore) -> None:
    old = await saved(store, 10)
    new = await open_run(store, RUN, ORIGIN)

    with pytest.raises(Fenced, match="attempt 2 has taken over from this attempt 1"):
        await old.save(snapshot(20))
    with pytest.raises(Fenced):
        await old.require_newest()
    await new.require_newest()

    assert (await pointer(store)).checkpoint == (await new.latest()).checkpoint  # type: ignore[union-attr]
    await new.save(snapshot(15))
    assert await resumed_step(store) == 15


async def test_an_attempt_that_is_fenced_while_it_uploads_does_not_move_the_pointer(folder: LocalStore) -> None:
    class Overtaken(CrashingStore):
        """Another attempt begins when the manifest is written: the last moment."""

        async def put_stream_if_absent(self, key: str, chunks: Any, **named: Any) -> None:
            await folder.put_stream_if_absent(key, chunks, **named)
            if key.endswith("manifest.json"):
                await open_run(folder, RUN, ORIGIN)

    attempt = await open_run(Overtaken(folder), RUN, ORIGIN)
    with pytest.raises(Fenced):
        await attempt.save(snapshot(10))

    assert (await pointer(folder)).attempt == 2
    assert (await pointer(folder)).checkpoint is None


async def test_of_attempts_that_begin_at_once_only_the_last_may_save(store: ObjectStore) -> None:
    attempts = await asyncio.gather(*(open_run(store, RUN, ORIGIN) for _ in range(5)))

    outcomes = await asyncio.gather(*(a.save(snapshot(10)) for a in attempts), return_exceptions=True)

    assert sorted(a.attempt for a in attempts) == [1, 2, 3, 4, 5]
    fenced = {a.attempt for a, outcome in zip(attempts, outcomes, strict=True) if isinstance(outcome, Fenced)}
    assert fenced == {1, 2, 3, 4}
    assert (await pointer(store)).checkpoint.attempt == 5  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [1, 2])
async def test_an_attempt_number_is_used_once(folder: LocalStore, number: int) -> None:
    await open_run(folder, RUN, ORIGIN, attempt=2)
    before = await pointer(folder)

    with pytest.raises(Fenced, match=f"attempt 2 has begun already, so this one cannot be attempt {number}"):
        await open_run(folder, RUN, ORIGIN, attempt=number)

    assert await pointer(folder) == before
    assert (await open_run(folder, RUN, ORIGIN, attempt=7)).attempt == 7


async def test_two_attempts_with_one_number_are_told_apart(folder: LocalStore) -> None:
    """As when the pointer is deleted before anything was saved: nothing says then that there was an attempt."""
    old = await open_run(folder, RUN, ORIGIN)
    folder.path(layout.latest_checkpoint(RUN)).unlink()
    new = await open_run(folder, RUN, ORIGIN)
    assert (old.attempt, new.attempt) == (1, 1)

    with pytest.raises(Fenced):
        await old.save(snapshot(10))
    await new.save(snapshot(10))


async def test_a_claim_whose_answer_was_lost_is_known_again() -> None:
    class Twice(MemoryStore):
        """Repeats each conditional write, as an S3 client does when the first answer did not come."""

        async def put_if_absent(self, key: str, body: bytes) -> str:
            await super().put_if_absent(key, body)
            return await super().put_if_absent(key, body)

        async def put_if_match(self, key: str, body: bytes, etag: str) -> str:
            await super().put_if_match(key, body, etag)
            return await super().put_if_match(key, body, etag)

    store = Twice()
    assert [(await open_run(store, RUN, ORIGIN)).attempt for _ in range(2)] == [1, 2]


class Watched(MemoryStore):
    """Remembers which attempt was the newest, each time the pointer moved."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: list[int] = []

    async def _answer(self, key: str, body: bytes, fault: Any) -> str:
        if key == layout.latest_checkpoint(RUN):
            self.newest.append(codec.decode(body, Latest).attempt)
        return await super()._answer(key, body, fault)


@given(faults=st.lists(st.sampled_from(["none", "none", "none", "unavailable", "lost answer"]), max_size=60))
@settings(max_examples=50, deadline=None)
def test_in_a_storm_of_attempts_the_pointer_never_goes_back(faults: list[Any]) -> None:
    """Attempts begin and save at once in a store that fails now and then; whoever cannot go on ends."""

    async def attempt(store: MemoryStore, first_step: int) -> None:
        with contextlib.suppress(Fenced, StoreUnavailable):
            checkpoints = await open_run(store, RUN, ORIGIN)
            for step in range(first_step, first_step + 3):
                await checkpoints.save(snapshot(step))

    async def storm() -> None:
        store = Watched()
        store.faults.extend(faults)
        await asyncio.gather(*(attempt(store, 10 * i) for i in range(6)))
        store.faults.clear()

        assert store.newest == sorted(store.newest)
        last = await open_run(store, RUN, ORIGIN)
        await last.latest()  # whatever is there is whole
        await last.save(snapshot(99))
        assert await resumed_step(store) == 99

    asyncio.run(storm())
