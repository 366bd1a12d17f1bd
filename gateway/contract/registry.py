"""The small objects that say which manifest a model's version is and which version an alias answers with.

A version is claimed once, by a conditional put, and never changes. The promotion log is append-only and is the truth; the alias
object is its cache, moved by compare-and-swap, and can be rebuilt from the log's last entry.
"""

import msgspec

from gateway.contract.words import Count, Name, Positive, Sha256


class VersionRecord(msgspec.Struct, frozen=True):
    """`models/<name>/versions/<n>.json`."""

    model: Name
    version: Positive
    manifest_sha256: Sha256
    manifest_size: Positive
    published_ns: Count
    run_id: str
    schema_version: int = 1


class Promotion(msgspec.Struct, frozen=True):
    """`models/<name>/log/<generation>.json`, and as it is the content of `models/<name>/aliases/<alias>.json`."""

    model: Name
    alias: Name
    version: Positive
    manifest_sha256: Sha256
    generation: Positive
    actor: str
    reason: str
    promoted_ns: Count
    schema_version: int = 1
