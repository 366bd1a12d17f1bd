"""The keeper of the applied stack: what its schedules would start compacts, verifies and tells, in the role that they pass on."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.cli.budgets import CROSSED
from gateway.contract import layout
from tests.infra.applied import DENIED, bare, keys_of, refusal
from tests.infra.conftest import Stack, environ
from tests.support import kept, policies

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]


@pytest.fixture(scope="module")
def opened(stack: Stack) -> str:
    """A ledger in the applied store; the key of one of its records."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in stack.account.environment().items():
            patch.setenv(variable, value)
        asyncio.run(kept.put(stack.store))
        return asyncio.run(kept.keys(stack.store, "ledger/v1/containers/kept-1/"))[0]


@pytest.mark.usefixtures("opened")
def test_scheduled_runs_compact_verify_and_tell(stack: Stack, tmp_path: Path) -> None:
    runs = {job: scheduled(stack, job, tmp_path) for job in stack.outputs["keeper"]["schedules"]}
    with stack.account.asking_for_credentials():
        compacted = started(runs["compact"])
        assert (compacted.returncode, compacted.stdout.count("generation 0")) == (0, kept.HOURS), compacted.stderr
        again = started(runs["compact"])
        assert (again.returncode, "nothing to compact" in again.stdout) == (0, True), "a second run does it twice"
        verified = started(runs["verify"])
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert "the ledger is whole" in verified.stdout
        checked = started(runs["budgets"])
        assert checked.returncode == CROSSED, checked.stderr
    assert [told["budget"] for told in stack.receiver.told] == ["all"]
    written = keys_of(stack)
    assert sum(name.startswith(layout.compacted("manifests")) for name in written) == kept.HOURS
    assert any(name.startswith("budgets/v1/all/hours-24-") for name in written)


class Run(msgspec.Struct, frozen=True):
    """A process in place of a task."""

    words: list[str]
    environment: dict[str, str]


def scheduled(stack: Stack, job: str, folder: Path) -> Run:
    """What ECS would start for the schedule: its overrides over its task definition, with the task role's credentials."""
    target = schedule(stack, job)["Target"]
    definition = task_definition(stack, target)
    (container,) = definition["containerDefinitions"]
    (override,) = json.loads(target["Input"])["containerOverrides"]
    assert override["name"] == container["name"]
    program, *entry = container["entryPoint"]
    assert program == "steelyard"
    told = environ(container["environment"]) | {"XDG_CACHE_HOME": str(folder / job), "TMPDIR": str(folder)}
    keys = stack.account.assume(definition["taskRoleArn"])
    return Run([*entry, *override["command"]], bare() | told | stack.account.environment(keys))


def started(run: Run) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", *run.words]
    return subprocess.run(command, env=run.environment, capture_output=True, text=True, check=False, timeout=300)


def schedule(stack: Stack, job: str) -> dict[str, Any]:
    name = stack.outputs["keeper"]["schedules"][job]
    return dict(stack.account.client("scheduler").get_schedule(Name=name))


