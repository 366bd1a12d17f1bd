"""Saves from a training loop that blocks, while an event loop in another thread uploads. Decides when; the store says how.

The training loop asks `due` after every step and hands `offer` a snapshot when it is. Copying the tensors to main memory is all
it waits for. One save is under way at a time, so that at most one copy of the state is held.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable

import msgspec
import torch

from gateway.errors import DigestMismatch, StoreUnavailable
from trainers.checkpoint import state
from trainers.checkpoint.interval import DEFAULT, Interval, interval_s
from trainers.checkpoint.state import Snapshot
from trainers.checkpoint.store import Checkpoints

BACKOFF_S = 5.0  # after the first failure; doubles with each one that follows, up to the longest interval
TRIES_OF_SAVE_NOW = 3  # the store's client waits between its own; here the platform is about to kill
STUCK_S = 60.0  # beyond `save_s_max`: an event loop that has not ended a save by then has stopped


class Limits(msgspec.Struct, frozen=True):
    """`failures_max`: saves that fail one after the other before training stops; with the backoff that is an outage of at least
    ten minutes. `save_s_max`: when an upload counts as hung."""

    failures_max: int = 8
    save_s_max: float = 600.0


class Spent(msgspec.Struct, frozen=True):
    """Seconds so far: `stall_s` the training loop stood still, `save_s` from offer to commit, uploading included."""

    saves: int = 0
    failures: int = 0
    stall_s: float = 0.0
    save_s: float = 0.0
    last_save_s: float = 0.0


class _Saving(msgspec.Struct, frozen=True):
    future: "concurrent.futures.Future[float]"
    step: int
    offered_s: float
    began_s: float


class Saver:
    """`loop` must be running in another thread. `warn` is told what failed and what happens next."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        loop: asyncio.AbstractEventLoop,
        warn: Callable[[str], None],
        *,
        now: float,
        interval: Interval = DEFAULT,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spent = Spent()
        self._checkpoints = checkpoints
        self._loop = loop
        self._warn = warn
        self._interval = interval
        self._limits = limits or Limits()
        self._clock = clock
        self._due_s = now + interval.min_s  # soon: the first save measures what a save takes
        self._saving: _Saving | None = None
        self._failures = 0
        self._buffers: dict[str, torch.Tensor] = {}

    def due(self, now: float) -> bool:
        """Whether to offer a snapshot now, in the seconds of the clock that the caller uses for all calls.

        Raises what ended the save under way: `Fenced`, or `StoreUnavailable` after `failures_max` failures in a row.
        """
        if self._saving and self._saving.future.done():
            self._conclude(now)
        return self._saving is None and now >= self._due_s

    def offer(self, snapshot: Snapshot, now: float) -> bool:
        """Begin to save this state; False, and nothing happens, while another save is under way. Waits for the copy only."""
        if self._saving:
            return False
        began_s = self._clock()
        copied = state.copied(snapshot, self._buffers)
        future = asyncio.run_coroutine_threadsafe(self._save(copied), self._loop)
        self._saving = _Saving(future, snapshot.step, now, began_s)
        stalled_s = self._clock() - began_s
        self.spent = msgspec.structs.replace(self.spent, stall_s=self.spent.stall_s + stalled_s)
        return True

    def flush(self, now: float) -> None:
        """Wait for the save under way, at most about `save_s_max`. Raises as `due` does."""
        if self._saving:
            future = self._saving.future
            concurrent.futures.wait([future], timeout=self._limits.save_s_max + STUCK_S)
            future.cancel()  # does nothing to one that is done
            self._conclude(now)

    def save_now(self, snapshot: Snapshot, now: float) -> None:
        """Save this very state and wait until it is committed: before the process ends, and when training is done.

        Raises `Fenced`, or `StoreUnavailable`, `DigestMismatch` or TimeoutError when it cannot be saved.
        """
        self.flush(now)
        for _ in range(TRIES_OF_SAVE_NOW):
            self.offer(snapshot, now)
            assert self._saving is not None
            future = self._saving.future
            self.flush(now)
            if not future.cancelled() and future.exception() is None:
                return
        future.result()

    async def _save(self, snapshot: Snapshot) -> float:
        """When it was committed."""
        await asyncio.wait_for(self._checkpoints.save(snapshot), self._limits.save_s_max)
        return self._clock()

    def _conclude(self, now: float) -> None:
        """Take note of how the save ended and when the next one is due. What is no failure of the store is raised."""
        saving, self._saving = self._saving, None
        assert saving is not None
        try:
            took_s = saving.future.result() - saving.began_s
        except (StoreUnavailable, DigestMismatch) as error:
            self._failed(saving, str(error), now, error)
        except (TimeoutError, concurrent.futures.CancelledError) as error:
            self._failed(saving, f"it did not end within {self._limits.save_s_max:.0f} s", now, error)
        else:
            self._failures = 0
            self._due_s = saving.offered_s + interval_s(took_s, self._interval)
            self.spent = msgspec.structs.replace(
                self.spent, saves=self.spent.saves + 1, save_s=self.spent.save_s + took_s, last_save_s=took_s
            )

    def _failed(self, saving: _Saving, reason: str, now: float, error: Exception) -> None:
        self._buffers = {}  # a thread of the failed upload may still read the old ones
        self._failures += 1
        self.spent = msgspec.structs.replace(self.spent, failures=self.spent.failures + 1)
        what = f"the checkpoint of step {saving.step} was not saved"
        if self._failures >= self._limits.failures_max:
            raise StoreUnavailable(f"{what}, and {self._failures} saves in a row failed: {reason}") from error
        backoff_s = min(BACKOFF_S * 2 ** (self._failures - 1), self._interval.max_s)
        self._due_s = now + backoff_s
        self._warn(f"{what}: {reason}; training goes on, the next save is tried in {backoff_s:.0f} s")
