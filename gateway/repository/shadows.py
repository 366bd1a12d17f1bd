"""A shadow version runs on a sample of the champion's requests; its answers are compared, counted and dropped.

A caller never waits for its shadow's run and never sees its failure: it starts after the answer is there, one at a time in the
thread that builds models, and is dropped (and counted) when too many before it have not finished. What it shares it can take from
callers: CPU, which makes their runs longer on a busy machine; the runs' memory, where a large one makes theirs `Overloaded` for a
moment; and that one thread, where loads and releases queue behind its runs, each of up to `runtime.first_run_s`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.contract.registry import WHOLE_BP
from gateway.errors import GatewayError
from gateway.repository.outputs import Array, Tensors, apart

logger = logging.getLogger(__name__)

LABEL_AT = 0.5
"""Where a single probability becomes a yes; the same as in `trainers.evaluate`."""


class Ran(Protocol):
    """One measured run; `gateway.runtime.session.RunResult` is one."""

    @property
    def outputs(self) -> Tensors: ...
    @property
    def cpu_ns(self) -> int: ...
    @property
    def run_ns(self) -> int: ...


class Difference(msgspec.Struct, frozen=True):
    """Two answers to one request. `disagreed` rows have another label; `max_abs` is infinite where only one is a number."""

    rows: int
    disagreed: int
    max_abs: float


class Comparison(msgspec.Struct):
    """Everything a shadow has shown so far, in sums that only grow; `dropped` requests were sampled and not run.

    `primary_run_ns` and `shadow_run_ns` are elapsed times of the same requests' runs, `shadow_cpu_ns` what the shadow cost.
    `max_abs_difference` is infinite (in JSON null) once only one of two values was a number.
    """

    requests: int = 0
    disagreed: int = 0
    rows: int = 0
    disagreed_rows: int = 0
    max_abs_difference: float = 0.0
    primary_run_ns: int = 0
    shadow_run_ns: int = 0
    shadow_cpu_ns: int = 0
    failures: int = 0
    dropped: int = 0


class ShadowRun:
    """One alias's shadow. All methods run on the event loop."""

    def __init__(
        self, version: int, run: Callable[[dict[str, Array]], Awaitable[Ran]], *, sample_bp: int, running_max: int
    ) -> None:
        self.version = version
        self.sample_bp = sample_bp
        self.comparison = Comparison()
        self._run = run
        self._running_max = running_max
        self._running: set[asyncio.Task[None]] = set()
        self._owed_bp = 0

    def is_sampled(self) -> bool:
        """Whether this request is one of the sample; exact over any stretch of requests, with no dice."""
        self._owed_bp += self.sample_bp
        if self._owed_bp < WHOLE_BP:
            return False
        self._owed_bp -= WHOLE_BP
        return True

    def mirror(self, inputs: dict[str, Array], primary: Tensors, *, run_ns: int) -> None:
        """Run the shadow on what the caller was just answered, some time later. `run_ns`: how long the champion's run took."""
        if len(self._running) >= self._running_max:
            self.comparison.dropped += 1
            return
        task = asyncio.create_task(self._compare(inputs, primary, run_ns))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def close(self) -> None:
        for task in self._running:
            task.cancel()

    async def _compare(self, inputs: dict[str, Array], primary: Tensors, run_ns: int) -> None:
        seen = self.comparison
        try:
            ran = await self._run(inputs)
            difference = await asyncio.to_thread(compare, primary, ran.outputs)  # 11 ms for 1,000 rows of 768 numbers
        except Exception as error:  # whatever a model under test does is a finding, not our failure
            seen.failures += 1
            if seen.failures == 1:
                logger.warning("shadow version %d fails, first with: %s", self.version, _words(error))
            return
        seen.requests += 1
        seen.rows += difference.rows
        seen.disagreed += difference.disagreed > 0
        seen.disagreed_rows += difference.disagreed
        seen.max_abs_difference = max(seen.max_abs_difference, difference.max_abs)
        seen.primary_run_ns += run_ns
        seen.shadow_run_ns += ran.run_ns
        seen.shadow_cpu_ns += ran.cpu_ns


def _words(error: Exception) -> str:
    """The class, and the sentence where it is one of ours: any other may quote the request."""
    return f"{type(error).__name__}: {error}" if isinstance(error, GatewayError) else type(error).__name__


def compare(primary: Tensors, shadow: Tensors) -> Difference:
    """How two answers to one request differ, row by row.

    A row disagrees when any output gives it another label: the largest of several scores, a single score on the other side of
    `LABEL_AT`, a text or whole number that is not equal. Outputs that the shadow lacks or shapes otherwise disagree in every row.
    """
    rows = max((len(values) for values in primary.values()), default=0)
    disagreed = np.zeros(rows, np.bool_)
    max_abs = 0.0
    for name, ours in primary.items():
        theirs = shadow.get(name)
        if theirs is None or theirs.shape != ours.shape:
            return Difference(rows, rows, float("inf"))
        disagreed |= _labels_differ(ours, theirs)
        if ours.dtype.kind in "fiu" and theirs.dtype.kind in "fiu":
            max_abs = max(max_abs, float(apart(ours, theirs).max(initial=0.0)))
    return Difference(rows, int(np.count_nonzero(disagreed)), max_abs)


def _labels_differ(ours: Array, theirs: Array) -> NDArray[np.bool_]:
    if ours.dtype.kind != "f" or theirs.dtype.kind != "f":
        return _any_per_row(ours != theirs)
    if ours.ndim > 1 and ours.shape[-1] > 1:
        return _any_per_row(ours.argmax(axis=-1) != theirs.argmax(axis=-1))  # NaN counts as the largest
    return _any_per_row(((ours >= LABEL_AT) != (theirs >= LABEL_AT)) | (np.isnan(ours) != np.isnan(theirs)))


def _any_per_row(differs: Array) -> NDArray[np.bool_]:
    return np.asarray(np.asarray(differs, np.bool_).reshape(len(differs), -1).any(axis=1))
