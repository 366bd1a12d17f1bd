"""Checkpoints in real stores: what was saved is what is resumed, a crash at any call leaves a checkpoint, and only the newest stay.

The fence: `test_checkpoint_fence.py`; damage and other origins: `test_checkpoint_damage.py`.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gateway.errors import DigestMismatch, StoreUnavailable
from gateway.objectstore.local import LocalStore
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import stores
from tests.support.checkpoints import ORIGIN, RUN, at, flip, pointer, resumed_step, saved, snapshot
from tests.support.faults import Crash, CrashingStore
from tests.support.memorystore import MemoryStore
from trainers.checkpoint.listing import Place, committed, listed
from trainers.checkpoint.store import Options, open_run
from trainers.errors import DataError, Fenced


@pytest.fixture(params=["local", "moto"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    async with contextlib.aclosing(open_store(stores.empty(request))) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


async def test_a_run_that_saved_nothing_begins_at_the_beginning(folder: LocalStore) -> None:
    assert await resumed_step(folder) is None
    assert await resumed_step(folder) is None  # nor does a second attempt find anything


async def test_what_was_saved_is_what_is_resumed(store: ObjectStore) -> None:
    await saved(store, 10, 20)

    resumed = await (await open_run(store, RUN, ORIGIN)).latest()

    assert resumed is not None
    assert torch.equal(resumed.snapshot.tensors["weights"], torch.full((1000,), 20.0))
    assert (resumed.snapshot.step, resumed.snapshot.parts, resumed.snapshot.facts) == (20, snapshot(20).parts, {"e": 1})
    assert (resumed.checkpoint.attempt, resumed.bit_exact, resumed.skipped, resumed.steps_lost) == (1, "proven", (), 0)


async def test_a_step_is_saved_once_per_attempt(folder: LocalStore) -> None:
    attempt = await saved(folder, 10)
    before = await pointer(folder)

    again = await attempt.save(snapshot(10))

    assert (again, await pointer(folder)) == (before.checkpoint, before)


async def test_the_keys_are_the_documented_ones(folder: LocalStore) -> None:
    await saved(folder, 10)

    prefix = "runs/run-1/checkpoints/"
    assert [row.key async for row in folder.list("runs/")] == [
        f"{prefix}000000000010-0001/facts.json",
        f"{prefix}000000000010-0001/manifest.json",
        f"{prefix}000000000010-0001/state.safetensors",
        f"{prefix}LATEST",
    ]


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_crash_at_any_call_leaves_a_checkpoint(after_effect: bool) -> None:
    """The new checkpoint or the one before, for every call of a save; and the next attempt saves again."""
    for call in range(1, 100):
        store = MemoryStore()
        await saved(store, 10, options=Options(keep=1))
        fragile = CrashingStore(store)
        attempt = await open_run(fragile, RUN, ORIGIN, options=Options(keep=1))
        fragile._crash_at, fragile._after_effect = fragile.calls + call, after_effect
        with contextlib.suppress(Crash):
            await attempt.save(snapshot(20))

        assert await resumed_step(store) in {10, 20}
        await saved(store, 30)
        assert await resumed_step(store) == 30
        if not fragile.has_crashed:
            break
    assert 12 < call < 99, "not every call of a save was tried"


@pytest.mark.parametrize("fault", ["unavailable", "lost answer"])
@pytest.mark.parametrize("write", range(4))
async def test_a_save_that_failed_can_be_tried_again(fault: Any, write: int) -> None:
    store = MemoryStore()
    attempt = await saved(store, 10)
    store.faults.extend(["none"] * write + [fault])
    with pytest.raises(StoreUnavailable):
        await attempt.save(snapshot(20))

    await attempt.save(snapshot(20))

    assert await resumed_step(store) == 20


class Altering:
    """Gives back other bytes than it was given, as broken hardware or a bad proxy does; counts how often it is read."""

    def __init__(self, store: ObjectStore) -> None:
        self.reads = 0
        self.is_broken = True
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        self.reads += 1
        async for chunk in self._store.stream(key):
            yield chunk[:-1] + bytes([chunk[-1] ^ self.is_broken])


async def test_the_first_save_is_read_back_and_not_named_when_it_is_wrong(folder: LocalStore) -> None:
    altering = Altering(folder)
    attempt = await open_run(altering, RUN, ORIGIN)  # type: ignore[arg-type]
    with pytest.raises(DigestMismatch):
        await attempt.save(snapshot(10))
    assert (await pointer(folder)).checkpoint is None

    altering.is_broken = False
    await attempt.save(snapshot(20))
    reads = altering.reads
    await attempt.save(snapshot(30))
    assert altering.reads == reads, "only the first is read back"


class Losing(MemoryStore):
    """Deletes what is about to be read; `meanwhile` happens first."""

    async def meanwhile(self) -> None: ...

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        await self.meanwhile()
        await self.delete(key)
        async for chunk in super().stream(key):
            yield chunk


async def test_a_first_save_that_is_gone_at_once_is_a_fault_of_the_store() -> None:
    attempt = await open_run(Losing(), RUN, ORIGIN)
    with pytest.raises(DigestMismatch, match="gone at once"):
        await attempt.save(snapshot(10))


async def test_a_first_save_that_a_newer_attempt_cleared_away_is_fenced() -> None:
    class Overtaken(Losing):
        async def meanwhile(self) -> None:
            await open_run(self, RUN, ORIGIN)

    attempt = await open_run(Overtaken(), RUN, ORIGIN)
    with pytest.raises(Fenced):
        await attempt.save(snapshot(10))


async def test_checkpoints_that_a_newer_attempt_cleared_away_are_not_called_damaged() -> None:
    store = MemoryStore()
    await saved(store, 10)
    overtaken = CrashingStore(store)
    attempt = await open_run(overtaken, RUN, ORIGIN)

    async def clear_away(key: str, *, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        await saved(store, 20, options=Options(keep=1))
        async for chunk in store.stream(key, chunk_bytes=chunk_bytes):
            yield chunk

    overtaken.stream = clear_away  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        await attempt.latest()


async def test_only_the_newest_stay(store: ObjectStore) -> None:
    await saved(store, 10, 20, 30, 40, 50, options=Options(keep=3))

    assert committed(await listed(store, RUN)) == [Place(1, 50), Place(1, 40), Place(1, 30)]


async def test_what_the_pointer_names_stays_whatever_else_is_there(folder: LocalStore) -> None:
    await saved(folder, 10, 20, 30, options=Options(keep=1))
    assert committed(await listed(folder, RUN)) == [Place(1, 30)]
    flip(at(folder, 30, "facts.json"))
    with pytest.raises(DataError):
        await (await open_run(folder, RUN, ORIGIN)).latest()

    await saved(folder, 5, options=Options(keep=1))

    assert committed(await listed(folder, RUN))[0].step == 5
    assert await resumed_step(folder) == 5


async def test_an_outage_while_old_ones_are_deleted_does_not_undo_the_save() -> None:
    class NoDelete(MemoryStore):
        async def delete(self, key: str) -> None:
            raise StoreUnavailable("no deletes today")

    store = NoDelete()
    await saved(store, 10, 20, options=Options(keep=1))

    assert await resumed_step(store) == 20


def test_keeping_no_checkpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Options(keep=0)
