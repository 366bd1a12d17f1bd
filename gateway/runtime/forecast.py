"""When a request would be answered, from what is known now: the runs in hand, all that waits before it, and its own batch.

Times are predictions of `costmodel`, and refusals are made of them; nothing is refused by a graph whose cost is not known yet.
"""

import math

from gateway.errors import DeadlineExceeded
from gateway.runtime.backlog import Backlog
from gateway.runtime.lanes import Lane, Waiting
from gateway.runtime.ranking import Rank
from gateway.runtime.runs import Run

HOP_NS = 100_000
"""What handing a batch to a thread and its answers back takes, at first (measured: 60 to 200 us with a busy event loop)."""

HOP_GAIN, HOP_JUMP_MAX = 1 / 16, 4.0
"""The hand-over is corrected by every run, as in Jacobson 1988; one that is far out counts as four times the usual."""


class Forecast:
    """Of one pool of workers. `runs` are those in hand, kept by `Workers`."""

    def __init__(self, workers: int, backlog: Backlog) -> None:
        self.runs: set[Run] = set()
        self.hop_ns: float = HOP_NS
        self._workers = workers
        self._backlog = backlog

    def run_ns(self, lane: Lane, rows: int) -> float:
        """From the hand-over of so many rows to their answers."""
        return lane.graph.cost.run_ns(rows, lane.length) + self.hop_ns

    def rows_ns(self, lane: Lane, rows: int, step: int) -> int:
        """Many rows of one request, run `step` by `step` by all workers."""
        return int(
            (self.run_ns(lane, 0) * -(-rows // step) + self.run_ns(lane, rows) - self.run_ns(lane, 0)) / self._workers
        )

    def batch_rows(self, lane: Lane) -> int:
        """Rows of the batches that form when many wait: more would save next to nothing, or are not allowed."""
        return min(lane.graph.max_batch, lane.graph.cost.rows_enough(lane.length, self.hop_ns))

    def work_ns(self, waiting: Waiting) -> int:
        """What this request, entering its lane last, adds to the workers' work: its rows, and a run's base if it opens one."""
        lane = waiting.lane
        rows_ns = lane.graph.cost.per_row_ns(lane.length) * waiting.rows
        if not lane.graph.merges:
            return int(self.run_ns(lane, 0) + rows_ns)
        size = self.batch_rows(lane)
        opened = -(-(lane.rows + waiting.rows) // size) + -lane.rows // size
        return int(self.run_ns(lane, 0) * opened + rows_ns)

    def at_once_ns(self, waiting: Waiting) -> float:
        """From now to its answer if a worker takes it now: to promise, so with caution."""
        return self.run_ns(waiting.lane, waiting.rows) * (1 + waiting.lane.graph.cost.caution)

    def in_turn_ns(self, waiting: Waiting, rank: Rank, work_ns: int, now_ns: int) -> float:
        """From now to its answer if it waits at this place. Its own batch is run by one worker; what goes before, by all of them.

        Where its lane holds more than a batch already, its batch is expected to be a whole one: then there is room to let it grow
        when its turn comes, and throughput does not collapse into small batches because every deadline is near.
        """
        lane, graph = waiting.lane, waiting.lane.graph
        before_ns: float = self._backlog.ahead_ns(rank)
        own_ns = self.run_ns(lane, waiting.rows)
        if graph.merges and lane.ranking:
            in_lane_ns = lane.ranking.ahead_ns(rank)
            before_ns -= in_lane_ns
            whole_ns = max(own_ns, self.run_ns(lane, self.batch_rows(lane)))
            batches, rest_ns = divmod(in_lane_ns + work_ns, whole_ns)
            before_ns += batches * whole_ns
            own_ns = whole_ns if batches else max(own_ns, rest_ns)
        return self._free_ns(before_ns, now_ns) + own_ns * (1 + graph.cost.caution)

    def pending_ns(self, now_ns: int) -> float:
        """Until a worker is free for somebody who goes last: how saturated the workers are, as a time."""
        return self._free_ns(self._backlog.total_ns, now_ns)

    def too_late(self, waiting: Waiting, takes_ns: float, now_ns: int) -> DeadlineExceeded | None:
        """The refusal of a request that takes so long from now, or None when that is in time."""
        if now_ns + takes_ns <= waiting.due_ns or (now_ns < waiting.due_ns and not waiting.lane.graph.cost.is_known):
            return None
        left_ns = max(0, waiting.due_ns - now_ns)
        is_hopeless = self.run_ns(waiting.lane, waiting.rows) > left_ns
        return DeadlineExceeded(
            f"the answer would take {takes_ns / 1e6:.1f} ms and the deadline leaves {left_ns / 1e6:.1f} ms; "
            + ("give it a later one" if is_hopeless else "try again when less is waiting"),
            retry_after_ms=max(1, math.ceil((takes_ns - left_ns) / 1e6)),
        )

    def learn(self, run: Run, turnaround_ns: int) -> None:
        """Correct the cost of the graph and the hand-over by a run that went well."""
        run.lane.graph.cost.correct(run.clock.rows, run.lane.length, run.run_ns)
        hop_ns = min(max(0, turnaround_ns - run.run_ns), HOP_JUMP_MAX * self.hop_ns)
        self.hop_ns = max(1000.0, self.hop_ns + HOP_GAIN * (hop_ns - self.hop_ns))

    def _free_ns(self, before_ns: float, now_ns: int) -> float:
        """Until a worker is free for whoever comes after so much work.

        A run past its time is expected to take as long again as it is late: nothing better is known of it.
        """
        if len(self.runs) < self._workers:
            return before_ns / self._workers
        left = [abs(run.ends_ns - now_ns) for run in self.runs]
        return max(min(left), (sum(left) + before_ns) / self._workers)
