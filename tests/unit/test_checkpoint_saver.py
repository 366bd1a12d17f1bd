"""When a training loop saves, what it waits for, and what an outage of the store does to it: nothing, until it has lasted."""

import asyncio
import itertools
import math
import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.checkpoint import Origin
from gateway.errors import StoreUnavailable
from tests.support.memorystore import MemoryStore
from trainers.checkpoint.interval import INTERVAL_S_MAX, INTERVAL_S_MIN, Interval, interval_s
from trainers.checkpoint.saver import BACKOFF_S, Limits, Saver
from trainers.checkpoint.state import Snapshot
from trainers.checkpoint.store import Checkpoints, open_run
from trainers.errors import Fenced

ORIGIN = Origin("a" * 64, {}, {})
seconds = st.floats(min_value=0, max_value=1e9)

# --- the interval


@given(seconds, st.floats(min_value=1e-3, max_value=1e9))
def test_the_interval_stays_within_its_limits(cost_s: float, mtbf_s: float) -> None:
    assert INTERVAL_S_MIN <= interval_s(cost_s, Interval(mtbf_s=mtbf_s)) <= INTERVAL_S_MAX


@given(seconds, seconds)
def test_a_costlier_save_never_happens_more_often(one_s: float, other_s: float) -> None:
    cheap, dear = sorted((one_s, other_s))
    assert interval_s(cheap) <= interval_s(dear)


@given(st.floats(min_value=0.1, max_value=100), st.floats(min_value=600, max_value=1e6))
def test_the_interval_is_where_saving_and_losing_cost_the_same(cost_s: float, mtbf_s: float) -> None:
    """Young's optimum: the share of time spent on saves equals the expected share lost, half an interval per interruption."""
    chosen_s = interval_s(cost_s, Interval(mtbf_s=mtbf_s, min_s=0, max_s=math.inf))
    assert cost_s / chosen_s == pytest.approx(chosen_s / 2 / mtbf_s)


def test_the_published_example() -> None:
    assert interval_s(5, Interval(mtbf_s=4 * 3600)) == pytest.approx(6.3 * 60, rel=0.01)


@pytest.mark.parametrize("wrong", [{"mtbf_s": 0}, {"min_s": 10, "max_s": 5}, {"min_s": -1}, {"mtbf_s": math.nan}])
def test_an_interval_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="mtbf_s"):
        Interval(**wrong)


# --- the saver


