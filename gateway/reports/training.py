"""What training cost: a version's, as its manifest in the store states, and all of it, as the ledger has it by attempts.

A report goes on without a manifest and says why. Much of training may be in no manifest: runs that failed or were stopped.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import UNSET

from gateway.contract.manifest import GpuFigure, TrainingCost
from gateway.contract.runs import MachineUse, TrainingCharge
from gateway.errors import ArtifactError, ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry
from gateway.reports import copied

FETCHES = 8  # two small objects each


class Known(msgspec.Struct, frozen=True):
    """None is unpriced; then `reason` is empty, or says why the manifest could not be read.

    `wasted_picousd` is the part that interruptions cost; None also where the manifest says nothing about it. `published_ns` is None
    for a version that is not in the store. `gpu` are the training job's figures, where it had one. `uses` are what its attempts
    used, None where that is not known; then `unused` says why.
    """

    cost_picousd: int | None
    reason: str = ""
    wasted_picousd: int | None = None
    published_ns: int | None = None
    gpu: tuple[GpuFigure, ...] = ()
    uses: tuple[MachineUse, ...] | None = None
    unused: str = ""


class Spent(msgspec.Struct, frozen=True):
    """All attempts that began in the report's period. Those without a price are counted in `unpriced`, and in no sum.

    `energy_nj` is of GPUs, measured by NVML, and of those attempts that counted it; None when none did.
    """

    runs: int
    attempts: int
    unpriced: int
    elapsed_ns: int
    cost_picousd: int
    wasted_picousd: int
    energy_nj: int | None = None


def spent(paths: Iterable[Path], since_ns: int, until_ns: int, model: str | None) -> Spent | None:
    """None without any attempt; of one model, or of all. Blocking. Raises `ManifestInvalid` naming a file that cannot be read."""
    charges = attempts(paths, since_ns, until_ns, model)
    if not charges:
        return None
    counted = [charge.energy_nj for charge in charges if charge.energy_nj is not UNSET]
    return Spent(
        runs=len({charge.run_id for charge in charges}),
        attempts=len(charges),
        unpriced=sum(charge.cost_picousd is None for charge in charges),
        elapsed_ns=sum(charge.elapsed_ns for charge in charges),
        cost_picousd=sum(charge.cost_picousd or 0 for charge in charges),
        wasted_picousd=sum(charge.wasted_picousd or 0 for charge in charges),
        energy_nj=sum(counted) if counted else None,
    )


def attempts(paths: Iterable[Path], since_ns: int, until_ns: int, model: str | None) -> list[TrainingCharge]:
    """Those that began in the period, of one model or of all. Blocking. Raises as `spent`."""
    every = (copied.record(path, TrainingCharge, "ledger record") for path in paths)
    return [charge for charge in every if since_ns <= charge.from_ns < until_ns and model in {None, charge.model}]


async def costs(store: ObjectStore, versions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Known]:
    """Per model and version. Raises `StoreUnavailable`."""
    registry, slots = Registry(store), asyncio.Semaphore(FETCHES)
    wanted = list(versions)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_cost(registry, slots, *version)) for version in wanted]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return {version: task.result() for version, task in zip(wanted, tasks, strict=True)}


async def _cost(registry: Registry, slots: asyncio.Semaphore, model: str, version: int) -> Known:
    async with slots:
        try:
            record = await registry.version(model, version)
            manifest = await registry.manifest(model, record.manifest_sha256)
        except (ModelNotFound, ArtifactError) as error:
            return Known(None, str(error), unused=str(error))
    cost = manifest.training_cost
    wasted = None if cost.wasted_picousd is UNSET else cost.wasted_picousd
    gpu = () if manifest.gpu is UNSET else manifest.gpu
    uses, unused = _uses(cost)
    return Known(cost.cost_picousd, "", wasted, record.published_ns, gpu, uses, unused)


def _uses(cost: TrainingCost) -> tuple[tuple[MachineUse, ...] | None, str]:
    """A sum without one of them would be too small."""
    if cost.attempts is UNSET:
        return None, "its manifest does not tell attempts: it is older than that, or was imported"
    uses = tuple(attempt.use for attempt in cost.attempts if attempt.use is not UNSET)
    missing = len(cost.attempts) - len(uses)
    if missing:
        return None, f"{missing:,} of its {len(cost.attempts):,} attempts did not record what they used"
    return uses, ""
