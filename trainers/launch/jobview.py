"""A run's jobs on AWS Batch, read from what DescribeJobs answers. Pure; `supervisor` decides by it."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple  # Any: boto3's answers

from trainers.errors import SpecError
from trainers.launch import batch_payloads, environment, policy
from trainers.launch.environment import Assignment
from trainers.launch.policy import RetryPolicy
from trainers.spec.jobspec import JobSpec


class JobView(NamedTuple):
    """`number` counts the run's submissions from 1. `is_retryable`: its last attempt ended as those do that are retried."""

    run_id: str
    job: str
    number: int
    spec: JobSpec
    store: str
    status: str
    queue: str
    definition: str
    attempts: int
    is_retryable: bool
    last_end: str
    waiting_since_s: float
    first_submitted_s: float
    more: dict[str, str]


def views(described: Iterable[Mapping[str, Any]]) -> list[JobView]:
    """Of all jobs that are ours."""
    return [view for row in described if (view := _view(row))]


def newest_by_run(found: Iterable[JobView]) -> list[JobView]:
    """The latest submission of each run."""
    newest: dict[str, JobView] = {}
    for view in found:
        if view.run_id not in newest or age(view) > age(newest[view.run_id]):
            newest[view.run_id] = view
    return [newest[run_id] for run_id in sorted(newest)]


def age(view: JobView) -> tuple[int, float]:
    """By which the submissions of a run sort, oldest first."""
    return view.number, view.waiting_since_s


def _view(row: Mapping[str, Any]) -> JobView | None:
    """None for a job that no launcher of ours wrote, or a newer one did."""
    tags = row.get("tags", {})
    environ = {pair["name"]: pair["value"] for pair in row.get("container", {}).get("environment", ())}
    try:
        assigned = environment.assignment(environ)
    except SpecError:
        return None
    if assigned is None:
        return None
    attempts = row.get("attempts", [])
    created_s = row["createdAt"] / 1000
    code, reason = _end(attempts[-1] if attempts else {}, row)
    return JobView(
        run_id=assigned.run_id,
        job=row["jobId"],
        number=_int(tags.get(batch_payloads.TAG_SUBMISSION), 1),
        spec=assigned.spec,
        store=assigned.store,
        status=row["status"],
        queue=queue_name(row["jobQueue"]),
        definition=row["jobDefinition"],
        attempts=len(attempts),
        is_retryable=reason.startswith("Host EC2") or (code is not None and RetryPolicy().is_worth_retrying(code)),
        last_end=f"exit code {code}" if code is not None else reason or "unknown",
        waiting_since_s=max([created_s, *(attempt.get("stoppedAt", 0) / 1000 for attempt in attempts)]),
        first_submitted_s=float(_int(tags.get(batch_payloads.TAG_FIRST_SUBMITTED), int(created_s))),
        more=_scheduled(assigned, environ, job=row["jobId"]),
    )


def _scheduled(assigned: Assignment, environ: Mapping[str, str], *, job: str) -> dict[str, str]:
    """What a resubmission must be told to be the same event's: its time, and the job that claimed it."""
    if assigned.scheduled is None:
        return {}
    return {
        environment.SCHEDULE: assigned.scheduled.schedule,
        environment.SCHEDULED_TIME: environ.get(environment.SCHEDULED_TIME, ""),
        environment.JOB: assigned.job if assigned.job != assigned.run_id else job,
    }


def _end(attempt: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int | None, str]:
    code = attempt.get("container", {}).get("exitCode")
    return (int(code) if code is not None else None), str(attempt.get("statusReason") or row.get("statusReason") or "")


def _int(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else default


def queue_name(name_or_arn: str) -> str:
    """Batch answers with ARNs, and a site may name its queues by either."""
    return name_or_arn.rpartition("/")[2]


def used_up(view: JobView) -> bool:
    """All attempts of this submission ended as retried ones do: had there been an eleventh, Batch would have made it."""
    return view.status == "FAILED" and view.attempts >= policy.ATTEMPTS_MAX and view.is_retryable
