"""Fetches blobs into the cache folder and hands them out verified: what is in the folder under its name has been hashed.

Small ones come in one stream, large ones in parts side by side, those of a store on the same disk as a link. Called by
`gateway.repository.residents` around a load.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter_ns

from gateway.contract import layout
from gateway.contract.ledger import Phases
from gateway.contract.manifest import File
from gateway.errors import BucketNotFound, CacheUnusable, DigestMismatch, ObjectNotFound, StoreRefused, StoreUnavailable
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore
from gateway.repository.cachefolder import CacheFolder, Partial

PART_BYTES = 8 << 20
"""Of a ranged download; AWS names 8 to 16 MB as typical (Amazon S3 user guide, "Performance guidelines", byte-range fetches)."""

PART_TRIES = 3
PART_BACKOFF_S = 0.2
"""A connection that breaks in the middle of a body is not retried by the store's own client, and costs one part here."""


class BlobCache:
    """`parts_max` parts are in memory at once, over all downloads."""

    def __init__(self, store: ObjectStore, folder: Path, *, bytes_max: int, parts_max: int) -> None:
        self._store = store
        self._folder = CacheFolder(folder, bytes_max=bytes_max)
        self._parts = asyncio.Semaphore(parts_max)

    @contextlib.asynccontextmanager
    async def held(self, model: str, file: File, spent: Phases) -> AsyncIterator[Path]:
        """A local file with exactly this digest, which stays until the end of the block. `spent` grows by what that took.

        Raises `DigestMismatch`, `CacheUnusable` (full, read-only, not ours) or a store error; no unfinished file is left.
        """
        path = self._folder.folder / f"{file.sha256}-{file.name}"
        with contextlib.ExitStack() as lease:
            try:
                # Entered in the thread: a caller that is cancelled meanwhile leaves no lock behind.
                began_ns = perf_counter_ns()
                is_cached = await in_thread(self._hold, path, file.sha256, lease)
                spent.verify_ns += perf_counter_ns() - began_ns
                if not is_cached:
                    began_ns = perf_counter_ns()
                    await self._fetch(layout.blob(model, file.sha256), path, file, lease)
                    spent.download_ns += perf_counter_ns() - began_ns
            except ObjectNotFound:
                raise DigestMismatch(f"model '{model}': file '{file.name}' is missing from the store") from None
            except OSError as error:
                raise CacheUnusable(f"cache {self._folder.folder}: {error.strerror or error}") from error
            yield path

    def _hold(self, path: Path, sha256: str, lease: contextlib.ExitStack) -> bool:
        held = self._folder.hold(path.name, sha256)
        if held is None:
            return False
        lease.callback(held.close)
        return True

    async def _fetch(self, key: str, path: Path, file: File, lease: contextlib.ExitStack) -> None:
        digest = hashlib.sha256()
        with contextlib.ExitStack() as undo:
            partial = await in_thread(self._begin, key, file, undo)
            if partial.is_linked:
                await in_thread(partial.digest, digest, 0, file.size + 1)
            elif file.size <= PART_BYTES:
                await self._stream(key, partial, file, digest)
            else:
                await self._parts_of(key, partial, file, digest)
            if digest.hexdigest() != file.sha256:
                raise DigestMismatch(
                    f"file '{file.name}' has sha256 {digest.hexdigest()[:12]} in the store; "
                    f"its manifest says {file.sha256[:12]} over {file.size} bytes"
                )
            await in_thread(lambda: lease.callback(self._folder.commit(partial, path.name, file.sha256).close))

    def _begin(self, key: str, file: File, undo: contextlib.ExitStack) -> Partial:
        """A link to a local store's own file, else room for a copy."""
        source = self._store.path(key) if isinstance(self._store, LocalStore) else None
        partial = (source and self._folder.linked(source, file.size)) or self._folder.partial(file.size)
        undo.callback(partial.discard)
        return partial

    async def _stream(self, key: str, partial: Partial, file: File, digest: "hashlib._Hash") -> None:
        size = 0
        async for chunk in self._store.stream(key):
            if size + len(chunk) > file.size:
                raise _wrong_size(file, f"more than {size}")
            await in_thread(_append, partial, digest, chunk, size)
            size += len(chunk)
        if size != file.size:
            raise _wrong_size(file, str(size))

    async def _parts_of(self, key: str, partial: Partial, file: File, digest: "hashlib._Hash") -> None:
        """Side by side, hashed in order as they come. No etag is compared: the digest covers the whole, whoever changed a part."""
        starts = range(0, file.size, PART_BYTES)
        parts = [asyncio.create_task(self._part(key, partial, start, file)) for start in starts]
        try:
            for start, part in zip(starts, parts, strict=True):
                await part
                await in_thread(partial.digest, digest, start, min(start + PART_BYTES, file.size))
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)  # none may write to a file that is closed

    async def _part(self, key: str, partial: Partial, start: int, file: File) -> None:
        stop = min(start + PART_BYTES, file.size)
        ask_stop = stop + 1 if stop == file.size else stop  # a blob that goes on behind its end is not the promised one
        async with self._parts:
            body = await self._range(key, start, ask_stop)
            if len(body) != stop - start:
                raise _wrong_size(
                    file, f"{start + len(body)} or more" if len(body) > stop - start else str(start + len(body))
                )
            await in_thread(partial.write, body, start)

    async def _range(self, key: str, start: int, stop: int) -> bytes:
        for tried in range(1, PART_TRIES + 1):
            try:
                return await self._store.get_range(key, start, stop)
            except (BucketNotFound, StoreRefused):
                raise
            except StoreUnavailable:
                if tried == PART_TRIES:
                    raise
                await asyncio.sleep(PART_BACKOFF_S * tried)
        raise AssertionError("unreachable")


def _append(partial: Partial, digest: "hashlib._Hash", chunk: bytes, at: int) -> None:
    partial.write(chunk, at)
    digest.update(chunk)


def _wrong_size(file: File, found: str) -> DigestMismatch:
    return DigestMismatch(f"file '{file.name}' has {found} bytes in the store; its manifest says {file.size}")
