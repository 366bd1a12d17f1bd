"""Schedules on AWS: an EventBridge Scheduler entry that submits a Batch job itself, without a function in between.

An event that could not be delivered in ten minutes is left out, or goes to the dead-letter queue. Where the site has a queue for
it, a second entry has the runs of all schedules of a store looked after.
"""

import hashlib
import json
from typing import Any  # Any: request payloads as boto3 takes them

import msgspec
from botocore.exceptions import ClientError

from trainers.errors import SpecError
from trainers.launch import aws, batch_payloads, environment, policy, preflight
from trainers.launch import site as sites
from trainers.launch.aws_batch import AwsBatch, first_queue
from trainers.launch.site import BatchSite
from trainers.spec import cron
from trainers.spec.jobspec import JobSpec, Schedule

Payload = dict[str, Any]

SUBMIT_JOB = "arn:aws:scheduler:::aws-sdk:batch:submitJob"
"""The universal target. Its input has the API's names in PascalCase."""

SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
"""EventBridge writes the time in place of this, as 2026-11-30T03:00:00Z."""

PREFIX = "steelyard-"
DELIVERIES = 10
COMPARED = ("ScheduleExpression", "ScheduleExpressionTimezone", "FlexibleTimeWindow", "Target", "State", "Description")


class Entry(msgspec.Struct, frozen=True):
    """One schedule as EventBridge has it."""

    name: str
    expression: str
    timezone: str
    state: str
    description: str
    store: str


def payload(
    spec: JobSpec, when: Schedule, site: BatchSite, *, name: str, store: str, definition_arn: str, queue: str
) -> Payload:
    """For `create_schedule`. Pure: the same arguments are the same bytes."""
    job = {
        "jobName": batch_payloads.batch_name(f"{PREFIX}{name}"),
        "jobQueue": queue,
        "jobDefinition": definition_arn,
        "containerOverrides": {
            "environment": batch_payloads.pairs(
                {
                    environment.SCHEDULE: name,
                    environment.SCHEDULED_TIME: SCHEDULED_TIME,
                    environment.STORE: store,
                }
            )
        },
        "propagateTags": True,
        "tags": {
            "steelyard:job": spec.name,
            batch_payloads.TAG_SCHEDULE: name,
            batch_payloads.TAG_SCHEDULED_TIME: SCHEDULED_TIME,
        },
    }
    description = f"{spec.recipe}: {when.cron} ({when.timezone})"
    return _entry(f"{PREFIX}{name}", cron.aws(cron.parse(when.cron)), when.timezone, job, site, description)


def supervisor_payload(site: BatchSite, *, store: str, definition_arn: str) -> Payload:
    """For `create_schedule`: the round of a supervisor."""
    job = {
        "jobName": f"{PREFIX}{environment.RESERVED}",
        "jobQueue": site.queue_supervisor,
        "jobDefinition": definition_arn,
        "containerOverrides": {"environment": batch_payloads.pairs({environment.STORE: store})},
    }
    minutes = site.supervisor_minutes
    rate = f"rate({minutes} minute{'' if minutes == 1 else 's'})"
    return _entry(supervisor_name(store), rate, "UTC", job, site, f"looks after the runs in {store}")


def supervisor_name(store: str) -> str:
    return f"{PREFIX}{environment.RESERVED}-{hashlib.sha256(store.encode()).hexdigest()[:12]}"


