"""What Terraform says of the keeper is true of its image and commands, and the chart says the same: words, user, folders, times."""

import json
import re
from pathlib import Path

import click
import pytest

from gateway.cli.budgets import TEXT
from gateway.cli.main import steelyard
from gateway.reports import compaction
from gateway.reports.sync import default_folder
from infra.images import without_engine
from tests.support import charts, hcl

TASK, SCHEDULES = "modules/keeper/task.tf", "modules/keeper/schedules.tf"
IMAGE = without_engine.configuration(without_engine.stages(Path("infra/images/keeper.Dockerfile").read_text())[-1])
COMMANDS = {
    name: json.loads(words)
    for name, words in re.findall(r"(\w+)\s+= \{\s*says\s+= \"[^\"]+\", command = (\[[^\]]+\])", hcl.text(SCHEDULES))
}


def test_there_are_three_jobs() -> None:
    assert set(COMMANDS) == {"compact", "verify", "budgets"}


@pytest.mark.parametrize("job", COMMANDS)
def test_the_words_are_a_commands_own(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_STORE", "s3://b")
    found: click.Command = steelyard
    for word in COMMANDS[job]:
        assert isinstance(found, click.Group)
        following = found.get_command(click.Context(found), word)
        assert following is not None, word
        found = following
    with click.Context(found) as context:
        found.parse_args(context, [])
    assert context.params["store"] == "s3://b", "the task definition names the store in STEELYARD_STORE"


def test_the_chart_starts_the_same() -> None:
    jobs = [one for one in charts.documents(charts.example("keeper")) if one["kind"] == "CronJob"]
    words = {
        job["metadata"]["labels"]["steelyard/keeper"]: job["spec"]["jobTemplate"]["spec"]["template"]["spec"][
            "containers"
        ][0]["args"][:2]
        for job in jobs
    }
    assert words == COMMANDS


def test_the_chart_starts_it_at_the_same_times() -> None:
    pattern = r'variable "(\w+)" \{[^}]*?schedule\s*=\s*optional\(string, "([^"]+)"\)'
    stated = dict(re.findall(pattern, hcl.text("modules/keeper/variables.tf"), re.DOTALL))
    jobs = [one for one in charts.documents(charts.example("keeper")) if one["kind"] == "CronJob"]
    crons = {job["metadata"]["labels"]["steelyard/keeper"]: job["spec"]["schedule"].split() for job in jobs}
    assert crons.pop("budgets")[0] == "*/15"
    assert stated.pop("budgets") == "rate(15 minutes)"
    assert stated == {name: f"cron({minute} {hour} * * ? *)" for name, (minute, hour, *_) in crons.items()}


def test_an_hour_is_closed_when_it_is_compacted() -> None:
    found = re.search(r"cron\((\d+) \* \* \* \? \*\)", hcl.text("modules/keeper/variables.tf"))
    assert found
    assert int(found[1]) * 60 * 10**9 > compaction.GRACE_NS


def test_the_task_runs_as_the_images_user_in_the_images_folder() -> None:
    scratch = hcl.attribute(TASK, "scratch")
    assert hcl.attribute(TASK, "user") == IMAGE["User"]
    assert f'VOLUME ["{scratch}"]' in Path("infra/images/keeper.Dockerfile").read_text()
    assert 'entryPoint             = ["steelyard"]' in hcl.text(TASK)
    assert IMAGE["Entrypoint"] == ["steelyard"]


def test_every_variable_is_one_that_a_command_reads() -> None:
    names = set(re.findall(r"^\s+(?:var\.budgets == null \? \{\} : \{ )?([A-Z]\w+)\s+= ", hcl.text(TASK), re.MULTILINE))
    assert names == {"AWS_REGION", "STEELYARD_STORE", "XDG_CACHE_HOME", TEXT}
    assert default_folder("s3://b", {"XDG_CACHE_HOME": "/tmp"}).is_relative_to("/tmp")
