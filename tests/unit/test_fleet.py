"""One budget over several gateways: what each learns of the others, what faults of the store do to it, by how much it slips."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.fleet import FleetSpend
from gateway.access.spend import DaySpend
from gateway.contract import layout
from gateway.contract.words import DAY_NS
from gateway.errors import GatewayError, StoreUnavailable
from tests.support.accesskeys import HOUR_NS, NOON_NS
from tests.support.memorystore import Fault, MemoryStore

A, B = "aaaaaaaaaa", "bbbbbbbbbb"


class Gateway:
    """One gateway's purses and its side of the exchange."""

    def __init__(self, store: MemoryStore, container: str = "c0", budget: int = 100) -> None:
        self.purses = {A: DaySpend(budget), B: DaySpend(budget)}
        self.fleet = FleetSpend(store, container=container, boot_ns=NOON_NS)

    def spend(self, cost: int, key_id: str = A, now_ns: int = NOON_NS) -> None:
        self.purses[key_id].add(now_ns, cost)

    async def sync(self, now_ns: int = NOON_NS) -> None:
        await self.fleet.sync(self.purses, now_ns)

    def known(self, key_id: str = A) -> int:
        return self.purses[key_id].own_picousd + self.purses[key_id].others_picousd


def record(store: MemoryStore, container: str, date: str = "2026-11-25") -> Any:
    return msgspec.json.decode(store.objects[layout.spend(date, container, NOON_NS)])


async def test_gateways_learn_what_others_spent_by_key() -> None:
    store = MemoryStore()
    one, two = Gateway(store, "c1"), Gateway(store, "c2")
    one.spend(30)
    one.spend(5, B)
    await one.sync()
    two.spend(4)
    await two.sync()
    assert (two.known(A), two.known(B)) == (34, 5)
    one.spend(1)
    await one.sync()
    assert (one.known(A), one.known(B)) == (35, 5)


async def test_a_gateway_that_spent_nothing_asks_the_store_for_nothing() -> None:
    store = _Counting()
    one = Gateway(store)
    await one.sync()
    assert store.calls == 0
    one.spend(1)
    await one.sync()
    assert store.calls > 0
    store.calls = 0
    await one.sync()
    assert store.calls == 0


async def test_what_is_written_is_the_days_sum() -> None:
    store = MemoryStore()
    one = Gateway(store, "c1")
    for cost in (3, 4, 5):
        one.spend(cost)
        await one.sync()
    assert record(store, "c1")["spent_picousd"] == {A: 12}
    assert store.keys(layout.SPEND) == [f"spend/v1/dt=2026-11-25/c1-{NOON_NS}.json"]


async def test_midnight_begins_a_new_object_and_a_new_budget() -> None:
    store = MemoryStore()
    one, two = Gateway(store, "c1"), Gateway(store, "c2")
    one.spend(100)
    await one.sync()
    await two.fleet.read(two.purses, NOON_NS)
    assert two.purses[A].is_spent(NOON_NS)
    tomorrow_ns = NOON_NS + 13 * HOUR_NS
    assert not two.purses[A].is_spent(tomorrow_ns)
    two.spend(7, now_ns=tomorrow_ns)
    await two.sync(tomorrow_ns)
    assert two.known() == 7
    assert record(store, "c2", "2026-11-26")["spent_picousd"] == {A: 7}
    await one.sync(tomorrow_ns)  # spent nothing today: neither asks nor writes
    assert len(store.keys(layout.SPEND)) == 2


