"""A repository over a real store with a loader whose models weigh what a test says, and one with the real loader."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gateway.contract.ledger import Phases
from gateway.contract.manifest import Manifest, Variant
from gateway.errors import UnsupportedModel
from gateway.objectstore.protocol import ObjectStore, StoredObject
from gateway.registry.signatures import PinnedKeys
from gateway.repository.memory import Resident
from gateway.repository.residents import Repository, RepositoryOptions
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.session import RunResult
from gateway.runtime.workers import Workers
from tests.support.manualclock import LIMIT_S
from tests.support.memorystore import MemoryStore


class Weight:
    """A model that only weighs. It remembers its manifest, so that a test can tell two apart."""

    def __init__(self, manifest: Manifest, resident_bytes: int) -> None:
        self.manifest = manifest
        self.resident_bytes = resident_bytes


class WeighingLoader:
    """Builds a `Weight` of `weights[name]` bytes, 1,000 by default. Names in `broken` cannot be built; `gate` holds builds up."""

    def __init__(self, weights: Mapping[str, int] | None = None) -> None:
        self.weights = dict(weights or {})
        self.broken: set[str] = set()
        self.built: Counter[str] = Counter()
        self.building = self.building_max = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def variant(self, manifest: Manifest) -> Variant:
        promised = self.weights.get(manifest.model, 1000)
        return msgspec.structs.replace(manifest.variant(manifest.serve), resident_bytes=promised)

    async def load(
        self, manifest: Manifest, variant: Variant, path: Path, tokenizer: Path | None = None
    ) -> tuple[Weight, int]:
        self.building += 1
        self.building_max = max(self.building, self.building_max)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if manifest.model in self.broken:
                raise UnsupportedModel(f"model '{manifest.model}' is broken")
            self.built[manifest.model] += 1
            return Weight(manifest, self.weights.get(manifest.model, 1000)), 1_000_000
        finally:
            self.building -= 1

    async def answer(self, model: Weight, inputs: dict[str, Any]) -> RunResult:
        return RunResult({"scores": np.zeros((1, 1), np.float32)}, 1, 1)


class Observed:
    """Who entered and left memory, in order, and what each load spent."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []
        self.cpu_ns: list[int] = []
        self.spent: list[Phases] = []

    def loaded(self, resident: Resident[Any], cpu_ns: int, spent: Phases) -> None:
        self.events.append(("in", resident.name, resident.version))
        self.cpu_ns.append(cpu_ns)
        self.spent.append(spent)

    def shadowed(self, resident: Resident[Any], rows: int, cpu_ns: int, run_ns: int) -> None:
        """Only whole gateways post what a shadow costs."""

    def unloaded(self, resident: Resident[Any]) -> None:
        self.events.append(("out", resident.name, resident.version))

    @property
    def inside(self) -> set[tuple[str, int]]:
        inside: set[tuple[str, int]] = set()
        for what, name, version in self.events:
            if what == "in":
                assert (name, version) not in inside, "entered twice"
                inside.add((name, version))
            else:
                inside.remove((name, version))
        return inside


class CountingStore(MemoryStore):
    """Counts reads by kind of object."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    async def get(self, key: str) -> StoredObject:
        self.reads[key.split("/")[2]] += 1
        return await super().get(key)


@contextlib.asynccontextmanager
async def weighing(
    store: ObjectStore,
    folder: Path,
    loader: WeighingLoader | None = None,
    *,
    kept: tuple[str, ...] = (),
    container_bytes: int = 0,
    pinned: PinnedKeys | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Repository[Weight], WeighingLoader, Observed]]:
    """With no alias ever looked at unless the test does so."""
    observed, loader = Observed(), loader or WeighingLoader()
    chosen = RepositoryOptions(**{"refused_s": 0.0, **options})
    repository = Repository(
        store,
        loader,
        observed,
        chosen,
        cache_dir=folder / "cache",
        kept=kept,
        container_bytes=container_bytes,
        pinned=pinned,
    )
    try:
        yield repository, loader, observed
    finally:
        await repository.aclose()
        assert observed.inside == set()


@contextlib.asynccontextmanager
async def real(store: ObjectStore, folder: Path, **options: Any) -> AsyncIterator[Repository[LoadedModel]]:
    """With onnxruntime."""
    runtime = RuntimeOptions()
    with Workers(1, levels=runtime.priority_levels, ageing_ns=0) as workers, ThreadPoolExecutor(1) as builder:
        loader = Loader(workers, builder, runtime, cpu_flags=frozenset())
        chosen = RepositoryOptions(**{"refused_s": 0.0, **options})
        repository = Repository(store, loader, Observed(), chosen, cache_dir=folder / "cache")
        try:
            yield repository
        finally:
            await repository.aclose()


async def followed(repository: Repository[Any], name: str, alias: str = "champion") -> None:
    """One look at an alias, to its end."""
    await repository._follower.look(repository._roster.following[name, alias])


async def settled(repository: Repository[Any]) -> None:
    """What the aliases name beside their champions is loaded and in use: no look is under way that could still hold it."""
    await until(lambda: not repository._follower._looks)


async def until(condition: "Any", *, seconds: float = LIMIT_S) -> None:  # Any: a callable without arguments
    """Let the loop run until it is so; a limit, not a measurement."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.001)
