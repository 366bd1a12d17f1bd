"""Tasks beside serving: nobody awaits them while the gateway serves, their end must not end it, and an exit waits only so long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any  # Any: a coroutine's send and yield types, which nobody uses

logger = logging.getLogger(__name__)


def started(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task whose crash is logged."""
    task = asyncio.create_task(work)
    task.add_done_callback(_report_crash)
    return task


async def within(seconds: float, work: Coroutine[Any, Any, None], sleep: Callable[[float], Awaitable[None]]) -> None:
    """Do as much of the work as the time allows."""
    task = started(work)
    deadline = asyncio.ensure_future(sleep(seconds))
    try:
        await asyncio.wait((task, deadline), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel((task, deadline))


async def cancel(tasks: Iterable[asyncio.Future[None]]) -> None:
    """End them and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _report_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical("ledger: stopped by a bug; costs go unattributed until a restart", exc_info=error)
