"""Who answers for one alias of one model right now: its champion, canaries by weight, a shadow. No loading, no store.

A caller's key decides between champion and canaries for as long as the weights stand, in every process and container: the key's
place on a circle of 10,000 comes from a hash of model, alias and key, and canaries take their shares from the circle's start in
the order of the release. Raising one canary's weight keeps the callers it had. Without a key each request draws its own place.
"""

import hashlib
import random
import time
from typing import Generic

import msgspec

from gateway.contract.registry import WHOLE_BP, Promotion
from gateway.repository.loading import M
from gateway.repository.memory import Key, Resident
from gateway.repository.shadows import Comparison, ShadowRun


class CanaryState(msgspec.Struct, frozen=True):
    """One canary as it stands in this process; one that is not loaded leaves its share to the champion."""

    version: int
    weight_bp: int
    is_loaded: bool


class ServingState(msgspec.Struct, frozen=True):
    """An alias as it stands in this process, for people and metrics. `comparison` is the shadow's, when one runs.

    `version` may be older than the alias says: then `problem` says why, or a load is under way.
    """

    name: str
    alias: str
    generation: int
    version: int
    calls: int
    canaries: tuple[CanaryState, ...]
    shadow_version: int | None
    comparison: Comparison | None
    problem: str


class Serving(Generic[M]):
    """`promotion` None: a version asked for by number, which no alias moves. `etag` belongs to the alias as last read."""

    def __init__(self, name: str, alias: str, champion: Resident[M], promotion: Promotion | None, etag: str) -> None:
        self.name = name
        self.alias = alias
        self.champion = champion
        self.promotion = promotion
        self.etag = etag
        self.canaries: tuple[tuple[int, int, Resident[M]], ...] = ()
        """Ranges [start, stop) of the circle, with who answers there."""
        self.shadow: ShadowRun | None = None
        self.shadow_resident: Resident[M] | None = None
        self.refusal = ""
        """Why the release that the alias names was refused. It is not fetched again until the alias moves; one that only lacks a
        signature is looked at again with every poll.
        """
        self.trouble = ""
        """What kept the last look at the alias from working."""
        self.missing: dict[int, str] = {}
        """Canaries and shadow that could not be loaded, by version, and why."""
        self.refused: set[int] = set()
        """Those of them that no further try will mend."""
        self.calls = 0
        self.calls_seen = 0
        self.used_s = self.looked_s = time.monotonic()
        self.is_asleep = False
        self._circle = hashlib.blake2b(f"{name}/{alias}/".encode(), digest_size=8)

    @property
    def asked(self) -> tuple[str, str]:
        return self.name, self.alias

    def choose(self, key: str) -> Resident[M]:
        """Who answers a caller with this key; "" is nobody in particular."""
        if not self.canaries:
            return self.champion
        if key:
            digest = self._circle.copy()
            digest.update(key.encode("utf-8", "surrogatepass"))
            place = int.from_bytes(digest.digest(), "big") % WHOLE_BP
        else:
            place = random.randrange(WHOLE_BP)  # noqa: S311 - spreads requests, hides nothing
        for start, stop, resident in self.canaries:
            if start <= place < stop:
                return resident
        return self.champion

    def arrange(self, loaded: dict[int, Resident[M]]) -> None:
        """Give their shares to those canaries of the release that are in memory."""
        assert self.promotion is not None
        ranges = []
        start = 0
        for canary in self.promotion.canaries:
            stop = start + canary.weight_bp
            if canary.version in loaded:
                ranges.append((start, stop, loaded[canary.version]))
            start = stop
        self.canaries = tuple(ranges)

    def followers(self) -> list[Resident[M]]:
        """Who is in memory only because the champion is."""
        residents = [resident for _, _, resident in self.canaries]
        return residents if self.shadow_resident is None else [*residents, self.shadow_resident]

    def resident_keys(self) -> set[Key]:
        return {self.champion.key, *(resident.key for resident in self.followers())}

    @property
    def problem(self) -> str:
        """One sentence or several, "" when all is as the alias says."""
        return "; ".join(filter(None, (self.refusal, *self.missing.values(), self.trouble)))

    def state(self) -> ServingState:
        canaries = self.promotion.canaries if self.promotion else ()
        loaded = {resident.version for _, _, resident in self.canaries}
        return ServingState(
            name=self.name,
            alias=self.alias,
            generation=self.promotion.generation if self.promotion else 0,
            version=self.champion.version,
            calls=self.calls,
            canaries=tuple(CanaryState(c.version, c.weight_bp, c.version in loaded) for c in canaries),
            shadow_version=self.shadow.version if self.shadow else None,
            comparison=self.shadow.comparison if self.shadow else None,
            problem=self.problem,
        )
