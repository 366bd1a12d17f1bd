"""`steelyard schedule` and `launch` as a user calls them, against EventBridge Scheduler and Batch of moto's server."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.contract.runs import Progress
from gateway.objectstore.opening import open_store
from tests.support import batches, specs, trainingruns
from tests.support.batches import SITE, Cloud
from trainers.doors import errors_as_lines
from trainers.errors import SpecError
from trainers.launch import commands, environment, schedule
from trainers.launch.launcher import Started
from trainers.spec import reading
from trainers.spec.jobspec import JobSpec, Schedule

GOLDEN = Path("tests/contract/golden/launch")
STORE = "s3://models/steelyard"
IMAGE = f"registry.example/train@{specs.DIGEST}"
RECIPE = "tests.support.tinyjob:tiny_job"
DEFINITION = "arn:aws:batch:us-east-1:123456789012:job-definition/steelyard-flights-delay:3"


@pytest.fixture
def cloud(batch_server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    site = {
        f"STEELYARD_BATCH_{name.upper()}": str(value) for name, value in msgspec.structs.asdict(SITE).items() if value
    }
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    return batches.emptied(batch_server, monkeypatch)


def call(*arguments: str, command: click.Command = commands.schedule) -> Result:
    return CliRunner().invoke(command, arguments)


def added(*more: str, recipe: str = RECIPE) -> Result:
    return call("add", recipe, "--on", "aws-batch", "--store", STORE, "--image", IMAGE, *more)


def full() -> JobSpec:
    return reading.parse(specs.toml(specs.full()), source="job.toml")


def stored(cloud: Cloud, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("scheduler").get_schedule(Name=name)
    return found


def submitted_by(cloud: Cloud, payload: dict[str, Any], time: str) -> dict[str, Any]:
    """The job that EventBridge would submit: its input with the time filled in, through a real client's own checks."""
    filled = json.loads(payload["Target"]["Input"].replace("<aws.scheduler.scheduled-time>", time))
    job = cloud.client("batch").submit_job(**camel(filled))["jobId"]
    (row,) = cloud.client("batch").describe_jobs(jobs=[job])["jobs"]
    return dict(row)


def camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: inner if key == "Tags" else camel(inner) for key, inner in value.items()}
    return [camel(inner) for inner in value] if isinstance(value, list) else value


# --- payloads


def test_the_same_schedule_is_the_same_payload() -> None:
    when = Schedule(cron="0 3 * * 1", timezone="Europe/Paris")
    site = msgspec.structs.replace(SITE, dead_letter_arn="arn:aws:sqs:us-east-1:123456789012:missed")
    payload = schedule.payload(
        full(), when, site, name="weekly", store=STORE, definition_arn=DEFINITION, queue="gpu-spot"
    )
    assert json.dumps(payload, indent=1) + "\n" == (GOLDEN / "scheduler-v1.json").read_text()
    assert payload["Target"]["DeadLetterConfig"] == {"Arn": "arn:aws:sqs:us-east-1:123456789012:missed"}


# --- adding


