"""The stack on an emulator does what it is for: a gateway and a job started as it says, in the roles that it gives them.

`make infra-test`. Everything here is a real process with real clients; only AWS itself is moto's server, which judges policies with
their conditions (tests/support/awsserver.py).
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from gateway.objectstore.opening import open_store
from tests.infra.conftest import Stack, environ, job_definition, task_definition
from tests.support import accesskeys, lambdaapi, models, servers
from tests.support.gateways import Gateway
from trainers.launch import environment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]

ROW = dict(models.TINY_EXAMPLES.rows[0])
WAIT_S = 60


def test_a_second_plan_finds_nothing_to_do(stack: Stack) -> None:
    done = stack.root.run("plan", "-detailed-exitcode", "-input=false", "-no-color", codes=(0, 2))
    assert done.returncode == 0, done.stdout[-6000:]


# --- the gateway, and a job whose result it takes up


def test_the_stack_serves_trains_and_takes_up_what_was_trained(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = asyncio.run(prepared(stack, monkeypatch))
    container, job = task_definition(stack), submitted(stack)
    as_gateway = stack.account.assume(stack.outputs["gateway"]["role_arn"])
    as_job = stack.account.assume(stack.outputs["trainer"]["role_arn"])
    with (
        stack.account.asking_for_credentials(),
        served(container, stack.account.environment(as_gateway), tmp_path) as gateway,
    ):
        refused = gateway.post("/v1/predict/first", {"rows": [ROW]})
        assert refused.status == 401, "a gateway of the stack must ask for keys"
        assert gateway.get("/metrics").status == 401
        first = gateway.request("POST", "/v1/predict/first", {"rows": [ROW]}, Steelyard_Key=key)
        assert (first.status, first.json["version"]) == (200, 1), gateway.log.read_text()[-3000:]
        assert gateway.request("POST", "/v1/predict/tiny", {"rows": [ROW]}, Steelyard_Key=key).status == 404
        trained = train(job, stack, as_job, tmp_path)
        assert trained.returncode == 0, trained.stdout + trained.stderr
        answer = answered(gateway, "/v1/predict/tiny", key)
        assert (answer["version"], answer["receipt"]["model"]) == (1, "tiny")
        page = gateway.request("GET", "/costs", Steelyard_Key=key)
        assert page.status == 200, page.body[:500]
        assert gateway.terminate() == 0, gateway.log.read_text()[-3000:]
    assert "Traceback" not in gateway.log.read_text()
    written = keys_of(stack)
    assert any(re.fullmatch(r"ledger/v1/dt=[^/]+/hr=\d\d/[^/]+/.+\.jsonl\.gz", name) for name in written)
    assert any(name.endswith("-close.json") for name in written), "the gateway's bill is closed"
    assert any(name.startswith("ledger/v1/training/") for name in written)
    figures_reach_cloudwatch(stack, gateway.log)


def test_the_function_answers_events_of_its_url(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own command and environment, in the role that it has, with a Runtime API that is played."""
    key = asyncio.run(prepared(stack, monkeypatch, "small"))
    function = stack.account.client("lambda").list_functions()["Functions"][0]
    as_function = stack.account.assume(function["Role"])
    told = dict(function["Environment"]["Variables"])
    assert told["STEELYARD_ACCESS__REQUIRED"] == "always"
    (port,) = servers.free_ports(1)
    with stack.account.asking_for_credentials(), lambdaapi.playing() as api:
        here = {
            "STEELYARD_SERVER__PORT": str(port),
            "STEELYARD_REPOSITORY__CACHE_DIR": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path),
            # What Lambda sets.
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "AWS_LAMBDA_FUNCTION_NAME": function["FunctionName"],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function["MemorySize"]),
        }
        env = bare() | told | here | stack.account.environment(as_function)
        command = [sys.executable, "-m", "gateway", "serve"]
        log = tmp_path / "function.log"
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
            try:
                body = json.dumps({"rows": [ROW]}).encode()
                assert api.request("POST", "/v1/predict/small", body).json["statusCode"] == 401
                answer = api.request("POST", "/v1/predict/small", body, steelyard_key=key)
                assert answer.json["statusCode"] == 200, log.read_text()[-3000:]
                assert int(answer.json["headers"]["steelyard-cost-picousd"]) > 200_000, "an invocation's fee is in it"
                process.terminate()
                assert process.wait(timeout=WAIT_S) == 0, log.read_text()[-3000:]
            finally:
                process.kill()
    assert "Traceback" not in log.read_text()
    assert api.init_errors == []


