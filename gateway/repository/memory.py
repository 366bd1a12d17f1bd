"""Which model versions are in memory: loads each once, checks it, weighs it, and makes room for it within a budget.

Knows no aliases: `gateway.repository.roster` says what is needed and which residents go together. A model is in memory when its
files are verified, its session is built and its golden vectors came out right (`loading`); until then nobody sees it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from typing import Generic, Protocol

import msgspec

from gateway.contract.ledger import Phases
from gateway.contract.manifest import Manifest, Variant
from gateway.errors import ModelNotReady, UnsupportedModel
from gateway.registry.reading import Registry
from gateway.repository import eviction, loading
from gateway.repository.blobs import BlobCache
from gateway.repository.eviction import Candidate, Use, victims
from gateway.repository.loading import M, ModelLoader
from gateway.repository.unloading import Unloader

logger = logging.getLogger(__name__)

Key = tuple[str, int]
"""A model's name and a version's number."""

Verify = Callable[[Manifest, str], Awaitable[str]]
"""Which pinned key signed the artifact whose manifest has this digest. Raises `SignatureInvalid`, or a store error."""


class Resident(msgspec.Struct, Generic[M], frozen=True, eq=False):
    """A version in memory. `reload_ns`: what loading it took, from files on disk to ready; `use`: how it is used since.

    `signed_by`: the id of the pinned key that signed it, "" when none is pinned and nothing was asked.
    """

    name: str
    version: int
    manifest: Manifest
    variant: Variant
    model: M
    loaded_ns: int
    reload_ns: int = 0
    use: Use = msgspec.field(default_factory=Use)
    signed_by: str = ""

    @property
    def key(self) -> Key:
        return self.name, self.version


class ResidencyObserver(Protocol[M]):
    """Who is told when a model enters and leaves memory, and what a shadow's run cost: the meter."""

    def loaded(self, resident: Resident[M], cpu_ns: int, spent: Phases) -> None: ...

    def unloaded(self, resident: Resident[M]) -> None: ...

    def shadowed(self, resident: Resident[M], rows: int, cpu_ns: int, run_ns: int) -> None: ...


class MemoryCounts(msgspec.Struct):
    """Since the process began; for metrics."""

    loads: int = 0
    failed_loads: int = 0
    evictions: int = 0
    unchecked: int = 0
    """Loads of artifacts without golden vectors, which older publishers wrote."""


