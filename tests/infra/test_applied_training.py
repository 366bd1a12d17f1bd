"""Jobs, schedules and the supervisor of the applied stack are what the launcher would register, and an event becomes a run."""

import json
from typing import Any

import pytest

from tests.infra.applied import submitted
from tests.infra.conftest import Stack, environ, job_definition
from trainers.launch import environment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]


def test_an_event_becomes_the_run_of_its_time(stack: Stack) -> None:
    job = submitted(stack)
    assigned = environment.assignment(environ(job["container"]["environment"]) | {"AWS_BATCH_JOB_ATTEMPT": "1"})
    assert assigned is not None
    assert assigned.run_id == "steelyard-local-tiny-20261130t020000z"
    assert (assigned.store, assigned.launcher, assigned.spec.recipe) == (
        stack.store, "aws-batch", "tests.support.tinyjob:tiny_job",
    )  # fmt: skip
    assert job["tags"]["steelyard:scheduled-time"] == "2026-11-30T02:00:00Z"
    assert job["jobQueue"].endswith(stack.outputs["environment"]["STEELYARD_BATCH_QUEUE_SPOT"])


def test_jobs_are_what_the_launcher_would_register(stack: Stack) -> None:
    from trainers.launch import batch_payloads, site

    batch_site = site.batch(stack.outputs["environment"])
    made = job_definition(stack, "steelyard-local-tiny")
    found = environment.assignment(
        environ(made["containerProperties"]["environment"]) | {"STEELYARD_RUN_ID": "r", "STEELYARD_STORE": stack.store}
    )
    assert found is not None
    wanted = batch_payloads.definition(found.spec, batch_site)
    for field in ("retryStrategy", "timeout", "propagateTags", "platformCapabilities", "type"):
        assert lowered(made[field]) == lowered(wanted[field]), field
    ours, theirs = made["containerProperties"], wanted["containerProperties"]
    for field in theirs:
        if field != "environment":
            assert ours[field] == theirs[field], field
    named = environ(ours["environment"])
    assert {name for name in named if not name.startswith("AWS_")} == set(environ(theirs["environment"]))


def test_the_supervisor_is_what_the_launcher_would_register(stack: Stack) -> None:
    from tests.support import specs
    from trainers.launch import batch_payloads, schedule, site
    from trainers.spec import reading

    batch_site = site.batch(stack.outputs["environment"])
    made = job_definition(stack, "steelyard-local-supervisor")
    image = made["containerProperties"]["image"]
    spec = reading.parse(specs.toml(specs.full() | {"image": image}), source="job.toml")
    wanted = batch_payloads.supervisor_definition(spec, batch_site, store=stack.store)
    ours, theirs = made["containerProperties"], wanted["containerProperties"]
    assert environ(ours["environment"]).items() >= environ(theirs["environment"]).items()
    for field in set(theirs) - {"environment"}:
        assert ours[field] == theirs[field], field
    assert made["timeout"] == wanted["timeout"]
    entry = stack.account.client("scheduler").get_schedule(Name="steelyard-supervisor-steelyard-local")
    payload = schedule.supervisor_payload(batch_site, store=stack.store, definition_arn=made["jobDefinitionArn"])
    assert entry["ScheduleExpression"] == payload["ScheduleExpression"]
    assert json.loads(entry["Target"]["Input"]) == json.loads(payload["Target"]["Input"])
    for field in ("Arn", "RoleArn", "RetryPolicy", "DeadLetterConfig"):
        assert entry["Target"][field] == payload["Target"][field], field


def lowered(value: Any) -> Any:
    """Batch takes RETRY and retry alike, and the provider writes the latter."""
    if isinstance(value, dict):
        return {key: lowered(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [lowered(inner) for inner in value]
    return value.lower() if isinstance(value, str) else value
