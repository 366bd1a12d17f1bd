"""What AWS Batch is told, as plain dictionaries: the same spec gives the same bytes. Pure; `aws_batch` sends them.

The definition holds what is the same for every run of a spec, the spec included; a submission adds the run. AWS Batch compares
nothing, so a definition carries the digest of its content as a tag, by which it is found again.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any  # Any: request payloads as boto3 takes them

from trainers.launch import environment, policy
from trainers.launch.policy import RetryPolicy
from trainers.launch.site import BatchSite
from trainers.spec.jobspec import JobSpec

Payload = dict[str, Any]

MIB_PER_GB = 1024
COMMAND = ("steelyard", "train")
"""Everything else is in the environment."""

TAG_CONTENT = "steelyard:content"
TAG_RUN = "steelyard:run"
TAG_SUBMISSION = "steelyard:submission"
TAG_SCHEDULE = "steelyard:schedule"
TAG_SCHEDULED_TIME = "steelyard:scheduled-time"
TAG_FIRST_SUBMITTED = "steelyard:first-submitted"

NAME_LENGTH_MAX = 128
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")


def definition(spec: JobSpec, site: BatchSite) -> Payload:
    """For `register_job_definition`. The spec has an image."""
    assert spec.image is not None
    environ = environment.written(spec, launcher="aws-batch")
    container = _container(spec.image, COMMAND, environ, site) | {
        "resourceRequirements": _requirements(spec),
        "linuxParameters": {
            "initProcessEnabled": True,  # passes SIGTERM on and collects the loader's dead children
            "sharedMemorySize": round(spec.resources.shm_gb * MIB_PER_GB),
        },
    }
    payload = {
        "jobDefinitionName": batch_name(f"steelyard-{spec.name}"),
        "type": "container",
        "platformCapabilities": ["EC2"],
        "propagateTags": True,
        "containerProperties": container,
        "retryStrategy": policy.batch_retry_strategy(RetryPolicy()),
        "timeout": {"attemptDurationSeconds": policy.killed_after_s(spec.limits.attempt.seconds)},
    }
    return payload | {"tags": {"steelyard:job": spec.name, TAG_CONTENT: _digest(payload)}}


def supervisor_definition(spec: JobSpec, site: BatchSite, *, store: str) -> Payload:
    """A small job that looks after the runs of all schedules: `steelyard schedule supervise`."""
    assert spec.image is not None
    command = ("steelyard", "schedule", "supervise")
    environ = {environment.STORE: store} | {
        f"STEELYARD_BATCH_{name.upper()}": value
        for name in ("queue_spot", "queue_on_demand")
        if (value := getattr(site, name))
    }
    payload = {
        "jobDefinitionName": "steelyard-supervisor",
        "type": "container",
        "platformCapabilities": ["EC2"],
        "propagateTags": True,
        "containerProperties": _container(spec.image, command, environ, site)
        | {"resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]},
        "retryStrategy": {"attempts": 1},
        "timeout": {"attemptDurationSeconds": 600},
    }
    return payload | {"tags": {TAG_CONTENT: _digest(payload)}}


def submission(
    spec: JobSpec,
    *,
    run_id: str,
    store: str,
    definition_arn: str,
    queue: str,
    number: int = 1,
    first_submitted_s: int,
    more: Mapping[str, str] | None = None,
) -> Payload:
    """For `submit_job`. `number` counts the submissions of one run; each has up to ten attempts of its own."""
    environ = {
        environment.RUN_ID: run_id,
        environment.STORE: store,
        environment.ATTEMPT_BASE: str((number - 1) * policy.ATTEMPTS_MAX),
        **(more or {}),
    }
    return {
        "jobName": job_name(run_id, number),
        "jobQueue": queue,
        "jobDefinition": definition_arn,
        "containerOverrides": {"environment": pairs(environ)},
        "propagateTags": True,
        "tags": {
            "steelyard:job": spec.name,
            TAG_RUN: run_id,
            TAG_SUBMISSION: str(number),
            TAG_FIRST_SUBMITTED: str(first_submitted_s),
        },
    }


def job_name(run_id: str, number: int) -> str:
    return batch_name(f"steelyard-{run_id}-{number}")


def job_name_prefix(run_id: str) -> str:
    """What the names of all submissions of a run begin with; so may those of others."""
    return _NOT_ALLOWED.sub("-", f"steelyard-{run_id}-")[: NAME_LENGTH_MAX - 9]


def batch_name(text: str) -> str:
    """Letters, digits, `-` and `_`; two texts that differ only in other signs do not get the same name."""
    plain = _NOT_ALLOWED.sub("-", text)
    if plain != text or len(plain) > NAME_LENGTH_MAX:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        plain = f"{plain[: NAME_LENGTH_MAX - 9]}-{digest}"
    return plain


def pairs(environ: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": environ[name]} for name in sorted(environ)]


def notes(spec: JobSpec) -> tuple[str, ...]:
    """What of the spec Batch cannot be told."""
    found = []
    if spec.resources.disk_gb is not None:
        found.append(
            "resources.disk_gb: on AWS Batch the disk's size is the compute environment's (its launch template)"
        )
    if spec.resources.gpu_memory_gb is not None:
        found.append("resources.gpu_memory_gb: on AWS Batch the queue's instance types decide which GPU there is")
    return tuple(found)


def _container(image: str, command: tuple[str, ...], environ: Mapping[str, str], site: BatchSite) -> Payload:
    container: Payload = {"image": image, "command": list(command), "environment": pairs(environ)}
    if site.job_role_arn:
        container["jobRoleArn"] = site.job_role_arn
    if site.execution_role_arn:
        container["executionRoleArn"] = site.execution_role_arn
    if site.log_group:
        container["logConfiguration"] = {"logDriver": "awslogs", "options": {"awslogs-group": site.log_group}}
    return container


def _requirements(spec: JobSpec) -> list[dict[str, str]]:
    wanted = [
        {"type": "VCPU", "value": str(spec.resources.cpu)},
        {"type": "MEMORY", "value": str(round(spec.resources.memory_gb * MIB_PER_GB))},
    ]
    return [*wanted, {"type": "GPU", "value": str(spec.resources.gpu)}] if spec.resources.gpu else wanted


def _digest(payload: Payload) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
