"""Looks after runs on AWS Batch: resubmits what used up its attempts while it got on, moves what waits too long for spot.

Stateless: started every half hour by a schedule, or by hand. Several may look at once; each decision is a conditional write that
one of them wins. A call that fails ends the round with an error and decides nothing: no answer is not a failure.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from gateway.contract import codec, layout
from gateway.contract.schedules import Submission
from gateway.errors import PreconditionFailed
from gateway.objectstore.protocol import ObjectStore
from trainers.launch import batch_payloads, jobview
from trainers.launch import site as sites
from trainers.launch.aws_batch import AwsBatch
from trainers.launch.jobview import JobView
from trainers.launch.site import BatchSite

STALE_S = 3_600
"""A supervisor that claimed a resubmission and made none within an hour has died in between; another does it."""


WAITING = ("SUBMITTED", "PENDING", "RUNNABLE")


class Progress(Protocol):
    """How far a run's attempts came; the run records know."""

    async def steps_reached(self, run_id: str) -> Sequence[int]:
        """The highest step of training that each attempt had safe in a checkpoint, oldest attempt first; empty when none began."""
        ...


class Decision(NamedTuple):
    """What to do about one run, and why in a few words."""

    kind: Literal["leave", "resubmit", "move", "give-up"]
    run_id: str
    reason: str


def decide(view: JobView, steps: Sequence[int], now_s: float) -> Decision:
    """Pure. `steps` as `Progress` gives them."""
    if view.status == "RUNNABLE" and _has_waited_too_long(view, now_s):
        after = view.spec.market.fallback_on_demand_after
        return Decision("move", view.run_id, f"no spot machine within {after}")
    if not jobview.used_up(view):
        return Decision("leave", view.run_id, view.status.lower())
    limits = view.spec.limits
    if now_s - view.first_submitted_s >= limits.wall.seconds:
        return Decision("give-up", view.run_id, f"limits.wall = {limits.wall} is over")
    if not _got_on(steps, limits.no_progress_attempts):
        reached = max(steps, default=0)
        why = f"no step gained in the last {limits.no_progress_attempts} attempts (step {reached}; {view.last_end})"
        return Decision("give-up", view.run_id, why)
    return Decision("resubmit", view.run_id, f"{view.attempts} attempts used, step {max(steps)} reached")


def _has_waited_too_long(view: JobView, now_s: float) -> bool:
    after = view.spec.market.fallback_on_demand_after
    return after is not None and now_s - view.waiting_since_s >= after.seconds


def _got_on(steps: Sequence[int], attempts: int) -> bool:
    """Whether the last `attempts` attempts reached a step that none before them had."""
    return max(steps[-attempts:], default=0) > max(steps[:-attempts], default=0)


class Supervisor:
    """`store` holds the runs, `progress` reads them; runs of other stores than `store_url` are somebody else's to look after."""

    def __init__(
        self, batch: AwsBatch, site: BatchSite, store: ObjectStore, progress: Progress, *, store_url: str
    ) -> None:
        self._batch = batch
        self._site = site
        self._store = store
        self._progress = progress
        self._store_url = store_url

    async def round(self, now_s: float | None = None) -> list[Decision]:
        """Look at every run once. Raises `LauncherUnavailable` or a store's error, with nothing inferred from it."""
        now_s = time.time() if now_s is None else now_s
        views = [view for view in jobview.views(self._batch.described()) if view.store == self._store_url]
        newest = jobview.newest_by_run(views)
        made = []
        for view in newest:
            steps = await self._progress.steps_reached(view.run_id) if jobview.used_up(view) else ()
            decision = decide(view, steps, now_s)
            if decision.kind == "move" and view.queue == jobview.queue_name(self._site.queue_on_demand):
                continue  # it waits for the machines that it was moved to
            if decision.kind != "leave" and await self._is_ours(view, decision, now_s):
                await self._do(view, decision)
                made.append(decision)
        self._cancel_superseded(views, {view.run_id: view.job for view in newest} | self._moved(made, newest))
        return made

    async def _do(self, view: JobView, decision: Decision) -> None:
        """The new submission comes first: should this process die here, the run goes on, and the next round tidies up."""
        if decision.kind == "give-up":
            return
        is_moved = decision.kind == "move"
        queue = sites.needed(self._site, "queue_on_demand", "the queue to move to") if is_moved else view.queue
        job = self._batch.submit(
            batch_payloads.submission(
                view.spec,
                run_id=view.run_id,
                store=view.store,
                definition_arn=view.definition,
                queue=queue,
                number=view.number + 1,
                first_submitted_s=int(view.first_submitted_s),
                more=view.more,
            )
        )
        key = layout.submission(view.run_id, view.number + 1)
        found = await self._store.get(key)
        record = msgspec.structs.replace(codec.decode(found.body, Submission), job=job)
        await self._store.put_if_match(key, codec.encode(record), found.etag)

    def _moved(self, made: Sequence[Decision], newest: Sequence[JobView]) -> dict[str, str]:
        """By run, that none of the jobs seen is the one to keep."""
        moved = {decision.run_id for decision in made if decision.kind == "move"}
        return {view.run_id: "" for view in newest if view.run_id in moved}

    def _cancel_superseded(self, views: Sequence[JobView], kept: Mapping[str, str]) -> None:
        """Waiting jobs of runs that have a later submission: a machine for them would be paid for nothing."""
        for view in views:
            if kept[view.run_id] != view.job and view.status in WAITING:
                self._batch.cancel(view.job, "superseded by a later submission of the same run")

    async def _is_ours(self, view: JobView, decision: Decision, now_s: float) -> bool:
        """Whether this supervisor is the one to do it. What was given up once is not said again."""
        key = layout.submission(view.run_id, view.number + 1)
        record = Submission(
            run_id=view.run_id,
            number=view.number + 1,
            decision="give-up" if decision.kind == "give-up" else "resubmit",
            reason=decision.reason,
            decided_ns=int(now_s * 1e9),
        )
        try:
            await self._store.put_if_absent(key, codec.encode(record))
        except PreconditionFailed:
            return await self._takes_over(key, record, view)
        return True

    async def _takes_over(self, key: str, record: Submission, view: JobView) -> bool:
        """From one that died before it submitted, or what was decided before the run was started again by hand."""
        found = await self._store.get(key)
        old = codec.decode(found.body, Submission)
        is_stale = not old.job and record.decided_ns - old.decided_ns >= STALE_S * 10**9
        is_of_the_past = old.decided_ns < view.first_submitted_s * 10**9
        if not is_of_the_past and (old.decision == "give-up" or not is_stale):
            return False
        try:
            await self._store.put_if_match(key, codec.encode(record), found.etag)
        except PreconditionFailed:
            return False
        return True
