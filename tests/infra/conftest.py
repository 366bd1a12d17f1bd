"""The whole stack applied to an emulator of AWS, once for all tests that look at it."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.support import awsserver, kept, receivers, terraform
from tests.support.awsserver import Account
from tests.support.receivers import Receiver
from tests.support.terraform import Root

IMAGE = f"registry.example/train@sha256:{'2' * 64}"
KEEPER_IMAGE = f"registry.example/keeper@sha256:{'3' * 64}"
JOBS = {
    "tiny": {
        "recipe": "tests.support.tinyjob:tiny_job",
        "image": IMAGE,
        "cpu": 4,
        "memory_gb": 15.5,
        "shm_gb": 4,
        "gpu": 1,
        "fallback_on_demand_after": "2h",
        "wall": "12h",
        "max_cost_usd": 25,
        "schedule": {"expression": "cron(0 3 ? * MON *)", "timezone": "Europe/Paris"},
    }
}


class Stack(msgspec.Struct, frozen=True):
    """What was applied, where, its outputs, and who takes alerts of budgets."""

    root: Root
    account: Account
    outputs: dict[str, Any]
    receiver: Receiver

    @property
    def bucket(self) -> str:
        return str(self.outputs["artifacts"]["bucket"])

    @property
    def store(self) -> str:
        return str(self.outputs["environment"]["STEELYARD_STORE"])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    root = terraform.copied(folder, "envs/local")
    with awsserver.running(folder / "aws.log") as account, receivers.receiving() as receiver:
        variables = {
            "endpoint_url": account.url,
            "supervisor_image": IMAGE,
            "lambda_image": f"123456789012.dkr.ecr.us-east-1.amazonaws.com/steelyard/gateway@sha256:{'1' * 64}",
            "jobs": JOBS,
            "keeper": {"image": KEEPER_IMAGE, "budgets": {"text": kept.budgets(receiver.url)}},
        }
        (root.folder / "test.auto.tfvars.json").write_text(json.dumps(variables))
        root.run("apply", "-auto-approve", "-input=false", "-no-color", f"-parallelism={terraform.PARALLELISM}")
        yield Stack(root, account, root.output(), receiver)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What destroys the stack comes after everything that looks at it."""
    items.sort(key=lambda item: item.path.name == "test_destroyed.py")


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person's own AWS settings is seen."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def task_definition(stack: Stack) -> dict[str, Any]:
    """The gateway's container as ECS has it."""
    arn = stack.outputs["gateway"]["task_definition_arn"]
    found = stack.account.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"]
    container: dict[str, Any] = found["containerDefinitions"][0]
    return container


def job_definition(stack: Stack, name: str) -> dict[str, Any]:
    """A job's newest definition as Batch has it."""
    (found,) = stack.account.client("batch").describe_job_definitions(jobDefinitionName=name, status="ACTIVE")[
        "jobDefinitions"
    ]
    return dict(found)


def environ(pairs: list[dict[str, str]]) -> dict[str, str]:
    """Pairs of names and values, as ECS and Batch write an environment."""
    return {pair["name"]: pair["value"] for pair in pairs}
