"""A request larger than the largest batch, or of rows that differ in length: run in several, as one request with one deadline.

At most one part more than there are workers is in the backlog, so that a part is there when a worker frees, and a large request can
neither fill the queue nor be refused for its size alone.
"""

from collections.abc import Callable, Sequence
from operator import mul

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.runtime.batcher import Batcher
from gateway.runtime.lanes import Waiting
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.workers import Workers


class Ragged(msgspec.Struct, frozen=True):
    """Rows that we padded ourselves: along the second axis of the tensors of these `names`, row i has `lengths[i]` elements."""

    names: tuple[str, ...]
    lengths: tuple[int, ...]

    def parts(self, rows_max: int, waste_max: float) -> list[NDArray[np.intp]]:
        """Which rows to run together, the longest first: no more than `rows_max`, none with more padding than `waste_max`."""
        order = np.argsort(-np.array(self.lengths), kind="stable")
        starts = [0]
        for at, row in enumerate(order):
            longest = self.lengths[order[starts[-1]]]
            if at - starts[-1] == rows_max or longest - self.lengths[row] > waste_max:
                starts.append(at)
        return np.split(order, starts[1:])


async def submit_ragged(
    batcher: Batcher,
    workers: Workers,
    inputs: Tensors,
    ragged: Ragged,
    chosen: Sequence[NDArray[np.intp]],
    *,
    deadline_ns: int,
    level: int,
    spent: Spent,
) -> BatchShare:
    """As `submit_in_parts`, in the parts `chosen`, each padded to its own longest row."""

    def part(at: int) -> Tensors:
        rows = chosen[at]
        longest = ragged.lengths[rows[0]]
        return {
            name: np.ascontiguousarray(array[rows, :longest]) if name in ragged.names else array[rows]
            for name, array in inputs.items()
        }

    counts = [len(rows) for rows in chosen]
    lengths = [ragged.lengths[rows[0]] for rows in chosen]
    share = await _submit(batcher, workers, part, counts, lengths, deadline_ns=deadline_ns, level=level, spent=spent)
    back = np.argsort(np.concatenate(chosen))
    return msgspec.structs.replace(share, outputs={name: array[back] for name, array in share.outputs.items()})


async def submit_in_parts(
    batcher: Batcher,
    workers: Workers,
    inputs: Tensors,
    rows: int,
    *,
    step: int,
    deadline_ns: int,
    level: int,
    spent: Spent,
) -> BatchShare:
    """Outputs for all rows, in order. Raises as `LoadedModel.run`; the first part that fails takes the others out.

    A part is due as long before the deadline as the parts after it will take. A part starts on the level that an earlier one had
    climbed to. `spent.queue_ns` is the time in which no part of it ran.
    """

    def part(at: int) -> Tensors:
        return {name: array[at * step : (at + 1) * step] for name, array in inputs.items()}

    counts = [min(step, rows - at) for at in range(0, rows, step)]
    lengths = [batcher.lanes.lane(inputs).length] * len(counts)
    return await _submit(batcher, workers, part, counts, lengths, deadline_ns=deadline_ns, level=level, spent=spent)


async def _submit(
    batcher: Batcher,
    workers: Workers,
    part: Callable[[int], Tensors],
    counts: Sequence[int],
    lengths: Sequence[int],
    *,
    deadline_ns: int,
    level: int,
    spent: Spent,
) -> BatchShare:
    """`part` makes each when it is its turn; so many rows of such a length are in them."""
    began_ns = workers.now_ns()
    rows_left = sum(counts)
    lengths_left = sum(map(mul, counts, lengths))
    entered: list[Waiting] = []
    answers: list[BatchShare] = []
    try:
        for at, count in enumerate(counts):
            if at > workers.count + len(answers):
                answers.append(await entered[len(answers)].answer)
                level = min(level, entered[len(answers) - 1].level)
            rows_left -= count
            lengths_left -= count * lengths[at]
            with workers.lock:
                after_ns = workers.forecast.many_ns(batcher.lanes.cost, len(counts) - at - 1, rows_left, lengths_left)
            waiting = batcher.enter(
                part(at),
                count,
                deadline_ns=deadline_ns,
                level=level,
                spent=spent,
                after_ns=after_ns,
                continues=bool(entered),
            )
            entered.append(waiting)
        while len(answers) < len(entered):
            answers.append(await entered[len(answers)].answer)
    finally:
        for waiting in entered[len(answers) :]:
            batcher.leave(waiting)
        spent.queue_ns = max(0, workers.now_ns() - began_ns - spent.run_ns)
    spent.batch_rows = max(answer.batch_rows for answer in answers)  # not those of whichever part ended last
    return BatchShare(
        outputs={name: np.concatenate([answer.outputs[name] for answer in answers]) for name in answers[0].outputs},
        cpu_ns=sum(answer.cpu_ns for answer in answers),
        run_ns=sum(answer.run_ns for answer in answers),
        queue_ns=spent.queue_ns,
        batch_rows=spent.batch_rows,
    )
