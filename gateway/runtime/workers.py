"""The worker threads that all models share, and who gets the next free one: whoever is first in the backlog, of whatever model.

Event-driven: something happens when a request enters, a run ends, a caller leaves or a deadline passes, and at no other time. While
a worker is idle nothing waits: one that ends a run takes the next batch itself, however busy the event loop is. What both touch is
under `lock`; callers' futures are touched on the event loop alone.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType

from gateway.errors import DeadlineExceeded, GatewayError, Overloaded, WouldBeLate
from gateway.runtime.backlog import NEVER_NS, Backlog
from gateway.runtime.forecast import Forecast
from gateway.runtime.lanes import Lane, Waiting
from gateway.runtime.runs import Ending, Run
from gateway.runtime.spent import BatchShare, RunClock
from gateway.runtime.watchdog import Watchdog

logger = logging.getLogger(__name__)
STOP_S = 0.5
"""What an operator may take, and little enough: with the drain's 15 s, the ledger's 10 s and the spend record's 3 s, for the
workers and for the builds, that stays below the 30 s after which Fargate kills."""
STOPPING = "the gateway is stopping; ask another one"


class Workers:
    """A context manager: leaving it refuses what waits, stops the runs in hand, and ends the threads.

    It waits for them for `stop_s`: one operator cannot be interrupted, and whoever leaves has more to do.
    """

    def __init__(
        self,
        count: int,
        *,
        levels: int,
        ageing_ns: int,
        stop_s: float = STOP_S,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.count = count
        self.watchdog = Watchdog()
        self.idle = count
        self.backlog = Backlog(levels=levels, ageing_ns=ageing_ns)
        self.forecast = Forecast(count, self.backlog)
        self.now_ns = clock
        self._stop_s = stop_s
        self._is_open = False
        self.lock = threading.RLock()  # reentrant: garbage collected under it may be a caller's coroutine, which leaves
        self._inbox: SimpleQueue[Run | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"run-{number}") for number in range(count)]

    def __enter__(self) -> "Workers":
        self.watchdog.__enter__()
        for thread in self._threads:
            thread.start()
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.lock:
            self._is_open = False
            while self.backlog:
                waiting = self.backlog.first(self.now_ns())
                self._cut_off(waiting)
                if not waiting.answer.done():  # cancelled: its caller leaves at the loop's next turn
                    waiting.answer.set_exception(Overloaded(STOPPING))
            for run in self.forecast.runs:
                run.stop()
        self.watchdog.__exit__(None, None, None)
        for _ in self._threads:
            self._inbox.put(None)
        until_s = time.monotonic() + self._stop_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        if left := sum([thread.is_alive() for thread in self._threads]):
            logger.warning("%d runs did not stop within %g s (runtime.stop_s)", left, self._stop_s)

    def take(self, waiting: Waiting, now_ns: int) -> None:
        """Run it at once when a worker is idle, else let it wait in its place. Raises `WouldBeLate` if it would be late, and
        `DeadlineExceeded` if it always would.

        Called with the lock held.
        """
        if not self._is_open:
            raise Overloaded(STOPPING)
        forecast = self.forecast
        price = forecast.price(waiting.lane)
        if self.idle:
            if late := forecast.too_late(waiting, price, forecast.at_once_ns(waiting, price), now_ns, WouldBeLate):
                raise late
            self._start(waiting.lane, [waiting], now_ns)
        else:
            rank, work_ns = self.backlog.rank(waiting, now_ns), forecast.work_ns(waiting, price)
            takes_ns = forecast.in_turn_ns(waiting, price, rank, work_ns, now_ns)
            if late := forecast.too_late(waiting, price, takes_ns, now_ns, WouldBeLate):
                raise late
            self.backlog.enter(waiting, rank, work_ns, now_ns)
        loop = waiting.answer.get_loop()
        waiting.timer = loop.call_later((waiting.deadline_ns - now_ns) / 1e9, self._expire, waiting)

    def drop(self, waiting: Waiting) -> None:
        """Its caller has left. Its rows leave the backlog; a run in a worker's hands that nobody waits for any more is stopped."""
        if not waiting.answer.done() or waiting.answer.cancelled():
            self._cut_off(waiting)
            waiting.answer.cancel()  # a part that nobody has awaited yet: what becomes of it is nobody's business
        else:
            waiting.answer.exception()  # answer and departure crossed: marks an error as seen, for nobody will ask again

    def pending_ns(self) -> int:
        """Until a worker would be free for somebody who goes last, 0 while one is idle: how saturated we are, as a time."""
        with self.lock:
            return 0 if self.idle else int(self.forecast.pending_ns(self.now_ns()))

    def _work(self) -> None:
        """A worker's life."""
        thread_clock = time.pthread_getcpuclockid(threading.get_ident())
        while (run := self._inbox.get()) is not None:
            run.execute(thread_clock)
            self._advance(run)
            del run  # an idle worker holds on to nobody's tensors

    def _advance(self, run: Run) -> None:
        """A worker is free, and takes what is next before the answers of its last run go out."""
        late: list[tuple[Waiting, DeadlineExceeded]] = []
        with self.lock:
            now_ns = self.now_ns()
            self.idle += 1
            self.forecast.runs.remove(run)
            if (run.error is None and run.attempts == 1 and run.endings[0].refusal is None) or (
                run.stop.is_called and now_ns > run.ends_ns
            ):
                self.forecast.learn(run, now_ns - run.clock.began_ns)
            while self.idle and self.backlog:
                lane = self.backlog.first(now_ns).lane
                if batch := self._batch(lane, now_ns, late):
                    self.forecast.learn_wait(batch[0], now_ns - batch[0].queued_ns)
                    self._start(lane, batch, now_ns)
        loop = run.batch[0].answer.get_loop()
        try:
            loop.call_soon_threadsafe(self._conclude, run, late, now_ns)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits
            logger.warning("a run ended after its event loop")

    def _batch(self, lane: Lane, now_ns: int, late: list[tuple[Waiting, DeadlineExceeded]]) -> list[Waiting]:
        """The lane's first, and those after it for as long as all of them stay in time and growing saves something.

        Those whose time can no longer be met go to `late`, so it may be empty.
        """
        price = self.forecast.price(lane)
        start_ns = self.forecast.answer_ns + price.base_ns
        batch: list[Waiting] = []
        rows, due_ns = 0, NEVER_NS
        while lane.rows:
            waiting = lane.ranking.first
            alone_ns = start_ns + price.row_ns * waiting.rows
            if now_ns + alone_ns > waiting.due_ns and (
                refusal := self.forecast.too_late(waiting, price, alone_ns, now_ns)
            ):
                self.backlog.leave(waiting)
                waiting.spent.queue_ns += now_ns - waiting.queued_ns
                late.append((waiting, refusal))
                continue
            rows += waiting.rows
            due_ns = min(due_ns, waiting.due_ns)
            if batch and (rows > price.batch_rows or now_ns + start_ns + price.row_ns * rows > due_ns):
                break
            self.backlog.leave(waiting)
            batch.append(waiting)
        return batch

    def _start(self, lane: Lane, batch: list[Waiting], now_ns: int) -> None:
        price = self.forecast.price(lane)
        rows = sum([waiting.rows for waiting in batch])
        clock = RunClock(rows, now_ns)
        for waiting in batch:
            waiting.clock = clock
            waiting.spent.queue_ns += now_ns - waiting.queued_ns
            waiting.spent.batch_rows = rows
        run = Run(lane, batch, clock, now_ns + int(price.base_ns + price.row_ns * rows))
        self.idle -= 1
        self.forecast.runs.add(run)
        self._inbox.put(run)

    def _conclude(self, run: Run, late: list[tuple[Waiting, DeadlineExceeded]], ended_ns: int) -> None:
        """On the event loop again: tell the callers, but for those who have left or were told that they are late."""
        now_ns = self.now_ns()
        self.forecast.learn_answer(now_ns - ended_ns)
        if run.error is not None and not isinstance(run.error, DeadlineExceeded):
            logger.error("running a model failed, for %d requests", len(run.batch), exc_info=run.error)
        for waiting, ending in zip(run.batch, run.endings, strict=True):
            if not waiting.answer.done():
                self._settle(waiting, ending, run.error, now_ns)
        for waiting, refusal in late:
            if not waiting.answer.done():
                _stop_timer(waiting)
                waiting.answer.set_exception(refusal)

    def _settle(self, waiting: Waiting, ending: Ending, error: BaseException | None, now_ns: int) -> None:
        _stop_timer(waiting)
        spent = waiting.spent
        spent.cpu_ns += ending.cpu_ns
        spent.run_ns += ending.run_ns
        if isinstance(error, DeadlineExceeded):  # `stop` was called
            waiting.answer.set_exception(Overloaded(STOPPING))
        elif error is not None:
            failure = GatewayError("running the model failed; the gateway's log says why")
            failure.__cause__ = error
            waiting.answer.set_exception(failure)
        elif ending.refusal is not None:
            waiting.answer.set_exception(ending.refusal)
        elif ending.outputs is None or now_ns > waiting.deadline_ns:
            waiting.answer.set_exception(self._missed())
        else:
            spent.batch_rows = ending.batch_rows
            waiting.answer.set_result(
                BatchShare(ending.outputs, ending.cpu_ns, ending.run_ns, spent.queue_ns, ending.batch_rows)
            )

    def _expire(self, waiting: Waiting) -> None:
        """Its deadline is now: the caller is told at once, and a run that nobody else waits for is stopped."""
        if not waiting.answer.done():
            self._cut_off(waiting)
            waiting.answer.set_exception(self._missed())

    def _missed(self) -> DeadlineExceeded:
        """The prediction was wrong: a run took longer than its like, or others went first."""
        return DeadlineExceeded(
            "the deadline has passed; give it a later one, or try again when less is waiting",
            retry_after_ms=max(1, math.ceil(self.pending_ns() / 1e6)),
        )

    def _cut_off(self, waiting: Waiting) -> None:
        """Take it out of the backlog, or charge what it used of a worker so far."""
        _stop_timer(waiting)
        now_ns = self.now_ns()
        with self.lock:
            if waiting.rank is not None:
                self.backlog.leave(waiting)
                waiting.spent.queue_ns += now_ns - waiting.queued_ns
            elif waiting.clock is not None:
                waiting.spent.cpu_ns += waiting.clock.so_far_ns(waiting.rows)
                waiting.spent.run_ns += now_ns - waiting.clock.began_ns
                waiting.clock.callers -= 1
                if not waiting.clock.callers and waiting.clock.stop is not None:
                    waiting.clock.stop()
                waiting.clock = None


def _stop_timer(waiting: Waiting) -> None:
    if waiting.timer is not None:
        waiting.timer.cancel()
        waiting.timer = None
