"""Gives memory back after a model has left: its session is destroyed and the allocator trimmed, off the event loop.

Trimming is worth it: after 30 models of 0.1 to 4 MB left, 25 to 40 of the 50 MB they had taken stayed with the process, and 6 ms of
`malloc_trim` gave all of it back (`python -m tests.bench.models` prints both).
"""

import asyncio

from gateway import allocator


class Unloader:
    """Used on the event loop. Unloads that come while one is under way share the next trim."""

    def __init__(self) -> None:
        self._boxes: list[list[object]] = []
        self._work: asyncio.Task[None] | None = None

    def release(self, box: list[object]) -> None:
        """`box` holds what should be the last references: freeing a large session takes milliseconds, in a thread."""
        self._boxes.append(box)
        if self._work is None:
            self._work = asyncio.create_task(self._drain())

    async def aclose(self) -> None:
        """Until everything is freed."""
        if self._work is not None:
            await self._work

    async def _drain(self) -> None:
        try:
            while self._boxes:
                boxes, self._boxes = self._boxes, []
                await asyncio.to_thread(_free, boxes)
        finally:
            self._work = None


def _free(boxes: list[list[object]]) -> None:
    for box in boxes:
        box.clear()
    allocator.trim()
