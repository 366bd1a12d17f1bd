"""The batcher: who gets which answer, what waits, what is refused, what a failure or a departure does to the others."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidInput, Overloaded
from gateway.runtime.batcher import Batcher, shares
from gateway.runtime.session import RunResult
from gateway.runtime.tensors import Tensors

CULPRIT = 13.0


class Graph:
    """Doubles its input; refuses any batch that holds the culprit; can be held at the door. Remembers the batches it ran."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def run(self, inputs: Tensors) -> RunResult:
        self.open.wait(10)
        x = inputs["x"]
        self.batches.append(len(x))
        if (x == CULPRIT).any():
            raise InvalidInput("the model refuses this input")
        return RunResult({"y": x * 2}, cpu_ns=1_000_003, run_ns=5)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Batcher]]:
    with ThreadPoolExecutor(2) as pool:
        yield lambda graph, **kw: Batcher(
            graph.run, pool, **({"workers": 1, "max_batch": 32, "queue_rows_max": 4096} | kw)
        )


def rows(*values: float, width: int = 1) -> Tensors:
    return {"x": np.array([[value] * width for value in values], np.float32)}


async def test_an_idle_worker_is_given_a_request_at_once(make: Callable[..., Batcher]) -> None:
    graph = Graph()
    share = await make(graph).submit(rows(1, 2), 2)
    assert share.outputs["y"].tolist() == [[2.0], [4.0]]
    assert (share.cpu_ns, share.batch_rows, graph.batches) == (1_000_003, 2, [2])


async def test_requests_that_wait_together_run_together(make: Callable[..., Batcher]) -> None:
    graph, batcher = Graph(), None
    graph.open.clear()
    batcher = make(graph)
    first = asyncio.create_task(batcher.submit(rows(0), 1))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(batcher.submit(rows(i, i), 2)) for i in range(1, 6)]
    await asyncio.sleep(0)
    graph.open.set()
    answers = await asyncio.gather(first, *waiting)
    assert graph.batches == [1, 10]
    assert [answer.outputs["y"][0, 0] for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert sum(answer.cpu_ns for answer in answers[1:]) == 1_000_003
    assert all(answer.queue_ns > 0 for answer in answers[1:])


async def test_shapes_that_cannot_be_joined_are_run_apart(make: Callable[..., Batcher]) -> None:
    graph = Graph()
    graph.open.clear()
    batcher = make(graph)
    tasks = [asyncio.create_task(batcher.submit(rows(1, width=1 + i % 2), 1)) for i in range(7)]
    await asyncio.sleep(0)
    graph.open.set()
    await asyncio.gather(*tasks)
    assert sorted(graph.batches) == [1, 3, 3]


async def test_a_full_queue_refuses_at_once_and_recovers(make: Callable[..., Batcher]) -> None:
    graph = Graph()
    graph.open.clear()
    batcher = make(graph, queue_rows_max=4)
    held = [asyncio.create_task(batcher.submit(rows(1), 1)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"4 rows wait already \(queue_rows_max is 4\)"):
        await batcher.submit(rows(1), 1)
    graph.open.set()
    await asyncio.gather(*held)
    assert (await batcher.submit(rows(3), 1)).outputs["y"].tolist() == [[6.0]]


async def test_only_the_culprit_of_a_failed_batch_fails(make: Callable[..., Batcher]) -> None:
    graph = Graph()
    graph.open.clear()
    batcher = make(graph)
    tasks = [asyncio.create_task(batcher.submit(rows(v), 1)) for v in (0, 1, CULPRIT, 3)]
    await asyncio.sleep(0)
    graph.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[2], InvalidInput)
    assert [a.outputs["y"][0, 0] for a in answers if not isinstance(a, BaseException)] == [0, 2, 6]


async def test_a_caller_that_leaves_takes_its_rows_along(make: Callable[..., Batcher]) -> None:
    graph = Graph()
    graph.open.clear()
    batcher = make(graph)
    tasks = [asyncio.create_task(batcher.submit(rows(i), 1)) for i in range(4)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.sleep(0)
    graph.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert graph.batches == [1, 2]
    assert isinstance(answers[2], asyncio.CancelledError)


async def test_rows_that_left_make_room_in_a_full_queue(make: Callable[..., Batcher]) -> None:
    graph = Graph()
    graph.open.clear()
    batcher = make(graph, queue_rows_max=2)
    first, gone, stays = (asyncio.create_task(batcher.submit(rows(i), 1)) for i in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    late = asyncio.create_task(batcher.submit(rows(7), 1))
    await asyncio.sleep(0)
    graph.open.set()
    answers = await asyncio.gather(first, stays, late)
    assert [answer.outputs["y"][0, 0] for answer in answers] == [0, 4, 14]


async def test_a_worker_that_breaks_fails_its_batch_and_serves_the_next(make: Callable[..., Batcher]) -> None:
    broken = True

    def run(inputs: Tensors) -> RunResult:
        if broken:
            raise MemoryError("no memory")
        return RunResult({"y": inputs["x"]}, 1, 1)

    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(run, pool, workers=1, max_batch=8, queue_rows_max=8)
        with pytest.raises(MemoryError):
            await batcher.submit(rows(1), 1)
        broken = False
        assert (await batcher.submit(rows(1), 1)).batch_rows == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["stay", "leave", "poison"]), st.integers(1, 2)),
        min_size=1,
        max_size=200,
    ),
    st.integers(1, 40),
    st.integers(1, 3),
)
def test_every_caller_gets_its_own_answer_whatever_the_others_do(
    calls: list[tuple[int, str, int]], max_batch: int, workers: int
) -> None:
    async def scenario() -> None:
        graph = Graph()
        with ThreadPoolExecutor(workers) as pool:
            batcher = Batcher(graph.run, pool, workers=workers, max_batch=max_batch, queue_rows_max=10_000)
            tasks = []
            for number, (count, fate, width) in enumerate(calls):
                value = CULPRIT if fate == "poison" else 100.0 + number
                tasks.append(asyncio.create_task(batcher.submit(rows(*[value] * count, width=width), count)))
                if number % 7 == 0:
                    await asyncio.sleep(0)
                if fate == "leave":
                    tasks[-1].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, ((count, fate, width), answer) in enumerate(zip(calls, answers, strict=True)):
            if fate == "stay":
                assert not isinstance(answer, BaseException)
                assert answer.outputs["y"].tolist() == [[2 * (100.0 + number)] * width] * count
            elif fate == "poison":
                assert isinstance(answer, InvalidInput)
            else:
                assert isinstance(answer, asyncio.CancelledError)

    asyncio.run(scenario())


@given(st.integers(0, 10**12), st.lists(st.integers(1, 1000), min_size=1, max_size=64))
def test_shares_of_a_batch_conserve_every_nanosecond_and_row(cpu_ns: int, counts: list[int]) -> None:
    result = RunResult({"y": np.arange(sum(counts))}, cpu_ns=cpu_ns, run_ns=1)
    parts = shares(result, counts)
    assert sum(part.cpu_ns for part in parts) == cpu_ns
    assert [len(part.outputs["y"]) for part in parts] == counts
    assert np.concatenate([part.outputs["y"] for part in parts]).tolist() == list(range(sum(counts)))
    for part, count in zip(parts, counts, strict=True):
        assert abs(part.cpu_ns - cpu_ns * count / sum(counts)) < 1.001