def test_an_event_becomes_the_run_of_its_time(cloud: Cloud) -> None:
    done = added("--cron", "0 3 * * 1", "--timezone", "Europe/Paris", "--name", "weekly")
    assert done.exit_code == 0, done.output
    assert "schedule 'weekly' is added: cron(0 3 ? * 2 *) in Europe/Paris" in done.output
    assert "set STEELYARD_BATCH_QUEUE_SUPERVISOR" in done.output
    row = stored(cloud, "steelyard-weekly")
    assert (row["ScheduleExpression"], row["ScheduleExpressionTimezone"]) == ("cron(0 3 ? * 2 *)", "Europe/Paris")
    assert row["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert row["Target"]["RoleArn"] == batches.ROLE
    job = submitted_by(cloud, row, "2026-11-30T02:00:00Z")
    environ = {pair["name"]: pair["value"] for pair in job["container"]["environment"]}
    assigned = environment.assignment(environ | {"AWS_BATCH_JOB_ATTEMPT": "1"})
    assert assigned is not None
    assert (assigned.run_id, assigned.store, assigned.spec.recipe) == ("weekly-20261130t020000z", STORE, RECIPE)
    assert assigned.scheduled == environment.Scheduled("weekly", "20261130T020000Z")
    assert assigned.job == job["jobId"]
    assert job["tags"]["steelyard:scheduled-time"] == "2026-11-30T02:00:00Z"


def test_the_same_again_changes_nothing_and_another_needs_replace(cloud: Cloud) -> None:
    assert added("--cron", "0 3 * * 1").exit_code == 0
    assert "was there already" in added("--cron", "0 3 * * 1").output
    refused = added("--cron", "0 4 * * 1")
    assert refused.exit_code == 64
    assert "schedule 'tiny_job' exists and differs" in refused.output
    assert "cron(0 3" in stored(cloud, "steelyard-tiny_job")["ScheduleExpression"]
    assert "is replaced" in added("--cron", "0 4 * * 1", "--replace").output
    assert "cron(0 4" in stored(cloud, "steelyard-tiny_job")["ScheduleExpression"]


def test_a_file_may_say_when(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(specs.toml(specs.full()))
    done = call("add", str(path), "--on", "aws-batch", "--store", STORE, "--cron", "0 5 1 * *")
    assert done.exit_code == 0, done.output
    assert "cron(0 5 1 * ? *) in Europe/Paris" in done.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "when? pass --cron"),
        (("--cron", "0 0 31 2 *"), "never happens: February has no day 31"),
        (("--cron", "0 0 1 * 1"), "restricts the day of month and the day of week"),
        (("--cron", "0 3 * * 1", "--timezone", "Mars/Olympus"), "there is no time zone 'Mars/Olympus'"),
        (("--cron", "0 3 * * 1", "--name", "Weekly"), "schedule name 'Weekly'"),
        (("--cron", "0 3 * * 1", "--name", "supervisor-x"), "not beginning with 'supervisor'"),
        (("--cron", "0 3 * * 1", "--image", "registry/train:latest"), "has no digest"),
    ],
)
def test_what_makes_no_schedule_exits_64_with_nothing_left_behind(
    cloud: Cloud, arguments: tuple[str, ...], why: str
) -> None:
    refused = added(*arguments)
    assert refused.exit_code == 64
    assert why in refused.output
    assert cloud.client("scheduler").list_schedules()["Schedules"] == []
    assert cloud.client("batch").describe_job_definitions()["jobDefinitions"] == []


