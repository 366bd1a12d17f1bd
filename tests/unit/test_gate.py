"""When keys are needed, records that are not as they should be, and what budgets ask of the gate.

How a running gate follows its keys: `test_gate_following.py`.
"""

import logging
from typing import Any

import msgspec
import pytest

from gateway.access.stored import AGAIN_LOOKS
from gateway.contract import layout
from gateway.errors import BudgetExceeded, SettingsError, Unauthenticated
from tests.support.accesskeys import HOUR_NS, NOON_NS, SECOND_NS, Now, added, bearer, new, revoke
from tests.support.gates import Watched
from tests.support.memorystore import MemoryStore


async def test_loopback_without_keys_is_open() -> None:
    async with Watched(MemoryStore(), Now()) as watched:
        caller = watched.gate.caller(None, None)
        assert (caller.tenant, caller.key_id, watched.gate.needs_key) == ("", "", False)
        assert watched.gate.caller(b"Basic dXNlcjpwYXNz", None) is caller  # a proxy's header closes no open door


async def test_the_first_key_closes_the_door_and_nothing_opens_it_again() -> None:
    store = MemoryStore()
    async with Watched(store, Now()) as watched:
        token, record = await added(store)
        assert not watched.gate.needs_key
        await watched.poll()
        assert watched.gate.caller(bearer(token), None).key_id == record.id
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)
        await revoke(store, record)
        await watched.poll()
        await store.delete(layout.key(record.id))
        await watched.poll()
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)


async def test_a_store_with_only_a_revoked_key_is_closed_on_loopback() -> None:
    store = MemoryStore()
    _, record = await added(store)
    await revoke(store, record)
    async with Watched(store, Now()) as watched:
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)


async def test_a_store_with_only_a_broken_record_is_closed() -> None:
    store = MemoryStore()
    await store.put_if_absent(layout.key("abcdefghij"), b"not a record")
    async with Watched(store, Now()) as watched:
        assert watched.gate.needs_key


@pytest.mark.parametrize("case", ["no key", "revoked", "expired", "unreadable"])
async def test_an_address_that_others_reach_needs_a_usable_key(case: str) -> None:
    store, now = MemoryStore(), Now()
    if case != "no key":
        _, record = await added(store, expires_ns=NOON_NS if case == "expired" else None)
        if case == "revoked":
            await revoke(store, record)
        if case == "unreadable":
            store.objects[layout.key(record.id)] = b"{}"
    with pytest.raises(SettingsError, match=r"steelyard keys add .*--insecure-no-auth"):
        async with Watched(store, now, is_loopback=False):
            pass


async def test_an_address_that_others_reach_starts_with_a_key() -> None:
    store = MemoryStore()
    token, _ = await added(store)
    async with Watched(store, Now(), is_loopback=False) as watched:
        assert watched.gate.caller(None, token.encode()).tenant == "search"
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)


async def test_insecure_no_auth_is_open_until_there_is_a_key() -> None:
    store = MemoryStore()
    async with Watched(store, Now(), is_loopback=False, insecure_no_auth=True) as watched:
        assert watched.gate.caller(None, None).tenant == ""
        await added(store)
        await watched.poll()
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)


