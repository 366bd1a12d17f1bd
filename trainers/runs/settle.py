"""What attempts at a run cost, and how much of that was in vain. Arithmetic only: `records` stores its results.

Each figure is final when its attempt ends. What an attempt lost is measured by how far it moved the highest saved step, so a step
done twice is counted once: by the attempt that did it first when it was not saved in time, by the next when it could not be read.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import msgspec
from msgspec import UNSET, UnsetType

from gateway.contract.manifest import AttemptCost, TrainingCost
from gateway.contract.prices import NS_PER_HOUR, PICO_PER_USD
from gateway.contract.runs import (
    AttemptEnd,
    AttemptRecord,
    Evidence,
    Heartbeat,
    MachineUse,
    Outcome,
    Progress,
    RunRecord,
    TrainingCharge,
)


class Earlier(msgspec.Struct, frozen=True):
    """What the attempts before this one left. `cost_picousd` is None when one of them has no price."""

    attempts: int = 0
    kept_step: int = 0
    has_progress: bool = False
    cost_picousd: int | None = 0


def earlier(ends: Sequence[AttemptEnd]) -> Earlier:
    return Earlier(
        attempts=len(ends),
        kept_step=max((end.kept_step for end in ends), default=0),
        has_progress=any(end.steps_done > end.steps_lost or end.progress.stages for end in ends),
        cost_picousd=total(end.cost_picousd for end in ends),
    )


def end(
    attempt: AttemptRecord,
    before: Earlier,
    progress: Progress,
    *,
    outcome: Outcome,
    exit_code: int,
    message: str,
    ended_ns: int,
    elapsed_ns: int,
    evidence: Evidence = "end",
) -> AttemptEnd:
    """The record of how this attempt ended, with its bill. One that got done what was asked lost no step, and no stage at work."""
    if outcome == "done":
        stages_ns = progress.stages_ns + progress.cut_off_ns
        progress = msgspec.structs.replace(progress, step_saved=progress.step_last, stages_ns=stages_ns, cut_off_ns=0)
    done = progress.step_last - progress.step_first
    gained = max(0, progress.step_saved - max(before.kept_step, progress.step_first))
    lost = done - gained
    is_in_vain = done == lost and not progress.stages and outcome != "done"
    wasted_ns = elapsed_ns if is_in_vain else _wasted_ns(before, progress, done=done, lost=lost, elapsed_ns=elapsed_ns)
    return AttemptEnd(
        run_id=attempt.run_id,
        attempt=attempt.attempt,
        outcome=outcome,
        exit_code=exit_code,
        message=message,
        ended_ns=ended_ns,
        elapsed_ns=elapsed_ns,
        progress=progress,
        kept_step=max(before.kept_step, progress.step_saved),
        steps_done=done,
        steps_lost=lost,
        wasted_ns=wasted_ns,
        cost_picousd=cost(attempt.usd_per_hour, elapsed_ns),
        wasted_picousd=cost(attempt.usd_per_hour, wasted_ns),
        evidence=evidence,
    )


def abandoned(attempt: AttemptRecord, before: Earlier, heartbeat: Heartbeat | None) -> AttemptEnd:
    """The end of an attempt that recorded none. It is billed up to its last sign of life, so by at most a heartbeat too little."""
    if heartbeat is None or heartbeat.attempt != attempt.attempt:
        return end(
            attempt,
            before,
            Progress(),
            outcome="lost",
            exit_code=-1,
            message="gone without a sign of life after its claim",
            ended_ns=attempt.started_ns,
            elapsed_ns=0,
            evidence="claim",
        )
    return end(
        attempt,
        before,
        heartbeat.progress,
        outcome="lost",
        exit_code=-1,
        message=f"gone without a word in stage '{heartbeat.stage}'",
        ended_ns=heartbeat.at_ns,
        elapsed_ns=heartbeat.elapsed_ns,
        evidence="heartbeat",
    )


def so_far(attempt: AttemptRecord, before: Earlier, heartbeat: Heartbeat | None) -> AttemptEnd:
    """What a running attempt has cost, as if it ended well: what it has not saved yet is not lost yet."""
    seen = abandoned(attempt, before, heartbeat)
    return end(
        attempt,
        before,
        seen.progress,
        outcome="done",
        exit_code=0,
        message="",
        ended_ns=seen.ended_ns,
        elapsed_ns=seen.elapsed_ns,
        evidence=seen.evidence,
    )


def charge(run: RunRecord, attempt: AttemptRecord, ended: AttemptEnd) -> TrainingCharge:
    """The ledger's record of an attempt."""
    return TrainingCharge(
        run_id=run.run_id,
        attempt=attempt.attempt,
        model=run.model,
        recipe=run.recipe,
        from_ns=attempt.started_ns,
        to_ns=ended.ended_ns,
        elapsed_ns=ended.elapsed_ns,
        platform=attempt.platform,
        instance=attempt.instance,
        zone=attempt.zone,
        market=attempt.market,
        sku=attempt.sku,
        usd_per_hour=attempt.usd_per_hour,
        price_book_sha256=attempt.price_book_sha256,
        outcome=ended.outcome,
        steps_done=ended.steps_done,
        steps_lost=ended.steps_lost,
        wasted_ns=ended.wasted_ns,
        cost_picousd=ended.cost_picousd,
        wasted_picousd=ended.wasted_picousd,
        evidence=ended.evidence,
        energy_nj=ended.progress.energy_nj,
        use=use(attempt, ended),
    )


