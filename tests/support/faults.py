"""A real object store whose n-th operation fails, before or after it took effect: what a crash or a lost answer looks like."""

from collections.abc import AsyncIterator
from typing import Any, NoReturn

from gateway.objectstore.protocol import ObjectInfo, ObjectStore


class Crash(BaseException):
    """Not an Exception, like the signal it stands for: nothing may handle it."""


class CrashingStore:
    """Counts every call. `crash_at` is the number, from 1, of the call that raises; `after_effect` lets it happen first.

    `has_crashed`: it has raised, and not merely begun.
    """

    def __init__(self, store: ObjectStore, *, crash_at: int = 0, after_effect: bool = False) -> None:
        self.calls = 0
        self.has_crashed = False
        self._store = store
        self._crash_at = crash_at
        self._after_effect = after_effect

    def __getattr__(self, name: str) -> Any:  # Any: whichever method was asked for
        method = getattr(self._store, name)

        async def counted(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            is_last = self.calls == self._crash_at  # others may be under way at once
            if is_last and not self._after_effect:
                self._crash()
            answer = await method(*arguments, **named)
            if is_last:
                self._crash()
            return answer

        return counted

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.calls += 1
        if self.calls == self._crash_at:
            self._crash()
        async for info in self._store.list(prefix, start_after=start_after):
            yield info

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        self.calls += 1
        if self.calls == self._crash_at:
            self._crash()
        async for chunk in self._store.stream(key, chunk_bytes=chunk_bytes):
            yield chunk

    def _crash(self) -> NoReturn:
        self.has_crashed = True
        raise Crash
