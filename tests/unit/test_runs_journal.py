"""Metrics and log lines reach the store in order, in bounded memory, and whatever the store does, training goes on."""

import asyncio
import logging
import threading

import msgspec
import pytest

from gateway.contract import layout
from gateway.contract.runs import MetricLine
from tests.support.manualclock import ManualClock, until
from tests.support.memorystore import MemoryStore
from tests.support.trainingruns import NOW_NS
from trainers.runs import journal
from trainers.runs.journal import Journal, LogHandler

WRITTEN_AT = b"2026-09-21T14:13:20Z "


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_NS)


def opened(store: MemoryStore, clock: ManualClock, **options: float) -> Journal:
    return Journal(store, "r", 2, now_ns=clock.now_ns, sleep=clock.sleep, **options)  # type: ignore[arg-type]


async def poll(clock: ManualClock) -> None:
    await until(lambda: bool(clock._sleepers))
    await clock.advance(journal.POLL_S)
    await until(lambda: bool(clock._sleepers))


def logged(store: MemoryStore) -> list[str]:
    body = b"".join(store.objects[key] for key in store.keys(layout.logs("r", 2)))
    return [line.decode()[len(WRITTEN_AT) :] for line in body.splitlines()]


def measured(store: MemoryStore) -> list[MetricLine]:
    body = b"".join(store.objects[key] for key in store.keys(layout.metrics("r")))
    return [msgspec.json.decode(line, type=MetricLine) for line in body.splitlines()]


async def test_lines_become_a_segment_when_it_is_time(store: MemoryStore, clock: ManualClock) -> None:
    async with opened(store, clock, flush_s=1.0) as written:
        written.log("one\ntwo")
        await poll(clock)
        assert store.objects == {}
        await poll(clock)
        assert logged(store) == ["one", "two"]
        for _ in range(3):
            await poll(clock)
        assert len(store.objects) == 1  # nothing new, nothing written
    assert store.objects[layout.logs_segment("r", 2, 0)].startswith(WRITTEN_AT)


async def test_many_lines_become_a_segment_at_once(store: MemoryStore, clock: ManualClock) -> None:
    async with opened(store, clock, flush_s=1000, flush_bytes=1000) as written:
        for number in range(100):
            written.log(f"line {number}")
        await poll(clock)
        assert len(logged(store)) == 100


async def test_the_end_writes_what_is_left_and_numbers_that_are_none_are_null(
    store: MemoryStore, clock: ManualClock
) -> None:
    async with opened(store, clock) as written:
        written.metrics(5, loss=0.5, grad_norm=float("inf"), accuracy=None)
        written.metrics(6, loss=float("nan"))
    assert [(line.step, line.values) for line in measured(store)] == [
        (5, {"loss": 0.5, "grad_norm": None, "accuracy": None}),
        (6, {"loss": None}),
    ]
    assert store.keys("") == [layout.metrics_segment("r", 2, 0)]


async def test_a_store_that_is_away_keeps_lines_waiting_in_order(store: MemoryStore, clock: ManualClock) -> None:
    async with opened(store, clock, flush_s=journal.POLL_S) as written:
        store.is_down = True
        written.log("first")
        await poll(clock)
        written.log("second")
        await poll(clock)
        store.is_down = False
        written.log("third")
        await poll(clock)
        assert logged(store) == ["first", "second", "third"]


@pytest.mark.parametrize("fault", ["lost answer", "unavailable", "broken"])
async def test_a_write_that_went_wrong_loses_no_line_and_doubles_none(
    store: MemoryStore, clock: ManualClock, fault: str
) -> None:
    async with opened(store, clock, flush_s=journal.POLL_S) as written:
        store.faults.append(fault)  # type: ignore[arg-type]
        written.log("first")
        await poll(clock)
        written.log("second")
        await poll(clock)
        written.log("third")
    assert logged(store) == ["first", "second", "third"]


async def test_lines_that_do_not_fit_while_the_store_is_away_are_counted(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PENDING_BYTES_MAX", 400)
    async with opened(store, clock, flush_s=journal.POLL_S) as written:
        store.is_down = True
        for number in range(50):
            written.log(f"line {number:02d}")
            written.metrics(number, loss=1.0)
        await poll(clock)
        store.is_down = False
    first, *rest = logged(store)
    dropped = 50 - len(rest)
    assert first == f"{dropped} lines before this one were dropped: the store did not answer"
    assert rest == [f"line {number:02d}" for number in range(dropped, 50)]
    head, *lines = measured(store)
    assert head.values == {"lines_dropped": 50 - len(lines)}
    assert dropped > 20


async def test_lines_from_many_threads_all_arrive_each_thread_in_its_order(
    store: MemoryStore, clock: ManualClock
) -> None:
    def chatter(name: str, written: Journal) -> None:
        for number in range(200):
            written.log(f"{name} {number}")

    async with opened(store, clock) as written:
        threads = [threading.Thread(target=chatter, args=(name, written)) for name in "abcd"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):  # flushes race with the writers
            await written.flush()
            await asyncio.sleep(0)
    lines = logged(store)
    assert {name: [line for line in lines if line.startswith(name)] for name in "abcd"} == {
        name: [f"{name} {number}" for number in range(200)] for name in "abcd"
    }


async def test_pythons_own_log_records_go_in(store: MemoryStore, clock: ManualClock) -> None:
    async with opened(store, clock) as written:
        logger = logging.Logger("recipe")  # one of its own, so that nothing of it stays behind
        logger.addHandler(LogHandler(written))
        logger.warning("few rows: %d", 12)
        logger.info("x" * (journal.LINE_LENGTH_MAX + 100))
    assert logged(store)[0] == "WARNING recipe: few rows: 12"
    assert len(logged(store)[1]) == journal.LINE_LENGTH_MAX