@contextlib.contextmanager
def served(container: dict[str, Any], account: dict[str, str], folder: Path) -> Iterator[Gateway]:
    """The task definition's own command and environment, in this account and role, until the block ends."""
    assert container["entryPoint"] + container["command"] == ["steelyard", "serve"]
    (port,) = servers.free_ports(1)
    told = environ(container["environment"])
    assert told["STEELYARD_SERVER__HOST"] == "0.0.0.0"
    # What differs from a task: the port is free here, nobody else reaches it, /tmp is this test's, and it hurries.
    here = {
        "STEELYARD_SERVER__HOST": "127.0.0.1",
        "STEELYARD_SERVER__PORT": str(port),
        "STEELYARD_SERVER__LINGER_S": "0",
        "STEELYARD_REPOSITORY__CACHE_DIR": str(folder / "cache"),
        "STEELYARD_LOG__FIGURES_S": "0.2",
        "STEELYARD_REPOSITORY__POLL_S": "0.2",
        "STEELYARD_LEDGER__FLUSH_INTERVAL_S": "1",
        "TMPDIR": str(folder),
    }
    env = bare() | told | here | account
    log = folder / "gateway.log"
    command = [sys.executable, "-m", "gateway", *container["command"]]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            yield Gateway(process, ready(process, port, log), log)
        finally:
            process.kill()


async def prepared(stack: Stack, monkeypatch: pytest.MonkeyPatch, model: str = "first") -> str:
    """A model and a key in the store; the key."""
    await published(stack, model, monkeypatch)
    async with contextlib.aclosing(open_store(stack.store)) as store:
        key, _ = await accesskeys.added(store, rights=("predict", "costs"))
        return key


