"""A graph whose answers, refusals and timing a test decides, behind real workers and real threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gateway.contract.manifest import BatchCost
from gateway.errors import InvalidInput
from gateway.runtime.batcher import Batcher
from gateway.runtime.costmodel import CostModel
from gateway.runtime.lanes import Lanes
from gateway.runtime.session import Stop
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.workers import Workers
from tests.support.manualclock import LIMIT_S

CULPRIT = 13.0
MS = 1_000_000
FAR_NS = 10**6 * 1000 * MS
"""A deadline that no test reaches."""

COST = BatchCost(base_ns=10 * MS, row_ns=10_000)
"""A base that makes large batches worth while; the graph is far faster, which costs nothing but a lesson."""


class Graph:
    """Doubles its input; refuses any batch that holds the culprit; can be held at the door. Remembers the rows of each run."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.firsts: list[float] = []
        self.arrived = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()

    def run(self, inputs: Tensors, stop: Stop) -> Tensors:
        self.arrived.release()
        assert self._open.wait(LIMIT_S), "the test never let the graph go"
        x = inputs["x"]
        self.batches.append(len(x))
        self.firsts.append(float(x.flat[0]))
        if (x == CULPRIT).any():
            raise InvalidInput("the model refuses this input")
        return {"y": x * 2}

    def hold(self) -> None:
        """From now on, runs wait until `let_go`."""
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()


class Clock:
    """The workers' clock, when a test moves it by hand. Timers still end when they do: such tests deal in many seconds."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000 * MS

    def __call__(self) -> int:
        return self.now_ns

    def work(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1000 * MS)


@contextmanager
def working(count: int = 1, *, ageing_ms: int = 1000, clock: Clock | None = None) -> Iterator[Workers]:
    with Workers(count, levels=8, ageing_ns=ageing_ms * MS, clock=clock or time.perf_counter_ns) as workers:
        yield workers


class Desk:
    """A batcher over a graph, with the defaults that most tests want."""

    def __init__(
        self,
        workers: Workers,
        graph: Graph | None = None,
        *,
        cost: BatchCost | None = COST,
        max_batch: int = 32,
        merges: bool = True,
        queue_rows_max: int = 4096,
        queue_bytes_max: int = 1 << 30,
    ) -> None:
        self.graph = graph or Graph()
        self.workers = workers
        self.lanes = Lanes(self.graph.run, CostModel(cost, has_length=False), max_batch=max_batch, merges=merges)
        self.batcher = Batcher(self.lanes, workers, queue_rows_max=queue_rows_max, queue_bytes_max=queue_bytes_max)

    async def submit(
        self, inputs: Tensors, *, timeout_ms: float | None = None, level: int = 4, spent: Spent | None = None
    ) -> BatchShare:
        timeout_ns = FAR_NS if timeout_ms is None else round(timeout_ms * MS)
        return await self.batcher.submit(
            inputs,
            len(inputs["x"]),
            deadline_ns=self.workers.now_ns() + timeout_ns,
            level=level,
            spent=spent if spent is not None else Spent(),
        )


def rows(*values: float, width: int = 1) -> Tensors:
    return {"x": np.array([[value] * width for value in values], np.float32)}
