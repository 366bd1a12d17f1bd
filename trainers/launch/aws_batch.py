"""Runs jobs on AWS Batch: registers what they are, submits runs of them, says how they are, and stops them.

Batch retries an attempt by its own rules (`policy.batch_retry_strategy`) up to ten times; what comes after is `supervisor`'s.
Asking twice for the same run starts it once. A call that fails says nothing about a job.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal  # Any: boto3's answers

import msgspec

from trainers.errors import SpecError
from trainers.launch import aws, batch_payloads, jobview, preflight
from trainers.launch import site as sites
from trainers.launch.environment import Launcher as Name
from trainers.launch.jobview import JobView
from trainers.launch.launcher import Order, Started
from trainers.launch.site import BatchSite
from trainers.spec.jobspec import JobSpec

Status = Literal["waiting", "running", "succeeded", "failed"]

STATES: dict[str, Status] = {
    "SUBMITTED": "waiting",
    "PENDING": "waiting",
    "RUNNABLE": "waiting",
    "STARTING": "running",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}

DESCRIBED_AT_ONCE = 100
"""DescribeJobs takes no more ids in a call."""


class JobState(msgspec.Struct, frozen=True):
    """One job as Batch sees it now."""

    job: str
    status: Status
    reason: str
    attempts: int


class AwsBatch:
    """One account and region; `site` names its queues and roles."""

    name: Name = "aws-batch"

    def __init__(self, site: BatchSite, *, clock: Callable[[], float] = time.time) -> None:
        """Raises `SpecError` when no region is configured."""
        self._site = site
        self._clock = clock
        self.session = aws.session()
        self._batch = aws.client("batch", of=self.session)
        self._submitting = aws.client("batch", tries=1, of=self.session)

    def start(self, order: Order) -> Started:
        preflight.check_remote(order.spec, store=order.store, on=self.name)
        queue = first_queue(order.spec, self._site)
        notes = batch_payloads.notes(order.spec)
        earlier = self._submissions(order.run_id)
        alive = [view for view in earlier if view.status != "FAILED"]
        if alive:
            said = f"run {order.run_id} was submitted already"
            return Started(run_id=order.run_id, job=alive[-1].job, notes=(said, *notes))
        definition_arn = self.register(batch_payloads.definition(order.spec, self._site))
        payload = batch_payloads.submission(
            order.spec,
            run_id=order.run_id,
            store=order.store,
            definition_arn=definition_arn,
            queue=queue,
            number=max((view.number for view in earlier), default=0) + 1,
            first_submitted_s=int(self._clock()),
        )
        return Started(run_id=order.run_id, job=self.submit(payload), notes=notes)

    def register(self, payload: batch_payloads.Payload) -> str:
        """The ARN of the newest revision with this content; a new one is made only when there is none."""
        name, content = payload["jobDefinitionName"], payload["tags"][batch_payloads.TAG_CONTENT]
        with aws.sentences(f"register job definition {name}"):
            pages = self._batch.get_paginator("describe_job_definitions").paginate(
                jobDefinitionName=name, status="ACTIVE"
            )
            same = [
                (row["revision"], row["jobDefinitionArn"])
                for page in pages
                for row in page["jobDefinitions"]
                if row.get("tags", {}).get(batch_payloads.TAG_CONTENT) == content
            ]
            if same:
                return str(max(same)[1])
            return str(self._batch.register_job_definition(**payload)["jobDefinitionArn"])

    def submit(self, payload: batch_payloads.Payload) -> str:
        """The new job's id."""
        with aws.sentences(f"submit {payload['jobName']} to {payload['jobQueue']}"):
            return str(self._submitting.submit_job(**payload)["jobId"])

    def _submissions(self, run_id: str) -> list[JobView]:
        """The jobs of this run that Batch remembers, oldest first."""
        found = jobview.views(self.described(batch_payloads.job_name_prefix(run_id)))
        return sorted((view for view in found if view.run_id == run_id), key=jobview.age)

    def described(self, name_prefix: str = "steelyard-") -> list[dict[str, Any]]:
        """All that Batch says about our jobs, finished ones included for as long as it remembers them (a week)."""
        ids = [row["jobId"] for row in self._listed(f"{name_prefix}*")]
        found: list[dict[str, Any]] = []
        for first in range(0, len(ids), DESCRIBED_AT_ONCE):
            with aws.sentences("describe jobs"):
                found += self._batch.describe_jobs(jobs=ids[first : first + DESCRIBED_AT_ONCE])["jobs"]
        return found

    def status(self, job: str) -> JobState:
        """Raises `SpecError` for a job that Batch does not know (any more), `LauncherUnavailable` when it does not answer."""
        with aws.sentences(f"ask for job {job}"):
            rows = self._batch.describe_jobs(jobs=[job])["jobs"]
        if not rows:
            raise SpecError(f"AWS Batch knows no job {job}; it forgets finished ones after a week")
        row = rows[0]
        return JobState(job, STATES[row["status"]], row.get("statusReason", ""), len(row.get("attempts", ())))

    def cancel(self, job: str, reason: str) -> None:
        """Waiting or running, it ends: a running attempt gets SIGTERM and may save. A finished one stays as it is."""
        with aws.sentences(f"cancel job {job}"):
            self._batch.terminate_job(jobId=job, reason=reason or "cancelled")

    def _listed(self, name: str) -> Iterator[dict[str, Any]]:
        """Of every state: with a name filter Batch does not look at `jobStatus`."""
        queues = [queue for queue in (self._site.queue_spot, self._site.queue_on_demand) if queue]
        for queue in dict.fromkeys(queues):
            with aws.sentences(f"list the jobs of queue {queue}"):
                pages = self._batch.get_paginator("list_jobs").paginate(
                    jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}]
                )
                yield from [row for page in pages for row in page["jobSummaryList"]]


def first_queue(spec: JobSpec, site: BatchSite) -> str:
    """Where a run begins. Raises `SpecError` naming the variable that is not set."""
    if spec.market.prefer == "on_demand":
        return sites.needed(site, "queue_on_demand", "a job queue of AWS Batch on on-demand machines")
    if spec.market.fallback_on_demand_after:
        sites.needed(site, "queue_on_demand", "the queue for market.fallback_on_demand_after")
    return sites.needed(site, "queue_spot", "a job queue of AWS Batch on spot machines")
