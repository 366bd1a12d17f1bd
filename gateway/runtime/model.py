"""A model version that can answer: its manifest, the variant this CPU runs, and how a run is scheduled.

A run predicted to be shorter than a thread hop happens at once on the event loop; a longer one goes to the batcher's workers.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from functools import partial
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from types import TracebackType
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from gateway.config import Amount, Bytes, Timeout
from gateway.contract.manifest import Manifest, Signature, TextInput, Variant
from gateway.contract.words import Positive
from gateway.errors import ArtifactError, DeadlineExceeded, InvalidInput
from gateway.runtime import failures, memory, texts
from gateway.runtime.batcher import Batcher
from gateway.runtime.costmodel import CostModel, rows_worth
from gateway.runtime.lanes import Lanes
from gateway.runtime.parts import Ragged, submit_in_parts, submit_ragged
from gateway.runtime.session import RunResult, Session, Stop, pick_variant
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.texts import Texts
from gateway.runtime.workers import STOP_S, Workers

T = TypeVar("T")
logger = logging.getLogger(__name__)

INLINE_SAMPLED = 32
"""One in so many runs on the event loop is timed for the cost model: the correction takes 5 us, as long as a small run."""


RUN_BYTES_MIN = 16 * 1024 * 1024
"""onnxruntime's arena takes its first megabyte at once and grows by doubling."""


class RuntimeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`workers` 0 means one per CPU this container may use. `inline_us_max`: a thread hop costs about 100 us round trip.

    `queue_rows_max` and `queue_bytes_max` bound what may wait for one model: full, it refuses. `priority_levels`: a caller may ask
    for 1, the highest, to this many; larger numbers count as the lowest, and 0 means `priority_default`, in the middle so that some
    may step forward and others back. `ageing_ms`: after so long a waiting request counts as one level higher, so that none starves.

    `threads_per_run`: one, because requests come at once and share the CPUs better than operators do; more shortens a lone request
    to a large model. `run_bytes_max` bounds what all runs together compute with; 0 means half of the container's memory.
    `build_bytes_max` bounds what loading one model may take; 0 means 256 MiB and 8 times its file. Every `trim_s` free memory goes
    back to the system; reserving it again costs a run milliseconds. `first_run_s`: a model whose first row takes longer is refused.
    So is one whose golden vectors do, and a shadow's run is ended.

    `stop_s`: how long runs, and after them a load, may go on once they are stopped because the process ends; see `server.drain_s`.
    """

    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    queue_rows_max: Amount = 4096
    queue_bytes_max: Amount = 64 * 1024 * 1024
    inline_us_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 200
    priority_levels: int = 8
    priority_default: int = 4
    ageing_ms: Amount = 1000
    threads_per_run: Positive = 1
    run_bytes_max: Bytes = 0
    build_bytes_max: Bytes = 0
    trim_s: Timeout = 60.0
    first_run_s: Timeout = 60.0
    stop_s: Timeout = STOP_S

    def __post_init__(self) -> None:
        if not 1 <= self.priority_default <= self.priority_levels <= 64:
            raise ValueError("'priority_default' must be from 1 to 'priority_levels', and that at most 64")
        if 0 < self.run_bytes_max < RUN_BYTES_MIN:
            raise ValueError(f"'run_bytes_max' must be 0 or at least {RUN_BYTES_MIN}: with less no run has room")


class LoadedModel:
    """What the repository keeps resident and the data plane runs."""

    def __init__(
        self,
        manifest: Manifest,
        variant: Variant,
        session: Session,
        workers: Workers,
        options: RuntimeOptions,
        texts: Texts | None = None,
    ) -> None:
        self.texts = texts
        self.manifest = manifest
        self.variant = variant
        self.memo: dict[
            str, Any
        ] = {}  # Any: what each door derives from the manifest, made once and dropped with the model
        self.cost = CostModel(variant.batch_cost, has_length=manifest.signature.has_length)
        self.lanes = Lanes(
            session.run,
            self.cost,
            max_batch=min(variant.max_batch, rows_worth(variant.latency)),
            merges=variant.batch_invariant,
            length=_length(manifest.signature) if manifest.signature.has_length else None,
        )
        self._session = session
        self._workers = workers
        self._batcher = Batcher(
            self.lanes, workers, queue_rows_max=options.queue_rows_max, queue_bytes_max=options.queue_bytes_max
        )
        self._options = options
        self._inline_ns_max = options.inline_us_max * 1000
        self._inline_runs = 0

    @property
    def resident_bytes(self) -> int:
        """Measured by the publisher, at least the size of the file: what this model's memory is billed by.

        Not measured here: in a process that serves, everything else allocates at the same time.
        """
        graph_bytes = max(self.variant.resident_bytes or 0, self.manifest.file(self.variant.file).size)
        return graph_bytes + (self.texts.resident_bytes if self.texts else 0)

    @property
    def queue_fullness(self) -> float:
        """What waits for this model, over `queue_rows_max` and `queue_bytes_max`; 1 means that the next one is refused."""
        return self._batcher.fullness

    def is_inline(self, rows: int) -> bool:
        """Whether a run of so many rows is predicted to be shorter than handing it to a thread."""
        return self._session.threads == 1 and self.cost.is_within(rows, self._inline_ns_max)

    def run_inline(self, inputs: Tensors) -> Tensors:
        """Outputs at once, in this thread. Raises `InvalidInput`, and `DeadlineExceeded` when the run had to be stopped."""
        self._inline_runs += 1
        began_ns = perf_counter_ns()
        watchdog = self._workers.watchdog
        try:
            outputs = self._session.run(inputs, watchdog.begin())
        except DeadlineExceeded:
            self._inline_ns_max = -1  # never again here: a worker's run can be ended by its caller's deadline
            raise
        finally:
            watchdog.end()
        if self._inline_runs % INLINE_SAMPLED:
            return outputs
        run_ns = perf_counter_ns() - began_ns
        with self._workers.lock:
            self.cost.correct(len(next(iter(inputs.values()))), 1, run_ns)
        return outputs

    def measured_run(self, inputs: Tensors, stop: Stop | None = None) -> RunResult:
        """Outputs in this thread, with what they cost; nothing is learnt from it. As long as a first run may take, no longer."""
        return self._session.bounded_run(inputs, self._options.first_run_s, stop)

    async def run(
        self,
        inputs: Tensors,
        rows: int,
        *,
        deadline_ns: int,
        priority: int = 0,
        spent: Spent,
        ragged: Ragged | None = None,
    ) -> BatchShare:
        """Outputs for `rows` rows from a worker, batched with others. `deadline_ns` is on the clock of `time.perf_counter_ns`.

        `priority` is the protocol's: 0 the default, 1 the highest. `spent` is filled whatever happens. Raises `InvalidInput` when
        the graph refuses these rows, `Overloaded` when too much waits, `DeadlineExceeded` at once when the answer is predicted to
        come too late, or as soon as that becomes certain.
        """
        level = self._level(priority)
        if ragged is not None and len(parts := self._parts(ragged)) > 1:
            return await submit_ragged(
                self._batcher,
                self._workers,
                inputs,
                ragged,
                parts,
                deadline_ns=deadline_ns,
                level=level,
                spent=spent,
            )
        if rows > self.variant.max_batch:
            return await submit_in_parts(
                self._batcher,
                self._workers,
                inputs,
                rows,
                step=self.variant.max_batch,
                deadline_ns=deadline_ns,
                level=level,
                spent=spent,
            )
        return await self._batcher.submit(inputs, rows, deadline_ns=deadline_ns, level=level, spent=spent)

    def _parts(self, ragged: Ragged) -> list[NDArray[np.intp]]:
        """Which rows of one request to run together. A variant whose answers depend on padding or on mates runs each alone, a graph
        that cannot be padded those of one length; otherwise a row joins longer ones if its padding costs less than its own run.
        """
        text = self.manifest.text
        if not self.variant.batch_invariant:
            return ragged.parts(1, 0)
        if not isinstance(text, TextInput) or not text.mask:
            return ragged.parts(self.lanes.max_batch, 0)
        with self._workers.lock:
            run_ns, element_ns = self.cost.base_ns + self._workers.forecast.hop_ns, self.cost.row_length_ns
        return ragged.parts(self.lanes.max_batch, run_ns / element_ns if element_ns else math.inf)

    def _level(self, priority: int) -> int:
        if priority < 0:
            raise InvalidInput(f"priority is {priority}; 0 is the default, 1 the highest, larger numbers are lower")
        return min(priority or self._options.priority_default, self._options.priority_levels)


class Loader:
    """Builds models from verified files. One per process: all models share its workers.

    A context manager: leaving it ends what `builder` does, and closes it, within `stop_s`. Tests that close it themselves need not.
    """

    def __init__(
        self, workers: Workers, builder: Executor, options: RuntimeOptions, *, cpu_flags: frozenset[str]
    ) -> None:
        self._workers = workers
        self._builder = builder
        self._options = options
        self._cpu_flags = cpu_flags
        self._jobs: dict[Future[Any], Stop] = {}  # Any: whatever a job gives

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._builder.shutdown(wait=False, cancel_futures=True)
        for stop in list(self._jobs.values()):
            stop()
        if wait(list(self._jobs), self._options.stop_s).not_done:
            logger.warning("a model's build did not stop within %g s (runtime.stop_s)", self._options.stop_s)

    def variant(self, manifest: Manifest) -> Variant:
        """Which variant this host will run; only its files are fetched. Raises `UnsupportedModel`."""
        texts.require(manifest)
        return pick_variant(manifest, self._cpu_flags)

    async def load(
        self, manifest: Manifest, variant: Variant, path: Path, tokenizer: Path | None = None
    ) -> tuple[LoadedModel, int]:
        """A model ready to run, and the CPU nanoseconds its build took. Raises `UnsupportedModel`."""
        try:
            session, reads, cpu_ns = await self._built(
                partial(_build, path, tokenizer, manifest, variant, self._options)
            )
        except ArtifactError as refusal:
            failures.let_go(refusal)
            raise
        return LoadedModel(manifest, variant, session, self._workers, self._options, reads), cpu_ns

    async def answer(self, model: LoadedModel, inputs: Tensors) -> RunResult:
        """One run in the thread that builds models: golden vectors and shadows take no caller's worker.

        They share the CPUs and the arena with callers' runs all the same, and a load waits until they are done.
        Raises `DeadlineExceeded` when it takes longer than `first_run_s`: one that never ends would be this container's last load.
        """
        return await self._built(partial(model.measured_run, inputs))

    async def _built(self, work: Callable[[Stop], T]) -> T:
        """What this gives in the thread that builds models; it is kept until it has ended, whoever still waits for it."""
        stop = Stop()
        job = self._builder.submit(work, stop)
        self._jobs[job] = stop
        job.add_done_callback(self._jobs.pop)
        return await asyncio.wrap_future(job)


def _length(signature: Signature) -> Callable[[Tensors], int]:
    return lambda inputs: signature.length({name: array.shape for name, array in inputs.items()})


def _build(
    path: Path, tokenizer: Path | None, manifest: Manifest, variant: Variant, options: RuntimeOptions, stop: Stop
) -> tuple[Session, Texts | None, int]:
    """Built and run once: a graph whose first run fails for lack of memory never answers a caller."""
    began_ns = thread_time_ns()
    reads = None if tokenizer is None else texts.build(manifest, tokenizer)
    session = Session(
        path,
        manifest,
        optimized_by=variant.optimized_by or "",
        threads=options.threads_per_run,
        run_bytes_max=options.run_bytes_max,
        build_bytes_max=options.build_bytes_max,
    )
    session.warm_up(seconds_max=options.first_run_s, stop=stop)
    memory.trim()
    return session, reads, thread_time_ns() - began_ns
