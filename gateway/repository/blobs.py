"""A folder of verified files on local disk, keyed by digest: what is in it has been hashed, what fails is never in it."""

import asyncio
import errno
import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from gateway.contract import layout
from gateway.contract.manifest import File
from gateway.errors import CacheUnusable, DigestMismatch, ObjectNotFound
from gateway.objectstore.protocol import ObjectStore


class BlobCache:
    """Downloads each blob once; concurrent processes may share the folder, since files appear by rename only."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder

    async def fetch(self, model: str, file: File) -> Path:
        """The path of a local file with exactly this digest. Raises `DigestMismatch`, or a store error.

        A file already there is hashed again, since its disk is not ours to trust across restarts.
        """
        path = self._folder / f"{file.sha256}-{file.name}"
        try:
            if await asyncio.to_thread(_has_digest, path, file.sha256):
                return path
            await self._download(layout.blob(model, file.sha256), path, file)
        except ObjectNotFound:
            raise DigestMismatch(f"model '{model}': file '{file.name}' is missing from the store") from None
        except OSError as error:
            raise CacheUnusable(f"cache {self._folder}: {error.strerror}") from error
        return path

    async def _download(self, key: str, path: Path, file: File) -> None:
        digest, size = hashlib.sha256(), 0
        handle, partial_path = await asyncio.to_thread(_open_partial, self._folder)
        try:
            with os.fdopen(handle, "wb") as partial:
                async for chunk in self._store.stream(key):
                    size += len(chunk)
                    if size > file.size:
                        break
                    await asyncio.to_thread(_append, partial, digest, chunk)
            if digest.hexdigest() != file.sha256 or size != file.size:
                raise DigestMismatch(
                    f"file '{file.name}' is {size} bytes with sha256 {digest.hexdigest()[:12]}; "
                    f"its manifest says {file.size} bytes with {file.sha256[:12]}"
                )
            await asyncio.to_thread(os.replace, partial_path, path)
        finally:
            await asyncio.to_thread(_remove, partial_path)


def _open_partial(folder: Path) -> tuple[int, str]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to another user, who could swap files; set repository.cache_dir")
    return tempfile.mkstemp(dir=folder, prefix=".partial-")


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _append(partial: BinaryIO, digest: "hashlib._Hash", chunk: bytes) -> None:
    digest.update(chunk)
    partial.write(chunk)


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False
