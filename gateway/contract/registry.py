"""The small objects that say which manifest a model's version is and which versions an alias answers with.

A version is claimed once, by a conditional put, and never changes. The promotion log is append-only and is the truth; the alias
object is its cache, moved by compare-and-swap, and can be rebuilt from the log's last entry.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.contract.words import Count, Name, Positive, Sha256

WHOLE_BP = 10_000
"""All requests, in basis points (hundredths of a percent): shares are integers, so that they add up exactly."""

Share = Annotated[int, Meta(ge=1, le=WHOLE_BP)]


class VersionRecord(msgspec.Struct, frozen=True):
    """`models/<name>/versions/<n>.json`."""

    model: Name
    version: Positive
    manifest_sha256: Sha256
    manifest_size: Positive
    published_ns: Count
    run_id: str
    schema_version: int = 1


class Canary(msgspec.Struct, frozen=True):
    """A version that answers `weight_bp` of the alias's requests, in basis points; the champion answers the rest."""

    version: Positive
    manifest_sha256: Sha256
    weight_bp: Share


class Shadow(msgspec.Struct, frozen=True):
    """A version that runs beside the champion on `sample_bp` of its requests; its answers are compared and never returned."""

    version: Positive
    manifest_sha256: Sha256
    sample_bp: Share


class Promotion(msgspec.Struct, frozen=True, omit_defaults=True):
    """`models/<name>/log/<generation>.json`, and as it is the content of `models/<name>/aliases/<alias>.json`.

    Each entry is the alias's whole state: its champion (`version`), canaries and shadow. `restores` is the generation whose state
    a rollback brought back, 0 for any other decision. What is empty is not written, so an alias without canaries has the bytes
    it always had, and readers from before them go on with the champion alone.
    """

    model: Name
    alias: Name
    version: Positive
    manifest_sha256: Sha256
    generation: Positive
    actor: str
    reason: str
    promoted_ns: Count
    canaries: tuple[Canary, ...] = ()
    shadow: Shadow | None = None
    restores: Count = 0
    schema_version: int = msgspec.field(default_factory=lambda: 1)  # a factory's value is always written

    def __post_init__(self) -> None:
        if sum(canary.weight_bp for canary in self.canaries) > WHOLE_BP:
            raise ValueError("the canaries' weights are more than all requests")
        others = [canary.version for canary in self.canaries]
        if len({self.version, *others}) != 1 + len(others):
            raise ValueError(f"version {self.version} and its canaries {others} must all differ")
