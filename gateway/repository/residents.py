"""Which models are in memory, and who answers for a name right now.

A model is loaded on its first call, once, however many callers wait. A name without a version follows the champion alias: a poll
sees it move, the new version is loaded beside the old one and swapped in when it can answer; a version that cannot be loaded is
reported and the old one stays. Requests in flight keep the model they started with.
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from gateway.contract.manifest import Manifest, Variant
from gateway.contract.registry import Promotion
from gateway.errors import GatewayError, ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.repository.blobs import BlobCache
from gateway.repository.registry import Registry

logger = logging.getLogger(__name__)
M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class RepositoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`poll_s`: how soon a promotion is followed. `unknown_s`: how long "no such model" is believed without asking the store."""

    poll_s: float = 5.0
    unknown_s: float = 2.0
    unknown_max: int = 1024
    cache_dir: str = ""


class ModelLoader(Protocol[M_co]):
    """What turns verified files into a model; `gateway.runtime.model.Loader` is one."""

    def variant(self, manifest: Manifest) -> Variant: ...

    async def load(self, manifest: Manifest, variant: Variant, path: Path) -> tuple[M_co, int]: ...


class Resident(msgspec.Struct, Generic[M], frozen=True):
    """A version in memory."""

    name: str
    version: int
    manifest: Manifest
    variant: Variant
    model: M
    loaded_ns: int


class ResidencyObserver(Protocol[M]):
    """Who is told when a model enters and leaves memory: the meter, for residency and load cost."""

    def loaded(self, resident: Resident[M], cpu_ns: int) -> None: ...

    def unloaded(self, resident: Resident[M]) -> None: ...


class _Following(msgspec.Struct, Generic[M]):
    """The state of one alias-followed name: what answers, what the alias says, and what went wrong since."""

    resident: Resident[M]
    etag: str
    problem: str = ""


class Repository(Generic[M]):
    """All public methods run on the event loop. `close` ends the polling."""

    def __init__(
        self,
        store: ObjectStore,
        loader: ModelLoader[M],
        observer: ResidencyObserver[M],
        options: RepositoryOptions,
        *,
        cache_dir: Path,
    ) -> None:
        self.registry = Registry(store)
        self._blobs = BlobCache(store, cache_dir)
        self._loader = loader
        self._observer = observer
        self._options = options
        self._following: dict[str, _Following[M]] = {}
        self._versions: dict[tuple[str, int], Resident[M]] = {}
        self._loading: dict[tuple[str, int | None], asyncio.Task[Resident[M]]] = {}
        self._unknown: dict[tuple[str, int | None], tuple[float, ModelNotFound]] = {}

    async def ready(self, name: str, version: int | None = None) -> Resident[M]:
        """The model that answers this name, loaded if need be. Raises `ModelNotFound`, an `ArtifactError` or a store error."""
        return self.resident(name, version) or await self._load_once(name, version)

    def resident(self, name: str, version: int | None = None) -> Resident[M] | None:
        """The same, only if it is in memory."""
        if version is None:
            following = self._following.get(name)
            return following.resident if following else None
        return self._versions.get((name, version))

    def residents(self) -> list[tuple[Resident[M], str]]:
        """Everything in memory, each with the last problem of its alias ("" when there is none)."""
        problems = {f.resident.name: f.problem for f in self._following.values()}
        return [(resident, problems.get(resident.name, "")) for resident in self._versions.values()]

    async def follow(self) -> None:
        """Polls the aliases of all loaded names until cancelled."""
        while True:
            await asyncio.sleep(self._options.poll_s)
            await asyncio.gather(*(self._follow_one(name) for name in list(self._following)))

    def close(self) -> None:
        """Forget everything; the observer hears of each."""
        for task in self._loading.values():
            task.cancel()
        for resident in self._versions.values():
            self._observer.unloaded(resident)
        self._versions.clear()
        self._following.clear()

    async def _load_once(self, name: str, version: int | None) -> Resident[M]:
        """One load per name and version at a time; a caller that leaves does not end it for the others."""
        key = (name, version)
        self._refuse_known_unknown(key)
        task = self._loading.get(key)
        if task is None:
            load = self._load_champion(name) if version is None else self._load_version(name, version)
            task = self._loading[key] = asyncio.create_task(load)
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        try:
            return await asyncio.shield(task)
        except ModelNotFound as unknown:
            self._remember_unknown(key, unknown)
            raise

    def _refuse_known_unknown(self, key: tuple[str, int | None]) -> None:
        until, error = self._unknown.get(key, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise ModelNotFound(str(error))

    def _remember_unknown(self, key: tuple[str, int | None], error: ModelNotFound) -> None:
        if len(self._unknown) >= self._options.unknown_max:
            self._unknown.clear()
        self._unknown[key] = (time.monotonic() + self._options.unknown_s, error)

    async def _load_champion(self, name: str) -> Resident[M]:
        state = await self.registry.alias(name)
        resident = await self._load(name, state.promotion.version, state.promotion.manifest_sha256)
        self._following[name] = _Following(resident, state.etag)
        return resident

    async def _load_version(self, name: str, version: int) -> Resident[M]:
        record = await self.registry.version(name, version)
        return await self._load(name, version, record.manifest_sha256)

    async def _load(self, name: str, version: int, manifest_sha256: str) -> Resident[M]:
        if resident := self._versions.get((name, version)):
            return resident
        manifest = await self.registry.manifest(name, manifest_sha256)
        variant = self._loader.variant(manifest)
        path = await self._blobs.fetch(name, manifest.file(variant.file))
        model, cpu_ns = await self._loader.load(manifest, variant, path)
        if resident := self._versions.get((name, version)):
            return resident  # asked for by alias and by number at once; the other load was first
        resident = Resident(name, version, manifest, variant, model, time.time_ns())
        self._versions[name, version] = resident
        self._observer.loaded(resident, cpu_ns)
        logger.info("loaded %s@%d variant %s in %d ms of CPU", name, version, variant.id, cpu_ns // 1_000_000)
        return resident

    async def _follow_one(self, name: str) -> None:
        following = self._following[name]
        try:
            state = await self.registry.alias_if_changed(name, following.etag)
            if state is None:
                return
            await self._swap(following, state.promotion)
        except GatewayError as error:
            if following.problem != str(error):
                logger.warning("%s@%d stays: %s", name, following.resident.version, error)
            following.problem = str(error)
        else:
            following.etag, following.problem = state.etag, ""

    async def _swap(self, following: _Following[M], promotion: Promotion) -> None:
        old = following.resident
        if promotion.version == old.version:
            return
        following.resident = await self._load(old.name, promotion.version, promotion.manifest_sha256)
        self._versions.pop((old.name, old.version), None)
        self._observer.unloaded(old)
        logger.info("%s: version %d answers instead of %d", old.name, promotion.version, old.version)
