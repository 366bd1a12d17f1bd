"""What Steelyard asks of an object store, and no more: everything durable goes through these calls.

Two implementations, `local` (a directory) and `s3`, pass one behaviour suite (`tests/integration/test_objectstore.py`).
A store that passes it needs no database beside it: the commit points of the registry and the ledger are conditional writes.
"""

import builtins
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

import msgspec


class ObjectInfo(msgspec.Struct, frozen=True):
    """One row of a listing. `modified_ns` is when the object was written by the store's clock, since the epoch; 0: not known."""

    key: str
    size: int
    modified_ns: int = 0


class StoredObject(msgspec.Struct, frozen=True):
    """An object's bytes and the etag that a later `put_if_match` or `get(if_none_match=...)` compares."""

    body: bytes
    etag: str


class ObjectStore(Protocol):
    """Keys are relative, `/`-separated and already validated by `gateway.contract.layout`.

    Every method may raise `StoreUnavailable` or one of its children (`BucketNotFound`, `StoreRefused`; for writes also
    `StoreReadOnly`, `StoreFull`). A missing key is `ObjectNotFound`. Calls are safe to make concurrently.
    """

    @property
    def url(self) -> str:
        """Where this store is, as given to `open_store`; carries no secret."""
        ...

    async def get(self, key: str) -> StoredObject:
        """The whole object."""
        ...

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        """The whole object, or None when its etag is still `etag` (a cheap poll)."""
        ...

    async def get_range(self, key: str, start: int, stop: int, *, etag: str | None = None) -> bytes:
        """Bytes [start, stop), fewer at the end of the object. `PreconditionFailed` when `etag` is given and has changed."""
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Size and time without the bytes."""
        ...

    def stream(self, key: str, *, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        """The object in chunks of at most `chunk_bytes`. All chunks are of one version, or the iteration raises."""
        ...

    async def put_if_absent(self, key: str, body: bytes) -> str:
        """Create the object and return its etag; `PreconditionFailed` when it exists. Durable when this returns."""
        ...

    async def put_if_match(self, key: str, body: bytes, etag: str) -> str:
        """Replace exactly the version with this etag, return the new etag; else `PreconditionFailed`.

        A missing key is `PreconditionFailed` too: there is nothing that could match.
        """
        ...

    async def put_stream_if_absent(self, key: str, chunks: AsyncIterable[bytes], *, sha256: str, size: int) -> None:
        """Create a large object without holding it in memory.

        Raises `DigestMismatch`, with nothing visible at the key, when the chunks do not have this digest or size;
        `PreconditionFailed` when the object exists.
        """
        ...

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in ascending order of UTF-8 bytes, after `start_after`; any number of them.

        What lies there under a name that is no key (`gateway.objectstore.keys`) is left out.
        """
        ...

    async def folders(self, prefix: str) -> "builtins.list[str]":
        """The distinct first segments after `prefix` (which ends with `/`) among keys that have more segments, ascending."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the object; removing a missing one is no error."""
        ...

    async def aclose(self) -> None:
        """Release connections; the store is unusable afterwards."""
        ...
