"""Who goes next: the highest level, inside it the earliest deadline, and in time those who waited, whatever comes after them."""

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.manifest import BatchCost
from gateway.runtime.backlog import Backlog
from gateway.runtime.costmodel import CostModel
from gateway.runtime.lanes import Lanes, Waiting
from gateway.runtime.spent import Spent
from tests.support.batching import FAR_NS, Desk, rows, working

AGEING_NS = 100
LEVELS = 4


class Queue:
    """A backlog alone, without workers or time of its own."""

    def __init__(self, *, lanes: int = 1) -> None:
        self.backlog = Backlog(levels=LEVELS, ageing_ns=AGEING_NS)
        self._loop = asyncio.new_event_loop()
        cost = CostModel(BatchCost(base_ns=0, row_ns=1), has_length=False)
        self._lanes = [Lanes(lambda inputs, stop: inputs, cost, max_batch=8) for _ in range(lanes)]
        self._entered = 0
        self._loop.close()

    def enter(self, level: int, due_ns: int, now_ns: int) -> Waiting:
        inputs = rows(0)
        lane = self._lanes[self._entered % len(self._lanes)].lane(inputs)
        self._entered += 1
        future: asyncio.Future = asyncio.Future(loop=self._loop)
        waiting = Waiting(inputs, 1, 4, level, due_ns, due_ns, now_ns, lane, future, Spent())
        self.backlog.enter(waiting, self.backlog.rank(waiting, now_ns), 1, now_ns)
        return waiting

    def pop(self, now_ns: int) -> Waiting:
        first = self.backlog.first(now_ns)
        self.backlog.leave(first)
        return first


@given(st.lists(st.tuples(st.integers(1, LEVELS), st.integers(0, 50)), min_size=1, max_size=200), st.integers(1, 3))
def test_deadlines_order_a_level_and_levels_come_first(entries: list[tuple[int, int]], lanes: int):
    queue = Queue(lanes=lanes)
    for level, due_ns in entries:
        queue.enter(level, due_ns, now_ns=0)
    popped = [queue.pop(now_ns=1) for _ in entries]
    assert [(waiting.level, waiting.due_ns) for waiting in popped] == sorted(entries)
    assert not queue.backlog


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(1, LEVELS), st.integers(0, 10_000)),
        st.tuples(st.just("pop")),
        st.tuples(st.just("leave"), st.floats(0, 1, exclude_max=True)),
        st.tuples(st.just("pass"), st.integers(1, 2 * AGEING_NS)),
    ),
    max_size=300,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.integers(1, 3))
def test_who_has_waited_a_time_per_level_is_overtaken_by_nobody_who_comes_later(events: list[tuple], lanes: int):
    queue, now_ns = Queue(lanes=lanes), 0
    inside: list[tuple[int, int, Waiting]] = []  # when it entered, the level it entered on
    for event in events:
        if event[0] == "enter":
            inside.append((now_ns, event[1], queue.enter(event[1], now_ns + event[2], now_ns)))
        elif event[0] == "pass":
            now_ns += event[1]
        elif event[0] == "leave" and inside:
            _, _, gone = inside.pop(int(event[1] * len(inside)))
            queue.backlog.leave(gone)
        elif event[0] == "pop" and inside:
            first = queue.pop(now_ns)
            [(entered_ns, _, _)] = [entry for entry in inside if entry[2] is first]
            inside = [entry for entry in inside if entry[2] is not first]
            for other_ns, level, _ in inside:
                has_waited_long = now_ns - other_ns >= level * AGEING_NS
                assert not (has_waited_long and entered_ns > other_ns + level * AGEING_NS)
    assert queue.backlog.total_ns == len(inside)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, LEVELS), st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_lowest_level_is_served_under_an_endless_stream_of_the_highest(level: int, arrivals: int, random):
    """`arrivals` urgent requests come for every one that is served: the queue only grows, and yet it is the low one's turn."""
    queue, now_ns = Queue(), 0
    for _ in range(random.randrange(20)):
        queue.enter(1, random.randrange(100), now_ns)
    low = queue.enter(level, FAR_NS, now_ns)
    ahead_at_most = 0
    while True:
        now_ns += 1
        for _ in range(arrivals):
            queue.enter(1, now_ns + random.randrange(50), now_ns)
        if queue.pop(now_ns) is low:
            break
        ahead_at_most += 1
        assert now_ns < (level + 1) * AGEING_NS + (arrivals + 1) * level * AGEING_NS + 100


def test_one_that_nobody_looked_at_for_long_climbs_all_levels_at_once():
    queue = Queue()
    old = queue.enter(LEVELS, 10**9, now_ns=0)
    queue.enter(1, 10**6, now_ns=AGEING_NS * LEVELS)
    assert old.level == 0
    assert queue.pop(now_ns=AGEING_NS * LEVELS) is old


async def test_levels_and_deadlines_decide_between_waiting_requests():
    with working() as workers:
        desk = Desk(workers, max_batch=1)
        desk.graph.hold()
        tasks = [asyncio.create_task(desk.submit(rows(0)))]
        for value, level, timeout_ms in (
            (1, 4, 50_000),
            (2, 4, 20_000),
            (3, 8, 10_000),
            (4, 1, 59_000),
            (5, 4, 40_000),
        ):
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(desk.submit(rows(value), level=level, timeout_ms=timeout_ms)))
        await asyncio.sleep(0)
        desk.graph.let_go()
        await asyncio.gather(*tasks)
        assert desk.graph.firsts == [0, 4, 2, 5, 1, 3]


async def test_the_earliest_deadline_of_all_models_gets_the_free_worker():
    with working() as workers:
        desks = [Desk(workers), Desk(workers)]
        served: list[str] = []
        for number, desk in enumerate(desks):
            run = desk.graph.run

            def note(inputs, stop, name=f"model {number}", run=run):
                served.append(f"{name}: {len(inputs['x'])}")
                return run(inputs, stop)

            desk.lanes.run = note
        desks[0].graph.hold()
        tasks = [asyncio.create_task(desks[0].submit(rows(0)))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(desks[0].submit(rows(1), timeout_ms=50_000)) for _ in range(3)]
        tasks += [asyncio.create_task(desks[1].submit(rows(1), timeout_ms=40_000)) for _ in range(2)]
        await asyncio.sleep(0)
        desks[0].graph.let_go()
        await asyncio.gather(*tasks)
        assert served == ["model 0: 1", "model 1: 2", "model 0: 3"]


async def test_two_models_never_run_more_than_the_workers_they_share():
    with working(2) as workers:
        desks = [Desk(workers) for _ in range(3)]
        for desk in desks:
            desk.graph.hold()
        tasks = [asyncio.create_task(desk.submit(rows(1))) for desk in desks]
        await asyncio.sleep(0)
        assert workers.idle == 0
        assert [desk.lanes.rows for desk in desks] == [0, 0, 1]
        for desk in desks:
            desk.graph.let_go()
        answers = await asyncio.gather(*tasks)
        assert [answer.outputs["y"][0, 0] for answer in answers] == [2, 2, 2]
        assert all(before <= after for before, after in pairwise(answer.queue_ns for answer in answers))
