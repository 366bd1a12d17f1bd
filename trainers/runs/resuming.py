"""Whether a run can go on, and how to ask for it. Trains nothing: the command line does, with what this says."""

import re
import sys
import time
from collections.abc import Callable

import msgspec

from gateway.contract.runs import RunRecord
from gateway.objectstore.protocol import ObjectStore
from gateway.wording import moment
from trainers.errors import SpecError
from trainers.runs import reading, records

_RECIPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
"""A built-in's name or `package.module:function`: what comes from a store must not be read as an option."""


class Resumption(msgspec.Struct, frozen=True):
    """What to ask for again: `command` are the words after the program's name."""

    run: RunRecord
    state: reading.State
    command: tuple[str, ...]

    def argv(self, store_url: str) -> list[str]:
        """As this very Python would run it."""
        return [sys.executable, "-m", "trainers", *self.command[1:], "--store", store_url]


async def resumable(
    store: ObjectStore, run_id: str, *, take_over: bool = False, now_ns: Callable[[], int] = time.time_ns
) -> Resumption:
    """How to go on with this run. A cancellation of it is lifted, attempts that died are settled.

    Raises `SpecError` when there is no such run, when it is done, and when it is running, which `take_over` allows: its attempt is
    then fenced by the next one.
    """
    view = await reading.one(store, run_id)
    at_ns = now_ns()
    state = reading.state(view, at_ns)
    if state == "done":
        raise SpecError(f"run '{run_id}' is done already; there is nothing to resume")
    if state in reading.RUNNING and not take_over:
        raise SpecError(_running(view, at_ns))
    if not _RECIPE.fullmatch(view.run.recipe):
        raise SpecError(f"run '{run_id}' names no recipe that could be run: {view.run.recipe[:64]!r}")
    if state == "lost":
        await records.settle_attempts(store, view.run)
    await records.lift_cancellation(store, run_id)
    return Resumption(view.run, state, command(view.run))


def command(run: RunRecord) -> tuple[str, ...]:
    """`train RECIPE --run-id ID` and the options it was asked with."""
    return ("train", run.recipe, "--run-id", run.run_id, *run.arguments)


def _running(view: reading.RunView, now_ns: int) -> str:
    newest = view.tried[-1].attempt.attempt
    age_s = (now_ns - reading.seen_ns(view)) // 10**9
    beat = view.beat
    where = f"; stage '{beat.stage}', step {beat.step} of {beat.steps_total}" if beat else ""
    clocks = f", {-age_s} s in the future: clocks differ" if age_s < 0 else f", {age_s} s ago"
    return (
        f"run '{view.run.run_id}' is running: attempt {newest} gave a sign of life at {moment(reading.seen_ns(view))}{clocks}"
        f"{where}. It counts as lost after {reading.MISSED_BEATS_MAX * reading.interval_ns(view) // 10**9} s of silence; "
        "--take-over starts another attempt at once, and that one fences it"
    )
