"""The batcher: who gets which answer, what waits, what is refused, what a failure or a departure does to the others."""

import asyncio
import gc
import logging
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import DeadlineExceeded, GatewayError, InvalidInput, Overloaded
from gateway.runtime.batcher import held_bytes
from gateway.runtime.lanes import LANES_KEPT
from gateway.runtime.parts import submit_in_parts
from gateway.runtime.session import Stop
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.workers import Workers
from tests.support.batching import CULPRIT, FAR_NS, MS, Desk, Graph, rows, working
from tests.support.manualclock import until


@pytest.fixture
def workers() -> Iterator[Workers]:
    with working() as one:
        yield one


async def held(desk: Desk) -> "asyncio.Task[BatchShare]":
    """A request in the worker's hands, which it will not put down before `let_go`."""
    desk.graph.hold()
    first = asyncio.create_task(desk.submit(rows(0)))
    await asyncio.sleep(0)
    return first


async def test_an_idle_worker_is_given_a_request_at_once(workers: Workers) -> None:
    desk, spent = Desk(workers), Spent()
    share = await desk.submit(rows(1, 2), spent=spent)
    assert share.outputs["y"].tolist() == [[2.0], [4.0]]
    assert (share.batch_rows, share.queue_ns, desk.graph.batches) == (2, 0, [2])
    assert (spent.cpu_ns, spent.run_ns, spent.queue_ns, spent.batch_rows) == (share.cpu_ns, share.run_ns, 0, 2)
    assert share.cpu_ns > 0


