"""How a running gateway follows keys that come, change and go, and what it does when the store is away."""

import logging
from typing import Any

import pytest

from gateway.access.stored import AGAIN_LOOKS
from gateway.contract import layout
from gateway.errors import BudgetExceeded, StoreUnavailable, Unauthenticated
from tests.support.accesskeys import Now, added, bearer, revoke
from tests.support.gates import Watched
from tests.support.memorystore import MemoryStore


async def test_a_revocation_is_followed_and_only_what_changed_is_read() -> None:
    store = _Counting()
    keys = [await added(store) for _ in range(5)]
    async with Watched(store, Now()) as watched:
        assert sorted(store.reads) == sorted(layout.key(record.id) for _, record in keys)
        store.reads.clear()
        await watched.poll()
        assert store.reads == []
        token, record = keys[2]
        await revoke(store, record)
        store.reads.clear()
        await watched.poll()
        assert store.reads == [layout.key(record.id)]
        with pytest.raises(Unauthenticated, match="was revoked"):
            watched.gate.caller(bearer(token), None)
        assert watched.gate.ring.usable() == 4


async def test_a_change_that_keeps_the_size_is_followed_and_each_record_is_read_again_once_in_a_while() -> None:
    store = _Counting()
    keys = [await added(store) for _ in range(AGAIN_LOOKS + 30)]
    token, record = keys[70]
    key = layout.key(record.id)
    before = store.objects[key]
    await revoke(store, record)
    store.objects[key], revoked = before.ljust(len(store.objects[key])), store.objects[key]
    await store.put_if_absent(layout.key("abcdefghij"), b"not a record")
    async with Watched(store, Now()) as watched:
        store.objects[key] = revoked
        store.reads.clear()
        most = 0
        for _ in range(AGAIN_LOOKS):
            known = len(store.reads)
            await watched.poll()
            most = max(most, len(store.reads) - known)
        assert most == 2
        assert sorted(store.reads) == store.keys(layout.KEYS)
        with pytest.raises(Unauthenticated, match="was revoked"):
            watched.gate.caller(bearer(token), None)


async def test_reading_a_record_again_gives_its_key_no_requests_back() -> None:
    store = MemoryStore()
    token, record = await added(store, rps=1, burst=2)
    async with Watched(store, Now()) as watched:
        watched.gate.caller(bearer(token), None).enter()
        watched.gate.caller(bearer(token), None).enter()
        for _ in range(AGAIN_LOOKS):
            await watched.poll()
        with pytest.raises(BudgetExceeded, match="may send 1 requests per second"):
            watched.gate.caller(bearer(token), None).enter()
        key = layout.key(record.id)
        store.objects[key] = store.objects[key].replace(b'"burst":2', b'"burst":10')
        await watched.poll()
        watched.gate.caller(bearer(token), None).enter()


async def test_a_deleted_key_is_followed() -> None:
    store = MemoryStore()
    token, record = await added(store)
    async with Watched(store, Now()) as watched:
        await store.delete(layout.key(record.id))
        await watched.poll()
        with pytest.raises(Unauthenticated, match="not known here"):
            watched.gate.caller(bearer(token), None)


async def test_a_poll_keeps_the_count_of_requests_in_flight() -> None:
    store = MemoryStore()
    token, record = await added(store, concurrency=1)
    async with Watched(store, Now()) as watched:
        watched.gate.caller(bearer(token), None).enter()
        body = store.objects[layout.key(record.id)]
        store.objects[layout.key(record.id)] = body.replace(b'"note":""', b'"note":"edited by hand"')
        await watched.poll()
        with pytest.raises(BudgetExceeded):
            watched.gate.caller(bearer(token), None).enter()


async def test_an_unreachable_store_keeps_the_last_known_keys_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store = MemoryStore()
    token, record = await added(store)
    async with Watched(store, Now()) as watched:
        store.is_down = True
        for _ in range(3):
            await watched.poll()
            assert watched.gate.caller(bearer(token), None).key_id == record.id
        assert caplog.text.count("the last known stay in force: the store is down") == 1
        store.is_down = False
        await watched.poll()
        assert caplog.text.count("keys are exchanged with the store again") == 1


async def test_a_store_that_is_away_at_the_start_is_waited_for() -> None:
    store, now = MemoryStore(), Now()
    token, record = await added(store)
    store.is_down = True
    async with Watched(store, now, is_loopback=False) as watched:
        for authorization in (None, bearer(token)):
            with pytest.raises(StoreUnavailable, match="could not be read yet") as refusal:
                watched.gate.caller(authorization, None)
            assert refusal.value.retry_after_ms == 5000
        await watched.poll()
        store.is_down = False
        await watched.poll()
        assert watched.gate.caller(bearer(token), None).key_id == record.id
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)


async def test_a_late_store_without_keys_leaves_an_address_that_others_reach_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    store.is_down = True
    async with Watched(store, Now(), is_loopback=False) as watched:
        store.is_down = False
        await watched.poll()
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)
        assert "no usable key, so every caller is refused" in caplog.text


async def test_a_late_store_without_keys_opens_loopback() -> None:
    store = MemoryStore()
    store.is_down = True
    async with Watched(store, Now()) as watched:
        with pytest.raises(StoreUnavailable):
            watched.gate.caller(None, None)
        store.is_down = False
        await watched.poll()
        assert watched.gate.caller(None, None).tenant == ""


async def test_a_bug_in_the_store_ends_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    store = _Counting()
    token, _ = await added(store)
    async with Watched(store, Now()) as watched:
        store.bug = RuntimeError("a bug")
        await watched.poll()
        assert "looking at keys failed" in caplog.text
        store.bug = None
        _, record = await added(store)
        await watched.poll()
        assert watched.gate.ring.usable() == 2
        assert watched.gate.caller(bearer(token), None).key_id != record.id


class _Counting(MemoryStore):
    """Remembers which objects were read; `bug` is raised by the next listings."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.bug: Exception | None = None

    async def get(self, key: str) -> Any:
        self.reads.append(key)
        return await super().get(key)

    async def list(self, prefix: str, *, start_after: str = "") -> Any:
        if self.bug:
            raise self.bug
        async for info in super().list(prefix, start_after=start_after):
            yield info
