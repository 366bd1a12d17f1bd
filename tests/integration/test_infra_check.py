"""`steelyard infra check` over Terraform's own plans and an account that moto's server plays."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.cli.infra import infra
from tests.support import awsserver, ecsmetadata, plans
from tests.support.awsserver import Account

PLANS = Path(__file__).parents[1] / "unit" / "plans"
REGION = "eu-central-1"
STORE, LOGS = "acme-steelyard-dev", "acme-steelyard-dev-logs"
NOBODY = {
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_S3_ALLOW_CROSSACCOUNT_ACCESS", "false")  # as S3: another account's bucket is a 403
        with awsserver.running(tmp_path_factory.mktemp("aws") / "log") as account:
            yield account


@pytest.fixture(autouse=True)
def caller(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account's owner, in the plan's region; nothing of the person's own settings."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (account.environment() | {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}).items():
        monkeypatch.setenv(name, value)


def client(account: Account, service: str, keys: dict[str, str] | None = None) -> Any:
    given = keys or {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return boto3.client(service, endpoint_url=account.url, region_name=REGION, **given)


def invoke(plan: Path | str, *options: str) -> Result:
    path = PLANS / f"{plan}.json" if isinstance(plan, str) else plan
    return CliRunner().invoke(infra, ["check", str(path), *options])


def subjects(plan: Path | str) -> dict[str, list[tuple[str, str]]]:
    """Verdicts and sentences by subject; the exit code must say the same."""
    done = invoke(plan, "--format", "json")
    said = json.loads(done.output)
    assert done.exit_code == int(said["stop"]) == int(any(row["verdict"] == "stop" for row in said["checks"]))
    by_subject: dict[str, list[tuple[str, str]]] = {}
    for row in said["checks"]:
        by_subject.setdefault(row["about"], []).append((row["verdict"], f"{row['what']}: {row['do']}"))
    return by_subject


def checked(plan: Path | str, about: str) -> list[tuple[str, str]]:
    return subjects(plan)[about]


@contextlib.contextmanager
def bucket(account: Account, name: str, keys: dict[str, str] | None = None) -> Iterator[None]:
    s3 = client(account, "s3", keys)
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    try:
        yield
    finally:
        s3.delete_bucket(Bucket=name)


@contextlib.contextmanager
def pushed(account: Account, *repositories: str) -> Iterator[dict[str, str]]:
    """An image in each of these repositories; their digests."""
    ecr, digests = client(account, "ecr"), {}
    for name in repositories:
        ecr.create_repository(repositoryName=name)
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "of": name}
        )
        put = ecr.put_image(repositoryName=name, imageManifest=manifest, imageTag="1")
        digests[name] = put["image"]["imageId"]["imageDigest"]
    try:
        yield digests
    finally:
        for name in repositories:
            ecr.delete_repository(repositoryName=name, force=True)


def changed(folder: Path, **texts: str) -> Path:
    """The plan of envs/dev, its repositories made before, with texts in it replaced."""
    plan = json.loads((PLANS / "dev.json").read_text())
    plan["resource_changes"] = [row for row in plan["resource_changes"] if row["type"] != "aws_ecr_repository"]
    text = json.dumps(plan)
    for old, new in texts.items():
        text = text.replace(getattr(plans, old, old), new)
    path = folder / "plan.json"
    path.write_text(text)
    return path


# --- all is well


def test_the_first_step_of_a_new_stack_passes() -> None:
    done = invoke("dev-first")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines == [
        "ok           data         no bucket, table, repository or key is destroyed or replaced",
        "ok           credentials  you are arn:aws:sts::123456789012:user/moto",
        "ok           region       everything is made in eu-central-1",
        f"ok           bucket       {LOGS} is free",
        f"ok           bucket       {STORE} is free",
        "",
        "nothing stops it",
    ]


def test_the_whole_stack_passes_with_its_images_in_the_registry(account: Account, tmp_path: Path) -> None:
    with pushed(account, "steelyard-dev/gateway", "steelyard-dev/trainer") as digests:
        gateway, trainer = (f"{plans.ECR}/{name}@{digests[f'steelyard-dev/{name}']}" for name in ("gateway", "trainer"))
        done = invoke(changed(tmp_path, GATEWAY=gateway, TRAINER=trainer))
    assert done.exit_code == 0, done.output
    assert done.output.count("ok ") == 10
    assert f"{gateway} (variable gateway_image) is there" in done.output
    assert "eu-central-1a, eu-central-1b are there" in done.output


# --- who asks


def test_without_credentials_it_stops_and_still_says_what_is_wrong_with_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    done = invoke("dev-moved")
    assert done.exit_code == 1
    data, credentials, rest = done.output.splitlines()[:3]
    assert data.startswith("stop         data")
    assert credentials.startswith("stop         credentials  there are no AWS credentials")
    assert "set AWS_PROFILE" in credentials
    assert rest.startswith("cannot tell  account")


def test_a_profile_that_is_not_there_is_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "typo")
    [(verdict, said)] = checked("dev-first", "credentials")
    assert verdict == "stop"
    assert "typo" in said
    assert "set AWS_PROFILE" in said


def test_what_a_provider_of_credentials_answered_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with ecsmetadata.metadata({"/v4/abc": {"SecretAccessKey": "HALF-A-SECRET"}}, status=500) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        [(verdict, said)] = checked("dev-first", "credentials")
    assert verdict == "stop"
    assert "CredentialRetrievalError of container-role" in said
    assert "HALF-A-SECRET" not in said


def test_credentials_that_aws_does_not_know_stop(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    with account.asking_for_credentials():
        [(verdict, said)] = checked("dev-first", "credentials")
    assert verdict == "stop"
    assert "sts:GetCallerIdentity is refused: InvalidClientTokenId" in said
    assert "eu-central-1 is not enabled" in said


def test_another_account_than_the_plans_stops_before_anything_is_asked_there(tmp_path: Path) -> None:
    plan = changed(tmp_path, **{'"account_id": {"value": "123456789012"}': '"account_id": {"value": "210987654321"}'})
    found = subjects(plan)
    [(verdict, said)] = found["credentials"]
    assert verdict == "stop"
    assert "arn:aws:sts::123456789012:user/moto, and this plan is for account 210987654321" in said
    assert "bucket" not in found
    assert [each for each, _ in found["account"]] == ["cannot tell"]


def test_a_region_that_does_not_answer_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nobody listens
    [(verdict, said)] = checked("dev-first", "credentials")
    assert verdict == "stop"
    assert "is eu-central-1 the right region" in said


# --- where


def test_settings_of_another_region_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    [(verdict, said)] = checked("dev-first", "region")
    assert verdict == "stop"
    assert (
        "the plan is for eu-central-1, and your AWS settings say us-east-1: correct region, or set AWS_REGION=eu-central-1"
        in said
    )


def test_where_no_settings_name_a_region_the_plans_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    assert checked("dev-first", "region") == [("ok", "everything is made in eu-central-1: ")]


def test_a_plan_that_hides_its_region_is_asked_in_the_callers(tmp_path: Path) -> None:
    plan = changed(tmp_path, **{'"references": ["var.region"]': '"references": ["local.region"]'})
    [(verdict, said)] = checked(plan, "region")
    assert verdict == "cannot tell"
    assert "asked was eu-central-1" in said


def test_zones_that_the_region_has_not_stop(tmp_path: Path) -> None:
    [(verdict, said)] = checked(changed(tmp_path, **{"eu-central-1b": "eu-central-1d"}), "zones")
    assert verdict == "stop"
    assert (
        said
        == "eu-central-1 has no eu-central-1d for your account: choose among eu-central-1a, eu-central-1b, eu-central-1c"
    )


# --- buckets


def test_a_bucket_that_another_account_has_stops_although_it_is_the_second_one(account: Account) -> None:
    role = client(account, "sts").assume_role(RoleArn="arn:aws:iam::210987654321:role/theirs", RoleSessionName="theirs")
    theirs = {
        "aws_access_key_id": role["Credentials"]["AccessKeyId"],
        "aws_secret_access_key": role["Credentials"]["SecretAccessKey"],
        "aws_session_token": role["Credentials"]["SessionToken"],
    }
    with bucket(account, STORE, theirs):
        logs, store = checked("dev-first", "bucket")
    assert logs == ("ok", f"{LOGS} is free: ")
    assert store[0] == "stop"
    assert f"{STORE} is taken: by another account" in store[1]
    assert "choose another bucket" in store[1]


def test_a_bucket_of_our_own_that_the_state_does_not_know_stops(account: Account) -> None:
    with bucket(account, LOGS):
        logs, store = checked("dev-first", "bucket")
    assert logs[0] == "stop"
    assert f"{LOGS} is there already, in your own account" in logs[1]
    assert "terraform import" in logs[1]
    assert store[0] == "ok"


def test_a_new_name_of_a_bucket_is_asked_for_too() -> None:
    found = subjects("dev-moved")
    assert found["bucket"] == [("ok", "acme-steelyard-elsewhere is free: ")]
    assert found["data"][0][0] == "stop"


def test_a_bucket_that_is_named_on_creation_cannot_be_asked_for(tmp_path: Path) -> None:
    plan = json.loads((PLANS / "dev-first.json").read_text())
    for row in plan["resource_changes"]:
        row["change"]["after"].pop("bucket", None)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    assert [verdict for verdict, _ in checked(path, "bucket")] == ["cannot tell", "cannot tell"]


# --- images


def test_an_image_whose_repository_this_plan_makes_stops() -> None:
    found = checked("dev", "image")
    assert [verdict for verdict, _ in found] == ["stop", "stop"]
    assert all("this plan only makes its repository: apply the module artifacts by itself" in said for _, said in found)


def test_images_that_are_not_in_the_registry_stop(account: Account, tmp_path: Path) -> None:
    with pushed(account, "steelyard-dev/gateway"):
        gateway, trainer = checked(changed(tmp_path), "image")
    assert gateway[0] == trainer[0] == "stop"
    assert "the repository has no such digest: push it" in gateway[1]
    assert "there is no such repository: push it" in trainer[1]


@pytest.mark.parametrize(
    ("image", "verdict", "why"),
    [
        (f"{plans.ECR}/gateway:1", "stop", "it has no digest: name it as NAME@sha256"),
        (plans.GATEWAY.replace("eu-central-1", "us-east-1"), "stop", "it is in another region than eu-central-1"),
        (plans.GATEWAY.replace("123456789012", "210987654321"), "cannot tell", "is not in this account's registry"),
        (f"registry.example/gateway@sha256:{'1' * 64}", "cannot tell", "is not in this account's registry"),
    ],
)
def test_an_image_that_no_task_could_pull(tmp_path: Path, image: str, verdict: str, why: str) -> None:
    found = checked(changed(tmp_path, GATEWAY=image), "image")[0]
    assert found[0] == verdict
    assert why in found[1]


# --- what we may not ask


def test_what_the_caller_may_not_ask_cannot_be_told(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = client(account, "iam")
    iam.create_user(UserName="guest")
    key = iam.create_access_key(UserName="guest")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    with account.asking_for_credentials():
        found = subjects(changed(tmp_path))
    [(zones, why)] = found["zones"]
    assert zones == "cannot tell"
    assert (
        "ec2:DescribeAvailabilityZones is refused: AccessDenied: are eu-central-1a, eu-central-1b in eu-central-1?"
        in why
    )
    assert [verdict for verdict, _ in found["image"]] == ["cannot tell", "cannot tell"]
    assert all("ecr:DescribeImages is refused: " in said for _, said in found["image"])
    # S3 says the same of a bucket that is ours and may not be seen, and of somebody else's.
    assert all(verdict == "stop" and "without the right to see it" in said for verdict, said in found["bucket"])


def test_a_provider_that_takes_on_a_role_is_not_the_caller(tmp_path: Path) -> None:
    plan = changed(tmp_path, **{'"expressions": {': '"expressions": {"assume_role": [{}], '})
    (first, _), (second, said) = checked(plan, "credentials")
    assert (first, second) == ("ok", "cannot tell")
    assert "takes on a role" in said


def test_a_provider_with_keys_and_endpoints_of_its_own_is_asked_as_itself(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    own = {"access_key": {"constant_value": "local"}, "secret_key": {"constant_value": "local"}}
    url = {"constant_value": account.url}
    own["endpoints"] = [dict.fromkeys(("sts", "s3", "ec2", "ecr"), url)]  # type: ignore[assignment]
    plan = changed(tmp_path, **{'"expressions": {': f'"expressions": {msgspec.json.encode(own).decode()[:-1]}, '})
    assert [verdict for verdict, _ in checked(plan, "bucket")] == ["ok", "ok"]


# --- the plan


def test_a_plan_that_terraform_could_not_finish_stops(tmp_path: Path) -> None:
    plan = changed(tmp_path, **{'"format_version"': '"errored": true, "format_version"'})
    assert [verdict for verdict, _ in checked(plan, "plan")] == ["stop"]


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    done = invoke(tmp_path / "plan.json")
    assert "no Terraform plan" in str(done.exception)