def test_a_file_with_a_mistake_schedules_nothing(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(specs.toml(specs.full() | {"limitz": {"wall": "1h"}}))
    refused = call("add", str(path), "--on", "aws-batch", "--store", STORE)
    assert refused.exit_code == 64
    assert "`limitz` is no key that a job spec has; did you mean `limits`?" in refused.output
    assert cloud.client("scheduler").list_schedules()["Schedules"] == []


def test_without_a_role_it_says_which_variable(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEELYARD_BATCH_SCHEDULER_ROLE_ARN")
    refused = added("--cron", "0 3 * * 1")
    assert refused.exit_code == 64
    assert "set STEELYARD_BATCH_SCHEDULER_ROLE_ARN" in refused.output


def test_an_unreachable_aws_is_worth_a_retry(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    failed = call("list")
    assert failed.exit_code == 75
    assert "cannot list schedules now" in failed.output


# --- listing, removing, supervising


def test_list_and_remove(cloud: Cloud) -> None:
    assert "no schedules here" in call("list").output
    added("--cron", "0 3 * * 1", "--name", "b")
    added("--cron", "30 6 1 * *", "--name", "a")
    cloud.client("scheduler").create_schedule(
        Name="steelyard-other",
        ScheduleExpression="rate(1 day)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": "arn:aws:sqs:us-east-1:123456789012:q", "RoleArn": batches.ROLE},
    )
    lines = call("list").output.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b"]
    assert f"{RECIPE}: 30 6 1 * * (UTC)" in lines[0]
    assert STORE in lines[0]
    removed = call("remove", "a")
    assert (removed.exit_code, removed.output) == (0, "schedule 'a' is removed; a run that has begun goes on\n")
    missing = call("remove", "a")
    assert missing.exit_code == 64
    assert "there is no schedule 'a'; there are: b" in missing.output


def test_a_site_with_a_queue_for_it_has_its_runs_looked_after(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_BATCH_QUEUE_SUPERVISOR", batches.ON_DEMAND)
    assert f"supervisor of {STORE} is added: every 30 min" in added("--cron", "0 3 * * 1", "--name", "a").output
    assert f"supervisor of {STORE} was there already" in added("--cron", "0 4 * * 1", "--name", "b").output
    name = schedule.supervisor_name(STORE)
    row = stored(cloud, name)
    assert row["ScheduleExpression"] == "rate(30 minutes)"
    job = submitted_by(cloud, row, "2026-11-30T02:00:00Z")
    assert job["container"]["command"] == ["steelyard", "schedule", "supervise"]
    environ = {pair["name"]: pair["value"] for pair in job["container"]["environment"]}
    assert environ["STEELYARD_STORE"] == STORE
    assert environ["STEELYARD_BATCH_QUEUE_SPOT"] == batches.SPOT
    assert [line.split()[0] for line in call("list").output.splitlines()] == ["a", "b"]
    assert "supervisor" not in call("remove", "a").output
    assert f"the last of {STORE}: its supervisor is removed too" in call("remove", "b").output
    assert cloud.client("scheduler").list_schedules()["Schedules"] == []


async def tried(url: str, run_id: str, saved: Sequence[int]) -> None:
    """A run whose attempts were interrupted, each with so many steps saved."""
    async with contextlib.aclosing(open_store(url, create=True)) as store:
        for step in saved:
            attempt = await trainingruns.opened(store, trainingruns.run(run_id))
            reached = Progress(step_first=0, step_last=step, step_saved=step, steps_ns=trainingruns.S)
            await trainingruns.closed(store, attempt, "preempted", reached, exit_code=143)


@pytest.mark.parametrize(
    ("steps", "code", "said"),
    [
        ((10, 20, 30), 0, "resubmitted: 10 attempts used, step 30 reached"),
        ((10, 10, 10, 10), 70, "GIVEN UP: no step gained in the last 3 attempts (step 10; Host EC2"),
        ((), 70, "GIVEN UP: no step gained in the last 3 attempts (step 0; Host EC2"),
    ],
)
def test_supervise_reads_the_records_and_says_what_it_did(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...], code: int, said: str
) -> None:
    added("--cron", "0 3 * * 1", "--name", "weekly")
    job = submitted_by(cloud, stored(cloud, "steelyard-weekly"), "2026-11-30T02:00:00Z")
    gone = {"container": {}, "statusReason": "Host EC2 (instance i-0123) terminated."}
    cloud.happened(job["jobId"], "FAILED", attempts=[gone] * 10)
    local = str(tmp_path / "store")
    asyncio.run(tried(local, "weekly-20261130t020000z", steps))
    # A folder stands in for the bucket; the supervisor still looks after the runs of the bucket's name.
    monkeypatch.setattr(commands, "open_store", lambda url: open_store(local if url == STORE else url, create=True))
    done = call("supervise", "--store", STORE)
    assert done.exit_code == code
    assert f"run weekly-20261130t020000z {said}" in done.output
    if code == 0:
        again = next(row for row in cloud.jobs(batches.SPOT) if row["jobId"] != job["jobId"])
        environ = {pair["name"]: pair["value"] for pair in again["container"]["environment"]}
        assigned = environment.assignment(environ | {"AWS_BATCH_JOB_ATTEMPT": "1"})
        assert assigned is not None
        assert (assigned.attempt, assigned.job) == (11, job["jobId"])  # it finds the claim that the first one made
        assert assigned.scheduled == environment.Scheduled("weekly", "20261130T020000Z")


# --- Kubernetes


def test_kubernetes_prints_the_cronjob_and_says_that_nothing_was_scheduled() -> None:
    arguments = ["add", RECIPE, "--on", "kubernetes", "--store", STORE, "--image", IMAGE, "--cron", "0 3 * * 1"]
    done = CliRunner().invoke(commands.schedule, arguments)
    assert done.exit_code == 0
    manifest = yaml.safe_load(done.stdout)
    assert (manifest["kind"], manifest["spec"]["schedule"]) == ("CronJob", "0 3 * * 1")
    assert done.stderr.startswith("nothing was scheduled; pipe this into: kubectl apply -f -")


# --- what `steelyard train --on` calls


def test_launch_on_kubernetes_is_a_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    spec = commands.spec_of(RECIPE, {"image": IMAGE})
    started = commands.launch(spec, on="kubernetes", store=STORE, run_id="run-1")
    assert commands.show(started, on="kubernetes") == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["kind"] == "Job"
    assert "nothing was submitted" in printed.err


def test_launch_on_batch_is_a_job(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    spec = commands.spec_of(RECIPE, {"image": IMAGE, "params.epochs": 2})
    started = commands.launch(spec, on="aws-batch", store=STORE)
    assert started.run_id.startswith("tiny_job-")
    assert commands.show(started, on="aws-batch") == 0
    printed = capsys.readouterr()
    assert (printed.out, f"run {started.run_id} is submitted to aws-batch as job {started.job}\n") == ("", printed.err)


def test_a_local_runs_exit_code_is_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.show(Started(run_id="r", exit_code=65), on="local") == 65
    assert "run r ended with 65: the data is missing" in capsys.readouterr().err


def test_errors_exit_by_the_table() -> None:
    with pytest.raises(click.ClickException) as caught, errors_as_lines(is_debug=False):
        raise SpecError("no")
    assert caught.value.exit_code == 64
    with pytest.raises(SpecError), errors_as_lines(is_debug=True):
        raise SpecError("no")


def test_every_option_is_explained() -> None:
    found = commands.schedule.commands.values()
    assert all(option.help for command in found for option in command.params if isinstance(option, click.Option))
