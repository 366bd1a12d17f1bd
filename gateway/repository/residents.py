"""The repository: who answers for a name right now, loaded if need be and kept up with its alias. The data plane asks it.

A model is loaded on its first call, once, however many callers wait. A name follows its alias: a poll sees it move, the new
version is loaded beside the old one and swapped in when it can answer; a release that cannot be is reported and the old one
stays. Requests in flight keep the model they started with.
"""

import asyncio
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic

import msgspec
from msgspec import Meta

from gateway.contract import layout
from gateway.contract.manifest import Manifest
from gateway.contract.words import Count, Positive
from gateway.errors import ArtifactError, ModelNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry, is_number
from gateway.repository.blobs import BlobCache
from gateway.repository.following import Follower, FollowOptions
from gateway.repository.loading import M, ModelLoader
from gateway.repository.memory import Memory, MemoryCounts, ResidencyObserver, Resident
from gateway.repository.roster import Asked, Roster
from gateway.repository.serving import Serving, ServingState
from gateway.repository.shadows import ShadowRun

if TYPE_CHECKING:
    from gateway.registry.signatures import PinnedKeys

__all__ = ["ModelLoader", "Repository", "RepositoryOptions", "ResidencyObserver", "Resident"]


class RepositoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be in memory and on disk, and how often the store is asked.

    `poll_s`: how often an alias is looked at; `polls_max`: how many at once. A name not called for `idle_s` is looked at only so
    often, and for at most `wake_s` before its next call is answered.
    `refused_s`: how long "no such model" or "broken" is believed, for at most `refused_max` names.
    `pinned_max`: versions kept in memory that callers asked for by number and no alias needs; the least recently used goes.
    `memory_bytes_max`: what all models together may hold; 0 means `MEMORY_SHARE` of the container's memory limit.
    `evict_preloaded`: whether preloaded models may leave memory too. `loads_max`: loads at once; each holds a model being built.
    `shadows_max`: how many requests a shadow may be behind before the next is dropped; each keeps its tensors in memory.
    `cache_bytes_max`: of downloaded files, over all processes that share `cache_dir`; 8 GiB leave room on the 20 GiB of disk that a
    Fargate task has. `download_parts_max`: parts of 8 MiB in flight over all downloads, each of them in memory.
    `public_keys`: PEM files, or the PEM itself. With one or more, only versions that one of them signed are loaded.
    """

    poll_s: Annotated[float, Meta(gt=0)] = 5.0
    polls_max: Positive = 8
    idle_s: Annotated[float, Meta(ge=0)] = 60.0
    wake_s: Annotated[float, Meta(ge=0)] = 1.0
    refused_s: Annotated[float, Meta(ge=0)] = 2.0
    refused_max: Positive = 1024
    pinned_max: Positive = 16
    memory_bytes_max: Count = 0
    evict_preloaded: bool = False
    loads_max: Positive = 4
    shadows_max: Positive = 4
    cache_dir: str = ""
    cache_bytes_max: Positive = 8 << 30
    download_parts_max: Positive = 8
    public_keys: tuple[str, ...] = ()


MEMORY_SHARE = 0.6
"""The rest is for the process itself, tensors of requests, and a new version beside the old one."""


class Repository(Generic[M]):
    """All public methods run on the event loop. `aclose` ends the polling.

    `container_bytes`: the container's memory limit, 0 for none. `kept`: names that are not evicted, the preloaded ones. `pinned`:
    the keys of `options.public_keys`, which whoever makes this has read.
    """

    def __init__(
        self,
        store: ObjectStore,
        loader: ModelLoader[M],
        observer: ResidencyObserver[M],
        options: RepositoryOptions,
        *,
        cache_dir: Path,
        container_bytes: int = 0,
        kept: Collection[str] = (),
        pinned: "PinnedKeys | None" = None,
    ) -> None:
        assert bool(options.public_keys) == (pinned is not None), "keys that are configured must be asked"
        self.registry = Registry(store)
        self._options = options
        self._roster: Roster[M] = Roster(() if options.evict_preloaded else kept)
        self._memory = Memory(
            self.registry,
            BlobCache(store, cache_dir, bytes_max=options.cache_bytes_max, parts_max=options.download_parts_max),
            loader,
            observer,
            bytes_max=options.memory_bytes_max or int(container_bytes * MEMORY_SHARE),
            loads_max=options.loads_max,
            evictable=self._roster.evictable,
            evicted=self._roster.forget,
            verify=partial(pinned.signer, self.registry) if pinned else None,
        )
        pace = FollowOptions(options.poll_s, options.polls_max, options.idle_s, options.shadows_max)
        self._follower = Follower(self.registry, self._memory, self._roster, loader, observer, pace)
        self._champions, self._asked, self._shadowed = self._roster.champions, self._roster.asked, self._roster.shadowed
        self._resolving: dict[Asked, asyncio.Task[Serving[M]]] = {}
        self._refused: dict[Asked, tuple[float, type[ModelNotFound | ArtifactError], str]] = {}

    def resident(self, name: str, version: str | None = None, key: str = "") -> Resident[M] | None:
        """Who answers a call of `key` to this name, if it is in memory. `version` is a number or an alias, None the champion."""
        if version is None:
            serving = self._champions.get(name)
            if serving is None:
                return None
        else:
            serving = self._asked.get((name, version))
            if serving is None:
                return None
            if serving.promotion is None:  # asked for by number: now the most recently used
                self._asked[name, version] = self._asked.pop((name, version))
        serving.calls += 1
        resident = serving.choose(key) if serving.canaries else serving.champion
        use = resident.use
        use.count += 1
        use.clock = self._memory.clock
        return resident

    async def ready(self, name: str, version: str | None = None, key: str = "") -> Resident[M]:
        """The same, loaded if need be. Raises `ModelNotFound`, an `ArtifactError`, `ModelNotReady` or a store error."""
        if resident := self.resident(name, version, key):
            return resident
        serving = await self._serving((name, layout.CHAMPION if version is None else version))
        serving.calls += 1
        resident = serving.choose(key)
        resident.use.count += 1
        return resident

    def shadow(self, name: str, version: str | None, resident: Resident[M]) -> ShadowRun | None:
        """The shadow that a request for this name and alias, which `resident` answered, is to be mirrored to; asked once for each.

        Only what the alias's champion of this moment answered: canaries' answers are not compared, nor those to a number.
        """
        if not self._shadowed:
            return None
        serving = self._champions.get(name) if version is None else self._asked.get((name, version))
        if serving is None or serving.shadow is None or serving.champion is not resident:
            return None
        return serving.shadow if serving.shadow.is_sampled() else None

    async def manifest(self, name: str, version: str | None = None) -> Manifest:
        """What is published under this name, without loading it. Raises as `ready` does."""
        asked = layout.CHAMPION if version is None else version
        serving = self._asked.get((name, asked))
        if serving is not None:
            return serving.champion.manifest
        _, sha256 = await self.registry.resolve(name, asked)
        return await self.registry.manifest(name, sha256)

    def residents(self) -> list[tuple[Resident[M], str]]:
        """Everything in memory, each with what keeps its alias from answering as it should ("" when nothing does)."""
        servings = self._roster.following.values()
        problems = {serving.champion.key: serving.problem for serving in servings if serving.problem}
        return [(resident, problems.get(resident.key, "")) for resident in self._memory.held.values()]

    def servings(self) -> list[ServingState]:
        """Every alias that this process follows, with its canaries and what its shadow has shown."""
        return [serving.state() for serving in self._roster.following.values()]

    @property
    def counts(self) -> MemoryCounts:
        """Loads and evictions since the process began."""
        return self._memory.counts

    @property
    def memory_bytes(self) -> tuple[int, int]:
        """What models hold now, and may hold at most (0: no bound)."""
        return self._memory.used_bytes, self._memory.bytes_max

    def unload(self, name: str) -> bool:
        """Take all versions of a model out of memory; whether there were any. Its next call loads it again."""
        servings = [serving for serving in self._roster.servings() if serving.name == name]
        for serving in servings:
            self._roster.drop(serving)
        self._memory.drop_unless(name, ())
        return bool(servings)

    async def follow(self) -> None:
        """Keeps up with the aliases of all loaded names until cancelled."""
        await self._follower.run()

    async def aclose(self) -> None:
        """End everything that is under way and forget everything; the observer hears of each model that leaves."""
        tasks = [*self._resolving.values(), *self._follower.close()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for serving in list(self._roster.servings()):
            self._roster.drop(serving)
        await self._memory.aclose()

    async def _serving(self, asked: Asked) -> Serving[M]:
        if found := self._asked.get(asked):
            return found
        sleeping = self._roster.following.get(asked)
        if sleeping is None:
            return await self._load_once(asked)
        await asyncio.wait([self._follower.look(sleeping)], timeout=self._options.wake_s)
        self._roster.wake(sleeping)
        return sleeping

    async def _load_once(self, asked: Asked) -> Serving[M]:
        """One load per thing asked for at a time; a caller that leaves does not end it for the others."""
        self._repeat_refusal(asked)
        task = self._resolving.get(asked)
        if task is None:
            load = self._load_number(asked) if is_number(asked[1]) else self._load_alias(asked)
            task = self._resolving[asked] = asyncio.create_task(load)
            task.add_done_callback(lambda done: self._resolved(asked, done))
        try:
            return await asyncio.shield(task)
        except (ModelNotFound, ArtifactError) as refusal:
            self._remember_refusal(asked, refusal)
            raise

    def _resolved(self, asked: Asked, done: "asyncio.Task[Serving[M]]") -> None:
        self._resolving.pop(asked, None)
        if not done.cancelled():
            done.exception()  # its callers may all have left: their business is not the log's

    def _repeat_refusal(self, asked: Asked) -> None:
        until, kind, sentence = self._refused.get(asked, (0.0, ModelNotFound, ""))
        if time.monotonic() < until:
            raise kind(sentence)

    def _remember_refusal(self, asked: Asked, refusal: ModelNotFound | ArtifactError) -> None:
        if len(self._refused) >= self._options.refused_max:
            self._refused.clear()
        # Not the error itself: its traceback would hold on to the model that was refused.
        self._refused[asked] = (time.monotonic() + self._options.refused_s, type(refusal), str(refusal))

    async def _load_alias(self, asked: Asked) -> Serving[M]:
        name, alias = asked
        state = await self.registry.alias(name, alias)
        promotion = state.promotion
        with self._memory.claim((name, promotion.version)):
            champion = await self._memory.load(name, promotion.version, promotion.manifest_sha256)
            serving = Serving(name, alias, champion, promotion, state.etag)
            self._roster.follow(serving)
        self._follower.complete(serving)
        return serving

    async def _load_number(self, asked: Asked) -> Serving[M]:
        name, number = asked
        record = await self.registry.version(name, int(number))
        with self._memory.claim((name, record.version)):
            resident = await self._memory.load(name, record.version, record.manifest_sha256)
            serving = Serving(name, number, resident, None, "")
            self._roster.pin(serving)
        self._drop_surplus()
        return serving

    def _drop_surplus(self) -> None:
        """Of the versions asked for by number, all but the `pinned_max` most recently used; what an alias needs stays in memory."""
        pinned = self._roster.pinned()
        for serving in pinned[: max(0, len(pinned) - self._options.pinned_max)]:
            self._roster.drop(serving)
            self._memory.drop_unless(serving.name, self._roster.needed(serving.name))
