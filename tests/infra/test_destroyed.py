"""Nothing is left of the stack when it is destroyed. The last test of all that use it: conftest sees to that."""

from typing import Any

import pytest

from tests.infra.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]


def test_destroy_leaves_nothing(stack: Stack) -> None:
    stack.root.run("destroy", "-auto-approve", "-input=false", "-no-color", "-parallelism=30")
    assert stack.root.run("state", "list").stdout == ""
    client = stack.account.client
    left = {
        "buckets": client("s3").list_buckets()["Buckets"],
        "repositories": client("ecr").describe_repositories()["repositories"],
        "clusters": clusters(client("ecs")),
        "balancers": client("elbv2").describe_load_balancers()["LoadBalancers"],
        "environments": client("batch").describe_compute_environments()["computeEnvironments"],
        "queues": client("sqs").list_queues().get("QueueUrls", []),
        "schedules": client("scheduler").list_schedules()["Schedules"],
        "functions": client("lambda").list_functions()["Functions"],
        "networks": [each for each in client("ec2").describe_vpcs()["Vpcs"] if not each["IsDefault"]],
        "roles": client("iam").list_roles()["Roles"],
        "logs": client("logs").describe_log_groups()["logGroups"],
        "alarms": client("cloudwatch").describe_alarms()["MetricAlarms"],
        "databases": client("glue").get_databases()["DatabaseList"],
    }
    assert {kind: found for kind, found in left.items() if found} == {}


def clusters(ecs: Any) -> list[str]:
    """Those that live: ECS remembers the others for a while, and Batch has its own."""
    found = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"])["clusters"]
    return [
        each["clusterName"] for each in found if each["status"] == "ACTIVE" and "_Batch_" not in each["clusterName"]
    ]
