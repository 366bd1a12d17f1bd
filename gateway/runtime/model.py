"""A model version that can answer: its manifest, the variant this CPU runs, and how a run is scheduled.

A run predicted to be shorter than a thread hop happens at once on the event loop; a longer one goes to the batcher's workers.
"""

import asyncio
from concurrent.futures import Executor
from pathlib import Path
from time import thread_time_ns
from typing import Any

import msgspec
import numpy as np

from gateway.contract.manifest import Manifest, Variant
from gateway.runtime.batcher import Batcher, BatchShare
from gateway.runtime.session import Session, pick_variant
from gateway.runtime.tensors import Tensors


class RuntimeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`workers` 0 means one per CPU this container may use. `inline_us_max`: a thread hop costs about 100 us round trip."""

    workers: int = 0
    queue_rows_max: int = 4096
    inline_us_max: int = 200


class LoadedModel:
    """What the repository keeps resident and the data plane runs."""

    def __init__(
        self, manifest: Manifest, variant: Variant, session: Session, batcher: Batcher, *, inline_ns_max: int
    ) -> None:
        self.manifest = manifest
        self.variant = variant
        self.memo: dict[
            str, Any
        ] = {}  # Any: what each door derives from the manifest, made once and dropped with the model
        self._session = session
        self._batcher = batcher
        self._inline_ns_max = inline_ns_max

    @property
    def resident_bytes(self) -> int:
        """Measured by the publisher where it could, else the size of the file: what this model's memory is billed by."""
        return self.variant.resident_bytes or self.manifest.file(self.variant.file).size

    def is_inline(self, rows: int) -> bool:
        """Whether a run of so many rows is predicted to be shorter than handing it to a thread."""
        cost = self.variant.batch_cost
        return cost is not None and cost.base_ns + cost.row_ns * rows <= self._inline_ns_max

    def run_inline(self, inputs: Tensors) -> Tensors:
        """Outputs at once, in this thread. Raises `InvalidInput`."""
        return self._session.run(inputs)

    async def run(self, inputs: Tensors, rows: int) -> BatchShare:
        """Outputs for `rows` rows from a worker, batched with others. Raises `InvalidInput` or `Overloaded`."""
        if self.variant.max_batch < rows:
            return await self._run_in_parts(inputs, rows)
        return await self._batcher.submit(inputs, rows)

    async def _run_in_parts(self, inputs: Tensors, rows: int) -> BatchShare:
        """A request larger than the variant's largest batch runs in several, one after the other."""
        step = self.variant.max_batch
        parts = [
            await self.run({name: array[at : at + step] for name, array in inputs.items()}, min(step, rows - at))
            for at in range(0, rows, step)
        ]
        return BatchShare(
            outputs={name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs},
            cpu_ns=sum(part.cpu_ns for part in parts),
            run_ns=sum(part.run_ns for part in parts),
            queue_ns=sum(part.queue_ns for part in parts),
            batch_rows=step,
        )


class Loader:
    """Builds models from verified files. One per process: all models share its workers."""

    def __init__(
        self, executor: Executor, builder: Executor, options: RuntimeOptions, *, workers: int, cpu_flags: frozenset[str]
    ) -> None:
        self._executor = executor
        self._builder = builder
        self._options = options
        self._workers = workers
        self._cpu_flags = cpu_flags

    def variant(self, manifest: Manifest) -> Variant:
        """Which variant this host will run; only its files are fetched."""
        return pick_variant(manifest, self._cpu_flags)

    async def load(self, manifest: Manifest, variant: Variant, path: Path) -> tuple[LoadedModel, int]:
        """A model ready to run, and the CPU nanoseconds its build took. Raises `UnsupportedModel`."""
        session, cpu_ns = await asyncio.get_running_loop().run_in_executor(self._builder, _build, path, manifest)
        batcher = Batcher(
            session.measured_run,
            self._executor,
            workers=self._workers,
            max_batch=variant.max_batch if variant.batch_invariant else 1,
            queue_rows_max=self._options.queue_rows_max,
        )
        model = LoadedModel(manifest, variant, session, batcher, inline_ns_max=self._options.inline_us_max * 1000)
        return model, cpu_ns


def _build(path: Path, manifest: Manifest) -> tuple[Session, int]:
    began_ns = thread_time_ns()
    return Session(path, manifest), thread_time_ns() - began_ns