class Scheduler:
    """EventBridge Scheduler's default group in one account and region."""

    def __init__(self, site: BatchSite, batch: AwsBatch) -> None:
        self._site = site
        self._batch = batch
        self._scheduler = aws.client("scheduler", of=batch.session)

    def add(self, spec: JobSpec, *, name: str, store: str, replace: bool) -> list[str]:
        """What was done, in sentences. Raises `SpecError` before anything is registered, or when another schedule has the name."""
        environment.check_schedule_name(name)
        assert spec.schedule is not None
        preflight.check_remote(spec, store=store, on=self._batch.name)
        sites.needed(
            self._site, "scheduler_role_arn", "the ARN of the role by which EventBridge Scheduler submits jobs"
        )
        queue = first_queue(spec, self._site)
        definition_arn = self._batch.register(batch_payloads.definition(spec, self._site))
        wanted = payload(
            spec, spec.schedule, self._site, name=name, store=store, definition_arn=definition_arn, queue=queue
        )
        said = [
            f"schedule '{name}' {self._put(wanted, replace=replace)}: {wanted['ScheduleExpression']} in {spec.schedule.timezone}"
        ]
        return [*said, self._supervised(spec, store), *batch_payloads.notes(spec)]

    def entries(self) -> list[Entry]:
        """Of all schedules that are ours, by name."""
        names = []
        with aws.sentences("list schedules"):
            for page in self._scheduler.get_paginator("list_schedules").paginate(
                GroupName="default", NamePrefix=PREFIX
            ):
                names += [row["Name"] for row in page["Schedules"]]
        found = [self._get(name) for name in sorted(names) if not name.startswith(f"{PREFIX}{environment.RESERVED}-")]
        return [_read(row) for row in found if row and row["Target"]["Arn"] == SUBMIT_JOB]

    def remove(self, name: str) -> list[str]:
        """What was done. Raises `SpecError` naming those there are. A run that has begun goes on."""
        environment.check_schedule_name(name)
        known = self.entries()
        entry = next((row for row in known if row.name == name), None)
        if entry is None:
            names = ", ".join(row.name for row in known) or "none"
            raise SpecError(f"there is no schedule '{name}'; there are: {names}")
        self._delete(f"{PREFIX}{name}")
        said = [f"schedule '{name}' is removed; a run that has begun goes on"]
        is_last = not any(row.store == entry.store for row in known if row.name != name)
        if is_last and self._get(supervisor_name(entry.store)):
            self._delete(supervisor_name(entry.store))
            said.append(f"it was the last of {entry.store}: its supervisor is removed too")
        return said

    def _supervised(self, spec: JobSpec, store: str) -> str:
        if not self._site.queue_supervisor:
            return (
                "nobody looks after runs that use up ten attempts: set STEELYARD_BATCH_QUEUE_SUPERVISOR and add again, "
                "or call `steelyard schedule supervise` regularly"
            )
        definition = batch_payloads.supervisor_definition(spec, self._site, store=store)
        arn = self._batch.register(definition)
        state = self._put(supervisor_payload(self._site, store=store, definition_arn=arn), replace=True)
        return f"supervisor of {store} {state}: every {self._site.supervisor_minutes} min"

    def _put(self, wanted: Payload, *, replace: bool) -> str:
        name = wanted["Name"]
        if self._created(wanted):
            return "is added"
        there = self._get(name) or {}
        if all(_same(there.get(field), wanted[field]) for field in COMPARED):
            return "was there already"
        if not replace:
            raise SpecError(
                f"schedule '{name.removeprefix(PREFIX)}' exists and differs ({there.get('Description', '')}); --replace it, "
                "or choose another --name"
            )
        with aws.sentences(f"replace schedule {name}"):
            self._scheduler.update_schedule(**wanted)
        return "is replaced"

    def _created(self, wanted: Payload) -> bool:
        """False when one of this name exists."""
        with aws.sentences(f"create schedule {wanted['Name']}"):
            try:
                self._scheduler.create_schedule(**wanted)
            except ClientError as error:
                if error.response["Error"].get("Code") != "ConflictException":
                    raise
                return False
        return True

    def _get(self, name: str) -> Payload | None:
        with aws.sentences(f"ask for schedule {name}"):
            try:
                found: Payload = self._scheduler.get_schedule(Name=name, GroupName="default")
            except ClientError as error:
                if error.response["Error"].get("Code") != "ResourceNotFoundException":
                    raise
                return None
        return found

    def _delete(self, name: str) -> None:
        with aws.sentences(f"remove schedule {name}"):
            self._scheduler.delete_schedule(Name=name, GroupName="default")


def _entry(name: str, expression: str, timezone: str, job: Payload, site: BatchSite, description: str) -> Payload:
    target: Payload = {
        "Arn": SUBMIT_JOB,
        "RoleArn": site.scheduler_role_arn,
        "Input": json.dumps(_pascal(job), separators=(",", ":")),
        "RetryPolicy": {"MaximumEventAgeInSeconds": policy.LATE_S_MAX, "MaximumRetryAttempts": DELIVERIES},
    }
    if site.dead_letter_arn:
        target["DeadLetterConfig"] = {"Arn": site.dead_letter_arn}
    return {
        "Name": name,
        "GroupName": "default",
        "Description": description[:512],
        "ScheduleExpression": expression,
        "ScheduleExpressionTimezone": timezone,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": "ENABLED",
        "Target": target,
    }


def _pascal(value: Any) -> Any:  # Any: as above
    """The API's names with a capital first; tags are the user's own names."""
    if isinstance(value, dict):
        return {key[0].upper() + key[1:]: inner if key == "tags" else _pascal(inner) for key, inner in value.items()}
    return [_pascal(inner) for inner in value] if isinstance(value, list) else value


def _same(there: Any, wanted: Any) -> bool:  # Any: as above
    """Whether what EventBridge has agrees with all that we would say; it adds fields of its own."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_same(there.get(key), inner) for key, inner in wanted.items())
    return bool(there == wanted)


def _read(row: Payload) -> Entry:
    job = json.loads(row["Target"]["Input"])
    environ = {pair["Name"]: pair["Value"] for pair in job.get("ContainerOverrides", {}).get("Environment", ())}
    return Entry(
        name=row["Name"].removeprefix(PREFIX),
        expression=row["ScheduleExpression"],
        timezone=row.get("ScheduleExpressionTimezone", "UTC"),
        state=row["State"],
        description=row.get("Description", ""),
        store=environ.get(environment.STORE, ""),
    )
