"""Puts requests that wait together into one run, and never makes a request wait while a worker is free.

A request is dispatched at once when a worker is idle. While all are busy it queues in the lane of its shape; the worker that frees
next takes what its lane holds, up to `max_batch` rows. There is no window and no timer. Rows are counted, not requests. An answer
goes to the caller who asked; a batch that fails is run again request by request, so that only the culprit fails.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import accumulate
from time import perf_counter_ns

import msgspec
import numpy as np

from gateway.errors import InvalidInput, Overloaded
from gateway.runtime.session import RunResult
from gateway.runtime.tensors import Tensors

Lane = tuple[tuple[str, tuple[int, ...], str], ...]


class BatchShare(msgspec.Struct, frozen=True):
    """One request's part of a run: its outputs, its CPU by rows (exact over the batch), and the times it saw."""

    outputs: Tensors
    cpu_ns: int
    run_ns: int
    queue_ns: int
    batch_rows: int


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    inputs: Tensors
    rows: int
    queued_ns: int
    answer: asyncio.Future[BatchShare]


class Batcher:
    """Batches for one graph. All methods run on the event loop; only `run` is called in the executor's threads."""

    def __init__(
        self,
        run: Callable[[Tensors], RunResult],
        executor: Executor,
        *,
        workers: int,
        max_batch: int,
        queue_rows_max: int,
    ) -> None:
        self._run = run
        self._executor = executor
        self._idle = workers
        self._max_batch = max_batch
        self._queue_rows_max = queue_rows_max
        self._queued_rows = 0
        self._lanes: OrderedDict[Lane, deque[_Waiting]] = OrderedDict()

    async def submit(self, inputs: Tensors, rows: int) -> BatchShare:
        """Outputs for these rows. Raises `Overloaded` when `queue_rows_max` rows wait already.

        When the caller is cancelled its rows leave the queue; rows already running are finished and dropped.
        """
        waiting = _Waiting(inputs, rows, perf_counter_ns(), asyncio.get_running_loop().create_future())
        if self._idle:
            self._dispatch([waiting])
        elif self._queued_rows + rows > self._queue_rows_max:
            raise Overloaded(f"{self._queued_rows} rows wait already (queue_rows_max is {self._queue_rows_max})")
        else:
            self._queue(waiting)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._forget(waiting)
            raise

    def _queue(self, waiting: _Waiting) -> None:
        self._queued_rows += waiting.rows
        self._lanes.setdefault(_lane(waiting.inputs), deque()).append(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        """Take a request whose caller left out of the queue, if it still is in it."""
        lane = _lane(waiting.inputs)
        queue = self._lanes.get(lane)
        if queue is not None and waiting in queue:
            queue.remove(waiting)
            self._queued_rows -= waiting.rows
            if not queue:
                del self._lanes[lane]

    def _next(self) -> list[_Waiting]:
        """The next batch: the oldest lane's requests in order, as many as fit; the lane then goes to the back."""
        while self._lanes:
            lane, queue = self._lanes.popitem(last=False)
            batch: list[_Waiting] = []
            rows = 0
            while queue and (not batch or rows + queue[0].rows <= self._max_batch):
                waiting = queue.popleft()
                self._queued_rows -= waiting.rows
                if not waiting.answer.done():  # cancelled a moment ago
                    batch.append(waiting)
                    rows += waiting.rows
            if queue:
                self._lanes[lane] = queue
            if batch:
                return batch
        return []

    def _dispatch(self, batch: list[_Waiting]) -> None:
        self._idle -= 1
        began_ns = perf_counter_ns()
        running = asyncio.get_running_loop().run_in_executor(self._executor, _run_batch, self._run, batch)
        running.add_done_callback(lambda done: self._finish(batch, began_ns, done))

    def _finish(
        self, batch: list[_Waiting], began_ns: int, done: asyncio.Future[list[RunResult | InvalidInput]]
    ) -> None:
        self._idle += 1
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
        else:
            _answer(batch, began_ns, done.result())
        if following := self._next():
            self._dispatch(following)


def _lane(inputs: Tensors) -> Lane:
    """Requests of one lane can be concatenated: same tensors, same shape past the rows, same datatype."""
    return tuple((name, array.shape[1:], array.dtype.str) for name, array in inputs.items())


def _run_batch(run: Callable[[Tensors], RunResult], batch: list[_Waiting]) -> list[RunResult | InvalidInput]:
    """One result for the whole batch, or one per request when the whole failed. Runs in a worker thread."""
    if len(batch) == 1:
        return [_run_or_refusal(run, batch[0].inputs)]
    together = {name: np.concatenate([waiting.inputs[name] for waiting in batch]) for name in batch[0].inputs}
    try:
        return [run(together)]
    except InvalidInput:
        return [_run_or_refusal(run, waiting.inputs) for waiting in batch]


def _run_or_refusal(run: Callable[[Tensors], RunResult], inputs: Tensors) -> RunResult | InvalidInput:
    try:
        return run(inputs)
    except InvalidInput as refusal:
        return refusal


def _answer(batch: list[_Waiting], began_ns: int, results: list[RunResult | InvalidInput]) -> None:
    if len(results) == len(batch):
        for waiting, result in zip(batch, results, strict=True):
            _settle(waiting, _refusal_or_share(waiting, began_ns, result))
        return
    [result] = results
    assert isinstance(result, RunResult)
    for waiting, share in zip(batch, shares(result, [waiting.rows for waiting in batch]), strict=True):
        _settle(waiting, msgspec.structs.replace(share, queue_ns=began_ns - waiting.queued_ns))


def shares(result: RunResult, rows: list[int]) -> list[BatchShare]:
    """Each request's rows of the outputs, and its CPU: cut where the cumulative rows fall, so that nothing is lost to rounding."""
    ends = list(accumulate(rows))
    cuts = [result.cpu_ns * end // ends[-1] for end in ends]
    return [
        BatchShare(
            outputs={name: array[end - count : end] for name, array in result.outputs.items()},
            cpu_ns=cut - before,
            run_ns=result.run_ns,
            queue_ns=0,
            batch_rows=ends[-1],
        )
        for count, end, cut, before in zip(rows, ends, cuts, [0, *cuts], strict=False)
    ]


def _refusal_or_share(waiting: _Waiting, began_ns: int, result: RunResult | InvalidInput) -> BatchShare | InvalidInput:
    if isinstance(result, InvalidInput):
        return result
    return BatchShare(result.outputs, result.cpu_ns, result.run_ns, began_ns - waiting.queued_ns, waiting.rows)


def _settle(waiting: _Waiting, outcome: BatchShare | InvalidInput) -> None:
    if waiting.answer.done():
        return  # its caller has left
    if isinstance(outcome, InvalidInput):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)
