"""A batch that the graph refuses is halved until the culprits are alone: few runs, right answers, cost where the fault is."""

import asyncio
import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.manifest import BatchCost
from gateway.errors import InvalidInput
from gateway.runtime.costmodel import CostModel
from gateway.runtime.lanes import Lanes, Waiting
from gateway.runtime.runs import Run
from gateway.runtime.session import Stop
from gateway.runtime.spent import RunClock, Spent, cut
from gateway.runtime.tensors import Tensors
from tests.support.batching import CULPRIT, Graph, rows


def executed(graph: Graph, values: list[float], sizes: list[int] | None = None) -> Run:
    """A run of one request per value, executed in this thread."""
    loop = asyncio.new_event_loop()
    try:
        lanes = Lanes(graph.run, CostModel(BatchCost(base_ns=1, row_ns=1), has_length=False), max_batch=1024)
        batch = []
        for value, size in zip(values, sizes or [1] * len(values), strict=True):
            inputs = rows(*[value] * size)
            waiting = Waiting(inputs, size, 4 * size, 1, 0, 0, 0, lanes.lane(inputs), loop.create_future(), Spent())
            batch.append(waiting)
        run = Run(batch[0].lane, batch, RunClock(sum(waiting.rows for waiting in batch), 0), 0)
        run.execute(time.pthread_getcpuclockid(threading.get_ident()))
        return run
    finally:
        loop.close()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=64))
def test_innocents_are_answered_and_culprits_refused(members: list[tuple[bool, int]]):
    values = [CULPRIT if is_culprit else 100.0 + number for number, (is_culprit, _) in enumerate(members)]
    run = executed(Graph(), values, [size for _, size in members])
    assert run.error is None
    for ending, value, (is_culprit, size) in zip(run.endings, values, members, strict=True):
        assert (ending.refusal is not None) == is_culprit
        if not is_culprit:
            assert ending.outputs is not None
            assert ending.outputs["y"].tolist() == [[2 * value]] * size
            assert ending.batch_rows >= size
        assert ending.cpu_ns > 0
        assert ending.run_ns > 0


@given(st.integers(2, 256), st.data())
def test_one_culprit_costs_few_runs(count: int, data: st.DataObject):
    culprit = data.draw(st.integers(0, count - 1))
    values = [CULPRIT if number == culprit else 100.0 for number in range(count)]
    assert executed(Graph(), values).attempts <= 2 * math.ceil(math.log2(count)) + 2


@pytest.mark.parametrize(("culprit", "runs"), [(0, [8, 4, 2, 1, 1, 2, 4]), (7, [8, 4, 2, 1, 1])])
def test_a_half_that_must_be_guilty_is_not_run_to_find_out(culprit: int, runs: list[int]):
    graph = Graph()
    executed(graph, [CULPRIT if number == culprit else 100.0 for number in range(8)])
    assert graph.batches == runs


def test_a_batch_refused_for_being_together_is_answered_in_pieces_and_its_refusal_charged_to_nobody():
    class Small(Graph):
        refused_ns = 0

        def run(self, inputs: Tensors, stop: Stop) -> Tensors:
            began_ns = time.thread_time_ns()
            outputs = super().run(inputs, stop)
            if len(inputs["x"]) > 2:
                np.linalg.svd(np.ones((60, 60)))
                self.refused_ns += time.thread_time_ns() - began_ns
                raise InvalidInput("too large")
            return outputs

    graph = Small()
    began_ns = time.thread_time_ns()
    run = executed(graph, [1.0, 2.0, 3.0, 4.0])
    used_ns = time.thread_time_ns() - began_ns
    assert graph.batches == [4, 2, 1, 1]
    assert [ending.outputs["y"].tolist() for ending in run.endings if ending.outputs] == [[[v]] for v in (2, 4, 6, 8)]
    assert [ending.batch_rows for ending in run.endings] == [2, 2, 1, 1]
    assert sum(ending.cpu_ns for ending in run.endings) <= used_ns - graph.refused_ns


@given(st.integers(0, 10**12), st.lists(st.integers(1, 1000), min_size=1, max_size=64))
def test_a_cut_conserves_every_nanosecond(total_ns: int, weights: list[int]):
    parts = cut(total_ns, weights)
    assert sum(parts) == total_ns
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total_ns * weight / sum(weights)) < 1.001
