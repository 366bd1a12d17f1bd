"""What a request used of the workers: the struct a caller hands in and reads, the share it gets, and how a run is divided.

Nothing here waits or runs anything. Filled by the batcher whatever becomes of the request.
"""

import time
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from gateway.runtime.session import Stop
from gateway.runtime.tensors import Tensors


class Spent(msgspec.Struct):
    """Filled before the caller's `run` returns or raises, whatever it raises. `cpu_ns` is CPU time of worker threads.

    A run that the graph refused is charged to the requests that it refuses alone too, not to their batch mates. A caller that is
    cut off or leaves while its batch runs is charged its rows' share of the CPU used so far.
    """

    cpu_ns: int = 0
    queue_ns: int = 0
    run_ns: int = 0
    batch_rows: int = 0


class BatchShare(msgspec.Struct, frozen=True):
    """One request's part of a run: its outputs, its CPU by rows (exact over the batch), and the times it saw."""

    outputs: Tensors
    cpu_ns: int
    run_ns: int
    queue_ns: int
    batch_rows: int


class RunClock(msgspec.Struct, eq=False):
    """The clocks of a batch while a worker runs it. Started in the worker's thread, read in any.

    `callers` still wait for it; `stop` ends it when none does.
    """

    rows: int
    began_ns: int
    thread_clock: int = 0
    cpu_began_ns: int = 0
    cpu_used_ns: int | None = None
    callers: int = 0
    stop: Stop | None = None

    def start(self, thread_clock: int) -> None:
        """`thread_clock` is the worker's `pthread_getcpuclockid`."""
        self.cpu_began_ns = time.clock_gettime_ns(thread_clock)
        self.thread_clock = thread_clock

    def end(self) -> None:
        """The worker is done, and may run something else on the same clock."""
        self.cpu_used_ns = time.clock_gettime_ns(self.thread_clock) - self.cpu_began_ns

    def so_far_ns(self, rows: int) -> int:
        """CPU time of these rows so far; 0 before the worker has picked the batch up."""
        used_ns = self.cpu_used_ns
        if used_ns is None:
            used_ns = time.clock_gettime_ns(self.thread_clock) - self.cpu_began_ns if self.thread_clock else 0
        return used_ns * rows // self.rows


def cut(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided by weight, cut where the cumulative weights fall, so that nothing is lost to rounding."""
    ends = list(accumulate(weights))
    cuts = [total * end // ends[-1] for end in ends]
    return [after - before for after, before in zip(cuts, [0, *cuts], strict=False)]
