"""How a run is kept safe from interruption: where its checkpoints are, how often, and from which one it goes on.

Called by `trainers.run` from the thread that trains, while the event loop of the main thread does the uploading.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from gateway.contract.checkpoint import Origin
from gateway.objectstore.protocol import ObjectStore
from trainers.attempt import Attending
from trainers.checkpoint import store as checkpoints
from trainers.checkpoint.interval import DEFAULT, Interval
from trainers.checkpoint.saver import Saver
from trainers.fit.keeping import Keeper

T = TypeVar("T")
Wait = Callable[[Coroutine[Any, Any, T]], T]  # Any: what a coroutine yields and is sent is asyncio's

log = logging.getLogger("trainers")


class Safety(msgspec.Struct, frozen=True):
    """`grace_s`: seconds from SIGTERM until the platform kills, where that is known: a save has to fit in."""

    interval: Interval = DEFAULT
    keep: int = 3
    strict_resume: bool = True
    grace_s: float | None = None


def keeper(
    store: ObjectStore,
    attended: Attending,
    origin: Origin,
    safety: Safety,
    loop: asyncio.AbstractEventLoop,
    *,
    until_s: float | None,
    processes: int,
    is_gpu: bool,
) -> Keeper:
    """Fence older attempts, find the newest whole checkpoint, say what was lost. Raises what `open_run` and `latest` do."""

    def wait(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    options = checkpoints.Options(keep=safety.keep, strict_resume=safety.strict_resume)
    number = attended.attempt.number
    opened = wait(checkpoints.open_run(store, attended.attempt.run.run_id, origin, attempt=number, options=options))
    resumed = wait(opened.latest())
    # Only the first process's random numbers are saved, and a GPU may compile in one attempt and not in another.
    if processes > 1 or is_gpu:
        opened.bit_exact = "best_effort"
    if resumed:
        for skipped in resumed.skipped:
            log.warning("a checkpoint is damaged and passed over: %s", skipped)
        lost = f"; {resumed.steps_lost} steps have to be done again" if resumed.steps_lost else ""
        log.info(
            "going on from step %d, saved by attempt %d%s", resumed.snapshot.step, resumed.checkpoint.attempt, lost
        )
    saver = Saver(opened, loop, log.warning, now=time.monotonic(), interval=safety.interval)
    return Keeper(
        resumed.snapshot if resumed else None,
        saver,
        attended.stops,
        attended.tracker,
        journal=attended.journal,
        until_s=until_s,
        grace_s=safety.grace_s,
        bit_exact=opened.bit_exact,
    )
