"""Deadlines: a request that would be late is refused before it waits, and again when its turn comes; none is answered late."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.manifest import BatchCost
from gateway.errors import DeadlineExceeded
from gateway.runtime.costmodel import ROWS_ENOUGH_MIN
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.workers import Workers
from tests.support.batching import MS, Clock, Desk, rows, working
from tests.support.manualclock import LIMIT_S

S = 1000 * MS
ROW_10_S = BatchCost(base_ns=0, row_ns=10 * S)
"""Long enough for no real timer to end; a single run is promised with two standard deviations of a tenth, so for 12 s."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workers(clock: Clock) -> Iterator[Workers]:
    with working(clock=clock) as one:
        yield one


Tasks = list["asyncio.Task[BatchShare]"]


async def enter(desk: Desk, *calls: tuple[float, float], level: int = 4) -> Tasks:
    """One task per (value, timeout in seconds), each of which has got to where it waits."""
    tasks = []
    for value, timeout_s in calls:
        tasks.append(asyncio.create_task(desk.submit(rows(value), timeout_ms=timeout_s * 1000, level=level)))
        await asyncio.sleep(0)
    return tasks


async def busy(workers: Workers) -> tuple[Desk, Tasks]:
    """Another model's run of 10 s in the only worker's hands, until `let_go`; what it teaches says nothing of other models."""
    other = Desk(workers, cost=ROW_10_S)
    other.graph.hold()
    return other, await enter(other, (0, 10**6))


async def refusal(desk: Desk, timeout_s: float, *, level: int = 4, count: int = 1) -> DeadlineExceeded:
    before = desk.lanes.rows
    with pytest.raises(DeadlineExceeded) as refused:
        await desk.submit(rows(*[1.0] * count), timeout_ms=timeout_s * 1000, level=level)
    assert desk.lanes.rows == before
    return refused.value


async def test_what_takes_longer_than_its_deadline_leaves_is_refused_while_workers_are_idle(workers: Workers) -> None:
    desk = Desk(workers, cost=ROW_10_S)
    refused = await refusal(desk, 19, count=2)
    assert str(refused) == "the answer would take 24000.1 ms and the deadline leaves 19000.0 ms; give it a later one"
    assert refused.retry_after_ms == 5001
    assert (desk.graph.batches, workers.idle) == ([], 1)
    await desk.submit(rows(1, 2), timeout_ms=25_000)
    assert desk.graph.batches == [2]


async def test_what_would_wait_past_its_deadline_is_refused_before_it_waits(workers: Workers) -> None:
    other, tasks = await busy(workers)
    desk = Desk(workers, cost=ROW_10_S)
    tasks += await enter(desk, (1, 36), (2, 36))
    # 10 s in hand, and its own batch of three rows promised for 36.
    refused = await refusal(desk, 45)
    assert str(refused).endswith("try again when less is waiting")
    assert 1000 < refused.retry_after_ms < 1100
    tasks += await enter(desk, (3, 47))
    assert desk.lanes.rows == 3
    other.graph.let_go()
    await asyncio.gather(*tasks)


async def test_the_retry_that_a_refusal_names_is_when_the_same_request_is_accepted(
    workers: Workers, clock: Clock
) -> None:
    other, tasks = await busy(workers)
    desk = Desk(workers, cost=ROW_10_S)
    refused = await refusal(desk, 15)
    clock.work(refused.retry_after_ms / 1000 - 0.1)
    await refusal(desk, 15)
    clock.work(0.1)
    tasks += await enter(desk, (2, 15))
    assert desk.lanes.rows == 1
    other.graph.let_go()
    await asyncio.gather(*tasks)


async def test_a_more_urgent_request_is_judged_by_what_goes_before_it_only(workers: Workers) -> None:
    other, tasks = await busy(workers)
    desk = Desk(workers, cost=ROW_10_S)
    tasks += await enter(desk, *[(number, 10**5) for number in range(20, 30)])
    tasks += await enter(desk, (1, 40))
    tasks += await enter(desk, (2, 50), level=1)
    await refusal(desk, 39, level=8)
    await refusal(desk, 45, level=4)  # after the one that is due in 40 s and the one of level 1
    assert desk.lanes.rows == 12
    other.graph.let_go()
    await asyncio.gather(*tasks)
    assert desk.graph.firsts[0] == 2


