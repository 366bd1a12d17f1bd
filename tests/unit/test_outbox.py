"""The outbox: in order, once each, with growing waits, and silent only where somebody else writes."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from gateway.accounting.outbox import Outbox
from gateway.accounting.parcel import Parcel
from tests.support.manualclock import until
from tests.support.memorystore import MemoryStore

ONE, TWO, THREE = (Parcel("segment", key, key.encode() * 10, cost_picousd=7) for key in ("one", "two", "three"))


class Waits:
    """Instead of sleeping: remembers how long was asked for, and ends the outage when `last` such waits are over."""

    def __init__(self, store: MemoryStore, last: int) -> None:
        self.seconds: list[float] = []
        self._store = store
        self._last = last

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._store.is_down = len(self.seconds) % self._last != 0


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def outbox(store: MemoryStore, waits: Waits, *, jitter: Callable[[], float] = lambda: 1.0) -> Outbox:
    return Outbox(store, bytes_max=50, put_timeout_s=10, sleep=waits.sleep, jitter=jitter)


async def test_parcels_are_written_in_order_while_more_are_added(store: MemoryStore) -> None:
    box = outbox(store, Waits(store, 1))
    task = asyncio.create_task(box.run())
    for parcel in (ONE, TWO, THREE):
        box.add(parcel)
        await asyncio.sleep(0)
    await until(lambda: box.written["segment"] == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert store.attempts == ["one", "two", "three"]
    assert (box.written["segment"], box.pending_bytes, box.unwritten_picousd) == (3, 0, 0)


async def test_it_is_full_and_still_takes_everything(store: MemoryStore) -> None:
    box = outbox(store, Waits(store, 1))
    fullness = []
    for parcel in (ONE, TWO, THREE):
        box.add(parcel)
        fullness.append(box.is_full)
    assert fullness == [False, True, True]
    assert (box.pending_bytes, box.unwritten_picousd) == (110, 21)


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [(0.0, [0.25, 0.5, 1, 2, 4, 8, 15, 15]), (1.0, [0.5, 1, 2, 4, 8, 16, 30, 30])],
)
async def test_waits_grow_to_half_a_minute(store: MemoryStore, jitter: float, expected: list[float]) -> None:
    waits = Waits(store, 8)
    box = outbox(store, waits, jitter=lambda: jitter)
    store.is_down = True
    box.add(ONE)
    await box.empty()
    assert waits.seconds == expected


async def test_each_outage_is_logged_once_and_begins_with_a_short_wait(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    waits = Waits(store, 3)
    box = outbox(store, waits)
    for parcel in (ONE, TWO):
        store.is_down = True
        box.add(parcel)
        await box.empty()
    assert waits.seconds == [0.5, 1, 2] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2


async def test_another_writer_s_object_stops_everything_behind_it(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.objects["two"] = b"somebody else's"
    box = outbox(store, Waits(store, 1))
    for parcel in (ONE, TWO, THREE):
        box.add(parcel)
    await box.empty()
    box.add(THREE)
    await box.empty()
    assert store.objects == {"one": ONE.body, "two": b"somebody else's"}
    assert (box.conflicts, box.pending_bytes, box.is_full) == (1, 0, True)
    assert box.unwritten_picousd == 3 * 7
    assert "segment two exists with other content" in caplog.text


async def test_a_price_book_that_is_not_what_its_name_says_stops_nothing(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Its key is the digest of its bytes, the same for all containers: others there are damage, not another writer."""
    store.objects["book"] = b"garbage"
    box = outbox(store, Waits(store, 1))
    for parcel in (Parcel("price book", "book", b"prices"), ONE):
        box.add(parcel)
    await box.empty()
    assert store.objects == {"book": b"garbage", "one": ONE.body}
    assert (box.conflicts, box.written["price book"], box.pending_bytes, box.unwritten_picousd) == (0, 0, 0, 0)
    assert "the price book book is damaged" in caplog.text
