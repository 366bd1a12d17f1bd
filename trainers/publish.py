"""Puts a finished artifact folder into the object store and lets an alias answer with it; trains and judges nothing.

The order is the protocol: blobs, manifest, version record, promotion log, alias. Each write is conditional, so a crash leaves
nothing that a reader could follow to an incomplete artifact, and the same call again completes it. Called by `trainers.run`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import msgspec

from gateway.contract import codec, layout
from gateway.contract.manifest import File, Manifest, Role
from gateway.contract.registry import Promotion, VersionRecord
from gateway.errors import DigestMismatch, ObjectNotFound, PreconditionFailed
from gateway.objectstore.protocol import ObjectStore
from trainers.errors import PublishConflict, SpecError

MANIFEST = "manifest.json"
CLAIMS_MAX = 64
"""Tries for one conditional write. Each lost try means that another publisher succeeded, so only a crowd ever gets here."""

MEDIA_TYPES = {".onnx": "application/onnx", ".json": "application/json", ".md": "text/markdown"}


def describe(name: str, data: bytes, role: Role) -> File:
    """The manifest's descriptor of one file."""
    media_type = MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
    return File(name=name, sha256=codec.sha256(data), size=len(data), media_type=media_type, role=role)


def write(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Write the artifact to a new or existing folder; the manifest last, so that its presence means the rest is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        (folder / file.name).write_bytes(contents[file.name])
    (folder / MANIFEST).write_bytes(codec.encode(manifest))


async def publish(store: ObjectStore, folder: Path, *, run_id: str, now_ns: int) -> VersionRecord:
    """Upload the artifact in `folder` and claim the next version for it; an artifact already published keeps its version.

    Raises `DigestMismatch` when a file is not what the manifest says, `PublishConflict` after `CLAIMS_MAX` lost claims.
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
    return await _claim_version(store, record)


async def promote(
    store: ObjectStore, *, model: str, alias: str, version: int, actor: str, reason: str, now_ns: int
) -> Promotion:
    """Let `alias` answer with `version`; a no-op when it does already.

    The log decides, the alias follows it. Another promoter of the same alias who wins the race made a newer decision than the one
    the caller looked at: that is a `PublishConflict`, not a reason to try again. `SpecError` names the versions there are.
    """
    record = await _version(store, model, version)
    seen = await _promotions(store, model, alias)
    for _ in range(CLAIMS_MAX):
        if seen.current and seen.current.manifest_sha256 == record.manifest_sha256:
            return await _follow(store, seen.current)
        promotion = Promotion(
            model=model,
            alias=alias,
            version=version,
            manifest_sha256=record.manifest_sha256,
            generation=seen.generation + 1,
            actor=actor,
            reason=reason,
            promoted_ns=now_ns,
        )
        try:
            await store.put_if_absent(layout.promotion(model, promotion.generation), codec.encode(promotion))
        except PreconditionFailed:
            before, seen = seen, await _promotions(store, model, alias)
            _refuse_newer_decision(before.current, seen.current, record)
        else:
            return await _follow(store, promotion)
    raise PublishConflict(f"model '{model}': {CLAIMS_MAX} promotions were recorded meanwhile; run again")


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
    for _ in range(CLAIMS_MAX):
        for number in await _version_numbers(store, draft.model):
            if number not in known:
                known[number] = await _version(store, draft.model, number)
        for record in known.values():
            if record.manifest_sha256 == draft.manifest_sha256:
                return record
        claim = msgspec.structs.replace(draft, version=max(known, default=0) + 1)
        try:
            await store.put_if_absent(layout.version(claim.model, claim.version), codec.encode(claim))
        except PreconditionFailed:
            continue
        return claim
    raise PublishConflict(f"model '{draft.model}': {CLAIMS_MAX} versions were claimed meanwhile; run again")


async def _version(store: ObjectStore, model: str, number: int) -> VersionRecord:
    try:
        stored = await store.get(layout.version(model, number))
    except ObjectNotFound as error:
        published = _listed(await _version_numbers(store, model))
        raise SpecError(f"model '{model}' has no version {number}; published: {published}") from error
    return codec.decode(stored.body, VersionRecord)


async def _version_numbers(store: ObjectStore, model: str) -> list[int]:
    """Ascending by number; the store lists 10 before 2."""
    prefix = layout.versions(model)
    return sorted([int(info.key.removeprefix(prefix).removesuffix(".json")) async for info in store.list(prefix)])


class _Promotions(msgspec.Struct, frozen=True):
    """What the log says: its newest generation, over all aliases, and the newest entry of the one asked for."""

    generation: int
    current: Promotion | None


async def _promotions(store: ObjectStore, model: str, alias: str) -> _Promotions:
    """The log from the alias's own generation on: everything older is known to be superseded."""
    current = await _alias(store, model, alias)
    generation = current[0].generation if current else 0
    entry = current[0] if current else None
    start_after = layout.promotion(model, generation) if generation else ""
    async for info in store.list(layout.promotions(model), start_after=start_after):
        newer = codec.decode((await store.get(info.key)).body, Promotion)
        generation = newer.generation
        entry = newer if newer.alias == alias else entry
    return _Promotions(generation, entry)


async def _alias(store: ObjectStore, model: str, alias: str) -> tuple[Promotion, str] | None:
    """The alias object and its etag."""
    try:
        stored = await store.get(layout.alias(model, alias))
    except ObjectNotFound:
        return None
    return codec.decode(stored.body, Promotion), stored.etag


async def _follow(store: ObjectStore, entry: Promotion) -> Promotion:
    """Bring the alias up to this log entry. Its generation only grows, so trying again after a lost race is safe."""
    key, data = layout.alias(entry.model, entry.alias), codec.encode(entry)
    for _ in range(CLAIMS_MAX):
        current = await _alias(store, entry.model, entry.alias)
        if current and current[0].generation >= entry.generation:
            return entry
        try:
            await (store.put_if_match(key, data, current[1]) if current else store.put_if_absent(key, data))
        except PreconditionFailed:
            continue
        return entry
    raise PublishConflict(
        f"alias '{entry.alias}' of model '{entry.model}' moved {CLAIMS_MAX} times meanwhile; run again"
    )


def _refuse_newer_decision(before: Promotion | None, after: Promotion | None, wanted: VersionRecord) -> None:
    """A generation taken for another alias, or for the version we want, is no conflict."""
    if after and after != before and after.manifest_sha256 != wanted.manifest_sha256:
        raise PublishConflict(
            f"alias '{after.alias}' of model '{after.model}' was given version {after.version} by {after.actor} meanwhile; "
            f"compare version {wanted.version} with it and promote again"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers) or "none"