async def test_midnight_during_a_read_brings_nothing_of_yesterday_into_today() -> None:
    store = MemoryStore()
    one, two = Gateway(store, "c1"), Gateway(store, "c2")
    one.spend(100)
    await one.sync()
    midnight_ns = NOON_NS + 12 * HOUR_NS
    two.spend(5, now_ns=midnight_ns)  # a request ended today
    await two.fleet.read(two.purses, midnight_ns - 1)  # in a read that began yesterday
    assert (two.purses[A].own_picousd, two.purses[A].others_picousd, two.purses[A].day) == (5, 0, midnight_ns // DAY_NS)


@pytest.mark.parametrize("fault", ["unavailable", "lost answer"])
async def test_a_write_that_failed_is_made_good(fault: Fault) -> None:
    store = MemoryStore()
    one = Gateway(store, "c1")
    for _ in range(3):  # the first is a creation, the others replace
        one.spend(10)
        store.faults.append(fault)
        with pytest.raises(StoreUnavailable):
            await one.sync()
        await one.sync()
    assert record(store, "c1")["spent_picousd"] == {A: 30}


async def test_an_object_that_somebody_deleted_is_written_again() -> None:
    store = MemoryStore()
    one = Gateway(store, "c1")
    one.spend(10)
    await one.sync()
    store.objects.clear()
    one.spend(1)
    await one.sync()
    assert record(store, "c1")["spent_picousd"] == {A: 11}


async def test_what_others_spent_stays_spent_when_their_object_is_gone() -> None:
    store = MemoryStore()
    one, two = Gateway(store, "c1"), Gateway(store, "c2")
    one.spend(10)
    await one.sync()
    two.spend(1)
    await two.sync()
    store.objects.clear()
    two.spend(1)
    await two.sync()
    assert two.known() == 12


async def test_a_life_that_is_over_is_read_once_more_and_then_never() -> None:
    store = _Counting()
    one, two = Gateway(store, "c1"), Gateway(store, "c2")
    one.spend(10)
    await one.fleet.close(one.purses, NOON_NS)
    assert record(store, "c1")["closed"] is True
    two.spend(1)
    await two.sync()
    assert two.known() == 11
    store.read.clear()
    two.spend(1)
    await two.sync()
    assert store.read == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"schema_version":9}', b'{"spent_picousd":{"../x":-1},"schema_version":1}']
)
async def test_a_record_that_cannot_be_read_is_reported_once_and_the_others_count(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    store.objects[layout.spend("2026-11-25", "c9", NOON_NS)] = body
    one, two = Gateway(store, "c1"), Gateway(store, "c2")
    one.spend(10)
    await one.sync()
    for _ in range(3):
        two.spend(1)
        await two.sync()
    assert two.known() == 13
    assert caplog.text.count("what a container spent is not counted") == 2  # by each gateway


async def test_a_store_that_is_read_only_still_tells() -> None:
    store = MemoryStore()
    one, two = Gateway(store, "c1"), Gateway(store, "c2")
    one.spend(10)
    await one.sync()
    two.spend(1)
    store.faults.append("unavailable")
    with pytest.raises(GatewayError):
        await two.sync()
    assert two.known() == 11


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.integers(0, 9), st.just("sync"), st.sampled_from(["unavailable", "lost answer"])),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
async def test_whatever_happens_between_everybody_knows_the_truth_after_an_exchange(
    steps: list[tuple[int, Any]],
) -> None:
    """Spending, exchanges, writes that fail and answers that get lost, in any order, among three gateways."""
    store = MemoryStore()
    fleet = [Gateway(store, f"c{number}") for number in range(3)]
    truth = 0
    for number, step in steps:
        if isinstance(step, int):
            fleet[number].spend(step)
            truth += step
            continue
        if step != "sync":
            store.faults.append(step)
        with contextlib.suppress(StoreUnavailable):
            await fleet[number].sync()
        assert fleet[number].known() <= truth
    store.faults.clear()
    for _ in range(2):
        for gateway in fleet:
            gateway.spend(1)
            truth += 1
            await gateway.sync()
    for gateway in fleet:
        await gateway.fleet.read(gateway.purses, NOON_NS)
        assert gateway.known() == truth


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=12), st.integers(1, 60))
async def test_once_a_budget_is_spent_each_gateway_lets_through_two_intervals_at_most(
    intervals: list[list[int]], budget: int
) -> None:
    """Each request costs 3; an interval is a list of which gateway each request meets; then all exchange, one after another."""
    store = MemoryStore()
    fleet = [Gateway(store, f"c{number}", budget) for number in range(3)]
    truth = 0
    late = [[0] * len(fleet)]  # what each let through per interval after the budget was spent
    for requests in intervals:
        late.append([0] * len(fleet))
        for number in requests:
            if fleet[number].purses[A].is_spent(NOON_NS):
                continue
            late[-1][number] += truth >= budget
            fleet[number].spend(3)
            truth += 3
        for gateway in fleet:
            await gateway.sync()
    for of_one in zip(*late, strict=True):
        assert sum(count > 0 for count in of_one) <= 2


class _Counting(MemoryStore):
    """`calls` counts requests of any kind, `read` lists the objects asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.read: list[str] = []

    async def get(self, key: str) -> Any:
        self.read.append(key)
        return await super().get(key)

    async def _reach(self) -> None:
        self.calls += 1
        await super()._reach()
