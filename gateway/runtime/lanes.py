"""What waits for one graph: requests by lane, a lane being those whose tensors can be joined. Counted in rows and in bytes.

Only bookkeeping: `batcher` decides who may enter, `workers` who goes next. Waiting requests are counted under the workers' lock.
"""

import asyncio
from collections.abc import Callable

import msgspec

from gateway.runtime.costmodel import CostModel
from gateway.runtime.ranking import Rank, Ranking
from gateway.runtime.session import Stop
from gateway.runtime.spent import BatchShare, RunClock, Spent
from gateway.runtime.tensors import Tensors

LANES_KEPT = 64
"""Lanes that are kept for the next request of their shape though nothing waits in them; others go with their last request."""

LaneKey = tuple[tuple[str, tuple[int, ...], str], ...]


class Waiting(msgspec.Struct, eq=False):
    """One request, or one part of a large one, from `enter` to its answer.

    `due_ns` is when it must be done at the latest for its caller to be served by `deadline_ns`: earlier, when other parts come
    after it. `rank` is its place while it waits and None before and after, `wait_ns` how long it was expected to wait; `clock` is
    there while a worker runs it.
    """

    inputs: Tensors
    rows: int
    input_bytes: int
    level: int
    due_ns: int
    deadline_ns: int
    queued_ns: int
    lane: "Lane"
    answer: "asyncio.Future[BatchShare]"
    spent: Spent
    rank: Rank | None = None
    work_ns: int = 0
    wait_ns: float = 0.0
    clock: RunClock | None = None
    timer: asyncio.TimerHandle | None = None


class Price(msgspec.Struct, frozen=True):
    """What `forecast` says runs of one lane take, hand-over included. `lessons` tells whether it is still what is known.

    `batch_rows` are the rows of the batches that form when many wait (more would save next to nothing, or are not allowed), and
    `batch_ns` is what such a batch takes. `caution` is the factor for a promise.
    """

    lessons: int = -1
    is_known: bool = False
    base_ns: float = 0.0
    row_ns: float = 0.0
    batch_rows: int = 1
    batch_ns: float = 0.0
    caution: float = 1.0


UNPRICED = Price()


class Lane:
    """Requests of one shape, in the order they will be served. `length` is what the cost of a row depends on."""

    __slots__ = ("graph", "key", "length", "price", "ranking", "rows")

    def __init__(self, graph: "Lanes", key: LaneKey, length: int) -> None:
        self.graph = graph
        self.key = key
        self.length = length
        self.price = UNPRICED
        self.ranking: Ranking[Waiting] = Ranking()
        self.rows = 0


class Lanes:
    """All lanes of one graph, and what is known about running it.

    `run` is called in worker threads with what may stop it, and raises `InvalidInput`, or `DeadlineExceeded` when it was stopped.
    Without `merges` (the variant is not batch-invariant) a run never holds two requests. `length` gives `Signature.length` of a
    request's inputs, None where no axis varies.
    """

    def __init__(
        self,
        run: Callable[[Tensors, Stop], Tensors],
        cost: CostModel,
        *,
        max_batch: int,
        merges: bool = True,
        length: Callable[[Tensors], int] | None = None,
    ) -> None:
        self.run = run
        self.cost = cost
        self.max_batch = max_batch
        self.merges = merges
        self.rows = 0
        self.input_bytes = 0
        self._length = length
        self._lanes: dict[LaneKey, Lane] = {}

    def lane(self, inputs: Tensors) -> Lane:
        """The lane of these inputs: same tensors, same shape past the rows, same datatype."""
        key = tuple([(name, array.shape[1:], array.dtype.str) for name, array in inputs.items()])
        lane = self._lanes.get(key)
        if lane is None:
            lane = Lane(self, key, self._length(inputs) if self._length else 1)
            if len(self._lanes) < LANES_KEPT:
                self._lanes[key] = lane
        return lane

    def enter(self, waiting: Waiting) -> None:
        """Count it in: it waits."""
        lane = waiting.lane
        if not lane.rows:
            self._lanes[lane.key] = lane
        lane.rows += waiting.rows
        self.rows += waiting.rows
        self.input_bytes += waiting.input_bytes

    def leave(self, waiting: Waiting) -> None:
        """Count it out."""
        lane = waiting.lane
        lane.rows -= waiting.rows
        self.rows -= waiting.rows
        self.input_bytes -= waiting.input_bytes
        if not lane.rows and len(self._lanes) > LANES_KEPT:
            del self._lanes[lane.key]
