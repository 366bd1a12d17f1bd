"""How full this container is: one number for autoscalers, and how late the event loop runs.

A probe on the event loop looks at a few counters ten times a second and keeps the last `window_s`; whoever scrapes, and how
often, changes nothing. What the number means is written at `Saturation`.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter_ns, process_time_ns, thread_time_ns
from types import TracebackType

import msgspec

from gateway.telemetry import definitions as d
from gateway.telemetry.exposition import Sample
from gateway.telemetry.histogram import Histogram

PROBE_NS = 100_000_000
"""A look takes about 5 us: ten a second are 0.005 % of a core, and a stall of the loop is seen within a tenth of a second."""

_IDLE = 0.01
"""Less than this share of the CPU is the process's own upkeep (the probe, polls, a scrape) and reads as 0."""


class Totals(msgspec.Struct, frozen=True):
    """Counters at one moment, in nanoseconds; `answered` counts requests, `lag_ns` is summed over `looks`.

    `loop_busy_ns` is CPU time of the event loop's thread and its waiting for a CPU.
    """

    at_ns: int
    process_cpu_ns: int
    loop_busy_ns: int
    waited_ns: int
    answered: int
    lag_ns: int
    looks: int


class Saturation:
    """An async context manager around serving: the start itself is not load. The largest of these parts, each used / limit, so that
    it is the same in a container of any size:

    - `cpu`: CPU time that the process used / the CPU time that the container had, over the window;
    - `loop`: time in which the event loop's thread ran or waited for a CPU / elapsed time, over the window. It is one thread: it is
      full when the container is not, and also when a neighbour takes the CPU or a quota is spent;
    - `wait`: (mean wait for a worker over the window, or the predicted one where that is longer, + the event loop's mean lag) /
      `objective_ms`;
    - what `watch` was told of: requests in flight / `requests_max`, and so on. 1 means that the next one is refused.

    0 when idle. It rises before requests are refused: CPU and the loop fill up first, then requests wait, then limits are reached;
    every reason for refusing by load is one of the parts. Over 1 means that requests wait longer than the objective.
    """

    def __init__(
        self,
        *,
        vcpu_milli: int,
        objective_ms: int,
        window_s: int,
        waits: Callable[[], tuple[int, int]],
        predicted_wait_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        """`waits` returns what all answered requests have waited, in nanoseconds, and their number."""
        self.lag = Histogram()
        self._vcpu_milli = vcpu_milli
        self._objective_ns = objective_ms * 1_000_000
        self._waits = waits
        self._limits: dict[str, Callable[[], float]] = {}
        self._predicted_wait_ns = predicted_wait_ns
        self._window: deque[Totals] = deque(maxlen=window_s * 1_000_000_000 // PROBE_NS)
        self._looks = 0
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._schedstat = -1

    def watch(self, part: str, share: Callable[[], float]) -> None:
        """Have this limit's used / limit as a part."""
        self._limits[part] = share

    async def __aenter__(self) -> "Saturation":
        self._schedstat = _open_schedstat()
        self._due_ns = perf_counter_ns()
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._schedstat >= 0:
            os.close(self._schedstat)

    def parts(self) -> dict[str, float]:
        """Every part by name. Before serving begins nothing is used."""
        if not self._window:
            return {"cpu": 0.0, "loop": 0.0, "wait": 0.0}
        shares = parts(
            self._window[0], self._window[-1], vcpu_milli=self._vcpu_milli, objective_ns=self._objective_ns,
            predicted_wait_ns=self._predicted_wait_ns(),
        )  # fmt: skip
        return shares | {part: round(share(), 3) for part, share in self._limits.items()}

    def read(self) -> Iterator[Sample]:
        """A source of `/metrics`."""
        shares = self.parts()
        yield d.SATURATION, (), max(shares.values())
        for part, share in shares.items():
            yield d.SATURATION_PART, (part,), share
        yield d.LOOP_LAG_SECONDS, (), self.lag

    def _loop_busy_ns(self) -> int:
        if self._schedstat < 0:
            return thread_time_ns()
        ran, waited, _ = os.pread(self._schedstat, 128, 0).split()
        return int(ran) + int(waited)

    def _look(self) -> None:
        now_ns = perf_counter_ns()
        self.lag.add(max(0, now_ns - self._due_ns))
        self._looks += 1
        waited_ns, answered = self._waits()
        self._window.append(
            Totals(now_ns, process_time_ns(), self._loop_busy_ns(), waited_ns, answered, self.lag.total, self._looks)
        )
        self._due_ns = now_ns + PROBE_NS
        self._timer = asyncio.get_running_loop().call_later(PROBE_NS / 1e9, self._look)


def _open_schedstat() -> int:
    """This thread's time on a CPU and waiting for one (docs.kernel.org/scheduler/sched-stats.html); -1 where a kernel has none."""
    try:
        return os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def parts(
    first: Totals, last: Totals, *, vcpu_milli: int, objective_ns: int, predicted_wait_ns: int = 0
) -> dict[str, float]:
    """CPU, loop and wait between two moments. A thousandth is the finest step; no time between them is no load."""
    elapsed_ns = last.at_ns - first.at_ns
    if elapsed_ns <= 0:
        return {"cpu": 0.0, "loop": 0.0, "wait": 0.0}
    cpu = (last.process_cpu_ns - first.process_cpu_ns) * 1000 / (elapsed_ns * vcpu_milli)
    loop = (last.loop_busy_ns - first.loop_busy_ns) / elapsed_ns
    answered, looks = last.answered - first.answered, last.looks - first.looks
    mean_wait_ns = (last.waited_ns - first.waited_ns) // answered if answered else 0
    wait = (max(mean_wait_ns, predicted_wait_ns) + (last.lag_ns - first.lag_ns) // max(1, looks)) / objective_ns
    return {
        name: 0.0 if share < _IDLE else round(share, 3)
        for name, share in (("cpu", cpu), ("loop", loop), ("wait", wait))
    }