def task_definition(stack: Stack, target: dict[str, Any]) -> dict[str, Any]:
    arn = target["EcsParameters"]["TaskDefinitionArn"]
    return dict(stack.account.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"])


@pytest.mark.parametrize("job", ["compact", "verify", "budgets"])
def test_a_schedule_starts_the_keeper_where_it_may_run(stack: Stack, job: str) -> None:
    found = schedule(stack, job)
    target = found["Target"]
    assert found["State"] == "ENABLED"
    ecs = stack.account.client("ecs")
    clusters = ecs.describe_clusters(clusters=[stack.outputs["gateway"]["cluster"]])["clusters"]
    assert [target["Arn"]] == [each["clusterArn"] for each in clusters]
    assert target["EcsParameters"]["LaunchType"] == "FARGATE"
    network = target["EcsParameters"]["NetworkConfiguration"]["awsvpcConfiguration"]
    service = ecs.describe_services(cluster=target["Arn"], services=["gateway"])["services"][0]
    assert set(network["Subnets"]) == set(service["networkConfiguration"]["awsvpcConfiguration"]["subnets"])
    assert target["DeadLetterConfig"]["Arn"].endswith(stack.outputs["trainer"]["missed_queue"])
    assert target["RoleArn"] == stack.outputs["keeper"]["scheduler_role_arn"]


def test_the_keepers_role_adds_to_what_was_compacted_and_nothing_else(stack: Stack, opened: str) -> None:
    owner = stack.account.client("s3")
    unread = ("keys/kept.json", "models/kept/manifests/sha256/0", "runs/kept/run.json")
    for name in unread:
        refusal(owner.put_object, Bucket=stack.bucket, Key=name, Body=b"{}", IfNoneMatch="*")
    s3 = stack.account.client("s3", stack.account.assume(stack.outputs["keeper"]["role_arn"]))

    def put(key: str, **condition: str) -> str:
        return refusal(s3.put_object, Bucket=stack.bucket, Key=key, Body=b"x", **condition)

    def get(key: str) -> str:
        return refusal(s3.get_object, Bucket=stack.bucket, Key=key)

    file = "compacted/v1/charges/dt=2026-11-25/hr=09/000007.parquet"
    with stack.account.asking_for_credentials():
        assert put(file) in DENIED, "without If-None-Match"
        assert (put(file, IfNoneMatch="*"), put(file, IfNoneMatch="*")) == ("", "PreconditionFailed")
        assert put("budgets/v1/b/2026-11/spent-1.json", IfNoneMatch="*") == ""
        for name in ("ledger/v1/dt=2026-11-25/hr=09/c/1-000000000009.jsonl.gz", "ledger/v1/corrections/000009.json",
                     "prices/current.json", "models/m/versions/9.json", "keys/mine.json", "runs/r/cancel.json"):  # fmt: skip
            assert put(name, IfNoneMatch="*") in DENIED, name
        assert get(opened) == ""
        for name in unread:
            assert get(name) in DENIED, name
        for name in (file, opened):
            assert refusal(s3.delete_object, Bucket=stack.bucket, Key=name) in DENIED, name


def test_the_schedulers_role_starts_the_keeper_in_its_roles_and_nothing_else(stack: Stack) -> None:
    """moto does not tell the judge what a call outside S3 is about, so he is asked about the role's own policies."""
    keeper = stack.outputs["keeper"]
    iam, name = stack.account.client("iam"), keeper["scheduler_role_arn"].rpartition("/")[2]
    held = [
        iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"]
        for each in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    target = schedule(stack, "compact")["Target"]
    definition = task_definition(stack, target)
    here, to_ecs = {"ecs:cluster": target["Arn"]}, {"iam:PassedToService": "ecs-tasks.amazonaws.com"}

    def may(action: str, resource: str, context: dict[str, str]) -> bool:
        return policies.is_allowed(held, action, resource, context)

    assert may("ecs:RunTask", definition["taskDefinitionArn"], here)
    assert not may("ecs:RunTask", definition["taskDefinitionArn"], {"ecs:cluster": f"{target['Arn']}-other"})
    assert not may("ecs:RunTask", stack.outputs["gateway"]["task_definition_arn"], here)
    for role in (definition["taskRoleArn"], definition["executionRoleArn"]):
        assert may("iam:PassRole", role, to_ecs)
        assert not may("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})
    for role in (
        stack.outputs["gateway"]["role_arn"],
        stack.outputs["trainer"]["role_arn"],
        keeper["scheduler_role_arn"],
    ):
        assert not may("iam:PassRole", role, to_ecs)
    assert may("sqs:SendMessage", target["DeadLetterConfig"]["Arn"], {})
    assert not may("ecs:StopTask", f"{target['Arn'].replace(':cluster/', ':task/')}/1", here)


def test_a_run_that_failed_is_told(stack: Stack) -> None:
    """The rule of the applied stack, by what its event would say; EventBridge itself is not moto's to play."""
    rule = stack.account.client("events").describe_rule(Name="steelyard-local-failed-keeper")
    pattern = json.loads(rule["EventPattern"])["detail"]
    family = task_definition(stack, schedule(stack, "verify")["Target"])["family"]
    assert pattern["taskDefinitionArn"] == [{"wildcard": f"*:task-definition/{family}:*"}]
    assert pattern["$or"][0] == {"containers": {"exitCode": [{"anything-but": [0]}]}}
    (filtered,) = stack.account.client("logs").describe_metric_filters(filterNamePrefix="FailedKeeper")["metricFilters"]
    alarm = stack.account.client("cloudwatch").describe_alarms(AlarmNames=["steelyard-local-failed-keeper"])
    assert alarm["MetricAlarms"][0]["MetricName"] == filtered["metricTransformations"][0]["metricName"]
