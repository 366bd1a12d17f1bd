"""What it cost to train a version, as its manifest in the store states. A report goes on without it and says why."""

import asyncio
from collections.abc import Iterable

import msgspec
from msgspec import UNSET

from gateway.errors import ArtifactError, ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry

FETCHES = 8  # two small objects each


class Known(msgspec.Struct, frozen=True):
    """None is unpriced; then `reason` is empty, or says why the manifest could not be read.

    `wasted_picousd` is the part that interruptions cost; None also where the manifest says nothing about it.
    """

    cost_picousd: int | None
    reason: str = ""
    wasted_picousd: int | None = None


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
            return Known(None, str(error))
    cost = manifest.training_cost
    wasted = None if cost.wasted_picousd is UNSET else cost.wasted_picousd
    return Known(cost.cost_picousd, wasted_picousd=wasted)
