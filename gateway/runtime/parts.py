"""A request larger than the largest batch, or of rows that differ in length: run in several, as one request with one deadline.

At most one part more than there are workers is in the backlog, so that a part is there when a worker frees, and a large request can
neither fill the queue nor be refused for its size alone.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from gateway.runtime.batcher import Batcher
from gateway.runtime.lanes import Waiting
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.workers import Workers


class Ragged(msgspec.Struct, frozen=True):
    """Rows that we padded ourselves: along the second axis of the tensors of these `names`, row i has `lengths[i]` elements."""

    names: tuple[str, ...]
    lengths: tuple[int, ...]

    @property
    def is_padded(self) -> bool:
        return min(self.lengths) < max(self.lengths)


async def submit_ragged(
    batcher: Batcher,
    workers: Workers,
    inputs: Tensors,
    ragged: Ragged,
    *,
    step: int,
    deadline_ns: int,
    level: int,
    spent: Spent,
) -> BatchShare:
    """As `submit_in_parts`, with rows of like length together, each part padded to its own longest: with `step` 1 not at all."""
    order = np.argsort(-np.array(ragged.lengths), kind="stable")
    lengths = [ragged.lengths[at] for at in order]
    share = await submit_in_parts(
        batcher,
        workers,
        {name: array[order] for name, array in inputs.items()},
        len(lengths),
        step=step,
        deadline_ns=deadline_ns,
        level=level,
        spent=spent,
        ragged=Ragged(ragged.names, tuple(lengths)),
    )
    back = np.argsort(order)
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
    ragged: Ragged | None = None,
) -> BatchShare:
    """Outputs for all rows, in order. Raises as `LoadedModel.run`; the first part that fails takes the others out.

    A part is due as long before the deadline as the parts after it will take. A part starts on the level that an earlier one had
    climbed to. `spent.queue_ns` is the time in which no part of it ran.
    """
    began_ns = workers.now_ns()
    lane = batcher.lanes.lane(inputs)
    entered: list[Waiting] = []
    answers: list[BatchShare] = []
    try:
        for at in range(0, rows, step):
            if at > step * (workers.count + len(answers)):
                answers.append(await entered[len(answers)].answer)
                level = min(level, entered[len(answers) - 1].level)
            part = {name: array[at : at + step] for name, array in inputs.items()}
            if ragged is not None:
                _cut(part, ragged.names, max(ragged.lengths[at : at + step]))
            count = min(step, rows - at)
            with workers.lock:
                after_ns = workers.forecast.many_ns(lane, rows - at - count, step)
            waiting = batcher.enter(
                part,
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


def _cut(part: Tensors, names: Sequence[str], length: int) -> None:
    for name in names:
        part[name] = np.ascontiguousarray(part[name][:, :length])
