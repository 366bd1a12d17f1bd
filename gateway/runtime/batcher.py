"""Who may wait for a graph: the door between a request and the shared workers, with a limit in rows and one in bytes.

A request runs at once while a worker is idle, alone or with those that waited with it otherwise; it never waits for others to come.
An answer goes to the caller who asked; what one caller sends or does fails nobody else.
"""

import asyncio
import math

from gateway.errors import Overloaded
from gateway.runtime.lanes import Lanes, Waiting
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.workers import Workers


class Batcher:
    """Batches for one graph. All methods run on the event loop."""

    def __init__(self, lanes: Lanes, workers: Workers, *, queue_rows_max: int, queue_bytes_max: int) -> None:
        self.lanes = lanes
        self._workers = workers
        self._queue_rows_max = queue_rows_max
        self._queue_bytes_max = queue_bytes_max

    async def submit(self, inputs: Tensors, rows: int, *, deadline_ns: int, level: int, spent: Spent) -> BatchShare:
        """Outputs for these rows. Raises `InvalidInput`, `Overloaded` or `DeadlineExceeded`; see `LoadedModel.run`."""
        waiting = self.enter(inputs, rows, deadline_ns=deadline_ns, level=level, spent=spent)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self.leave(waiting)
            raise

    def enter(
        self,
        inputs: Tensors,
        rows: int,
        *,
        deadline_ns: int,
        level: int,
        spent: Spent,
        after_ns: int = 0,
        continues: bool = False,
    ) -> Waiting:
        """Let a request in; await its `answer`, and call `leave` if you do not. Raises `Overloaded` or `DeadlineExceeded`.

        `after_ns` is work of the same request that comes after this part of it. A part that `continues` a request that is in is not
        refused for room, or large requests would never end while the queue is full: that may pass the limits by the parts that a
        request may have waiting at once.
        """
        now_ns = self._workers.now_ns()
        # Positional, in the order of `Waiting`: a third of the time that keywords take.
        waiting = Waiting(
            inputs, rows, held_bytes(inputs), level, deadline_ns - after_ns, deadline_ns, now_ns, self.lanes.lane(inputs),
            asyncio.get_running_loop().create_future(), spent,
        )  # fmt: skip
        with self._workers.lock:
            if not self._workers.idle and not continues:
                self._check_room(waiting)
            self._workers.take(waiting, now_ns)
        return waiting

    def leave(self, waiting: Waiting) -> None:
        """The caller does not wait any more."""
        self._workers.drop(waiting)

    @property
    def fullness(self) -> float:
        """What waits, over what may; 1 means that the next one is refused."""
        return max(self.lanes.rows / self._queue_rows_max, self.lanes.input_bytes / self._queue_bytes_max)

    def _check_room(self, waiting: Waiting) -> None:
        lanes = self.lanes
        if lanes.rows + waiting.rows > self._queue_rows_max:
            limit = f"{lanes.rows} rows wait already (queue_rows_max is {self._queue_rows_max})"
        elif lanes.input_bytes + waiting.input_bytes > self._queue_bytes_max:
            limit = f"{lanes.input_bytes} bytes of input wait already (queue_bytes_max is {self._queue_bytes_max})"
        else:
            return
        raise Overloaded(limit, retry_after_ms=max(1, math.ceil(self._workers.pending_ns() / 1e6)))


def held_bytes(inputs: Tensors) -> int:
    """What these tensors keep in memory; of strings their characters too, for an array of them holds pointers only."""
    total = 0
    for array in inputs.values():
        total += array.nbytes
        if array.dtype.hasobject:
            total += sum(map(len, array.flat))
    return total
