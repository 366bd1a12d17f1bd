"""`steelyard infra check DIR` with Terraform itself: what it plans is what is asked about, and nothing is applied."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.infra import infra
from gateway.errors import SettingsError
from tests.infra.conftest import JOBS
from tests.support import awsserver, plans, terraform
from tests.support.awsserver import Account
from tests.support.terraform import Root

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with awsserver.running(tmp_path_factory.mktemp("aws") / "log") as account:
        yield account


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checked")


def check(root: Root, monkeypatch: pytest.MonkeyPatch) -> Result:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in root.environment.items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(infra, ["check", str(root.folder)])


def test_a_configuration_is_planned_and_the_account_of_its_provider_asked(
    account: Account, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator's address and keys stand in the provider of envs/local, and nowhere else."""
    root = terraform.copied(folder, "envs/local")
    (root.folder / "test.auto.tfvars.json").write_text(json.dumps({"endpoint_url": account.url, "jobs": JOBS}))
    account.client("s3").create_bucket(Bucket="steelyard-local-logs")
    done = check(root, monkeypatch)
    assert done.exit_code == 1, done.output
    assert "stop         bucket       steelyard-local-logs is there already" in done.output
    for line in (
        "bucket       steelyard-local is free",
        "subnets      the stack has 4",
        "schedule     2 with times to come",
    ):
        assert f"ok           {line}\n" in done.output
    assert done.output.count("is not in this account's registry") == 2
    assert "1 of 10 checks stop: do not apply this; 2 cannot be told from here" in done.output
    assert [row["Name"] for row in account.client("s3").list_buckets()["Buckets"]] == ["steelyard-local-logs"]


def test_without_credentials_the_sentence_is_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = terraform.copied(folder, "envs/dev")
    (root.folder / "test.auto.tfvars.json").write_text(json.dumps(plans.VARIABLES))
    (root.folder / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    root.run("init", "-reconfigure", "-input=false", "-no-color")
    done = check(root, monkeypatch)
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith(f"{root.folder}: there are no AWS credentials to plan with; set AWS_PROFILE")
