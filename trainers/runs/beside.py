"""How what runs beside training ends: the heartbeat and the journal go on in the background and have one last thing to say."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


async def ended(task: "asyncio.Task[None]", last: Callable[[], Awaitable[None]], *, within_s: float) -> None:
    """Cancel `task`, then `last`, or as much of it as `within_s` allows: a process that ends has more important things to do."""
    task.cancel()
    await asyncio.wait([task])  # and not the task itself: a cancellation of ours must be ours
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await last()
