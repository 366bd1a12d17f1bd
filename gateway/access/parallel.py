"""Reads many small objects at once, and never more than a store holds connections for. For `stored` and `fleet`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 32  # as many connections as the S3 store holds


async def each(items: Sequence[T], call: Callable[[T], Awaitable[None]]) -> None:
    """Call for every item, `AT_ONCE` at a time. The first error ends it, and is raised when nothing runs any more."""
    pending = iter(items)

    async def work() -> None:
        for item in pending:
            await call(item)

    tasks = [asyncio.create_task(work()) for _ in range(min(AT_ONCE, len(items)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