async def published(stack: Stack, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the account's owner."""
    for variable, value in stack.account.environment().items():
        monkeypatch.setenv(variable, value)
    async with contextlib.aclosing(open_store(stack.store)) as store:
        await models.publish_tiny(store, name)


def bare() -> dict[str, str]:
    """This process's environment without what the stack shall say."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STEELYARD_"))}


def ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> int:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if Gateway(process, port, log).get("/v2/health/ready").status == 200:
                return port
        time.sleep(0.05)
    raise AssertionError(f"the gateway did not start:\n{log.read_text()[-4000:]}")


def answered(gateway: Gateway, path: str, key: str) -> Any:
    """The first answer that is none of "no such model", which a gateway believes for a moment."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = gateway.request("POST", path, {"rows": [ROW]}, Steelyard_Key=key)
        if answer.status != 404:
            assert answer.status == 200, answer.body
            return answer.json
        time.sleep(0.1)
    raise AssertionError(f"the gateway does not see what was published:\n{gateway.log.read_text()[-4000:]}")


def train(job: dict[str, Any], stack: Stack, keys: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """The job's command in the job's environment, as Batch starts its first attempt."""
    assert job["container"]["command"] == ["steelyard", "train"]
    told = environ(job["container"]["environment"]) | {"AWS_BATCH_JOB_ID": job["jobId"], "AWS_BATCH_JOB_ATTEMPT": "1"}
    env = bare() | told | stack.account.environment(keys) | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gateway", "train"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


def keys_of(stack: Stack) -> set[str]:
    pages = stack.account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stack.bucket)
    return {row["Key"] for page in pages for row in page.get("Contents", ())}


def figures_reach_cloudwatch(stack: Stack, log: Path) -> None:
    """Every metric filter finds its field, as a number, in a line that the gateway wrote."""
    group = stack.outputs["gateway"]["log_group"]
    filters = stack.account.client("logs").describe_metric_filters(logGroupName=group)["metricFilters"]
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert len(filters) == len(stack.outputs["gateway"]["metrics"]["names"])
    for each in filters:
        found = re.fullmatch(r'\{ \$\.message = "(\w+)" && \$\.(\w+) >= 0 \}', each["filterPattern"])
        assert found is not None
        values = [line[found[2]] for line in lines if line["message"] == found[1]]
        assert values, f"no line that {each['filterPattern']} matches"
        assert all(isinstance(value, int | float) and value >= 0 for value in values)
        assert each["metricTransformations"][0]["metricValue"] == f"$.{found[2]}"


def test_an_operators_commands_find_the_stack(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Terraform itself, and by a file of what it prints."""
    asyncio.run(published(stack, "found", monkeypatch))
    file = tmp_path / "stack.json"
    file.write_text(stack.root.run("output", "-json").stdout)
    keys = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    env = bare() | dict(stack.root.environment) | keys | {"TMPDIR": str(tmp_path)}
    for where in (stack.root.folder, file):
        command = [sys.executable, "-m", "gateway", "--from-terraform", str(where), "models", "list"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "found" in done.stdout
    command = [sys.executable, "-m", "gateway", "--from-terraform", str(file), "schedule", "list"]
    listed = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert "steelyard-local-tiny" in listed.stdout


# --- schedules


def submitted(stack: Stack, time: str = "2026-11-30T02:00:00Z") -> dict[str, Any]:
    """The job that EventBridge would submit: the schedule's input with the time filled in, through a real client's own checks."""
    schedule = stack.account.client("scheduler").get_schedule(Name=stack.outputs["trainer"]["schedules"]["tiny"])
    filled = json.loads(schedule["Target"]["Input"].replace("<aws.scheduler.scheduled-time>", time))
    batch = stack.account.client("batch")
    (row,) = batch.describe_jobs(jobs=[batch.submit_job(**camel(filled))["jobId"]])["jobs"]
    return dict(row)


def camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: inner if key == "Tags" else camel(inner) for key, inner in value.items()}
    return [camel(inner) for inner in value] if isinstance(value, list) else value


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


# --- rights


def refusal(call: Any, **arguments: Any) -> str:
    """The code of the refusal; "" when the call went through."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_the_gateways_role_writes_what_it_measured_and_nothing_else(stack: Stack) -> None:
    keys = stack.account.assume(stack.outputs["gateway"]["role_arn"])
    compacted = "compacted/v1/charges/dt=2026-11-25/hr=10/000001.parquet"
    for name in ("runs/r/run.json", compacted):
        stack.account.client("s3").put_object(Bucket=stack.bucket, Key=name, Body=b"{}", IfNoneMatch="*")
    s3 = stack.account.client("s3", keys)
    segment = "ledger/v1/dt=2026-11-25/hr=10/c/1-000000000001.jsonl.gz"
    with stack.account.asking_for_credentials():
        assert refusal(put(s3, stack), Key=segment, IfNoneMatch="*") == ""
        assert refusal(put(s3, stack), Key=segment) in DENIED, "a write that could replace a segment"
        for name in ("models/m/blobs/sha256/0", "models/m/aliases/champion.json", "keys/k.json", "prices/current.json",
                     "ledger/v1/training/r/0001.json", "runs/r/heartbeat.json", "schedules/s/lease.json"):  # fmt: skip
            assert refusal(put(s3, stack), Key=name, IfNoneMatch="*") in DENIED, name
        assert refusal(s3.get_object, Bucket=stack.bucket, Key=compacted) == "", "the page /costs reads it"
        assert refusal(s3.get_object, Bucket=stack.bucket, Key="runs/r/run.json") in DENIED
        assert refusal(s3.delete_object, Bucket=stack.bucket, Key=segment) in DENIED
        assert (
            refusal(s3.put_bucket_versioning, Bucket=stack.bucket, VersioningConfiguration={"Status": "Suspended"})
            in DENIED
        )
        assert refusal(s3.delete_bucket_policy, Bucket=stack.bucket) in DENIED
        assert refusal(stack.account.client("iam", keys).list_roles) in DENIED
        batch = stack.account.client("batch", keys)
        assert refusal(batch.submit_job, jobName="j", jobQueue="q", jobDefinition="d") in DENIED


def test_a_jobs_role_publishes_once_and_sees_no_keys(stack: Stack) -> None:
    keys = stack.account.assume(stack.outputs["trainer"]["role_arn"])
    owner = stack.account.client("s3")
    owner.put_object(Bucket=stack.bucket, Key="keys/secret.json", Body=b"{}", IfNoneMatch="*")
    s3 = stack.account.client("s3", keys)
    blob = "models/m/blobs/sha256/1"
    with stack.account.asking_for_credentials():
        assert refusal(put(s3, stack), Key=blob) in DENIED, "without If-None-Match"
        assert refusal(put(s3, stack), Key=blob, IfNoneMatch="*") == ""
        assert refusal(put(s3, stack), Key=blob, IfNoneMatch="*") == "PreconditionFailed"
        assert refusal(put(s3, stack), Key="models/m/aliases/champion.json") in DENIED, "without either condition"
        assert refusal(put(s3, stack), Key="models/m/aliases/champion.json", IfNoneMatch="*") == ""
        assert uploaded_in_parts(s3, stack, "models/m/blobs/sha256/2", IfNoneMatch="*") == ""
        assert uploaded_in_parts(s3, stack, "models/m/blobs/sha256/3") in DENIED
        assert refusal(s3.get_object, Bucket=stack.bucket, Key="keys/secret.json") in DENIED
        assert refusal(put(s3, stack), Key="keys/mine.json", IfNoneMatch="*") in DENIED
        assert (
            refusal(put(s3, stack), Key="ledger/v1/dt=2026-11-25/hr=10/c/1-000000000002.jsonl.gz", IfNoneMatch="*")
            in DENIED
        )
        assert refusal(s3.delete_object, Bucket=stack.bucket, Key=blob) in DENIED
        assert refusal(s3.delete_object, Bucket=stack.bucket, Key="runs/r/checkpoints/1-1/facts.json") == ""


def test_not_even_the_owner_replaces_what_was_written_once(stack: Stack) -> None:
    owner = stack.account.client("s3")
    assert refusal(put(owner, stack), Key="models/m/versions/1.json") in DENIED
    assert refusal(put(owner, stack), Key="models/m/versions/1.json", IfNoneMatch="*") == ""
    assert refusal(put(owner, stack), Key="models/m/versions/1.json", IfMatch="x") in DENIED


DENIED = {"AccessDenied", "AccessDeniedException", "403"}


def put(s3: Any, stack: Stack) -> Any:
    return lambda **arguments: s3.put_object(Bucket=stack.bucket, Body=b"x", **arguments)


def uploaded_in_parts(s3: Any, stack: Stack, key: str, **condition: str) -> str:
    """Starting and sending parts must pass; the refusal of what creates the object."""
    at = {"Bucket": stack.bucket, "Key": key}
    upload = at | {"UploadId": s3.create_multipart_upload(**at)["UploadId"]}
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    return refusal(s3.complete_multipart_upload, **upload, MultipartUpload=parts, **condition)


# --- the same words everywhere


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


def test_the_ledgers_tables_are_those_of_infra_athena(stack: Stack) -> None:
    tables = stack.account.client("glue").get_tables(DatabaseName=stack.outputs["observability"]["database"])[
        "TableList"
    ]
    folder = Path(__file__).parents[2] / "infra" / "athena"
    assert {table["Name"] for table in tables} == {f"steelyard_{file.stem}" for file in folder.glob("*.sql")}
    for table in tables:
        ddl = (folder / f"{table['Name'].removeprefix('steelyard_')}.sql").read_text()
        columns, partitions = ddl.split("PARTITIONED BY")
        assert pairs(table["StorageDescriptor"]["Columns"]) == re.findall(r"^  `(\w+)` (.+?),?$", columns, re.MULTILINE)
        assert pairs(table["PartitionKeys"]) == re.findall(r"`(\w+)` (\w+)", partitions)
        place = f"{stack.store}/compacted/v1/{table['Name'].removeprefix('steelyard_')}/"
        assert table["StorageDescriptor"]["Location"] == place
        properties = dict(re.findall(r"'([a-z.]+)' = '([^']*)'", ddl))
        assert {name: table["Parameters"][name] for name in properties} == properties


def pairs(columns: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(column["Name"], column["Type"]) for column in columns]


# --- and nothing is left


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
