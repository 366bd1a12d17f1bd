"""One attempt's checkpoints of one run in the object store: save, find the newest good one, drop old ones. Trains nothing.

Commit protocol: files, manifest, then `LATEST` by compare-and-swap (`trainers.checkpoint.fence`). A crash between any two of these
leaves what was there before. Called by the fit loop's saver, and by a run when it begins.
"""

import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from gateway.contract import codec, layout
from gateway.contract.checkpoint import MANIFEST, BitExact, CheckpointFile, CheckpointManifest, CheckpointRef, Origin
from gateway.errors import (
    ArtifactError,
    DigestMismatch,
    ManifestInvalid,
    ObjectNotFound,
    PreconditionFailed,
    StoreUnavailable,
)
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore
from trainers.checkpoint import fence, files, origins
from trainers.checkpoint.fence import Fence
from trainers.checkpoint.listing import Place, committed, listed
from trainers.checkpoint.state import Snapshot
from trainers.errors import DataError

CHUNK_BYTES = 1 << 20  # as the stores write; a thread hop per chunk is nothing beside it


class Options(msgspec.Struct, frozen=True):
    """`keep`: newest checkpoints that stay, for one of them may be damaged. `strict_resume`: refuse another kind of host."""

    keep: int = 3
    strict_resume: bool = True

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError("keep at least 1 checkpoint")


class Resumed(msgspec.Struct, frozen=True):
    """Where to go on. `skipped` says, newest first, which checkpoints were damaged and how; `steps_lost` what that costs.

    `bit_exact` is what may be claimed about the weights from here on.
    """

    snapshot: Snapshot
    checkpoint: CheckpointRef
    bit_exact: BitExact
    skipped: tuple[str, ...]
    steps_lost: int


class Checkpoints:
    """Made by `open_run`. Not for concurrent saves: the saver has one under way at a time."""

    def __init__(self, store: ObjectStore, run_id: str, origin: Origin, held: Fence, options: Options) -> None:
        self.attempt = held.attempt
        self.bit_exact: BitExact = "proven"
        self._store = store
        self._run_id = run_id
        self._origin = origin
        self._fence = held
        self._options = options
        self._has_read_back = False

    async def latest(self) -> Resumed | None:
        """The newest checkpoint whose every digest is right, or None when this run has saved none.

        Raises `DataError` when there are checkpoints and all are damaged, `SpecError` when the newest good one was made from
        another spec or other data, `HostDiffers` under strict resume when it was made on another kind of host.
        """
        named = (await self._fence.require_newest()).checkpoint
        candidates = {Place(named.attempt, named.step): named.manifest_sha256} if named else {}
        candidates |= {
            place: "" for place in committed(await listed(self._store, self._run_id)) if place not in candidates
        }
        skipped: list[str] = []
        for place, sha256 in candidates.items():
            try:
                manifest, ref = await read_manifest(self._store, self._run_id, place, sha256)
                snapshot = await self._load(manifest)
            except (ArtifactError, ObjectNotFound, DataError) as error:
                await self._fence.require_newest()  # a newer attempt deletes old ones: that is no damage
                skipped.append(f"step {place.step} of attempt {place.attempt}: {error}")
                continue
            self.bit_exact = origins.check(manifest, self._origin, is_strict=self._options.strict_resume)
            lost = max((other.step for other in candidates), default=0) - place.step if skipped else 0
            return Resumed(snapshot, ref, self.bit_exact, tuple(skipped), max(0, lost))
        if skipped:
            raise DataError(
                f"run '{self._run_id}': all {len(skipped)} checkpoints are damaged; delete "
                f"{layout.checkpoints(self._run_id)} in the store to start again from nothing. " + "; ".join(skipped)
            )
        return None

    async def save(self, snapshot: Snapshot) -> CheckpointRef:
        """Commit this state. A step that this attempt has committed already is not written again.

        Raises `Fenced` when a newer attempt has begun, `StoreUnavailable`, and `DigestMismatch` when the store does not give back
        what it was given (looked at once, for the first save): SageMaker's copying of checkpoints once stopped silently
        (aws/sagemaker-python-sdk #3062).
        """
        named = (await self._fence.require_newest()).checkpoint
        if named and (named.step, named.attempt) == (snapshot.step, self.attempt):
            return named
        packed = await in_thread(files.pack, snapshot, self._draft(snapshot.step))
        for file, data in packed.files:
            await self._put(self._key(snapshot.step, self.attempt, file.name), file, data)
        if not self._has_read_back:
            await self._read_back(snapshot.step, packed)
            self._has_read_back = True
        ref = CheckpointRef(step=snapshot.step, attempt=self.attempt, manifest_sha256=packed.manifest.sha256)
        await self._fence.move(ref)
        with contextlib.suppress(StoreUnavailable):  # the save is committed; the next one deletes what stays now
            await self._prune(Place(self.attempt, snapshot.step))
        return ref

    async def require_newest(self) -> None:
        """Ask before publishing. Raises `Fenced` when a newer attempt has begun."""
        await self._fence.require_newest()

    def _draft(self, step: int) -> CheckpointManifest:
        return CheckpointManifest(
            run_id=self._run_id,
            step=step,
            attempt=self.attempt,
            saved_ns=time.time_ns(),
            origin=self._origin,
            bit_exact=self.bit_exact,
            files=(),
        )

    async def _put(self, key: str, file: CheckpointFile, data: bytes) -> None:
        """Write an uncommitted file. One that lies there was left by a save of this attempt that failed, so it is replaced."""
        for _ in range(2):
            try:
                await self._store.put_stream_if_absent(key, _chunks(data), sha256=file.sha256, size=file.size)
            except PreconditionFailed:
                await self._store.delete(key)
            else:
                return
        raise StoreUnavailable(f"'{key}' comes back after it was deleted; look for another writer of this run")

    async def _read_back(self, step: int, packed: files.Packed) -> None:
        for file, _ in packed.files:
            key = self._key(step, self.attempt, file.name)
            try:
                await self._read(key, file)
            except ObjectNotFound as error:
                await self._fence.require_newest()  # a newer attempt clears away what older ones have not committed
                raise DigestMismatch(f"'{key}' is gone at once; does something else delete in this store?") from error

    async def _load(self, manifest: CheckpointManifest) -> Snapshot:
        data = {
            file.name: await self._read(self._key(manifest.step, manifest.attempt, file.name), file)
            for file in manifest.files
        }
        return await in_thread(files.unpack, manifest, data)

    async def _read(self, key: str, file: CheckpointFile) -> bytes:
        data = bytearray()
        async for chunk in self._store.stream(key):
            data += chunk
            if len(data) > file.size:
                break
        body = bytes(data)
        await in_thread(files.verify, file, body)
        return body

    async def _prune(self, current: Place) -> None:
        """Keep the newest ones and the one that `LATEST` names; manifests go first, so that none outlives its files."""
        places = await listed(self._store, self._run_id)
        kept = {current, *committed(places)[: self._options.keep]}
        for place, names in places.items():
            if place in kept or place.attempt > self.attempt:
                continue
            for name in sorted(names, key=lambda name: name != MANIFEST):
                await self._store.delete(self._key(place.step, place.attempt, name))

    def _key(self, step: int, attempt: int, name: str) -> str:
        return layout.checkpoint_file(self._run_id, step, attempt, name)


