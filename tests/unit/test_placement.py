"""What the platform says of itself: a real HTTP endpoint as ECS's, the environment as Lambda's and Cloud Run's."""

from typing import Any

import pytest

from gateway.accounting import placement
from gateway.accounting.placement import Placement
from tests.support.ecsmetadata import metadata

STARTED_NS = 1_793_883_012 * 10**9  # 2026-11-05T12:50:12Z
PULLED_NS = 1_793_883_000 * 10**9 + 445_271_000
TASK = {
    "Cluster": "default",
    "TaskARN": "arn:aws:ecs:us-east-1:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c",
    "Limits": {"CPU": 0.5, "Memory": 1024},
    "PullStartedAt": "2026-11-05T12:50:00.445271186Z",
    "PullStoppedAt": "2026-11-05T12:50:09.179543254Z",
    "LaunchType": "FARGATE",
    "Containers": [],
}
CONTAINER = {"Name": "gateway", "StartedAt": "2026-11-05T12:50:11.2Z", "Limits": {"CPU": 2}}


def ecs(uri: str, *, machine: str = "x86_64", execution: str = "", started_ns: int = STARTED_NS) -> Placement:
    environ = {placement.ECS_METADATA: uri, "AWS_EXECUTION_ENV": execution}
    return placement.find(environ, machine=machine, started_ns=started_ns)


def test_a_fargate_task_says_its_size_and_when_its_bill_began() -> None:
    with metadata({"/v4/abc/task": TASK, "/v4/abc": CONTAINER}) as uri:
        assert ecs(uri) == Placement(
            "ECS task metadata",
            "fargate-x86",
            500,
            1 << 30,
            PULLED_NS,
            "158d1c8083dd49d6b527399fd6414f5c",
            TASK["TaskARN"],
        )
        assert ecs(uri, machine="aarch64").platform == "fargate-arm"


def test_a_process_that_was_restarted_in_its_container_does_not_bill_the_pull_again() -> None:
    with metadata({"/v4/abc/task": TASK, "/v4/abc": CONTAINER}) as uri:
        assert ecs(uri, started_ns=STARTED_NS + 3600 * 10**9).billed_from_ns == 0


def test_a_task_on_ones_own_machine_is_not_fargate() -> None:
    with metadata({"/v4/abc/task": TASK | {"LaunchType": "EC2"}, "/v4/abc": CONTAINER}) as uri:
        assert ecs(uri) == Placement()


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ({"/v4/abc/task": b"<html>"}, 200),
        ({"/v4/abc/task": {"Limits": {"CPU": "many"}}}, 200),
        ({"/v4/abc/task": TASK}, 500),
    ],
)
def test_a_broken_endpoint_is_warned_about_and_stops_nothing(
    answers: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with metadata(answers, status) as uri:
        assert ecs(uri) == Placement()
        assert ecs(uri, execution="AWS_ECS_FARGATE") == Placement("AWS_EXECUTION_ENV", "fargate-x86")
    assert "ECS metadata" in caplog.text


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/v4/x", "file:///etc/passwd", "http://[", "nonsense"])
def test_an_endpoint_that_is_not_there_stops_nothing(uri: str) -> None:
    assert ecs(uri) == Placement()


def test_cloud_run_is_known_by_its_environment_and_its_size_is_the_cgroups() -> None:
    found = placement.find({"K_SERVICE": "s", "K_REVISION": "r"}, machine="x86_64", started_ns=1)
    assert found == Placement("Cloud Run's environment", "cloud-run-requests")


def test_a_function_has_vcpus_in_proportion_to_its_memory() -> None:
    environ = {"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"}
    assert placement.find(environ, machine="arm64", started_ns=1) == Placement(
        "Lambda's environment", "lambda-arm", 1000, 1769 << 20
    )
    unknown = placement.find(environ | {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "?"}, machine="arm64", started_ns=1)
    assert (unknown.vcpu_milli, unknown.memory_bytes) == (0, 0)


def test_anywhere_else_nothing_is_known() -> None:
    assert placement.find({}, machine="x86_64", started_ns=1) == Placement()
