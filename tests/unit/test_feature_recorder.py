"""The recorder: when windows end, what an outage does to them, what a full queue does, and how it stops. Time is moved by hand."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.contract import layout
from gateway.contract.features import FeatureWindow
from gateway.contract.manifest import Manifest
from gateway.features.options import FeatureOptions
from gateway.features.recorder import PROFILE_RETRY_S, Recorder
from gateway.features.sampling import Sample
from tests.support import drifting
from tests.support.manualclock import ManualClock, until
from tests.support.memorystore import MemoryStore

HOUR_NS = 3600 * 10**9
NOON_NS = 1_790_000_000 * 10**9 // HOUR_NS * HOUR_NS


class Bench:
    """A recorder of everything over a store in memory, at the beginning of an hour, with the tiny model loaded."""

    def __init__(self, **options: Any) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock(NOON_NS)
        self.options = FeatureOptions(**{"sample": 1.0, **options})
        self.recorder = self.new()
        self.manifest: Manifest

    def new(self) -> Recorder:
        return Recorder(
            self.store, self.clock, self.options, container="c0", boot_ns=7, sleep=self.clock.sleep, jitter=lambda: 1.0
        )

    async def publish(self) -> None:
        self.manifest, contents = drifting.with_profile()
        for file in self.manifest.files:
            await self.store.put_if_absent(layout.blob("tiny", file.sha256), contents[file.name])

    async def load(self, version: int = 1) -> None:
        before = self.recorder.profiles
        self.recorder.loaded("tiny", version, self.manifest)
        await until(lambda: self.recorder.profiles == before + 1)

    def offer(self, rows: int, *, version: int = 1, body_bytes: int = 100) -> None:
        inputs = drifting.reference_rows(rows)
        outputs = {"probability": np.full((rows, 1), 0.5, np.float32)}
        self.recorder.offer("tiny", version, inputs, outputs, rows, body_bytes)

    async def windows(self) -> list[FeatureWindow]:
        return await drifting.windows_of(self.store)

    async def written(self, count: int) -> list[FeatureWindow]:
        await until(lambda: self.recorder.windows_written == count)
        return await self.windows()


@asynccontextmanager
async def bench(**options: Any) -> AsyncIterator[Bench]:
    it = Bench(**options)
    await it.publish()
    async with it.recorder:
        await it.load()
        yield it
        it.store.is_down = False
    assert it.clock._sleepers == []


async def test_a_window_ends_when_it_is_due_and_the_next_begins_there() -> None:
    async with bench() as it:
        it.offer(3)
        await it.clock.advance(300)
        it.offer(4)
        await it.written(1)
        await it.clock.advance(300)
        windows = await it.written(2)
        assert [(window.rows_seen, window.rows_sampled, window.seq) for window in windows] == [(3, 3, 0), (4, 4, 1)]
        assert [(window.from_ns - NOON_NS) // 10**9 for window in windows] == [0, 300]
        assert [(window.to_ns - NOON_NS) // 10**9 for window in windows] == [300, 600]


async def test_a_window_without_a_row_is_not_written() -> None:
    async with bench() as it:
        for _ in range(3):
            await it.clock.advance(300)
    assert await it.windows() == []


async def test_a_window_ends_with_its_hour() -> None:
    async with bench(flush_interval_s=3500) as it:
        it.offer(1)
        await it.clock.advance(3500)
        await it.written(1)
        it.offer(2)
        await it.clock.advance(100)
        windows = await it.written(2)
        assert windows[1].to_ns == NOON_NS + HOUR_NS


async def test_an_outage_makes_one_long_window_and_loses_no_row() -> None:
    async with bench() as it:
        it.store.is_down = True
        for rows in (1, 2, 3, 4):
            it.offer(rows)
            await it.clock.advance(300)
            await until(lambda least=rows: it.recorder.failures >= least and len(it.clock._sleepers) == 2)  # type: ignore[misc]
        it.store.is_down = False
        await it.clock.advance(60)
        await it.written(1)
        await it.clock.advance(40 * 60)
        windows = await it.written(2)
        assert [window.rows_sampled for window in windows] == [1, 9]
        assert it.recorder.rows_dropped == 0


async def test_a_lost_answer_is_found_to_be_a_success() -> None:
    async with bench() as it:
        it.store.faults.append("lost answer")
        it.offer(5)
        await it.clock.advance(300)
        await until(lambda: it.recorder.failures == 1 and len(it.clock._sleepers) == 2)
        await it.clock.advance(60)
        assert [window.rows_sampled for window in await it.written(1)] == [5]


async def test_what_another_process_wrote_under_our_key_is_left_and_our_rows_count_as_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench() as it:
        key = layout.feature_window("tiny", from_ns=NOON_NS, container="c0", boot_ns=7, seq=0)
        await it.store.put_if_absent(key, b"theirs")
        it.offer(5)
        await it.clock.advance(300)
        await until(lambda: it.recorder.rows_dropped == 5)
        assert it.store.objects[key] == b"theirs"
        assert "give each container its own id" in caplog.text


@pytest.mark.parametrize("full", [{"queue_rows_max": 10}, {"queue_bytes_max": 1000}])
async def test_a_full_queue_drops_and_counts(full: dict[str, int]) -> None:
    """Nothing is counted between the offers: the event loop does not turn."""
    async with bench(**full) as it:
        for _ in range(4):
            it.offer(4, body_bytes=400)
        it.recorder.unloaded("tiny", 1)
        [window] = await it.written(1)
        assert (window.rows_seen, window.rows_sampled, window.rows_dropped) == (16, 8, 8)
        assert (it.recorder.rows_sampled, it.recorder.rows_dropped) == (8, 8)


async def test_a_request_far_larger_than_the_queue_is_not_even_looked_through() -> None:
    async with bench(queue_rows_max=10) as it:
        it.recorder.offer("tiny", 1, {}, {}, 10_000, 0)
        assert it.recorder.rows_dropped == 10_000


async def test_a_queue_that_was_counted_has_room_again() -> None:
    async with bench(queue_rows_max=600) as it:
        for _ in range(5):
            it.offer(600)
            await until(lambda: it.recorder.rows_sampled % 600 == 0 and it.recorder._queued_rows == 0)
        assert (it.recorder.rows_sampled, it.recorder.rows_dropped) == (3000, 0)


async def test_two_versions_are_two_windows_and_unknown_ones_none() -> None:
    async with bench() as it:
        await it.load(2)
        it.offer(1)
        it.offer(2, version=2)
        it.offer(4, version=3)
    windows = await it.windows()
    assert sorted((window.version, window.rows_sampled) for window in windows) == [(1, 1), (2, 2)]


async def test_the_end_writes_everything_though_nothing_was_due() -> None:
    async with bench() as it:
        it.offer(700)
        it.offer(20)
    assert [window.rows_sampled for window in await it.windows()] == [720]


async def test_the_end_does_not_wait_longer_than_it_may_for_a_store(caplog: pytest.LogCaptureFixture) -> None:
    it = Bench(drain_s=0.01)
    await it.publish()
    async with it.recorder:
        await it.load()
        it.offer(5)
        it.store.is_down = True
    assert "5 counted rows did not reach the store" in caplog.text


async def test_a_profile_is_read_when_the_store_is_back_and_a_model_may_leave_before() -> None:
    it = Bench()
    await it.publish()
    async with it.recorder:
        it.store.is_down = True
        it.recorder.loaded("tiny", 1, it.manifest)
        it.recorder.loaded("tiny", 2, it.manifest)
        await until(lambda: len(it.clock._sleepers) == 3)
        it.recorder.unloaded("tiny", 2)
        it.store.is_down = False
        await it.clock.advance(PROFILE_RETRY_S)
        await until(lambda: it.recorder.profiles == 1)
        it.offer(3)
        it.offer(3, version=2)
    assert [window.version for window in await it.windows()] == [1]


async def test_a_profile_that_was_tampered_with_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    it = Bench()
    await it.publish()
    [file] = [file for file in it.manifest.files if file.role == "profile"]
    it.store.objects[layout.blob("tiny", file.sha256)] += b" "
    async with it.recorder:
        it.recorder.loaded("tiny", 1, it.manifest)
        await until(lambda: "not have the digest" in caplog.text)
        assert it.recorder.profiles == 0


async def test_a_model_without_a_profile_costs_nothing() -> None:
    it = Bench()
    await it.publish()
    bare = msgspec.structs.replace(it.manifest, files=it.manifest.files[:1])
    async with it.recorder:
        it.recorder.loaded("tiny", 1, bare)
        it.offer(3)
    assert await it.windows() == []


async def test_a_tensor_that_is_not_there_is_no_error_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as it:
        it.recorder.offer("tiny", 1, {}, {}, 3, 0)
        assert it.recorder.rows_dropped == 3
    assert "could not be chosen" in caplog.text


async def test_tensors_that_are_not_as_they_should_be_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with bench() as it:
        it.recorder.offer(
            "tiny", 1, {"categories": np.zeros((2, 1), object), "numbers": np.zeros((2, 3))},
            {"probability": np.zeros((2, 1))}, 2, 0,
        )  # fmt: skip
        await it.clock.advance(300)
        await it.written(1)
        it.offer(3)
    assert "could not be counted" in caplog.text
    assert [(w.rows_sampled, w.rows_dropped) for w in await it.windows()] == [(0, 2), (3, 0)]


def test_each_row_is_chosen_with_the_same_chance_however_rows_come() -> None:
    """Of 300,000 rows in requests of 1 to 400, three standard deviations; and first rows of a request are nothing special."""
    rng = np.random.default_rng(0)
    sample, chosen, firsts, requests, seen = Sample(0.05, seed=1), 0, 0, 0, 0
    while seen < 300_000:
        rows = int(rng.integers(1, 400)) if rng.random() < 0.1 else 1
        requests, seen = requests + 1, seen + rows
        if rows <= sample.until_next:
            sample.until_next -= rows
            continue
        picks = sample.picks(rows)
        assert len(picks)
        assert (np.diff(picks) > 0).all()
        assert 0 <= picks[0] <= picks[-1] < rows
        chosen, firsts = chosen + len(picks), firsts + (picks[0] == 0)
    for count, of in ((chosen, seen), (firsts, requests)):
        assert abs(count - 0.05 * of) < 3 * np.sqrt(0.05 * 0.95 * of)


async def test_offers_from_the_loop_while_a_thread_counts_are_all_counted() -> None:
    async with bench() as it:
        for _ in range(200):
            it.offer(40)
            await asyncio.sleep(0)
    assert sum(window.rows_sampled for window in await it.windows()) == 8000