async def test_always_needs_a_key_even_on_loopback_and_waits_for_the_first(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with Watched(store, Now(), options={"required": "always"}, is_loopback=False) as watched:
        assert "no usable key, so every caller is refused" in caplog.text
        with pytest.raises(Unauthenticated):
            watched.gate.caller(None, None)
        token, _ = await added(store)
        await watched.poll()
        assert watched.gate.caller(bearer(token), None).tenant == "search"


async def test_never_knows_good_keys_and_lets_everybody_in() -> None:
    store = MemoryStore()
    token, _ = await added(store, rps=1)
    async with Watched(store, Now(), options={"required": "never"}) as watched:
        assert watched.gate.caller(None, None).tenant == ""
        assert watched.gate.caller(bearer(token[:-1]), None).tenant == ""
        caller = watched.gate.caller(bearer(token), None)
        caller.enter()
        with pytest.raises(BudgetExceeded):
            caller.enter()


async def test_never_on_an_address_that_others_reach_needs_a_word() -> None:
    store = MemoryStore()
    await added(store)
    with pytest.raises(SettingsError, match=r"access\.required is 'never'.*--insecure-no-auth"):
        async with Watched(store, Now(), options={"required": "never"}, is_loopback=False):
            pass
    async with Watched(
        store, Now(), options={"required": "never"}, is_loopback=False, insecure_no_auth=True
    ) as watched:
        assert watched.gate.caller(None, None).tenant == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (b"{", "is not valid"),
        (b"", "is not valid"),
        (b"\xff" * 50, "is not valid"),
        ({"schema_version": 2}, "schema_version 2; this Steelyard reads up to 1: upgrade it first"),
        ({"rights": []}, "rights must be one or more of predict, costs, admin"),
        ({"rights": ["root"]}, "is not valid"),
        ({"models": []}, "models is empty"),
        ({"rps": 0}, "is not valid"),
        ({"secret_sha256": "short"}, "is not valid"),
        ({"tenant": "../x"}, "is not valid"),
        ({"id": "zzzzzzzzzz"}, "it is the record of key 'zzzzzzzzzz'"),
        ({"note": "x" * 10_000}, "bytes; a key record has at most 8192"),
    ],
)
async def test_a_record_that_cannot_be_read_is_reported_and_the_others_work(
    change: bytes | dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    good, _ = await added(store)
    bad, record = await added(store)
    key = layout.key(record.id)
    tree = msgspec.json.decode(store.objects[key])
    store.objects[key] = change if isinstance(change, bytes) else msgspec.json.encode(tree | change)
    async with Watched(store, Now(), is_loopback=False) as watched:
        assert watched.gate.caller(bearer(good), None).tenant == "search"
        with pytest.raises(Unauthenticated, match="not known here"):
            watched.gate.caller(bearer(bad), None)
        await watched.poll()
        [said] = [line for line in caplog.text.splitlines() if "is not used as a key" in line]
        assert key in said
        assert why in said
        store.objects[key] = msgspec.json.encode(tree | {"note": "mended"})
        await watched.poll()
        assert watched.gate.caller(bearer(bad), None).key_id == record.id


async def test_a_good_key_whose_record_breaks_is_no_key_any_more() -> None:
    store = MemoryStore()
    token, record = await added(store)
    async with Watched(store, Now()) as watched:
        store.objects[layout.key(record.id)] = b"broken"
        await watched.poll()
        with pytest.raises(Unauthenticated):
            watched.gate.caller(bearer(token), None)


async def test_other_objects_in_the_folder_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    token, record = await added(store)
    await store.put_if_absent("keys/readme.txt", b"hello")
    await store.put_if_absent(f"keys/old/{record.id}.json", store.objects[layout.key(record.id)])
    async with Watched(store, Now()) as watched:
        assert watched.gate.caller(bearer(token), None).key_id == record.id
        for _ in range(AGAIN_LOOKS):
            await watched.poll()
        assert caplog.text.count("is not used as a key") == 2


async def test_more_keys_than_the_limit_displace_none_that_are_used(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    first = [await added(store) for _ in range(3)]
    async with Watched(store, Now(), options={"keys_max": 3}) as watched:
        for _ in range(10):
            await added(store)
        await watched.poll()
        await watched.poll()
        assert [watched.gate.caller(bearer(token), None).key_id for token, _ in first] == [r.id for _, r in first]
        assert watched.gate.ring.usable() == 3
        assert caplog.text.count("10 keys are not used: there may be 3 (access.keys_max)") == 1


async def test_no_key_and_no_digest_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = MemoryStore()
    token, record = await added(store, budget_picousd_per_day=1)
    broken, broken_record = await added(store)
    store.objects[layout.key(broken_record.id)] += b"x"
    async with Watched(store, Now()) as watched:
        watched.gate.caller(bearer(token), None).enter()
        watched.gate.caller(bearer(token), None).leave(1)
        for wrong in (broken, token[:-1], new()[0]):
            with pytest.raises(Unauthenticated):
                watched.gate.caller(bearer(wrong), None)
        await watched.poll()
        store.is_down = True
        await watched.poll()
    assert caplog.text
    for secret in (token[14:], broken[14:], record.secret_sha256, broken_record.secret_sha256):
        assert secret not in caplog.text


async def test_what_a_killed_container_spent_is_known_to_the_next_before_it_answers() -> None:
    store, now = MemoryStore(), Now()
    token, _ = await added(store, budget_picousd_per_day=10)
    async with Watched(store, now) as first:
        caller = first.gate.caller(bearer(token), None)
        caller.enter()
        caller.leave(10)
        await first.poll()
        now.ns += SECOND_NS
        async with Watched(store, now) as second:  # while the first has not said that it is over
            with pytest.raises(BudgetExceeded):
                second.gate.caller(bearer(token), None).enter()
            now.ns += 12 * HOUR_NS
            second.gate.caller(bearer(token), None).enter()


async def test_closing_writes_what_was_spent_last() -> None:
    store, now = MemoryStore(), Now()
    token, record = await added(store, budget_picousd_per_day=10)
    async with Watched(store, now) as watched:
        caller = watched.gate.caller(bearer(token), None)
        caller.enter()
        caller.leave(7)
    [key] = store.keys(layout.SPEND)
    assert key == f"spend/v1/dt=2026-11-25/c0-{NOON_NS}.json"
    tree = msgspec.json.decode(store.objects[key])
    assert (tree["spent_picousd"], tree["closed"]) == ({record.id: 7}, True)


async def test_closing_over_a_dead_store_ends_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    token, _ = await added(store, budget_picousd_per_day=10)
    async with Watched(store, Now()) as watched:
        caller = watched.gate.caller(bearer(token), None)
        caller.enter()
        caller.leave(7)
        store.is_down = True
    assert "spent last is not in the store" in caplog.text


async def test_without_budgets_nothing_is_ever_written() -> None:
    store = MemoryStore()
    token, _ = await added(store, rps=5)
    async with Watched(store, Now()) as watched:
        caller = watched.gate.caller(bearer(token), None)
        caller.enter()
        caller.leave(7)
        await watched.poll()
    assert store.keys(layout.SPEND) == []
