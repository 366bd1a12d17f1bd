"""The small objects of a run's checkpoints: what a checkpoint consists of and was made by, and which one to resume from.

A checkpoint is committed by its manifest, which is written last. `LATEST` names the checkpoint to resume from and carries the
number of the newest attempt: the token that fences older ones. Files are `state.safetensors` (tensors) and `facts.json`.
"""

from typing import Literal

import msgspec

from gateway.contract.words import Count, FileName, Name, Positive, Sha256

STATE = "state.safetensors"
FACTS = "facts.json"
MANIFEST = "manifest.json"

BitExact = Literal["proven", "best_effort"]
"""Whether all of a run was computed on equal devices, thread counts and libraries (a test proves that this is enough), or not."""


class Origin(msgspec.Struct, frozen=True):
    """What determines the weights: the spec, the data sources by name, and the host (device, threads, versions)."""

    spec_sha256: Sha256
    data_sha256: dict[str, Sha256]
    fingerprint: dict[str, str]


class CheckpointFile(msgspec.Struct, frozen=True):
    name: FileName
    sha256: Sha256
    size: Count


class CheckpointManifest(msgspec.Struct, frozen=True):
    """`runs/<run_id>/checkpoints/<step>-<attempt>/manifest.json`. `step` is the number of steps done."""

    run_id: Name
    step: Count
    attempt: Positive
    saved_ns: Count
    origin: Origin
    bit_exact: BitExact
    files: tuple[CheckpointFile, ...]
    schema_version: int = 1


class CheckpointRef(msgspec.Struct, frozen=True):
    """Names one committed checkpoint; `attempt` is the one that saved it."""

    step: Count
    attempt: Positive
    manifest_sha256: Sha256


class Latest(msgspec.Struct, frozen=True):
    """`runs/<run_id>/checkpoints/LATEST`.

    `attempt` is the newest attempt that began; it may have saved nothing yet, so `checkpoint` may be of an older one, or
    None. `owner` is a nonce of that attempt's process, by which it knows its own claim when an answer was lost.
    """

    attempt: Positive
    owner: str
    checkpoint: CheckpointRef | None
    schema_version: int = 1
