"""Puts a finished artifact folder into the object store and lets an alias answer with it; trains and judges nothing.

The order is the protocol: blobs, manifest, signature, version record, promotion log, alias. Each write is conditional, so a crash
leaves nothing that a reader could follow to an incomplete artifact, and the same call again completes it. Called by `trainers.run`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType

from gateway.contract import codec, layout
from gateway.contract.manifest import File, Manifest, Role
from gateway.contract.registry import Promotion, VersionRecord
from gateway.errors import DigestMismatch, PreconditionFailed, ReleaseConflict, RequestError
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from gateway.registry.reading import Registry
from trainers import signing
from trainers.errors import PublishConflict, SpecError

MANIFEST = layout.MANIFEST
MEDIA_TYPES = {
    ".onnx": "application/onnx",
    ".cdx.json": "application/vnd.cyclonedx+json",
    ".json": "application/json",
    ".md": "text/markdown",
    ".png": "image/png",
}
"""By the end of a file's name; the first one that fits."""


def describe(name: str, data: bytes, role: Role) -> File:
    """The manifest's descriptor of one file."""
    media_type = next((kind for end, kind in MEDIA_TYPES.items() if name.endswith(end)), "application/octet-stream")
    return File(name=name, sha256=codec.sha256(data), size=len(data), media_type=media_type, role=role)


def write(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Write the artifact to a new or existing folder; the manifest last, so that its presence means the rest is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        (folder / file.name).write_bytes(contents[file.name])
    (folder / MANIFEST).write_bytes(codec.encode(manifest))


async def publish(
    store: ObjectStore, folder: Path, *, run_id: str, now_ns: int, signer: signing.Signer | None = None
) -> VersionRecord:
    """Upload the artifact in `folder` and claim the next version for it; an artifact already published keeps its version.

    With a signer, its signature is there before the version is, so no reader ever finds it unsigned. Raises `DigestMismatch` when a
    file is not what the manifest says, `SignatureInvalid` when something else lies where the signature belongs, `PublishConflict`
    after `releasing.CLAIMS_MAX` lost claims.
    """
    data = await asyncio.to_thread((folder / MANIFEST).read_bytes)
    manifest = codec.decode(data, Manifest)
    for file in manifest.files:
        await _put_file(store, layout.blob(manifest.model, file.sha256), folder / file.name, file)
    record = VersionRecord(
        model=manifest.model,
        version=1,
        manifest_sha256=codec.sha256(data),
        manifest_size=len(data),
        published_ns=now_ns,
        run_id=run_id,
    )
    await put_once(store, layout.manifest(manifest.model, record.manifest_sha256), data)
    if signer is not None:
        await signing.put(store, folder, signer)
    return await _claim_version(store, record)


async def promote(
    store: ObjectStore,
    *,
    model: str,
    alias: str,
    version: int,
    actor: str,
    reason: str,
    now_ns: int,
    over: releasing.Release | UnsetType | None = UNSET,
) -> Promotion:
    """Let `alias` answer with `version`; a no-op when it does already. `gateway.registry.releasing` is the protocol.

    Another promoter of the same alias who wins the race made a newer decision than the one the caller looked at (`over`, where it
    looked earlier): that is a `PublishConflict`, not a reason to try again. `SpecError` names the versions there are.
    """
    author = releasing.Author(actor=actor, reason=reason, now_ns=now_ns)
    try:
        return await releasing.promote(store, model=model, alias=alias, version=version, author=author, over=over)
    except RequestError as error:
        raise SpecError(str(error)) from error
    except ReleaseConflict as error:
        raise PublishConflict(str(error)) from error


async def put_once(store: ObjectStore, key: str, data: bytes) -> None:
    """Create an object named by its content; one that is there already is accepted when its size is right."""
    try:
        await store.put_if_absent(key, data)
    except PreconditionFailed:
        await _require_size(store, key, len(data))


async def _put_file(store: ObjectStore, key: str, path: Path, file: File) -> None:
    try:
        await store.put_stream_if_absent(key, _chunks(path), sha256=file.sha256, size=file.size)
    except PreconditionFailed:
        await _require_size(store, key, file.size)


async def _chunks(path: Path, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as source:
        while chunk := await asyncio.to_thread(source.read, chunk_bytes):
            yield chunk


async def _require_size(store: ObjectStore, key: str, size: int) -> None:
    """A stored object under a digest was verified when it was written; a different size means the store was tampered with."""
    stored = await store.head(key)
    if stored.size != size:
        raise DigestMismatch(
            f"'{key}' has {stored.size} bytes in the store, {size} were expected; delete it there first"
        )


async def _claim_version(store: ObjectStore, draft: VersionRecord) -> VersionRecord:
    """The existing version of this manifest, or the next free number. A lost claim may have been our own, so look again."""
    known: dict[int, VersionRecord] = {}
    registry = Registry(store)
    for _ in range(releasing.CLAIMS_MAX):
        for number in await registry.versions(draft.model):
            if number not in known:
                known[number] = await registry.version(draft.model, number)
        for record in known.values():
            if record.manifest_sha256 == draft.manifest_sha256:
                return record
        claim = msgspec.structs.replace(draft, version=max(known, default=0) + 1)
        try:
            await store.put_if_absent(layout.version(claim.model, claim.version), codec.encode(claim))
        except PreconditionFailed:
            continue
        return claim
    raise PublishConflict(f"model '{draft.model}': {releasing.CLAIMS_MAX} versions were claimed meanwhile; run again")