async def open_run(
    store: ObjectStore, run_id: str, origin: Origin, *, attempt: int | None = None, options: Options | None = None
) -> Checkpoints:
    """Begin an attempt at this run: from now on every older one is fenced. Call it before training.

    `attempt` None takes the next number, which is right wherever the platform's own counter can start again (AWS Batch after a
    resubmission). What cannot resume does not take over: `SpecError` and `HostDiffers` come before the claim.
    """
    options = options or Options()
    await _refuse_others(store, run_id, origin, options)
    return Checkpoints(store, run_id, origin, await fence.claim(store, run_id, attempt), options)


async def read_manifest(
    store: ObjectStore, run_id: str, place: Place, sha256: str = ""
) -> tuple[CheckpointManifest, CheckpointRef]:
    """The manifest at this place, and its name. Raises `ManifestInvalid` when it is not one, or has not this digest."""
    body = (await store.get(layout.checkpoint_file(run_id, place.step, place.attempt, MANIFEST))).body
    manifest = codec.decode(body, CheckpointManifest, what=f"the manifest of step {place.step}")
    is_there = (manifest.run_id, manifest.step, manifest.attempt) == (run_id, place.step, place.attempt)
    if not is_there or sha256 not in {"", codec.sha256(body)}:
        raise ManifestInvalid(f"the manifest of step {place.step} is not the one that was written there")
    return manifest, CheckpointRef(step=place.step, attempt=place.attempt, manifest_sha256=codec.sha256(body))


async def _refuse_others(store: ObjectStore, run_id: str, origin: Origin, options: Options) -> None:
    """Compare with the newest manifest that can be read; what is damaged is `Checkpoints.latest`'s to report."""
    named = (await fence.look(store, run_id)).checkpoint
    first = [Place(named.attempt, named.step)] if named else []
    for place in first + committed(await listed(store, run_id)):
        with contextlib.suppress(ArtifactError, ObjectNotFound):
            manifest, _ = await read_manifest(store, run_id, place)
            origins.check(manifest, origin, is_strict=options.strict_resume)
            return


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]