async def test_the_work_of_other_models_counts(workers: Workers) -> None:
    slow, tasks = await busy(workers)
    fast = Desk(workers, cost=BatchCost(base_ns=S, row_ns=0))
    await refusal(fast, 9)  # a worker is free in 10 s at the earliest
    tasks += await enter(slow, *[(1, 1000) for _ in range(10)])
    tasks += await enter(fast, (1, 12))
    await refusal(fast, 100, level=8)  # all of that goes before it
    tasks += await enter(fast, (2, 1000), level=8)
    slow.graph.let_go()
    await asyncio.gather(*tasks)


async def test_two_workers_share_the_work_before_a_request(clock: Clock) -> None:
    with working(2, clock=clock) as workers:
        desk = Desk(workers, cost=ROW_10_S, merges=False)
        desk.graph.hold()
        tasks = await enter(desk, *[(number, 5000) for number in range(8)])
        await refusal(desk, 51, level=8)  # 80 s by two, and 12 of its own
        tasks += await enter(desk, (9, 53), level=8)
        assert desk.lanes.rows == 7
        desk.graph.let_go()
        await asyncio.gather(*tasks)


async def test_a_request_whose_time_ran_out_is_refused_when_its_turn_comes(workers: Workers, clock: Clock) -> None:
    other, tasks = await busy(workers)
    desk = Desk(workers, cost=ROW_10_S)
    tasks += await enter(desk, (1, 5000), (2, 9000))
    clock.work(4995)
    other.graph.let_go()
    _, late, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(late, DeadlineExceeded)
    assert isinstance(last, BatchShare)
    assert desk.graph.firsts == [2]


async def test_a_batch_grows_only_as_long_as_every_member_stays_in_time(workers: Workers, clock: Clock) -> None:
    other, tasks = await busy(workers)
    desk = Desk(workers, cost=BatchCost(base_ns=10 * S, row_ns=10 * S))
    tasks += await enter(desk, *[(number, 5000 + number) for number in range(5)])
    clock.work(4959)  # and 41 s are enough for a run of three rows, which takes 40
    other.graph.let_go()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert desk.graph.batches[0] == 3


async def test_a_batch_stops_growing_where_that_saves_nothing(workers: Workers) -> None:
    other, tasks = await busy(workers)
    desk = Desk(workers, cost=ROW_10_S)
    tasks += await enter(desk, *[(number, 5000) for number in range(20, 40)])
    other.graph.let_go()
    await asyncio.gather(*tasks)
    assert desk.graph.batches[0] == ROWS_ENOUGH_MIN


async def test_a_full_lane_is_expected_to_be_served_in_whole_batches(workers: Workers) -> None:
    """So that the first of a batch leaves it time to grow: its own row alone would be done after 10 + 80 + 12 s."""
    other, tasks = await busy(workers)
    desk = Desk(workers, cost=ROW_10_S)
    tasks += await enter(desk, *[(number, 130) for number in range(20, 20 + ROWS_ENOUGH_MIN)])
    await refusal(desk, 180)
    tasks += await enter(desk, (1, 187))
    other.graph.let_go()
    await asyncio.gather(*tasks)


async def test_a_deadline_that_passes_while_waiting_is_told_at_once(workers: Workers) -> None:
    other, tasks = await busy(workers)
    desk, spent = Desk(workers, cost=None), Spent()  # its cost is not known: nothing is refused beforehand
    with pytest.raises(DeadlineExceeded, match="has passed") as refused:
        await desk.submit(rows(1), timeout_ms=1, spent=spent)
    assert refused.value.retry_after_ms == 10_001
    assert (desk.lanes.rows, spent.cpu_ns) == (0, 0)
    other.graph.let_go()
    await asyncio.gather(*tasks)
    assert desk.graph.batches == []


async def test_a_deadline_that_passes_while_its_batch_runs_is_told_at_once_and_charged_so_far(workers: Workers) -> None:
    desk, spent = Desk(workers, cost=None), Spent()
    desk.graph.hold()
    task = asyncio.create_task(desk.submit(rows(1), timeout_ms=1000, spent=spent))
    assert await asyncio.to_thread(desk.graph.arrived.acquire, timeout=LIMIT_S)
    with pytest.raises(DeadlineExceeded, match="has passed"):
        await task
    assert spent.cpu_ns > 0
    assert spent.batch_rows == 1
    desk.graph.let_go()
    assert (await desk.submit(rows(2))).outputs["y"].tolist() == [[4.0]]


