"""Attempts at a run: one number each, a heartbeat that fences and listens, and who counts as dead by whose clock."""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from gateway.contract import codec, layout, prices
from gateway.contract.runs import AttemptEnd, Cancellation, Heartbeat, Progress, TrainingCharge
from gateway.objectstore.local import LocalStore
from tests.support import trainingruns
from tests.support.faults import Crash, CrashingStore
from tests.support.manualclock import ManualClock, until
from tests.support.memorystore import MemoryStore
from tests.support.trainingruns import NOW_NS, RUN, S, closed, opened
from trainers.errors import Cancelled, SpecError
from trainers.runs import reading, records
from trainers.runs.heartbeat import Beating
from trainers.runs.machine import Placement
from trainers.runs.progress import Tracker
from trainers.runs.records import Attempt

CANCELLATION = Cancellation(run_id=RUN.run_id, actor="ben", reason="wrong data", requested_ns=NOW_NS)


class Ears:
    """What an attempt was told."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.fenced: list[str] = []


def beating(store: object, attempt: Attempt, clock: ManualClock, ears: Ears, tracker: Tracker | None = None) -> Beating:
    return Beating(
        store,  # type: ignore[arg-type] # both stores of these tests
        attempt,
        tracker or Tracker(clock_ns=clock.now_ns),
        on_cancel=ears.cancelled.append,
        on_fenced=ears.fenced.append,
        now_ns=clock.now_ns,
        sleep=clock.sleep,
    )


async def next_beat(clock: ManualClock) -> None:
    """Half a minute passes, and the heartbeat due then is written."""
    await until(lambda: bool(clock._sleepers))
    await clock.advance(30)
    await until(lambda: bool(clock._sleepers))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_NS)


# What was asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 8}, "seed was 7, is 8"),
        ({"recipe": "mine:churn"}, "recipe was 'flights', is 'mine:churn'"),
        (
            {"parameters": {"epochs": 4.0}},
            r"parameter epochs was 3.0, is 4.0; parameter learning_rate was 0.001, is None",
        ),
        ({"spec_sha256": "cd" * 32}, "its spec had digest abababababab, this one has cdcdcdcdcdcd"),
    ],
)
async def test_a_run_id_that_stands_for_something_else_is_refused(
    store: LocalStore, changes: dict[str, object], message: str
) -> None:
    await opened(store)
    with pytest.raises(SpecError, match=message):
        await opened(store, msgspec.structs.replace(RUN, **changes))
    assert len(await reading.tried(store, RUN.run_id)) == 1


async def test_the_same_run_asked_by_another_at_another_time_goes_on(store: LocalStore) -> None:
    await closed(store, await opened(store), "preempted")
    again = await opened(store, msgspec.structs.replace(RUN, actor="ben", created_ns=NOW_NS + 1, arguments=()))
    assert again.number == 2
    stored = await reading.record(store, RUN.run_id)
    assert stored == RUN


@pytest.mark.parametrize("run_id", ["../up", "", "A", "a" * 64, "a/b"])
async def test_a_run_id_that_is_no_name_reaches_no_key(store: LocalStore, run_id: str) -> None:
    with pytest.raises(SpecError, match="must be lower case"):
        await opened(store, trainingruns.run(run_id))


async def test_the_price_the_market_asked_comes_before_the_book(store: LocalStore) -> None:
    spot = await opened(store)
    listed = await opened(store, placement=Placement())
    unknown = await opened(store, placement=Placement(), sku="unknown")
    assert [a.record.usd_per_hour for a in (spot, listed, unknown)] == ["0.1578", "0.526", None]
    assert spot.record.price_book_sha256 == prices.load().sha256


# Claims


@pytest.mark.parametrize("kind", ["local", "memory"])
async def test_attempts_that_claim_at_once_get_a_number_each(tmp_path: Path, kind: str) -> None:
    store = LocalStore(tmp_path) if kind == "local" else MemoryStore()
    attempts = await asyncio.gather(*(opened(store) for _ in range(12)))
    assert sorted(attempt.number for attempt in attempts) == list(range(1, 13))


async def test_a_crash_anywhere_in_opening_leaves_a_run_that_opens(tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        store = LocalStore(tmp_path / str(number))
        (tmp_path / str(number)).mkdir()
        await opened(store)  # an attempt that died without a word
        crashing = CrashingStore(store, crash_at=number, after_effect=bool(number % 2))
        with contextlib.suppress(Crash):
            await opened(crashing)  # type: ignore[arg-type] # it is one, by its methods
        if crashing.calls < number:
            break
        attempt = await opened(store)
        ends = [tried.end for tried in await reading.tried(store, RUN.run_id)]
        assert attempt.number in {2, 3}
        assert [end.outcome for end in ends[:-1] if end] == ["lost"] * (attempt.number - 1)
        charges = [info.key async for info in store.list(layout.TRAINING)]
        assert charges == [layout.training_charge(RUN.run_id, n) for n in range(1, attempt.number)]
    assert number > 5


# Ends and the ledger


async def test_an_end_is_recorded_once_and_billed_once(store: LocalStore) -> None:
    attempt = await opened(store)
    first = await closed(store, attempt, "preempted", exit_code=143, message="SIGTERM")
    again = await closed(store, attempt, "failed", elapsed_ns=999 * S)
    assert again == first
    charge = codec.decode((await store.get(layout.training_charge(RUN.run_id, 1))).body, TrainingCharge)
    assert (charge.cost_picousd, charge.outcome, charge.model) == (first.cost_picousd, "preempted", "flights")
    assert first.cost_picousd == round(0.1578e12 * 60 / 3600)


async def test_an_end_whose_bill_was_not_written_is_billed_by_the_next_attempt(store: LocalStore) -> None:
    await closed(store, await opened(store), "preempted")
    await store.delete(layout.training_charge(RUN.run_id, 1))
    attempt = await opened(store)
    assert (await store.get(layout.training_charge(RUN.run_id, 1))).body
    assert attempt.before.attempts == 1


async def test_who_left_without_a_word_is_settled_from_the_last_heartbeat(
    store: LocalStore, clock: ManualClock
) -> None:
    tracker = Tracker(clock_ns=clock.now_ns)
    attempt = await opened(store)
    beat = beating(store, attempt, clock, Ears(), tracker)
    tracker.steps_begin(0, total=100)
    clock.work(300 * S)
    tracker.step(60, examples=6000)
    tracker.saved(40)
    await beat.beat()  # and then SIGKILL

    successor = await opened(store, at_ns=clock.now_ns() + 900 * S)

    [(_, end)] = successor.tried
    assert (end.outcome, end.evidence, end.elapsed_ns) == ("lost", "heartbeat", 300 * S)
    assert (end.steps_done, end.steps_lost, end.kept_step) == (60, 20, 40)
    assert successor.before.kept_step == 40
    late = await closed(store, attempt, "fenced")
    assert late == end


async def test_an_attempt_settled_without_a_heartbeat_of_its_own_takes_nothing_from_another(
    store: LocalStore, clock: ManualClock
) -> None:
    first = await opened(store)
    clock.work(100 * S)
    await beating(store, first, clock, Ears()).beat()
    await opened(store)  # dies before its first heartbeat
    third = await opened(store)
    assert [end.evidence for _, end in third.tried] == ["heartbeat", "claim"]
    assert third.before.attempts == 2


# Heartbeats


async def test_a_heartbeat_says_how_far_it_is(store: LocalStore, clock: ManualClock) -> None:
    tracker = Tracker(clock_ns=clock.now_ns)
    attempt = await opened(store)
    async with beating(store, attempt, clock, Ears(), tracker):
        with tracker.stage("train"):
            tracker.steps_begin(0, total=50)
            clock.work(10 * S)
            tracker.step(5, examples=1000, loss=float("nan"))
            await next_beat(clock)
            found = _stored(store)
    assert (found.stage, found.steps_total, found.loss, found.elapsed_ns) == ("train", 50, None, 40 * S)
    assert found.examples_per_s == 25.0
    assert found.at_ns == NOW_NS + 40 * S


async def test_a_later_attempt_fences_an_earlier_one_once(store: LocalStore, clock: ManualClock) -> None:
    old, new = Ears(), Ears()
    first = await opened(store)
    stale = beating(store, first, clock, old)
    await stale.beat()
    second = await opened(store)
    await beating(store, second, clock, new).beat()
    for _ in range(3):
        await stale.beat()
    assert old.fenced == ["attempt 2 of run 'flights-1' has taken over"]
    assert new.fenced == []
    assert _stored(store).attempt == 2


async def test_two_attempts_that_beat_at_once_leave_the_later_ones_heartbeat(
    tmp_path: Path, clock: ManualClock
) -> None:
    store = LocalStore(tmp_path)
    attempts = await asyncio.gather(*(opened(store) for _ in range(5)))
    ears = {attempt.number: Ears() for attempt in attempts}
    beats = [beating(store, attempt, clock, ears[attempt.number]) for attempt in attempts]
    for _ in range(6):  # a lost race is over with the next beat
        await asyncio.gather(*(beat.beat() for beat in beats))
    assert _stored(store).attempt == 5
    assert [bool(ears[number].fenced) for number in range(1, 6)] == [True] * 4 + [False]


async def test_a_cancelled_run_tells_its_attempt_once_and_takes_no_other(store: LocalStore, clock: ManualClock) -> None:
    ears, attempt = Ears(), await opened(store)
    async with beating(store, attempt, clock, ears):
        await records.cancel(store, CANCELLATION)
        assert ears.cancelled == []
        for _ in range(2):
            await next_beat(clock)
    assert ears.cancelled == ["cancelled by ben"]
    with pytest.raises(
        Cancelled, match=r"cancelled by ben at 2026-\S+ \(wrong data\); take that back with: steelyard runs resume"
    ):
        await opened(store)
    await records.lift_cancellation(store, RUN.run_id)
    assert (await opened(store)).number == 2


async def test_a_store_that_is_away_costs_heartbeats_and_nothing_else(clock: ManualClock) -> None:
    store, ears = MemoryStore(), Ears()
    attempt = await opened(store)
    store.is_down = True
    async with beating(store, attempt, clock, ears):
        await next_beat(clock)
        store.is_down = False
        store.faults.extend(["lost answer", "broken", "none"])
        for _ in range(3):
            await next_beat(clock)
    assert ears.fenced == []
    assert msgspec.json.decode(store.objects[layout.heartbeat(RUN.run_id)], type=Heartbeat).at_ns == clock.now_ns()


# States


async def view(store: LocalStore) -> reading.RunView:
    return await reading.one(store, RUN.run_id)


async def test_a_run_is_running_for_three_intervals_and_lost_after(store: LocalStore, clock: ManualClock) -> None:
    await beating(store, await opened(store), clock, Ears()).beat()
    seen = await view(store)
    assert reading.state(seen, NOW_NS + 90 * S - 1) == "running"
    assert reading.state(seen, NOW_NS + 90 * S) == "lost"
    assert seen.unsettled(NOW_NS + 90 * S - 1) == ()
    assert seen.unsettled(NOW_NS + 90 * S) == (1,)
    await records.cancel(store, CANCELLATION)
    assert reading.state(await view(store), NOW_NS + S) == "cancelling"


async def test_an_attempt_without_a_heartbeat_is_dated_by_its_claim(store: LocalStore, clock: ManualClock) -> None:
    await beating(store, await opened(store), clock, Ears()).beat()
    await opened(store, at_ns=NOW_NS + 600 * S)
    assert reading.state(await view(store), NOW_NS + 601 * S) == "running"
    assert reading.state(await view(store), NOW_NS + 700 * S) == "lost"


async def test_clocks_that_differ_change_no_bill_and_kill_no_run(store: LocalStore, clock: ManualClock) -> None:
    """The writer's clock is an hour ahead of the reader's, and is set back by two while it runs."""
    wall, steady = ManualClock(NOW_NS + 3600 * S), clock
    attempt = await opened(store, at_ns=wall.now_ns())
    tracker = Tracker(clock_ns=steady.now_ns)
    beat = Beating(store, attempt, tracker, on_cancel=print, on_fenced=print, now_ns=wall.now_ns)
    await beat.beat()
    assert reading.state(await view(store), NOW_NS) == "running"
    wall.work(-7200 * S)
    steady.work(60 * S)
    end = await closed(store, attempt, at_ns=wall.now_ns(), elapsed_ns=tracker.elapsed_ns)
    assert end.elapsed_ns == 60 * S
    assert end.ended_ns < attempt.record.started_ns
    assert end.cost_picousd == round(0.1578e12 * 60 / 3600)


async def test_a_run_nobody_tried_yet_waits_or_is_cancelled(store: LocalStore) -> None:
    await records.require_same(store, RUN)
    assert reading.state(await view(store), NOW_NS) == "waiting"
    await records.cancel(store, CANCELLATION)
    assert reading.state(await view(store), NOW_NS) == "cancelled"


async def test_the_step_that_each_attempt_had_safe_is_known_also_of_the_dead(
    store: LocalStore, clock: ManualClock
) -> None:
    await closed(store, await opened(store), "preempted", Progress(step_last=50, step_saved=40, steps_ns=S))
    tracker = Tracker(clock_ns=clock.now_ns)
    beat = beating(store, await opened(store), clock, Ears(), tracker)
    tracker.steps_begin(40, total=100)
    tracker.step(70)
    tracker.saved(60)
    await beat.beat()
    reached = reading.StepsReached(store, now_ns=lambda: NOW_NS + 1000 * S)
    assert await reached.steps_reached(RUN.run_id) == [40, 60]
    assert await reached.steps_reached("nosuch") == []


# The tracker


def test_a_tracker_tells_steps_stages_and_overhead_apart(clock: ManualClock) -> None:
    tracker = Tracker(clock_ns=clock.now_ns)
    clock.work(5 * S)
    with tracker.stage("load"):
        clock.work(10 * S)
    with tracker.stage("train"):
        clock.work(3 * S)
        tracker.steps_begin(100, total=200)
        clock.work(20 * S)
        tracker.step(150, examples=50)
        tracker.saved(140)
        assert tracker.now().progress.step_saved == 140
        tracker.steps_end()
        clock.work(2 * S)
    with contextlib.suppress(RuntimeError), tracker.stage("export"):
        clock.work(7 * S)
        raise RuntimeError
    for sample in (0.5, None, 1.0):
        tracker.utilisation(sample)
    now = tracker.now()
    assert now.elapsed_ns == 47 * S
    assert now.progress == Progress(
        step_first=100,
        step_last=150,
        step_saved=150,  # the stage's own result is kept
        steps_ns=20 * S,
        stages=("load", "train"),
        stages_ns=10 * S,
        cut_off_ns=7 * S,
        examples=50,
        utilisation=0.75,
    )


def test_records_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="steps 5 to 3, saved 0, are out of order"):
        Progress(step_first=5, step_last=3)
    end = {
        "run_id": "r", "attempt": 1, "outcome": "done", "exit_code": 0, "message": "", "ended_ns": 0, "elapsed_ns": 1,
        "progress": Progress(), "kept_step": 0, "steps_done": 0, "steps_lost": 0, "wasted_ns": 0, "cost_picousd": 1,
        "wasted_picousd": 0,
    }  # fmt: skip
    AttemptEnd(**end)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="wasted more than it cost"):
        AttemptEnd(**end | {"wasted_picousd": 2})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lost more than it did"):
        AttemptEnd(**end | {"steps_lost": 1})  # type: ignore[arg-type]


def _stored(store: LocalStore) -> Heartbeat:
    return codec.decode(store.path(layout.heartbeat(RUN.run_id)).read_bytes(), Heartbeat)
