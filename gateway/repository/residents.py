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
from gateway.errors import ArtifactError, GatewayError, InvalidInput, ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import AliasState, Registry
from gateway.repository.blobs import BlobCache

logger = logging.getLogger(__name__)
M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class RepositoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`poll_s`: how often promotions are looked for. `refused_s`: how long "no such model" or "broken" is believed.

    `pinned_max`: versions kept in memory that callers asked for by number and no alias answers with; the least recently used goes.
    """

    poll_s: float = 5.0
    refused_s: float = 2.0
    refused_max: int = 1024
    pinned_max: int = 16
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
    """One alias-followed name: what answers, the alias as last seen, and why it did not move on.

    `refusal` stays until the alias changes: a broken release is reported, not fetched again at every poll.
    """

    resident: Resident[M]
    etag: str
    problem: str = ""
    refusal: str = ""


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
        self._refused: dict[tuple[str, int | None], tuple[float, ModelNotFound | ArtifactError]] = {}
        self._polls: dict[str, asyncio.Task[None]] = {}

    async def ready(self, name: str, version: str | int | None = None, key: str = "") -> Resident[M]:
        """The model that answers this name, loaded if need be. Raises `ModelNotFound`, an `ArtifactError` or a store error."""
        number = version_number(version)
        return self.resident(name, number, key) or await self._load_once(name, number)

    def resident(self, name: str, version: str | int | None = None, key: str = "") -> Resident[M] | None:
        """The same, only if it is in memory."""
        if version is None:
            following = self._following.get(name)
            return following.resident if following else None
        number = version_number(version)
        assert number is not None
        resident = self._versions.pop((name, number), None)
        if resident is not None:
            self._versions[name, number] = resident  # now the most recently used
        return resident

    async def manifest(self, name: str, version: int | None = None) -> Manifest:
        """What is published under this name, without loading it. Raises as `ready` does."""
        if resident := self.resident(name, version):
            return resident.manifest
        if version is not None:
            return await self.registry.manifest(name, (await self.registry.version(name, version)).manifest_sha256)
        return await self.registry.manifest(name, (await self.registry.alias(name)).promotion.manifest_sha256)

    def residents(self) -> list[tuple[Resident[M], str]]:
        """Everything in memory, each with the last problem of its alias ("" when there is none)."""
        problems = {f.resident.name: f.problem for f in self._following.values()}
        return [(resident, problems.get(resident.name, "")) for resident in self._versions.values()]

    def unload(self, name: str) -> bool:
        """Take all versions of a model out of memory; whether there were any. Its next call loads it again."""
        keys = [key for key in self._versions if key[0] == name]
        self._following.pop(name, None)
        for key in keys:
            self._observer.unloaded(self._versions.pop(key))
        return bool(keys)

    async def follow(self) -> None:
        """Polls the aliases of all loaded names until cancelled."""
        while True:
            await asyncio.sleep(self._options.poll_s)
            for name in self._following.keys() - self._polls.keys():  # a slow load delays no other name
                self._polls[name] = asyncio.create_task(self._follow_one(name))

    def close(self) -> None:
        """Forget everything; the observer hears of each."""
        for task in (*self._loading.values(), *self._polls.values()):
            task.cancel()
        for resident in self._versions.values():
            self._observer.unloaded(resident)
        self._versions.clear()
        self._following.clear()

    async def _load_once(self, name: str, version: int | None) -> Resident[M]:
        """One load per name and version at a time; a caller that leaves does not end it for the others."""
        key = (name, version)
        self._repeat_refusal(key)
        task = self._loading.get(key)
        if task is None:
            load = self._load_champion(name) if version is None else self._load_version(name, version)
            task = self._loading[key] = asyncio.create_task(load)
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        try:
            return await asyncio.shield(task)
        except (ModelNotFound, ArtifactError) as refusal:
            self._remember_refusal(key, refusal)
            raise

    def _repeat_refusal(self, key: tuple[str, int | None]) -> None:
        until, refusal = self._refused.get(key, (0.0, None))
        if refusal is not None and time.monotonic() < until:
            raise type(refusal)(str(refusal))

    def _remember_refusal(self, key: tuple[str, int | None], refusal: ModelNotFound | ArtifactError) -> None:
        if len(self._refused) >= self._options.refused_max:
            self._refused.clear()
        self._refused[key] = (time.monotonic() + self._options.refused_s, refusal)

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
        self._drop_surplus()
        logger.info("loaded %s@%d variant %s in %d ms of CPU", name, version, variant.id, cpu_ns // 1_000_000)
        return resident

    def _drop_surplus(self) -> None:
        """Of the versions that no alias answers with, all but the `pinned_max` most recently used."""
        followed = {id(following.resident) for following in self._following.values()}
        pinned = [resident for resident in self._versions.values() if id(resident) not in followed]
        for resident in pinned[: max(0, len(pinned) - max(1, self._options.pinned_max))]:
            del self._versions[resident.name, resident.version]
            self._observer.unloaded(resident)

    async def _follow_one(self, name: str) -> None:
        following = self._following.get(name)
        if following is None:
            self._polls.pop(name, None)
            return
        try:
            state = await self.registry.alias_if_changed(name, following.etag)
            if state is not None:
                following.etag, following.refusal = await self._swap_or_refuse(following, state)
            self._report(following, following.refusal)
        except GatewayError as error:
            self._report(following, str(error))
        except Exception:  # a bug or a sick machine: say so, keep serving, look again
            logger.exception("%s: following its alias failed", name)
            self._report(following, "following the alias failed; the gateway's log has the reason")
        finally:
            self._polls.pop(name, None)

    async def _swap_or_refuse(self, following: _Following[M], state: AliasState) -> tuple[str, str]:
        """The etag now dealt with, and why the release was refused ("" when it answers)."""
        try:
            await self._swap(following, state.promotion)
        except ArtifactError as error:
            return state.etag, str(error)
        return state.etag, ""

    def _report(self, following: _Following[M], problem: str) -> None:
        if problem and problem != following.problem:
            logger.warning("%s@%d stays: %s", following.resident.name, following.resident.version, problem)
        following.problem = problem

    async def _swap(self, following: _Following[M], promotion: Promotion) -> None:
        old = following.resident
        if promotion.version == old.version:
            return
        following.resident = await self._load(old.name, promotion.version, promotion.manifest_sha256)
        self._versions.pop((old.name, old.version), None)
        self._observer.unloaded(old)
        logger.info("%s: version %d answers instead of %d", old.name, promotion.version, old.version)


def version_number(text: str | int | None) -> int | None:
    """A version as it stands in a path. Raises `InvalidInput`."""
    if text is None or isinstance(text, int):
        return text
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InvalidInput(f"version '{text[:32]}' is not a number")
    return int(text)
