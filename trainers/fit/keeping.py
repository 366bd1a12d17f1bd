"""What stands between the training loop and whatever may end it: interruptions, a spent budget, and the checkpoints against both.

The loop asks after every step. `Unkept` is for who trains without any of it; `trainers.run` uses `Keeper`.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import msgspec

from gateway.contract.checkpoint import BitExact
from gateway.errors import GatewayError
from trainers.checkpoint.saver import Saver
from trainers.checkpoint.state import Snapshot
from trainers.errors import Cancelled, Fenced, Preempted, Unsaved
from trainers.interruption.grace import require_grace
from trainers.interruption.signals import Interruption
from trainers.runs.journal import Journal
from trainers.runs.progress import Tracker

Verdict = Literal["go on", "stop"]
Capture = Callable[[], Snapshot]
"""The state after the step just done. Raises `DataError` when it is not worth keeping: its loss is not finite."""


class Keeping(Protocol):
    @property
    def bit_exact(self) -> BitExact:
        """What may be claimed about the weights that come of it."""
        ...

    def resumed(self) -> Snapshot | None:
        """Where an earlier attempt stopped."""
        ...

    def begins(self, step: int, total: int) -> None: ...

    def after_step(self, step: int, examples: int, capture: Capture) -> Verdict:
        """ "stop" ends training with the best so far. Raises what ends the attempt at once."""
        ...

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """What was found out at this step, by name."""
        ...

    def ends(self) -> None: ...


class Unkept:
    """Nothing is saved, nothing interrupts."""

    bit_exact: BitExact = "proven"

    def resumed(self) -> Snapshot | None:
        return None

    def begins(self, step: int, total: int) -> None: ...

    def after_step(self, step: int, examples: int, capture: Capture) -> Verdict:
        return "go on"

    def measured(self, step: int, values: Mapping[str, float]) -> None: ...

    def ends(self) -> None: ...


class Stops(msgspec.Struct):
    """What may end an attempt from outside the loop; set by other threads. `is_budget_spent`: training ended early for it."""

    interruption: Interruption
    cancelled: str = ""
    fenced: str = ""
    is_budget_spent: bool = False

    def require_none(self) -> None:
        """Raises `Fenced` or `Cancelled`; an interruption is up to who can still save."""
        if self.fenced:
            raise Fenced(self.fenced)
        if self.cancelled:
            raise Cancelled(self.cancelled)


class Keeper:
    """Saves when the saver says so, and at once when interrupted; stops at `until_s` (monotonic), when the budget is spent."""

    def __init__(
        self,
        snapshot: Snapshot | None,
        saver: Saver,
        stops: Stops,
        tracker: Tracker,
        *,
        journal: Journal | None = None,
        until_s: float | None = None,
        grace_s: float | None = None,
        bit_exact: BitExact = "proven",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bit_exact: BitExact = bit_exact
        self._snapshot = snapshot
        self._saver = saver
        self._stops = stops
        self._tracker = tracker
        self._journal = journal
        self._until_s = until_s
        self._grace_s = grace_s
        self._clock = clock
        self._offered, self._saves = 0, saver.spent.saves

    def resumed(self) -> Snapshot | None:
        return self._snapshot

    def begins(self, step: int, total: int) -> None:
        self._tracker.steps_begin(step, total=total)

    def after_step(self, step: int, examples: int, capture: Capture) -> Verdict:
        self._tracker.step(step, examples=examples)
        self._stops.require_none()
        now = self._clock()
        if self._stops.interruption.is_requested:
            self._save_and_leave(step, capture, now)
        is_due = self._saver.due(now)
        self._note_saved()
        if is_due and self._saver.offer(capture(), now):
            self._offered = step
        return "stop" if self._until_s is not None and now >= self._until_s else "go on"

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        self._tracker.step(step, loss=values.get("train_loss"))
        if self._journal:
            self._journal.metrics(step, **values)

    def ends(self) -> None:
        """The save under way is not waited for longer than it takes: the stage's own result is worth more."""
        self._saver.flush(self._clock())
        self._note_saved(is_over=True)
        self._tracker.steps_end()

    def _save_and_leave(self, step: int, capture: Capture, now: float) -> None:
        reason = self._stops.interruption.reason
        try:
            self._saver.save_now(capture(), now)
        except (GatewayError, TimeoutError) as error:
            raise Unsaved(f"{reason} after step {step}, which could not be saved: {error}") from error
        self._tracker.saved(step)
        raise Preempted(f"{reason} after step {step}, which is saved; the same run id goes on from there")

    def _note_saved(self, *, is_over: bool = False) -> None:
        """Raises `SpecError` for a save that could not be made in time; one that is over needs no other."""
        if self._saver.spent.saves > self._saves:
            is_first, self._saves = not self._saves, self._saver.spent.saves
            self._tracker.saved(self._offered)
            if is_first and self._grace_s is not None and not is_over:
                require_grace(self._saver.spent.last_save_s, self._grace_s)
