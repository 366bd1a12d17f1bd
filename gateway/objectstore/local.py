"""The object store in a local folder, with the guarantees of the S3 one: conditional writes, whole objects, durable answers.

Every object is a plain file below the root. Several processes on one machine may share it. Not for a network file system
that lacks hard links or flock.

Limits: a key `a` and a key `a/b` cannot both exist (the second write is `PreconditionFailed`), and `a` stays a folder after
`a/b` is deleted. A range read with an etag reads the whole file to compare it. Symbolic links are not listed.
"""

import builtins
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.objectstore import keys, verified
from gateway.objectstore.attempts import Attempts
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.folder import Folder
from gateway.objectstore.protocol import ObjectInfo, StoredObject

BLOCK_BYTES = 1 << 20  # a thread hop per block is then nothing beside the write

P = ParamSpec("P")
T = TypeVar("T")


class LocalStore:
    """An `ObjectStore` below `root`, which must exist: `open_store(url, create=True)` makes it."""

    def __init__(self, root: Path, attempts: Attempts | None = None) -> None:
        self._root = root.absolute()
        self._attempts = attempts or Attempts()
        self._folder = Folder(self._root)

    @property
    def url(self) -> str:
        return self._root.as_uri()

    def path(self, key: str) -> Path:
        """Where the object lies, if it exists: a reader on this machine can take the file itself. It must not be altered."""
        return self._root / keys.checked(key)

    async def get(self, key: str) -> StoredObject:
        return await self._asked("get", self._folder.get, key)

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        found = await self.get(key)
        return None if found.etag == etag else found

    async def get_range(self, key: str, start: int, stop: int, *, etag: str | None = None) -> bytes:
        if not 0 <= start < stop:
            raise ValueError(f"no such range: [{start}, {stop})")
        return await self._asked("get_range", self._folder.get_range, key, start, stop, etag)

    async def head(self, key: str) -> ObjectInfo:
        return await self._asked("head", self._folder.head, key)

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        with contextlib.ExitStack() as opened:
            # Entered in the thread: the file is closed here even when this task is cancelled while it opens.
            file = await self._asked("stream", lambda: opened.enter_context(self._folder.open(key)))
            while chunk := await in_thread(self._folder.read, key, file, chunk_bytes):
                yield chunk

    async def put_if_absent(self, key: str, body: bytes) -> str:
        return await self._asked("put", self._folder.put_if_absent, key, body)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> str:
        return await self._asked("put", self._folder.put_if_match, key, body, etag)

    async def put_stream_if_absent(self, key: str, chunks: AsyncIterable[bytes], *, sha256: str, size: int) -> None:
        blocks = verified.blocks(chunks, block_bytes=BLOCK_BYTES, sha256=sha256, size=size)
        unfinished = contextlib.ExitStack()
        try:
            with self._attempts.call("put"):
                file = await in_thread(unfinished.enter_context, self._folder.staged(key))
                async with contextlib.aclosing(blocks):
                    async for block in blocks:
                        await in_thread(self._folder.write, key, file, block)
                await in_thread(self._folder.create, key, file)
        finally:
            await in_thread(unfinished.close)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        pending = await self._asked("list", self._folder.children, "", prefix, start_after)
        pending.reverse()
        while pending:
            row = pending.pop()
            if row.key.endswith("/"):
                inside = await self._asked("list", self._folder.children, row.key, prefix, start_after)
                pending.extend(reversed(inside))
            elif keys.is_key(row.key):
                yield row

    async def folders(self, prefix: str) -> builtins.list[str]:
        rows = await self._asked("list", self._folder.subfolders, prefix)
        return [row.removeprefix(prefix).rstrip("/") for row in rows if await self._holds_object(row)]

    async def delete(self, key: str) -> None:
        await self._asked("delete", self._folder.delete, key)

    async def aclose(self) -> None:
        """Nothing is held open between calls."""

    async def _asked(self, op: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._attempts.call(op):
            return await in_thread(call, *args, **kwargs)

    async def _holds_object(self, prefix: str) -> bool:
        async for _ in self.list(prefix):
            return True
        return False