class Memory(Generic[M]):
    """`bytes_max` 0 means no bound. `evictable` names the residents that may go, those that go together in one group; `evicted` is
    told of each that goes. With `verify`, only what passes it is loaded. All methods run on the event loop.
    """

    def __init__(
        self,
        registry: Registry,
        blobs: BlobCache,
        loader: ModelLoader[M],
        observer: ResidencyObserver[M],
        *,
        bytes_max: int,
        loads_max: int,
        evictable: Callable[[], Collection[Sequence[Resident[M]]]],
        evicted: Callable[[Resident[M]], None],
        verify: Verify | None = None,
    ) -> None:
        self.bytes_max = bytes_max
        self.counts = MemoryCounts()
        self.clock = 0.0
        self.held: dict[Key, Resident[M]] = {}
        self._registry = registry
        self._blobs = blobs
        self._loader = loader
        self._observer = observer
        self._evictable = evictable
        self._evicted = evicted
        self._verify = verify
        self._slots = asyncio.Semaphore(loads_max)
        self._loading: dict[Key, asyncio.Task[Resident[M]]] = {}
        self._reserved_bytes = 0
        self._load_ended = asyncio.Condition()
        self._claims: dict[Key, int] = {}
        self._unloader = Unloader()

    @property
    def used_bytes(self) -> int:
        return sum(resident.model.resident_bytes for resident in self.held.values())

    @contextlib.contextmanager
    def claim(self, key: Key) -> Iterator[None]:
        """Between loading a version and putting it to use nobody may find that nobody needs it."""
        self._claims[key] = self._claims.get(key, 0) + 1
        try:
            yield
        finally:
            self._claims[key] -= 1
            if not self._claims[key]:
                del self._claims[key]

    async def load(
        self, name: str, version: int, manifest_sha256: str, *, spare: Collection[Key] = (), leaving_bytes: int = 0
    ) -> Resident[M]:
        """This version, loaded once however many ask; a caller that leaves does not end the load for the others.

        `spare` are residents that must not make room for it, and `leaving_bytes` what those hold that it will replace: a new
        version stands beside the old one for a moment, if need be above the budget. Raises an `ArtifactError`, `ModelNotReady`
        when there is no room, or a store error.
        """
        key = (name, version)
        if resident := self.held.get(key):
            return resident
        task = self._loading.get(key)
        if task is None:
            load = self._load(name, version, manifest_sha256, frozenset(spare), leaving_bytes)
            task = self._loading[key] = asyncio.create_task(load)
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def drop_unless(self, name: str, needed: Collection[Key]) -> None:
        """Unload what is in memory of this model and neither needed nor claimed."""
        for key in [key for key in self.held if key[0] == name and key not in needed and key not in self._claims]:
            self._unload(key)

    async def aclose(self) -> None:
        """End loads, which leave no unfinished file; forget everything, and the observer hears of each."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key in list(self.held):
            self._unload(key)
        await self._unloader.aclose()

    def _ended(self, key: Key, done: "asyncio.Task[Resident[M]]") -> None:
        del self._loading[key]
        if not done.cancelled() and done.exception() is not None:
            self.counts.failed_loads += 1

    async def _load(
        self, name: str, version: int, manifest_sha256: str, spare: frozenset[Key], leaving_bytes: int
    ) -> Resident[M]:
        manifest = await self._registry.manifest(name, manifest_sha256)
        signed_by = await self._verify(manifest, manifest_sha256) if self._verify else ""
        variant = self._loader.variant(manifest)
        promised_bytes = (variant.resident_bytes or manifest.file(variant.file).size) + manifest.tokenizer_bytes_max
        self._require_fits(name, promised_bytes)
        async with self._slots, self._reserved(name, promised_bytes, spare, leaving_bytes):
            loaded = await loading.load(self._blobs, self._loader, manifest, variant)
        self._require_fits(name, loaded.model.resident_bytes)
        self._make_room(name, loaded.model.resident_bytes, spare, leaving_bytes, reserved_bytes=0)
        resident = Resident(
            name,
            version,
            manifest,
            variant,
            loaded.model,
            time.time_ns(),
            loaded.reload_ns,
            Use(clock=self.clock),
            signed_by,
        )
        self.held[resident.key] = resident
        self.counts.loads += 1
        self.counts.unchecked += not loaded.is_checked
        self._observer.loaded(resident, loaded.cpu_ns, loaded.spent)
        logger.info("loaded %s@%d variant %s in %d ms of CPU", name, version, variant.id, loaded.cpu_ns // 1_000_000)
        return resident

    def _require_fits(self, name: str, need_bytes: int) -> None:
        if self.bytes_max and need_bytes > self.bytes_max:
            raise UnsupportedModel(
                f"model '{name}' needs {need_bytes:,} bytes of memory; all models together may have {self.bytes_max:,} "
                "(repository.memory_bytes_max)"
            )

    @contextlib.asynccontextmanager
    async def _reserved(
        self, name: str, need_bytes: int, spare: frozenset[Key], leaving_bytes: int
    ) -> AsyncIterator[None]:
        """Room for a model that is being loaded; waits for other loads to end, since what they make may go again."""
        async with self._load_ended:
            while True:
                try:
                    self._make_room(name, need_bytes, spare, leaving_bytes, reserved_bytes=self._reserved_bytes)
                    break
                except ModelNotReady:
                    if not self._reserved_bytes:
                        raise
                await self._load_ended.wait()
            self._reserved_bytes += need_bytes
        try:
            yield
        finally:
            self._reserved_bytes -= need_bytes
            async with self._load_ended:
                self._load_ended.notify_all()

    def _make_room(
        self, name: str, need_bytes: int, spare: frozenset[Key], leaving_bytes: int, *, reserved_bytes: int
    ) -> None:
        if not self.bytes_max:
            return
        taken_bytes = self.used_bytes - leaving_bytes + reserved_bytes
        excess_bytes = taken_bytes + need_bytes - self.bytes_max
        if excess_bytes <= 0:
            return
        groups = {group[0].key: group for group in self._evictable() if spare.isdisjoint(r.key for r in group)}
        chosen = victims([_candidate(group) for group in groups.values()], excess_bytes)
        if sum(candidate.resident_bytes for candidate in chosen) < excess_bytes:
            raise ModelNotReady(
                f"model '{name}' needs {need_bytes:,} bytes of memory; {taken_bytes:,} of {self.bytes_max:,} "
                "(repository.memory_bytes_max) are taken by models that are preloaded, or being loaded or replaced"
            )
        for candidate in chosen:
            self._evict(groups[candidate.name, candidate.version], candidate.worth)

    def _evict(self, group: Sequence[Resident[M]], worth: float) -> None:
        self.clock = max(self.clock, worth)
        self.counts.evictions += len(group)
        for resident in group:
            logger.info("%s@%d makes room in memory", resident.name, resident.version)
            self._evicted(resident)
            self._unload(resident.key)
        fade = eviction.fade(len(self.held))
        for resident in self.held.values():
            resident.use.count *= fade

    def _unload(self, key: Key) -> None:
        resident = self.held.pop(key, None)
        if resident is None:
            return
        self._observer.unloaded(resident)
        box: list[object] = [resident]
        del resident
        self._unloader.release(box)


def _candidate(group: Sequence[Resident[M]]) -> Candidate:
    """A group goes as one: what it holds and would cost to load again together, and the uses of all."""
    return Candidate(
        name=group[0].name,
        version=group[0].version,
        resident_bytes=sum(resident.model.resident_bytes for resident in group),
        reload_ns=sum(resident.reload_ns for resident in group),
        use=Use(
            count=sum(resident.use.count for resident in group),
            clock=max(resident.use.clock for resident in group),
            running=sum(resident.use.running for resident in group),
        ),
    )
