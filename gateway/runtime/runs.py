"""One batch in a worker's hands: joined, run, taken apart, and halved until the culprit is alone when the graph refuses it.

`execute` runs in a worker thread; meanwhile the event loop reads nothing of it but the clock.
"""

from collections.abc import Sequence
from time import perf_counter_ns

import msgspec
import numpy as np

from gateway.errors import InvalidInput, Overloaded
from gateway.runtime.lanes import Lane, Waiting
from gateway.runtime.poolclock import thread_time_ns
from gateway.runtime.session import Stop
from gateway.runtime.spent import RunClock, cut
from gateway.runtime.tensors import Tensors


class Ending(msgspec.Struct, eq=False):
    """What became of one request. `run_ns` is the time of every run it took part in; `cpu_ns` its share of those that answered it,
    and, when it is a culprit, of those that failed by its fault.
    """

    outputs: Tensors | None = None
    refusal: InvalidInput | Overloaded | None = None
    cpu_ns: int = 0
    run_ns: int = 0
    batch_rows: int = 0


class Run:
    """Made by the event loop, executed by a worker, read by the event loop again."""

    def __init__(self, lane: Lane, batch: list[Waiting], clock: RunClock, ends_ns: int) -> None:
        self.lane = lane
        self.batch = batch
        self.clock = clock
        self.ends_ns = ends_ns
        self.stop = Stop()
        clock.callers, clock.stop = len(batch), self.stop
        self.endings = [Ending() for _ in batch]
        self.error: BaseException | None = None
        self.attempts = 0
        self.run_ns = 0

    def execute(self, thread_clock: int) -> None:
        """Fills `endings`, or `error` when anything but the graph's refusal happens. Never raises."""
        began_ns = perf_counter_ns()
        self.clock.start(thread_clock)
        try:
            self._attempt(0, len(self.batch), is_suspect=False)
        except BaseException as error:  # whatever it is, it ends this batch and not the worker
            self.error = error
        self.clock.end()
        self.run_ns = perf_counter_ns() - began_ns

    def _attempt(self, first: int, end: int, *, is_suspect: bool) -> list[int]:
        """Settle these members; returns the culprits among them.

        Suspects were refused together with a sibling half that has turned out innocent: they are halved without being run, but for
        the last one. One culprit among n takes at most 2 * log2(n) + 2 runs.
        """
        cpu_ns = 0
        if not is_suspect or end - first == 1:
            refusal, cpu_ns = self._try(first, end)
            if refusal is None:
                self._charge(range(first, end), cpu_ns)
                return []
            if end - first == 1:
                self.endings[first].refusal = refusal
                self._charge([first], cpu_ns)
                return [first]
        middle = (first + end) // 2
        culprits = self._attempt(first, middle, is_suspect=False)
        culprits += self._attempt(middle, end, is_suspect=not culprits)
        self._charge(culprits, cpu_ns)  # nobody, if it was refused for being together: that is not their fault
        return culprits

    def _try(self, first: int, end: int) -> tuple[InvalidInput | Overloaded | None, int]:
        """Run these together: their refusal, or None when they have their outputs; and the CPU time that took."""
        self.attempts += 1
        began_ns, cpu_ns = perf_counter_ns(), thread_time_ns()
        refusal: InvalidInput | Overloaded | None = None
        try:
            self._run(first, end)
        except (InvalidInput, Overloaded) as error:  # too many rows, or too many for the memory that is left
            refusal = error
        cpu_ns, run_ns = thread_time_ns() - cpu_ns, perf_counter_ns() - began_ns
        for ending in self.endings[first:end]:
            ending.run_ns += run_ns
        return refusal, cpu_ns

    def _run(self, first: int, end: int) -> None:
        members = self.batch[first:end]
        rows = sum(member.rows for member in members)
        inputs = members[0].inputs if len(members) == 1 else _joined(members)
        outputs = self.lane.graph.run(inputs, self.stop)
        for name, array in outputs.items():
            if len(array) != rows:
                raise RuntimeError(f"output '{name}' has {len(array)} rows for {rows} rows of input")
        at = 0
        for member, ending in zip(members, self.endings[first:end], strict=True):
            ending.outputs = {name: array[at : at + member.rows] for name, array in outputs.items()}
            ending.batch_rows = rows
            at += member.rows

    def _charge(self, members: Sequence[int], cpu_ns: int) -> None:
        if not members:
            return
        shares = cut(cpu_ns, [self.batch[member].rows for member in members])
        for member, share_ns in zip(members, shares, strict=True):
            self.endings[member].cpu_ns += share_ns


def _joined(members: Sequence[Waiting]) -> Tensors:
    return {name: np.concatenate([member.inputs[name] for member in members]) for name in members[0].inputs}
