"""An object store in a dict that keeps the protocol's promises and, on demand, breaks the ones a network breaks.

`faults` holds what befalls the next conditional writes, one each. `objects` is what is stored, `attempts` every key that was tried,
`modified_ns` when something was written, as far as a test says so.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Literal

from gateway.errors import DigestMismatch, ObjectNotFound, PreconditionFailed, StoreUnavailable
from gateway.objectstore.protocol import ObjectInfo, StoredObject

Fault = Literal["none", "unavailable", "lost answer", "broken"]


class MemoryStore:
    """`unavailable`: nothing happens; `lost answer`: it happens and nobody hears; `broken`: an error the protocol does not know."""

    url = "memory:"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified_ns: dict[str, int] = {}
        self.attempts: list[str] = []
        self.faults: deque[Fault] = deque()
        self.is_down = False
        self.answers = asyncio.Event()
        self.answers.set()

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    async def get(self, key: str) -> StoredObject:
        await self._reach()
        if key not in self.objects:
            raise ObjectNotFound(f"no object '{key}'")
        return StoredObject(self.objects[key], _etag(self.objects[key]))

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        found = await self.get(key)
        return None if found.etag == etag else found

    async def get_range(self, key: str, start: int, stop: int, *, etag: str | None = None) -> bytes:
        found = await self.get(key)
        if etag not in {None, found.etag}:
            raise PreconditionFailed(f"'{key}' has changed")
        return found.body[start:stop]

    async def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len((await self.get(key)).body))

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        body = (await self.get(key)).body
        for start in range(0, len(body), chunk_bytes):
            yield body[start : start + chunk_bytes]

    async def put_if_absent(self, key: str, body: bytes) -> str:
        fault = await self._write(key)
        if key in self.objects:
            raise PreconditionFailed(f"'{key}' exists")
        return await self._answer(key, body, fault)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> str:
        fault = await self._write(key)
        if key not in self.objects or _etag(self.objects[key]) != etag:
            raise PreconditionFailed(f"'{key}' has changed")
        return await self._answer(key, body, fault)

    async def put_stream_if_absent(self, key: str, chunks: AsyncIterable[bytes], *, sha256: str, size: int) -> None:
        body = b"".join([chunk async for chunk in chunks])
        if len(body) != size or hashlib.sha256(body).hexdigest() != sha256:
            raise DigestMismatch(f"'{key}' is not what was promised")
        await self.put_if_absent(key, body)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._reach()
        for key in sorted(self.objects, key=str.encode):
            if key.startswith(prefix) and key.encode() > start_after.encode():
                yield ObjectInfo(key, len(self.objects[key]), self.modified_ns.get(key, 0))

    async def delete(self, key: str) -> None:
        await self._reach()
        self.objects.pop(key, None)

    async def aclose(self) -> None:
        """Nothing to release."""

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # a network call never answers without letting others run
        if self.is_down:
            raise StoreUnavailable("the store is down")

    async def _write(self, key: str) -> Fault:
        self.attempts.append(key)
        await self._reach()
        fault = self.faults.popleft() if self.faults else "none"
        if fault == "unavailable":
            raise StoreUnavailable("the store is down")
        if fault == "broken":
            raise RuntimeError("a bug in the store")
        return fault

    async def _answer(self, key: str, body: bytes, fault: Fault) -> str:
        """Whoever is cancelled while `answers` is unset has written all the same."""
        self.objects[key] = bytes(body)
        await self.answers.wait()
        if fault == "lost answer":
            raise StoreUnavailable("the connection broke")
        return _etag(body)


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
