"""Checkpoints in real stores: commits survive a crash at any call, old attempts are fenced, damage is noticed and told.

The commit protocol and the fence are asked of a folder and of moto; damage and crashes of a folder, whose files a test can spoil.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import codec, layout
from gateway.contract.checkpoint import Latest, Origin
from gateway.errors import DigestMismatch, ManifestInvalid, StoreUnavailable
from gateway.objectstore.local import LocalStore
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import stores
from tests.support.faults import Crash, CrashingStore
from tests.support.memorystore import MemoryStore
from trainers.checkpoint.listing import Place, committed, listed
from trainers.checkpoint.state import Snapshot
from trainers.checkpoint.store import Checkpoints, Options, open_run
from trainers.errors import DataError, Fenced, HostDiffers, SpecError

RUN = "run-1"
ORIGIN = Origin("a" * 64, {"train": "b" * 64}, {"device": "cpu", "threads": "2", "torch": "2.13.0"})
LENIENT = Options(strict_resume=False)


@pytest.fixture(params=["local", "moto"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    async with contextlib.aclosing(open_store(stores.empty(request))) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def snapshot(step: int) -> Snapshot:
    return Snapshot(
        step, {"weights": torch.full((1000,), float(step))}, {"model": {"w": {"$tensor": "weights"}}}, {"e": 1}
    )


async def saved(
    store: ObjectStore, *steps: int, options: Options | None = None, origin: Origin = ORIGIN
) -> Checkpoints:
    attempt = await open_run(store, RUN, origin, options=options)
    for step in steps:
        await attempt.save(snapshot(step))
    return attempt


async def resumed_step(store: ObjectStore) -> int | None:
    resumed = await (await open_run(store, RUN, ORIGIN)).latest()
    if resumed is None:
        return None
    assert torch.equal(resumed.snapshot.tensors["weights"], torch.full((1000,), float(resumed.snapshot.step)))
    return resumed.snapshot.step


async def pointer(store: ObjectStore) -> Latest:
    return codec.decode((await store.get(layout.latest_checkpoint(RUN))).body, Latest)


# --- commit


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


# --- fence


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


# --- damage


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0x10
    path.write_bytes(body)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def at(folder: LocalStore, step: int, name: str) -> Path:
    return folder.path(layout.checkpoint_file(RUN, step, 1, name))


@pytest.mark.parametrize("spoil", [flip, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", ["state.safetensors", "facts.json", "manifest.json"])
async def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    folder: LocalStore, name: str, spoil: Callable[[Path], None]
) -> None:
    await saved(folder, 10, 20, 30)
    spoil(at(folder, 30, name))

    attempt = await open_run(folder, RUN, ORIGIN)
    resumed = await attempt.latest()

    assert resumed is not None
    assert (resumed.snapshot.step, resumed.steps_lost, len(resumed.skipped)) == (20, 10, 1)
    assert resumed.skipped[0].startswith("step 30 of attempt 1: ")
    await attempt.save(snapshot(25))  # what the new attempt saves is the newest, though its step is lower
    assert await resumed_step(folder) == 25


async def test_when_every_checkpoint_is_damaged_nothing_starts_again_silently(folder: LocalStore) -> None:
    await saved(folder, 10, 20)
    for step in (10, 20):
        flip(at(folder, step, "state.safetensors"))

    with pytest.raises(
        DataError, match=r"all 2 checkpoints are damaged; delete runs/run-1/checkpoints/ .* step 20 .* step 10"
    ):
        await (await open_run(folder, RUN, ORIGIN)).latest()


async def test_a_named_checkpoint_that_is_gone_is_damage_too(folder: LocalStore) -> None:
    await saved(folder, 10)
    for name in ("state.safetensors", "facts.json", "manifest.json"):
        at(folder, 10, name).unlink()

    with pytest.raises(DataError, match="all 1 checkpoints are damaged"):
        await (await open_run(folder, RUN, ORIGIN)).latest()


@pytest.mark.parametrize("spoil", [empty, truncate, Path.unlink])
async def test_without_the_pointer_the_newest_checkpoint_is_found_and_the_fence_holds(
    folder: LocalStore, spoil: Callable[[Path], None]
) -> None:
    old = await saved(folder, 10, 20)
    spoil(folder.path(layout.latest_checkpoint(RUN)))

    new = await open_run(folder, RUN, ORIGIN)

    resumed = await new.latest()
    assert resumed is not None
    assert (new.attempt, resumed.snapshot.step) == (2, 20)
    with pytest.raises(Fenced):
        await old.save(snapshot(30))


async def test_a_pointer_lost_during_training_is_written_again(folder: LocalStore) -> None:
    attempt = await saved(folder, 10)
    folder.path(layout.latest_checkpoint(RUN)).unlink()

    await attempt.save(snapshot(20))

    assert await resumed_step(folder) == 20


async def test_a_pointer_of_a_newer_release_is_left_alone(folder: LocalStore) -> None:
    await saved(folder, 10)
    path = folder.path(layout.latest_checkpoint(RUN))
    path.write_bytes(path.read_bytes().replace(b'"schema_version":1', b'"schema_version":2'))
    before = path.read_bytes()

    with pytest.raises(ManifestInvalid, match="upgrade"):
        await open_run(folder, RUN, ORIGIN)

    assert path.read_bytes() == before


async def test_an_upload_that_was_never_committed_is_no_checkpoint(folder: LocalStore) -> None:
    await saved(folder, 10)
    await folder.put_if_absent(layout.checkpoint_file(RUN, 99, 1, "state.safetensors"), b"half of it")

    assert await resumed_step(folder) == 10
    await saved(folder, 20)
    assert Place(1, 99) not in await listed(folder, RUN), "and it is cleared away"


# --- another spec, other data, another host


async def refused(store: LocalStore, origin: Origin, error: type[Exception]) -> str:
    """The message; the attempt that is at work must not be fenced by what could never go on."""
    before = await pointer(store)
    with pytest.raises(error) as caught:
        await open_run(store, RUN, origin)
    assert await pointer(store) == before
    return str(caught.value)


async def test_a_checkpoint_of_another_spec_is_refused_with_both_digests(folder: LocalStore) -> None:
    await saved(folder, 10)

    message = await refused(folder, msgspec.structs.replace(ORIGIN, spec_sha256="f" * 64), SpecError)

    assert "a" * 64 in message
    assert "f" * 64 in message
    assert "another run id" in message


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"train": "f" * 64}, f"train was {'b' * 64}, is {'f' * 64}"),
        ({}, f"train was {'b' * 64}, is absent"),
        ({"train": "b" * 64, "weather": "c" * 64}, f"weather was absent, is {'c' * 64}"),
    ],
)
async def test_a_checkpoint_of_other_data_is_refused_with_both_digests(
    folder: LocalStore, data: dict[str, str], told: str
) -> None:
    await saved(folder, 10)

    assert told in await refused(folder, msgspec.structs.replace(ORIGIN, data_sha256=data), SpecError)


OTHER_HOST = msgspec.structs.replace(ORIGIN, fingerprint=ORIGIN.fingerprint | {"threads": "1", "device": "NVIDIA L4"})


async def test_another_host_is_refused_with_the_differences_and_the_option(folder: LocalStore) -> None:
    await saved(folder, 10)

    message = await refused(folder, OTHER_HOST, HostDiffers)

    assert "device was cpu, is NVIDIA L4, threads was 2, is 1;" in message
    assert "`strict_resume`" in message


async def test_another_host_is_accepted_when_asked_and_recorded_for_good(folder: LocalStore) -> None:
    await saved(folder, 10)
    elsewhere = await open_run(folder, RUN, OTHER_HOST, options=LENIENT)
    resumed = await elsewhere.latest()
    assert resumed is not None
    assert (resumed.snapshot.step, resumed.bit_exact) == (10, "best_effort")
    await elsewhere.save(snapshot(20))

    again = await (await open_run(folder, RUN, OTHER_HOST)).latest()

    assert again is not None
    assert (again.snapshot.step, again.bit_exact) == (20, "best_effort"), "equal hosts do not make it exact again"


# --- how many stay


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
