"""A snapshot as the bytes of a checkpoint's files, and back, every digest checked on the way in. Touches no store.

The heavy half of a save: the store runs it in a worker thread.
"""

import json
from typing import Any  # Any: JSON trees

import msgspec
import safetensors
import safetensors.torch

from gateway.contract import codec
from gateway.contract.checkpoint import FACTS, MANIFEST, STATE, CheckpointFile, CheckpointManifest
from gateway.errors import DigestMismatch, ManifestInvalid
from trainers.checkpoint import state
from trainers.checkpoint.state import Snapshot


class Packed(msgspec.Struct, frozen=True):
    """What to write, in this order: the files, then the manifest, which commits them."""

    files: tuple[tuple[CheckpointFile, bytes], ...]
    manifest: CheckpointFile


def pack(snapshot: Snapshot, draft: CheckpointManifest) -> Packed:
    """The bytes of all files; `draft` is the manifest without its files."""
    facts = {"facts": state.facts_json(snapshot.facts), "parts": snapshot.parts}
    files = (
        _described(STATE, safetensors.torch.save(dict(snapshot.tensors))),
        _described(FACTS, json.dumps(facts, allow_nan=False).encode()),  # the shortest floats that read back exactly
    )
    described = tuple(file for file, _ in files)
    manifest = _described(MANIFEST, codec.encode(msgspec.structs.replace(draft, files=described)))
    return Packed((*files, manifest), manifest[0])


def unpack(manifest: CheckpointManifest, files: dict[str, bytes]) -> Snapshot:
    """Raises `ManifestInvalid` for bytes that no `pack` made; their digests were checked by `verify`."""
    try:
        tensors = safetensors.torch.load(files[STATE])
        facts: dict[str, Any] = json.loads(files[FACTS])
        return Snapshot(
            step=manifest.step, tensors=tensors, parts=facts["parts"], facts=state.decode(facts["facts"], {})
        )
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ManifestInvalid(
            f"the files of the checkpoint of step {manifest.step} are no checkpoint: {error}"
        ) from error


def verify(file: CheckpointFile, data: bytes) -> None:
    """Raises `DigestMismatch` when these are not the file's bytes."""
    if len(data) != file.size or codec.sha256(data) != file.sha256:
        raise DigestMismatch(f"'{file.name}' is not what its manifest says: {len(data)} bytes, expected {file.size}")


def _described(name: str, data: bytes) -> tuple[CheckpointFile, bytes]:
    return CheckpointFile(name=name, sha256=codec.sha256(data), size=len(data)), data
