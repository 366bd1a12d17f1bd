"""When a request would be answered, from what is known now: the runs in hand, all that waits before it, and its own batch.

Times are predictions of `costmodel`, and refusals are made of them; nothing is refused by a graph whose cost is not known yet.
"""

import math

from gateway.errors import DeadlineExceeded
from gateway.runtime.backlog import Backlog
from gateway.runtime.costmodel import HOP_NS, CostModel
from gateway.runtime.lanes import Lane, Price, Waiting
from gateway.runtime.ranking import Rank
from gateway.runtime.runs import Run

HOP_GAIN, HOP_JUMP_MAX = 1 / 16, 4.0
"""The hand-over is corrected by every run, as in Jacobson 1988; one that is far out counts as four times the usual."""


WAIT_GAIN = 1 / 32
"""Waiting is corrected by the first of each batch: the mean wait and twice its mean deviation, over the forecast."""

WAIT_BATCHES_MIN = 2
"""A wait for less than two batches says little of longer ones: of a single run one sees the end of, or does not."""

WAIT_FACTOR_MAX = 3.0
WAIT_NS = 100_000_000.0
"""How much waiting that was just as forecast stands against the first ones observed."""


class Forecast:
    """Of one pool of workers, under their lock. `runs` are those in hand, kept by `Workers`."""

    def __init__(self, workers: int, backlog: Backlog) -> None:
        self.runs: set[Run] = set()
        self.hop_ns: float = HOP_NS
        self.answer_ns: float = 0.0
        self._workers = workers
        self._backlog = backlog
        self._waited_ns = self._foreseen_ns = WAIT_NS
        self._missed_ns = 0.0
        self._wait_factor = 1.0
        self._lessons = 0

    def price(self, lane: Lane) -> Price:
        """What runs of this lane take, the hand-over included. Made again after a run has taught something."""
        price = lane.price
        if price.lessons != self._lessons:
            price = lane.price = self._price(lane)
        return price

    def _price(self, lane: Lane) -> Price:
        cost = lane.graph.cost
        base_ns, row_ns = cost.base_ns + self.hop_ns, cost.per_row_ns(lane.length)
        batch_rows = min(lane.graph.max_batch, cost.rows_enough(lane.length, self.hop_ns)) if lane.graph.merges else 1
        return Price(
            lessons=self._lessons,
            is_known=cost.is_known,
            base_ns=base_ns,
            row_ns=row_ns,
            batch_rows=batch_rows,
            batch_ns=base_ns + row_ns * batch_rows,
            caution=1 + cost.caution,
        )

    def many_ns(self, cost: CostModel, runs: int, rows: int, lengths: int) -> int:
        """Many rows of one request, whose lengths add up to `lengths`, in so many runs by all workers."""
        work_ns = (cost.base_ns + self.hop_ns) * runs + cost.row_ns * rows + cost.row_length_ns * lengths
        return int(work_ns / self._workers)

    def work_ns(self, waiting: Waiting, price: Price) -> int:
        """What this request, entering its lane last, adds to the workers' work: its rows, and a run's base if it opens one."""
        rows = waiting.rows
        if not waiting.lane.graph.merges:
            return int(price.base_ns + price.row_ns * rows)
        before, size = waiting.lane.rows, price.batch_rows
        opened = -(-(before + rows) // size) + -before // size
        return int(price.base_ns * opened + price.row_ns * rows)

    def at_once_ns(self, waiting: Waiting, price: Price) -> float:
        """From now to its answer if a worker takes it now: to promise, so with caution."""
        return (price.base_ns + price.row_ns * waiting.rows) * price.caution + self.answer_ns

    def in_turn_ns(self, waiting: Waiting, price: Price, rank: Rank, work_ns: int, now_ns: int) -> float:
        """From now to its answer if it waits at this place. Its own batch is run by one worker; what goes before, by all of them.

        Where its lane holds more than a batch already, its batch is expected to be a whole one: then there is room to let it grow
        when its turn comes, and throughput does not collapse into small batches because every deadline is near.
        """
        lane = waiting.lane
        before_ns: float = self._backlog.ahead_ns(rank)
        own_ns = price.base_ns + price.row_ns * waiting.rows
        if lane.rows and lane.graph.merges:
            in_lane_ns = lane.ranking.ahead_ns(rank)
            batch_ns = max(own_ns, price.batch_ns)
            until_ns = in_lane_ns + work_ns
            batches = (until_ns - 1) // batch_ns  # whole ones before its own
            before_ns += batches * batch_ns - in_lane_ns
            own_ns = batch_ns if batches else max(own_ns, until_ns)
        waiting.wait_ns = self._free_ns(before_ns, now_ns)
        return waiting.wait_ns * self._wait_factor + own_ns * price.caution + self.answer_ns

    def pending_ns(self, now_ns: int) -> float:
        """Until a worker is free for somebody who goes last: how saturated the workers are, as a time."""
        return self._free_ns(self._backlog.total_ns, now_ns)

    def too_late(
        self,
        waiting: Waiting,
        price: Price,
        takes_ns: float,
        now_ns: int,
        kind: type[DeadlineExceeded] = DeadlineExceeded,
    ) -> DeadlineExceeded | None:
        """The refusal of a request that takes so long from now, or None when that is in time.

        It is of this `kind` where less waiting would have helped.
        """
        due_ns = waiting.due_ns
        if now_ns + takes_ns <= due_ns or (now_ns < due_ns and not price.is_known):
            return None
        left_ns = max(0, due_ns - now_ns)
        is_hopeless = price.base_ns + price.row_ns * waiting.rows > left_ns
        refused = DeadlineExceeded if is_hopeless else kind
        return refused(
            f"the answer would take {takes_ns / 1e6:.1f} ms and the deadline leaves {left_ns / 1e6:.1f} ms; "
            + ("give it a later one" if is_hopeless else "try again when less is waiting"),
            retry_after_ms=max(1, math.ceil((takes_ns - left_ns) / 1e6)),
        )

    def learn(self, run: Run, turnaround_ns: int) -> None:
        """Correct the cost of the graph and the hand-over by a run that went well."""
        run.lane.graph.cost.correct(run.clock.rows, run.lane.length, run.run_ns)
        hop_ns = min(max(0, turnaround_ns - run.run_ns), HOP_JUMP_MAX * self.hop_ns)
        self.hop_ns = max(1000.0, self.hop_ns + HOP_GAIN * (hop_ns - self.hop_ns))
        self._lessons += 1

    def learn_answer(self, delay_ns: int) -> None:
        """Correct the time from the end of a run until the event loop gets to its answers."""
        self.answer_ns += HOP_GAIN * (min(delay_ns, HOP_JUMP_MAX * max(self.answer_ns, self.hop_ns)) - self.answer_ns)

    def learn_wait(self, waiting: Waiting, waited_ns: float) -> None:
        """Correct the forecast of waiting by one that is over: small batches, urgent newcomers, a busy event loop lengthen it."""
        if waiting.wait_ns < WAIT_BATCHES_MIN * self.price(waiting.lane).batch_ns:
            return
        waited_ns = min(waited_ns, WAIT_FACTOR_MAX * waiting.wait_ns)
        missed_ns = abs(waited_ns - waiting.wait_ns * self._waited_ns / self._foreseen_ns)
        self._missed_ns += WAIT_GAIN * (missed_ns - self._missed_ns)
        self._waited_ns += WAIT_GAIN * (waited_ns - self._waited_ns)
        self._foreseen_ns += WAIT_GAIN * (waiting.wait_ns - self._foreseen_ns)
        factor = (self._waited_ns + 2 * self._missed_ns) / self._foreseen_ns
        self._wait_factor = min(max(1.0, factor), WAIT_FACTOR_MAX)

    def _free_ns(self, before_ns: float, now_ns: int) -> float:
        """Until a worker is free for whoever comes after so much work.

        A run past its time is expected to take as long again as it is late: nothing better is known of it.
        """
        if len(self.runs) < self._workers:
            return before_ns / self._workers
        if self._workers == 1:
            [run] = self.runs
            return abs(run.ends_ns - now_ns) + before_ns
        left = [abs(run.ends_ns - now_ns) for run in self.runs]
        return max(min(left), (sum(left) + before_ns) / self._workers)