def use(attempt: AttemptRecord, ended: AttemptEnd) -> MachineUse | UnsetType:
    """For joules and grams; unset where this attempt's records do not say enough. What has no known length used nothing."""
    progress = ended.progress
    cpu_ns = progress.cpu_ns if ended.elapsed_ns else 0
    if attempt.allotted is UNSET or cpu_ns is UNSET:
        return UNSET
    is_watched = attempt.gpus and progress.utilisation is not None
    return MachineUse(
        allotted=attempt.allotted,
        held_ns=ended.elapsed_ns,
        cpu_ns=cpu_ns,
        gpu=attempt.gpu if attempt.gpus else "",
        gpus=attempt.gpus,
        gpu_busy_ns=round((progress.utilisation or 0.0) * ended.elapsed_ns * attempt.gpus) if is_watched else None,
        gpu_energy_nj=None if progress.energy_nj is UNSET else progress.energy_nj,
    )


def training_cost(attempts: Sequence[tuple[AttemptRecord, AttemptEnd]]) -> TrainingCost:
    """What a manifest says of all attempts, oldest first; there is at least one."""
    last, _ = attempts[-1]
    return TrainingCost(
        sku=last.sku,
        seconds=sum(ended.elapsed_ns for _, ended in attempts) / 1e9,
        cost_picousd=total(ended.cost_picousd for _, ended in attempts),
        price_book_sha256=last.price_book_sha256,
        wasted_picousd=total(ended.wasted_picousd for _, ended in attempts),
        attempts=tuple(
            AttemptCost(
                instance=attempt.instance or attempt.sku,
                zone=attempt.zone,
                market=attempt.market,
                usd_per_hour=attempt.usd_per_hour,
                seconds=ended.elapsed_ns / 1e9,
                steps_done=ended.steps_done,
                steps_lost=ended.steps_lost,
                use=use(attempt, ended),
            )
            for attempt, ended in attempts
        ),
        energy_nj=energy(ended for _, ended in attempts),
    )


def energy(ends: Iterable[AttemptEnd]) -> int | UnsetType:
    """Of those attempts that counted it; unset when none did."""
    known = [ended.progress.energy_nj for ended in ends if ended.progress.energy_nj is not UNSET]
    return sum(known) if known else UNSET


def cost(usd_per_hour: str | None, elapsed_ns: int) -> int | None:
    """Pico-dollars, rounded once."""
    return None if usd_per_hour is None else round(Fraction(usd_per_hour) * PICO_PER_USD * elapsed_ns / NS_PER_HOUR)


def total(costs: Iterable[int | None]) -> int | None:
    """None as soon as one of them is unknown: a sum without it would be too small."""
    known = list(costs)
    return None if None in known else sum(cost or 0 for cost in known)


def _wasted_ns(before: Earlier, progress: Progress, *, done: int, lost: int, elapsed_ns: int) -> int:
    """Of an attempt that got somewhere. The first that did had the overhead that any run has."""
    in_steps_ns = progress.steps_ns * lost // done if done else progress.steps_ns
    worked_ns = progress.steps_ns + progress.stages_ns + progress.cut_off_ns
    overhead_ns = max(0, elapsed_ns - worked_ns) if before.has_progress else 0
    return min(elapsed_ns, in_steps_ns + progress.cut_off_ns + overhead_ns)
