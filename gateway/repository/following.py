"""Keeps what is served up with its aliases: looks, loads what an alias now names beside the old, swaps, unloads.

What polling costs: one conditional GET per name and interval, at $0.40 per million requests (S3 list price in us-east-1,
aws.amazon.com/s3/pricing): $0.21 a month for a name looked at every 5 s, $41 for 200 of them. Hence a name that nobody calls is
looked at only every `idle_s`, and once more, first, when somebody does: 200 names asleep cost $3.50. The looks of one interval
are spread over it, so that they are never a burst.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic

import msgspec

from gateway.contract.registry import Promotion
from gateway.errors import ArtifactError, GatewayError, ModelNotFound, SignatureInvalid, UnsupportedModel
from gateway.registry.reading import AliasState, Registry
from gateway.repository.loading import M, ModelLoader
from gateway.repository.memory import Memory, ResidencyObserver, Resident
from gateway.repository.outputs import Array
from gateway.repository.roster import Asked, Roster
from gateway.repository.serving import Serving
from gateway.repository.shadows import Ran, ShadowRun

logger = logging.getLogger(__name__)


class FollowOptions(msgspec.Struct, frozen=True):
    """See `gateway.repository.residents.RepositoryOptions`."""

    poll_s: float
    polls_max: int
    idle_s: float
    shadows_max: int


class Follower(Generic[M]):
    """One per repository."""

    def __init__(
        self,
        registry: Registry,
        memory: Memory[M],
        roster: Roster[M],
        loader: ModelLoader[M],
        observer: ResidencyObserver[M],
        options: FollowOptions,
    ) -> None:
        self._registry = registry
        self._memory = memory
        self._roster = roster
        self._loader = loader
        self._observer = observer
        self._options = options
        self._looks: dict[Asked, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(options.polls_max)

    async def run(self) -> None:
        """Look at all aliases that are due, over and over, until cancelled."""
        while True:
            due = self._due()
            for serving in due:
                self.look(serving)
                await asyncio.sleep(self._options.poll_s / len(due))
            if not due:
                await asyncio.sleep(self._options.poll_s)

    def look(self, serving: Serving[M]) -> "asyncio.Task[None]":
        """Look at the alias and follow it; one look at a time. A slow load delays no other name."""
        return self._start(serving, self._look)

    def complete(self, serving: Serving[M]) -> None:
        """Load canaries and shadow of an alias that was just loaded; its champion answers meanwhile."""
        if _lacking(serving):
            self._start(serving, self._complete)

    def close(self) -> list["asyncio.Task[None]"]:
        """Looks that are under way, now cancelled."""
        tasks = list(self._looks.values())
        for task in tasks:
            task.cancel()
        return tasks

    def _due(self) -> list[Serving[M]]:
        """Who is looked at in the coming interval, the longest ago first; those who are not called any more go to sleep."""
        now_s = time.monotonic()
        due = []
        for serving in self._roster.following.values():
            if serving.calls != serving.calls_seen:
                serving.calls_seen, serving.used_s = serving.calls, now_s
            elif now_s - serving.used_s >= self._options.idle_s and serving.name not in self._roster.kept:
                self._roster.sleep(serving)
            if not serving.is_asleep or now_s - serving.looked_s >= self._options.idle_s:
                due.append(serving)
        return sorted(due, key=lambda serving: serving.looked_s)

    def _start(self, serving: Serving[M], work: Callable[[Serving[M]], Awaitable[None]]) -> "asyncio.Task[None]":
        asked = serving.asked
        task = self._looks.get(asked)
        if task is None:
            serving.looked_s = time.monotonic()
            task = self._looks[asked] = asyncio.create_task(self._reported(serving, work))
            task.add_done_callback(lambda _: self._looks.pop(asked, None))
        return task

    async def _reported(self, serving: Serving[M], work: Callable[[Serving[M]], Awaitable[None]]) -> None:
        try:
            await work(serving)
            self._report(serving, "")
        except GatewayError as error:
            self._report(serving, str(error))
        except Exception:  # a bug or a sick machine: say so, keep serving, look again
            logger.exception("%s: following its alias '%s' failed", serving.name, serving.alias)
            self._report(serving, "following the alias failed; the gateway's log has the reason")
        finally:
            if not self._roster.is_served(serving):  # it left memory meanwhile: what was loaded for it is for nobody
                self._memory.drop_unless(serving.name, self._roster.needed(serving.name))

    async def _look(self, serving: Serving[M]) -> None:
        async with self._slots:
            state = await self._registry.alias_if_changed(serving.name, serving.etag, serving.alias)
        if state is not None:
            await self._adopt(serving, state)
        if _lacking(serving):
            await self._complete(serving)

    async def _adopt(self, serving: Serving[M], state: AliasState) -> None:
        """Serve what the alias says now, its champion first; an artifact at fault is refused and the old state stays, whole."""
        promotion, old = state.promotion, serving.champion
        with self._memory.claim((serving.name, promotion.version)):
            try:
                champion = await self._champion(serving, promotion)
            except ArtifactError as error:
                refusal = f"version {promotion.version} is refused: {error}"
                if refusal != serving.refusal:
                    logger.warning("%s@%d stays: %s", serving.name, old.version, refusal)
                serving.refusal = refusal
                if not _may_mend(error):
                    serving.etag = state.etag
                return
            if not self._roster.is_served(serving):
                return  # it was evicted meanwhile
            before = serving.promotion
            assert before is not None
            if champion is not old or promotion.shadow != before.shadow:
                self._roster.set_shadow(serving, None)
            known = {resident.version: resident for resident in [old, *serving.followers()]}
            serving.champion, serving.promotion = champion, promotion
            serving.etag, serving.refusal = state.etag, ""
            serving.missing, serving.refused = {}, set()
            serving.arrange(known)
        if champion is not old:
            logger.info("%s: version %d answers instead of %d", serving.name, champion.version, old.version)
        named = {(serving.name, version) for version in _beside(promotion)}  # `_complete` finds those that are there
        self._memory.drop_unless(serving.name, self._roster.needed(serving.name) | named)

    async def _champion(self, serving: Serving[M], promotion: Promotion) -> Resident[M]:
        old = serving.champion
        if promotion.version == old.version:
            return old
        stays = old.key in self._roster.needed(serving.name, besides=serving)
        return await self._memory.load(
            serving.name,
            promotion.version,
            promotion.manifest_sha256,
            spare=serving.resident_keys(),
            leaving_bytes=0 if stays else old.model.resident_bytes,
        )

    async def _complete(self, serving: Serving[M]) -> None:
        """Load the canaries and the shadow that are not there yet. One that cannot be loaded is reported: its share stays with the
        champion, and the champion stays.
        """
        promotion = serving.promotion
        assert promotion is not None
        wanted = _beside(promotion)
        for version in _lacking(serving):
            with self._memory.claim((serving.name, version)):
                resident = await self._try_load(serving, version, wanted[version])
                if not self._roster.is_served(serving):
                    return
                if resident is not None:
                    self._put_to_use(serving, promotion, resident)

    async def _try_load(self, serving: Serving[M], version: int, manifest_sha256: str) -> Resident[M] | None:
        try:
            await self._check_shadow(serving, version, manifest_sha256)
            resident = await self._memory.load(serving.name, version, manifest_sha256, spare=serving.resident_keys())
        except GatewayError as error:
            if isinstance(error, ArtifactError | ModelNotFound) and not _may_mend(error):
                serving.refused.add(version)
            problem = f"version {version} does not take part in alias '{serving.alias}': {error}"
            if serving.missing.get(version) != problem:
                logger.warning("%s: %s", serving.name, problem)
            serving.missing[version] = problem
            return None
        serving.missing.pop(version, None)
        return resident

    async def _check_shadow(self, serving: Serving[M], version: int, manifest_sha256: str) -> None:
        """A shadow is given the champion's tensors: tokens may mean other words to it. Raises `UnsupportedModel`."""
        shadow = serving.promotion and serving.promotion.shadow
        ours = serving.champion.manifest
        if shadow is None or shadow.version != version or ours.tokenizer is None:
            return
        theirs = await self._registry.manifest(serving.name, manifest_sha256)
        if theirs.tokenizer is not None and (ours.text, ours.tokenizer.sha256) != (
            theirs.text,
            theirs.tokenizer.sha256,
        ):
            raise UnsupportedModel(
                f"it reads text by another tokenizer than version {serving.champion.version}, whose tokens its shadow gets; "
                "compare the two by a canary"
            )

    def _put_to_use(self, serving: Serving[M], promotion: Promotion, resident: Resident[M]) -> None:
        known = {follower.version: follower for follower in serving.followers()}
        serving.arrange(known | {resident.version: resident})
        shadow = promotion.shadow
        if shadow is not None and shadow.version == resident.version:
            run = ShadowRun(
                shadow.version,
                partial(self._answer, resident),
                sample_bp=shadow.sample_bp,
                running_max=self._options.shadows_max,
            )
            self._roster.set_shadow(serving, resident, run)

    async def _answer(self, resident: Resident[M], inputs: dict[str, Array]) -> Ran:
        """A shadow's run, which is charged to its version: no caller asked for it."""
        ran = await self._loader.answer(resident.model, inputs)
        rows = max((len(values) for values in inputs.values()), default=0)
        self._observer.shadowed(resident, rows, ran.cpu_ns, ran.run_ns)
        return ran

    def _report(self, serving: Serving[M], trouble: str) -> None:
        if trouble and trouble != serving.trouble:
            logger.warning("%s@%d stays: %s", serving.name, serving.champion.version, trouble)
        serving.trouble = trouble


def _may_mend(error: GatewayError) -> bool:
    """Everything about a version is for ever but who signed it: a signature may be added while its alias stays."""
    return isinstance(error, SignatureInvalid)


def _beside(promotion: Promotion) -> dict[int, str]:
    """The versions that a release names beside its champion, with their manifests' digests."""
    beside = {canary.version: canary.manifest_sha256 for canary in promotion.canaries}
    if promotion.shadow is not None:
        beside[promotion.shadow.version] = promotion.shadow.manifest_sha256
    return beside


def _lacking(serving: Serving[M]) -> list[int]:
    """Versions that the release names beside its champion, that are not in use here and may still be."""
    if serving.promotion is None:
        return []
    loaded = {resident.version for _, _, resident in serving.canaries}
    lacking = [c.version for c in serving.promotion.canaries if c.version not in loaded]
    shadow = serving.promotion.shadow
    if shadow is not None and serving.shadow is None and shadow.version not in lacking:
        lacking.append(shadow.version)
    return [version for version in lacking if version not in serving.refused]