async def test_an_answer_that_is_ready_too_late_is_not_given(workers: Workers, clock: Clock) -> None:
    desk, spent = Desk(workers, cost=ROW_10_S), Spent()
    desk.graph.hold()
    task = asyncio.create_task(desk.submit(rows(1), timeout_ms=5_000_000, spent=spent))
    await asyncio.sleep(0)
    clock.work(5001)
    desk.graph.let_go()
    with pytest.raises(DeadlineExceeded, match="has passed"):
        await task
    assert spent.cpu_ns > 0


async def test_nothing_is_refused_of_a_graph_that_never_ran_and_its_first_run_is_the_measure(workers: Workers) -> None:
    desk = Desk(workers, cost=None)
    desk.graph.hold()
    tasks = await enter(desk, (0, 5000), (1, 5000))
    assert not desk.lanes.cost.is_known
    desk.graph.let_go()
    await asyncio.gather(*tasks)
    assert 0 < desk.lanes.cost.run_ns(1, 1) < 5000 * S


async def test_a_run_past_its_time_is_expected_to_take_as_long_again(workers: Workers, clock: Clock) -> None:
    other, tasks = await busy(workers)
    clock.work(10 + 3000)
    assert workers.pending_ns() == pytest.approx(3000 * S, rel=1e-4)
    await refusal(other, 2000)
    other.graph.let_go()
    await asyncio.gather(*tasks)


async def test_waits_that_were_longer_than_foreseen_make_promises_more_careful(workers: Workers, clock: Clock) -> None:
    desk = Desk(workers, cost=ROW_10_S, merges=False)
    other, tasks = await busy(workers)
    tasks += await enter(desk, (1, 1000), (2, 1001))  # foreseen: 10 s of waiting, and 20 s
    clock.work(40)
    other.graph.let_go()
    await asyncio.gather(*tasks, return_exceptions=True)
    other, tasks = await busy(workers)
    another = Desk(workers, cost=ROW_10_S)
    await refusal(another, 25)  # 10 s of waiting and 12 of its own, had nothing been learned
    tasks += await enter(another, (1, 100))
    other.graph.let_go()
    await asyncio.gather(*tasks)


async def test_a_busy_event_loop_makes_promises_more_careful(workers: Workers) -> None:
    desk = Desk(workers, cost=ROW_10_S)
    for _ in range(500):
        workers.forecast.learn_answer(1 * S)
    await refusal(desk, 12.9)
    await desk.submit(rows(1), timeout_ms=13_100)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(50, 4000), st.integers(1, 3)), min_size=1, max_size=60),
    st.integers(0, 3000),
    st.integers(1, 2),
)
def test_whatever_is_asked_nobody_is_answered_after_the_deadline(
    calls: list[tuple[int, int, int]], passes_s: int, count: int
) -> None:
    async def scenario() -> None:
        clock = Clock()
        with working(count, clock=clock) as workers:
            desk = Desk(workers, cost=ROW_10_S, max_batch=8)
            desk.graph.hold()
            began_ns = clock.now_ns
            tasks = [
                asyncio.create_task(
                    desk.submit(rows(*[100.0 + number] * size), timeout_ms=timeout_s * 1000, level=level)
                )
                for number, (size, timeout_s, level) in enumerate(calls)
            ]
            await asyncio.sleep(0)
            clock.work(passes_s)
            desk.graph.let_go()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert (desk.lanes.rows, bool(workers.backlog)) == (0, False)
        for number, ((size, timeout_s, _), answer) in enumerate(zip(calls, answers, strict=True)):
            if isinstance(answer, DeadlineExceeded):
                assert answer.retry_after_ms >= 1
            else:
                assert not isinstance(answer, BaseException)
                assert answer.outputs["y"].tolist() == [[2 * (100.0 + number)]] * size
                assert clock.now_ns <= began_ns + timeout_s * S

    asyncio.run(scenario())