class Running:
    """A store and a saver whose event loop runs in another thread, as beside a training loop. The clock ticks 0.25 s per look."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.warnings: list[str] = []
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.checkpoints = self.open()

    def open(self) -> Checkpoints:
        return asyncio.run_coroutine_threadsafe(open_run(self.store, "run", ORIGIN), self.loop).result()

    def saver(self, limits: Limits | None = None, interval: Interval | None = None) -> Saver:
        ticks = itertools.count()
        return Saver(
            self.checkpoints,
            self.loop,
            self.warnings.append,
            now=1000.0,
            interval=interval or Interval(),
            limits=limits,
            clock=lambda: next(ticks) * 0.25,
        )

    def hold(self) -> None:
        self.loop.call_soon_threadsafe(self.store.answers.clear)

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.store.answers.set)

    def stored(self) -> Snapshot:
        resumed = asyncio.run_coroutine_threadsafe(self.checkpoints.latest(), self.loop).result()
        assert resumed is not None
        return resumed.snapshot

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


def snapshot(step: int, weights: torch.Tensor | None = None) -> Snapshot:
    return Snapshot(
        step, {"w": torch.zeros(10) if weights is None else weights}, {"model": {"w": {"$tensor": "w"}}}, {}
    )


def test_the_first_save_is_due_after_the_shortest_interval(running: Running) -> None:
    saver = running.saver()
    assert [saver.due(now) for now in (1000, 1000 + INTERVAL_S_MIN - 1, 1000 + INTERVAL_S_MIN)] == [False, False, True]


def test_the_next_save_is_due_by_what_the_last_one_took(running: Running) -> None:
    saver = running.saver(interval=Interval(mtbf_s=5000, min_s=1))
    assert saver.offer(snapshot(1), now=1100)
    saver.flush(now=1101)

    took_s = saver.spent.last_save_s
    assert took_s > 0
    due = 1100 + math.sqrt(2 * took_s * 5000)
    assert [saver.due(due - 0.1), saver.due(due + 0.1)] == [False, True]


def test_one_save_is_under_way_at_a_time(running: Running) -> None:
    saver = running.saver()
    running.hold()
    assert saver.offer(snapshot(1), now=1100)

    assert not saver.due(now=99_999)
    assert not saver.offer(snapshot(2), now=99_999)

    running.release()
    saver.flush(now=100_000)
    assert saver.due(now=100_001)
    assert (saver.spent.saves, running.stored().step) == (1, 1)


def test_training_goes_on_while_its_state_is_uploaded(running: Running) -> None:
    saver = running.saver()
    weights = torch.ones(10)
    running.hold()
    for step, value in ((1, 1.0), (2, 5.0)):
        weights.fill_(value)
        assert saver.offer(snapshot(step, weights), now=1100)
        weights.fill_(-1)
        running.release()
        saver.flush(now=1101)
        assert torch.equal(running.stored().tensors["w"], torch.full((10,), value))


def test_an_outage_is_warned_about_and_the_next_save_makes_up_for_it(running: Running) -> None:
    saver = running.saver()
    running.store.is_down = True
    now = 1100.0
    for failure in range(3):
        assert saver.offer(snapshot(failure), now)
        saver.flush(now)
        backoff_s = BACKOFF_S * 2**failure
        assert (saver.due(now + backoff_s - 1), saver.due(now + backoff_s)) == (False, True)
        assert f"step {failure} was not saved" in running.warnings[-1]
        assert f"tried in {backoff_s:.0f} s" in running.warnings[-1]
        now += backoff_s

    running.store.is_down = False
    saver.offer(snapshot(9), now)
    saver.flush(now)

    assert (saver.spent.saves, saver.spent.failures, running.stored().step) == (1, 3, 9)
    running.store.is_down = True
    saver.offer(snapshot(10), now)
    saver.flush(now)
    assert f"tried in {BACKOFF_S:.0f} s" in running.warnings[-1], "a save that succeeds ends the row of failures"


def test_training_ends_when_an_outage_has_lasted(running: Running) -> None:
    saver = running.saver(Limits(failures_max=3))
    running.store.is_down = True
    for step in range(2):
        saver.offer(snapshot(step), now=1100)
        saver.flush(now=1100)
    saver.offer(snapshot(3), now=1100)

    with pytest.raises(StoreUnavailable, match="step 3 was not saved, and 3 saves in a row failed: the store is down"):
        saver.flush(now=1100)


def test_a_hung_upload_counts_as_a_failure(running: Running) -> None:
    saver = running.saver(Limits(save_s_max=0.01))
    running.hold()
    saver.offer(snapshot(1), now=1100)
    saver.flush(now=1100)

    assert "did not end within" in running.warnings[0]
    running.release()


def test_a_fenced_attempt_hears_of_it_at_its_next_step(running: Running) -> None:
    saver = running.saver()
    running.open()
    assert saver.offer(snapshot(1), now=1100), "it cannot know yet"

    def train() -> None:
        for now in itertools.count(1101):
            assert not saver.due(now)

    with pytest.raises(Fenced):  # whichever step comes after the save has ended
        train()
    assert running.warnings == []


def test_a_bug_in_a_save_is_not_taken_for_an_outage(running: Running) -> None:
    saver = running.saver()
    running.store.faults.append("broken")
    saver.offer(snapshot(1), now=1100)

    with pytest.raises(RuntimeError, match="a bug in the store"):
        saver.flush(now=1101)


def test_the_last_save_waits_for_the_one_under_way_and_tries_again(running: Running) -> None:
    saver = running.saver()
    saver.offer(snapshot(1), now=1100)
    saver.flush(now=1100)
    running.store.faults.extend(["unavailable", "unavailable"])

    saver.save_now(snapshot(7), now=1101)

    assert running.stored().step == 7
    assert (saver.spent.saves, saver.spent.failures) == (2, 2)


def test_a_last_save_that_cannot_be_made_is_an_error(running: Running) -> None:
    saver = running.saver()
    running.store.is_down = True

    with pytest.raises(StoreUnavailable, match="down"):
        saver.save_now(snapshot(7), now=1101)


def test_what_saving_costs_is_measured(running: Running) -> None:
    saver = running.saver()
    for step in (1, 2):
        saver.offer(snapshot(step), now=1100)
        saver.flush(now=1100)

    spent = saver.spent
    assert (spent.saves, spent.failures) == (2, 0)
    assert 0 < spent.stall_s < spent.save_s + 2
    assert 0 < spent.last_save_s < spent.save_s
