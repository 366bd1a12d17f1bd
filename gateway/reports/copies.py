"""Local copies of the store's objects in one folder: fetched a few at a time, whole or not at all, and never twice.

Several reports may share a folder. `gateway.reports.sync` and `hours` decide what is wanted.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from gateway.contract.compacted import File
from gateway.errors import ManifestInvalid, ObjectNotFound
from gateway.objectstore.protocol import ObjectInfo, ObjectStore

FETCHES = 8  # enough to hide S3's first-byte latency (tens of ms); at most that many segments are in memory

T = TypeVar("T")


async def fetch(store: ObjectStore, folder: Path, wanted: Iterable[ObjectInfo]) -> None:
    """Copy the objects whose copy is missing or has another size. Raises `StoreUnavailable`."""
    missing = await asyncio.to_thread(lambda: [info for info in wanted if not _has(folder / info.key, info.size)])

    async def one(info: ObjectInfo) -> None:
        stored = await store.get(info.key)
        await asyncio.to_thread(write, folder / info.key, stored.body)

    await each(missing, one)


async def fetch_files(store: ObjectStore, folder: Path, files: Iterable[File]) -> None:
    """Copy compacted files to `by_digest`. Raises `ManifestInvalid` for one that is missing or is not what its manifest says."""
    missing = await asyncio.to_thread(
        lambda: [file for file in files if not _has(by_digest(folder, file), file.size_bytes)]
    )
    await each(missing, lambda file: _fetch_file(store, folder, file))


def by_digest(folder: Path, file: File) -> Path:
    """Where a compacted file's copy is: two keys with the same bytes share it, changed bytes cannot."""
    return folder / "sha256" / f"{file.sha256}.parquet"


def write(path: Path, body: bytes) -> None:
    """Not synced to disk: after a crash the size is wrong and the object is fetched again, or DuckDB refuses the file by name."""
    with _Partial(path) as partial, partial.open("wb") as file:
        file.write(body)


async def each(wanted: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """All of them, `FETCHES` at a time; the first failure ends it."""
    left = iter(wanted)

    async def some() -> None:
        for one in left:
            await work(one)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(FETCHES):
                group.create_task(some())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


async def _fetch_file(store: ObjectStore, folder: Path, wanted: File) -> None:
    """In chunks: an hour's requests may be hundreds of megabytes."""
    digest = hashlib.sha256()
    with _Partial(by_digest(folder, wanted)) as partial:
        with partial.open("wb") as file:
            try:
                async for chunk in store.stream(wanted.key):
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
            except ObjectNotFound as error:
                raise ManifestInvalid(
                    f"{wanted.key} is missing and its manifest lists it; `steelyard ledger verify` names all that is"
                ) from error
        if digest.hexdigest() != wanted.sha256:
            raise ManifestInvalid(
                f"{wanted.key} was changed: it has not the digest that its manifest gives; "
                "`steelyard ledger verify` names all that is"
            )


class _Partial:
    """A file beside `path` that takes its place when the block ends well, and is gone when it does not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{secrets.token_hex(8)}")

    def __enter__(self) -> Path:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A ledger names tenants and request ids: nobody else reads it.
        os.close(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._partial.replace(self._path)
        self._partial.unlink(missing_ok=True)
