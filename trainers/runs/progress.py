"""Counts what an attempt has done, from whichever thread does it, for the heartbeat and the record of the attempt's end.

The loop that trains calls `steps_begin`, `step`, `saved`, `steps_end`; `Stages` brackets every stage. Nothing here waits or stores.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
from msgspec import UNSET

from gateway.contract.runs import Progress


class Now(msgspec.Struct, frozen=True):
    """What is going on, for people; `progress` is for the bill."""

    stage: str
    step: int
    steps_total: int
    loss: float | None
    examples_per_s: float | None
    elapsed_ns: int
    progress: Progress


class Tracker:
    """One attempt's. Calls are cheap (a lock and a few additions) and safe from any thread."""

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        energy_nj: Callable[[], int | None] = lambda: None,
        cpu_ns: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`energy_nj`, `cpu_ns`: what GPUs and CPUs used since the attempt began, None where nobody counts; asked by `now`."""
        self._clock_ns = clock_ns
        self._energy_nj = energy_nj
        self._cpu_ns = cpu_ns
        self._lock = threading.Lock()
        self._began_ns = clock_ns()
        self._stage, self._stage_began_ns, self._has_stepped = "start", self._began_ns, False
        self._stages: list[str] = []
        self._stages_ns = 0
        self._first = self._last = self._saved = self._total = self._examples = 0
        self._steps_ns = 0
        self._steps_began_ns: int | None = None
        self._examples_at_begin = 0
        self._loss: float | None = None
        self._samples: list[float] = [0.0, 0.0]  # sum and count

    @property
    def elapsed_ns(self) -> int:
        return self._clock_ns() - self._began_ns

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Work that is in vain unless this block ends normally; one that takes steps keeps those that were saved."""
        with self._lock:
            self._stage, self._stage_began_ns, self._has_stepped = name, self._clock_ns(), False
        yield
        with self._lock:
            if self._has_stepped:
                self._saved = self._last
            else:
                self._stages_ns += self._clock_ns() - self._stage_began_ns
            self._stages.append(name)
            self._stage = "between"

    def steps_begin(self, step: int, *, total: int) -> None:
        """The first step to come is number `step` (0 in a fresh run); everything below it was saved before."""
        with self._lock:
            self._first = self._last = self._saved = step
            self._total, self._has_stepped = total, True
            self._steps_began_ns, self._examples_at_begin = self._clock_ns(), self._examples

    def step(self, step: int, *, examples: int = 0, loss: float | None = None) -> None:
        """`step` steps of the run are done now, with `examples` more examples seen."""
        with self._lock:
            self._last = max(self._last, step)
            self._examples += examples
            self._loss = self._loss if loss is None else loss

    def saved(self, step: int) -> None:
        """Steps below `step` survive this attempt."""
        with self._lock:
            self._saved = max(self._saved, min(step, self._last))

    def steps_end(self) -> None:
        """No more steps; the result is the stage's to keep."""
        with self._lock:
            if self._steps_began_ns is not None:
                self._steps_ns += self._clock_ns() - self._steps_began_ns
                self._steps_began_ns = None

    def utilisation(self, sample: float | None) -> None:
        """One measurement between 0 and 1; the attempt's figure is the mean."""
        if sample is not None:
            with self._lock:
                self._samples[0] += sample
                self._samples[1] += 1

    def now(self) -> Now:
        """A consistent look at all of it."""
        energy_nj, cpu_ns = self._energy_nj(), self._cpu_ns()
        with self._lock:
            at_ns = self._clock_ns()
            stepping_ns = 0 if self._steps_began_ns is None else at_ns - self._steps_began_ns
            is_cut_off = self._stage not in {"start", "between"} and not self._has_stepped
            progress = Progress(
                step_first=self._first,
                step_last=self._last,
                step_saved=self._saved,
                steps_ns=self._steps_ns + stepping_ns,
                stages=tuple(self._stages),
                stages_ns=self._stages_ns,
                cut_off_ns=at_ns - self._stage_began_ns if is_cut_off else 0,
                examples=self._examples,
                utilisation=self._samples[0] / self._samples[1] if self._samples[1] else None,
                energy_nj=UNSET if energy_nj is None else energy_nj,
                cpu_ns=UNSET if cpu_ns is None else cpu_ns,
            )
            rate = (self._examples - self._examples_at_begin) * 1e9 / stepping_ns if stepping_ns else None
            return Now(
                stage=self._stage,
                step=self._last,
                steps_total=self._total,
                loss=self._loss,
                examples_per_s=rate,
                elapsed_ns=at_ns - self._began_ns,
                progress=progress,
            )