async def test_requests_that_wait_together_run_together(workers: Workers) -> None:
    desk = Desk(workers)
    first = await held(desk)
    waiting = [asyncio.create_task(desk.submit(rows(i, i))) for i in range(1, 6)]
    await asyncio.sleep(0)
    assert (desk.lanes.rows, desk.lanes.input_bytes) == (10, 40)
    desk.graph.let_go()
    answers = await asyncio.gather(first, *waiting)
    assert desk.graph.batches == [1, 10]
    assert [answer.outputs["y"][0, 0] for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert {answer.batch_rows for answer in answers[1:]} == {10}
    assert all(answer.queue_ns > 0 for answer in answers[1:])
    assert (desk.lanes.rows, desk.lanes.input_bytes) == (0, 0)


async def test_a_batch_is_no_larger_than_the_variant_allows(workers: Workers) -> None:
    desk = Desk(workers, max_batch=4)
    first = await held(desk)
    waiting = [asyncio.create_task(desk.submit(rows(i, i))) for i in range(1, 6)]
    await asyncio.sleep(0)
    desk.graph.let_go()
    await asyncio.gather(first, *waiting)
    assert desk.graph.batches == [1, 4, 4, 2]


async def test_shapes_that_cannot_be_joined_are_run_apart(workers: Workers) -> None:
    desk = Desk(workers)
    first = await held(desk)
    tasks = [asyncio.create_task(desk.submit(rows(1, width=1 + i % 2))) for i in range(6)]
    await asyncio.sleep(0)
    desk.graph.let_go()
    await asyncio.gather(first, *tasks)
    assert desk.graph.batches == [1, 3, 3]


async def test_datatypes_that_cannot_be_joined_are_run_apart(workers: Workers) -> None:
    desk = Desk(workers)
    first = await held(desk)
    doubles = {"x": rows(2)["x"].astype(np.float64)}
    tasks = [asyncio.create_task(desk.submit(inputs)) for inputs in (rows(1), doubles, rows(3))]
    await asyncio.sleep(0)
    desk.graph.let_go()
    answers = await asyncio.gather(first, *tasks)
    assert desk.graph.batches == [1, 2, 1]
    assert [answer.outputs["y"].dtype for answer in answers[1:]] == [np.float32, np.float64, np.float32]


async def test_a_variant_that_is_not_batch_invariant_never_sees_two_callers_at_once(workers: Workers) -> None:
    desk = Desk(workers, merges=False)
    first = await held(desk)
    tasks = [asyncio.create_task(desk.submit(rows(*[i] * i))) for i in range(1, 5)]
    await asyncio.sleep(0)
    desk.graph.let_go()
    answers = await asyncio.gather(first, *tasks)
    assert desk.graph.batches == [1, 1, 2, 3, 4]
    assert [answer.batch_rows for answer in answers] == [1, 1, 2, 3, 4]


async def test_a_queue_full_of_rows_refuses_at_once_and_recovers(workers: Workers) -> None:
    desk = Desk(workers, queue_rows_max=4)
    first = await held(desk)
    waiting = [asyncio.create_task(desk.submit(rows(1))) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"4 rows wait already \(queue_rows_max is 4\)") as refusal:
        await desk.submit(rows(1))
    assert refusal.value.retry_after_ms >= 1
    assert desk.batcher.fullness == 1.0
    desk.graph.let_go()
    await asyncio.gather(first, *waiting)
    assert (await desk.submit(rows(3))).outputs["y"].tolist() == [[6.0]]


async def test_a_queue_full_of_bytes_refuses_at_once(workers: Workers) -> None:
    desk = Desk(workers, queue_bytes_max=100)
    first = await held(desk)
    fits = asyncio.create_task(desk.submit(rows(1, width=20)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"80 bytes of input wait already \(queue_bytes_max is 100\)"):
        await desk.submit(rows(1, width=6))
    small = asyncio.create_task(desk.submit(rows(1, width=5)))
    await asyncio.sleep(0)
    desk.graph.let_go()
    await asyncio.gather(first, fits, small)


def test_strings_are_counted_with_their_characters() -> None:
    assert held_bytes({"s": np.array([["a", "bcd"]], np.object_), "x": np.zeros((1, 2), np.float32)}) == 16 + 4 + 8


async def test_only_the_culprit_of_a_failed_batch_fails(workers: Workers) -> None:
    desk = Desk(workers)
    first = await held(desk)
    tasks = [asyncio.create_task(desk.submit(rows(v))) for v in (1, 2, CULPRIT, 4)]
    await asyncio.sleep(0)
    desk.graph.let_go()
    answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert isinstance(answers[3], InvalidInput)
    assert [a.outputs["y"][0, 0] for a in answers if not isinstance(a, BaseException)] == [0, 2, 4, 8]


async def test_a_refused_run_is_charged_to_the_culprit(workers: Workers) -> None:
    class Busy(Graph):
        def run(self, inputs: Tensors, stop: Stop) -> Tensors:
            until_ns = time.thread_time_ns() + 2_000_000  # far above what a page fault or a neighbour adds
            while time.thread_time_ns() < until_ns:
                pass
            return super().run(inputs, stop)

    desk = Desk(workers, Busy())
    spent = [Spent() for _ in range(5)]
    first = await held(desk)
    tasks = [
        asyncio.create_task(desk.submit(rows(v), spent=s)) for v, s in zip((1, 2, CULPRIT, 4), spent[1:], strict=True)
    ]
    await asyncio.sleep(0)
    desk.graph.let_go()
    await asyncio.gather(first, *tasks, return_exceptions=True)
    guilty = spent.pop(3)
    assert all(guilty.cpu_ns > innocent.cpu_ns for innocent in spent[1:])
    assert all(innocent.cpu_ns > 0 for innocent in spent[1:])


async def test_all_that_the_workers_used_on_requests_is_charged_to_them(workers: Workers) -> None:
    class Counted(Graph):
        used_ns = 0

        def run(self, inputs: Tensors, stop: Stop) -> Tensors:
            began_ns = time.thread_time_ns()
            try:
                return super().run(inputs, stop)
            finally:
                self.used_ns += time.thread_time_ns() - began_ns

    graph = Counted()
    desk = Desk(workers, graph, max_batch=16)
    spent = [Spent() for _ in range(200)]
    values = [CULPRIT if number % 31 == 0 else 100.0 + number for number in range(200)]
    began_ns = time.process_time_ns()
    await asyncio.gather(
        *(desk.submit(rows(v, v), spent=s) for v, s in zip(values, spent, strict=True)), return_exceptions=True
    )
    charged_ns = sum(one.cpu_ns for one in spent)
    assert graph.used_ns <= charged_ns <= time.process_time_ns() - began_ns
    assert all(one.cpu_ns > 0 for one in spent)


async def test_a_caller_that_leaves_takes_its_rows_along(workers: Workers) -> None:
    desk, spent = Desk(workers), Spent()
    first = await held(desk)
    tasks = [asyncio.create_task(desk.submit(rows(i), spent=spent if i == 2 else None)) for i in range(1, 4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert desk.lanes.rows == 2
    desk.graph.let_go()
    answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert desk.graph.batches == [1, 2]
    assert isinstance(answers[2], asyncio.CancelledError)
    assert (spent.cpu_ns, spent.run_ns) == (0, 0)
    assert spent.queue_ns > 0


async def test_a_caller_that_leaves_while_its_batch_runs_has_spent_what_was_used_so_far(workers: Workers) -> None:
    desk, spent = Desk(workers), Spent()
    desk.graph.hold()
    task = asyncio.create_task(desk.submit(rows(1), spent=spent))
    await asyncio.sleep(0)
    await asyncio.to_thread(desk.graph.arrived.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert spent.run_ns > spent.cpu_ns > 0
    desk.graph.let_go()
    assert (await desk.submit(rows(4))).outputs["y"].tolist() == [[8.0]]


async def test_rows_that_left_make_room_in_a_full_queue(workers: Workers) -> None:
    desk = Desk(workers, queue_rows_max=2)
    first = await held(desk)
    gone, stays = (asyncio.create_task(desk.submit(rows(i))) for i in range(1, 3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    late = asyncio.create_task(desk.submit(rows(7)))
    await asyncio.sleep(0)
    desk.graph.let_go()
    answers = await asyncio.gather(first, stays, late)
    assert [answer.outputs["y"][0, 0] for answer in answers] == [0, 4, 14]


async def test_a_run_that_breaks_fails_its_batch_once_in_the_log_and_serves_the_next(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Graph):
        is_broken = True

        def run(self, inputs: Tensors, stop: Stop) -> Tensors:
            outputs = super().run(inputs, stop)
            if self.is_broken and len(inputs["x"]) > 1:
                raise MemoryError("no memory")
            return outputs

    graph = Broken()
    desk = Desk(workers, graph)
    first = await held(desk)
    tasks = [asyncio.create_task(desk.submit(rows(i))) for i in range(1, 4)]
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR):
        graph.let_go()
        answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    for answer in answers[1:]:
        assert type(answer) is GatewayError
        assert isinstance(answer.__cause__, MemoryError)
    assert [record.getMessage() for record in caplog.records] == ["running a model failed, for 3 requests"]
    graph.is_broken = False
    assert (await desk.submit(rows(1, 2))).batch_rows == 2


async def test_outputs_without_a_row_for_each_row_fail_rather_than_reach_the_wrong_caller(workers: Workers) -> None:
    class Summed(Graph):
        def run(self, inputs: Tensors, stop: Stop) -> Tensors:
            return {"y": super().run(inputs, stop)["y"].sum(axis=0, keepdims=True)}

    desk = Desk(workers, Summed())
    with pytest.raises(GatewayError, match="running the model failed"):
        await desk.submit(rows(1, 2))


async def test_what_waits_when_the_workers_end_is_refused() -> None:
    with working() as workers:
        desk = Desk(workers)
        first = await held(desk)
        waiting = asyncio.create_task(desk.submit(rows(1)))
        await asyncio.sleep(0)
        desk.graph.let_go()
    with pytest.raises(Overloaded, match="stopping"):
        await waiting
    assert (await first).batch_rows == 1
    with pytest.raises(Overloaded, match="stopping"):
        await desk.submit(rows(1))


async def test_a_caller_that_has_just_left_does_not_disturb_the_end() -> None:
    with working() as workers:
        desk = Desk(workers)
        await held(desk)
        left = asyncio.create_task(desk.submit(rows(1)))
        await asyncio.sleep(0)
        left.cancel()
        desk.graph.let_go()
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_a_run_that_cannot_be_stopped_is_not_waited_for_without_end(caplog: pytest.LogCaptureFixture) -> None:
    with Workers(1, levels=8, ageing_ns=MS, stop_s=0.01) as workers:
        desk = Desk(workers)
        running = await held(desk)
    assert "1 runs did not stop within 0.01 s (runtime.stop_s)" in caplog.text
    desk.graph.let_go()
    assert (await running).batch_rows == 1


async def test_what_becomes_of_parts_that_are_left_is_nobodys_business() -> None:
    """The second part fails after the caller has left, who has not awaited it yet."""
    unheard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    with working(2) as workers:
        desk = Desk(workers)
        desk.graph.hold()
        inputs, spent = rows(1, CULPRIT), Spent()
        parts = submit_in_parts(
            desk.batcher, workers, inputs, 2, step=1, deadline_ns=workers.now_ns() + FAR_NS, level=4, spent=spent
        )
        caller = asyncio.create_task(parts)
        await until(lambda: workers.idle == 0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        desk.graph.let_go()
        await until(lambda: workers.idle == 2)
    await asyncio.sleep(0)
    del caller  # its traceback holds the parts
    gc.collect()
    assert unheard == []


@pytest.mark.parametrize("is_busy", [False, True])
async def test_lanes_of_ever_new_shapes_do_not_pile_up(workers: Workers, is_busy: bool) -> None:
    desk = Desk(workers)
    tasks = [await held(desk)] if is_busy else []
    for width in range(1, 3 * LANES_KEPT):
        tasks.append(asyncio.create_task(desk.submit(rows(1, width=width))))
        await asyncio.sleep(0)
    desk.graph.let_go()
    await asyncio.gather(*tasks)
    assert len(desk.lanes._lanes) <= LANES_KEPT
    assert (await desk.submit(rows(1, width=3 * LANES_KEPT))).batch_rows == 1


CALLS = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from(["stay", "leave", "leave later", "poison", "too late"]),
        st.integers(1, 2),
        st.integers(1, 8),
    ),
    min_size=1,
    max_size=200,
)


@settings(max_examples=40, deadline=None)
@given(CALLS, st.integers(5, 40), st.integers(1, 3), st.booleans())
def test_every_caller_gets_its_own_answer_whatever_the_others_do(
    calls: list[tuple[int, str, int, int]], max_batch: int, count: int, merges: bool
) -> None:
    async def scenario() -> None:
        with working(count, ageing_ms=1) as workers:
            desks = [Desk(workers, max_batch=max_batch, merges=merges, queue_rows_max=10_000) for _ in range(2)]
            tasks = []
            for number, (size, fate, width, level) in enumerate(calls):
                value = CULPRIT if fate == "poison" else 100.0 + number
                submitted = desks[number % 2].submit(
                    rows(*[value] * size, width=width), level=level, timeout_ms=1e-6 if fate == "too late" else None
                )
                tasks.append(asyncio.create_task(submitted))
                if number % 7 == 0:
                    await asyncio.sleep(0)
                if fate == "leave":
                    tasks[-1].cancel()
            for task, (_, fate, _, _) in zip(tasks, calls, strict=True):
                if fate == "leave later":
                    task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: workers.idle == count)  # runs that nobody waits for any more
            assert not workers.backlog
        for number, ((size, fate, width, _), answer) in enumerate(zip(calls, answers, strict=True)):
            if fate == "stay" or (fate == "leave later" and not isinstance(answer, BaseException)):
                assert not isinstance(answer, BaseException)
                assert answer.outputs["y"].tolist() == [[2 * (100.0 + number)] * width] * size
                assert merges or answer.batch_rows == size
            else:
                expected = {"poison": InvalidInput, "too late": DeadlineExceeded}.get(fate, asyncio.CancelledError)
                assert isinstance(answer, expected)
        for desk in desks:
            assert (desk.lanes.rows, desk.lanes.input_bytes) == (0, 0)
            assert max(desk.graph.batches, default=0) <= max_batch

    asyncio.run(scenario())
