"""The local launcher with real processes and signals: which ends are retried, and what an attempt is told and given."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import attempts
from trainers.errors import SpecError
from trainers.launch import environment
from trainers.launch.launcher import Order, Started
from trainers.launch.local import Local
from trainers.launch.policy import RetryPolicy
from trainers.spec import reading

SPEC = reading.from_options(
    {"recipe": "flights", "params.epochs": 2, "checkpoint.grace": "1s", "limits.attempt": "60s"}
)
ORDER = Order(spec=SPEC, run_id="run-1", store="s3://bucket/x")


class Here:
    """A launcher whose attempts follow a plan; pauses end at once and are kept."""

    def __init__(self, folder: Path, plan: list[int | str], monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
        monkeypatch.setenv(attempts.PLAN, json.dumps(plan))
        self.folder, self.said, self.paused = folder, list[str](), list[float]()
        command = (sys.executable, "-m", "tests.support.attempts", str(folder))
        self.launcher = Local(command=command, echo=self.said.append, pause=self.paused.append, **given)

    def start(self, order: Order = ORDER) -> Started:
        return self.launcher.start(order)

    def given(self, attempt: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{attempt}.json").read_text())
        return found

    @property
    def attempts(self) -> int:
        return len(list(self.folder.glob("[0-9]*.json")))


def once_there(path: Path, then: Any, process: "subprocess.Popen[bytes] | None" = None) -> threading.Thread:
    """Calls `then` in a thread as soon as the file exists."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("code", [0, 64, 65, 66, 70, 73, 1, 2])
def test_what_would_end_the_same_way_again_is_not_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    here = Here(tmp_path, [code, 0], monkeypatch)
    assert here.start().exit_code == code
    assert here.attempts == 1


def test_what_the_machine_did_is_retried_until_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(tmp_path, [75, 143, "kill", 0], monkeypatch)
    assert here.start().exit_code == 0
    assert here.attempts == 4
    assert here.paused == [1, 2, 4]
    assert "attempt 3 of run run-1 ended with -9 (killed by signal 9); trying again" in here.said


def test_attempts_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(tmp_path, [75], monkeypatch, retry=RetryPolicy(attempts=3))
    assert here.start().exit_code == 75
    assert here.attempts == 3
    assert "that was the last of 3 attempts" in here.said[-1]


def test_a_death_by_signal_has_a_shells_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(tmp_path, ["kill"], monkeypatch, retry=RetryPolicy(attempts=1))
    assert here.start().exit_code == 137


def test_no_attempt_begins_after_the_wall_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 2.0, 86_401.0])
    here = Here(tmp_path, [75], monkeypatch, clock=lambda: next(times, 86_401.0))
    assert here.start().exit_code == 75
    assert here.attempts == 1
    assert "limits.wall = 1d is over" in here.said[-1]


def test_an_attempt_finds_its_order_and_nothing_of_ours_that_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.SCHEDULE, "from-outside")
    here = Here(tmp_path, [75, 0], monkeypatch)
    here.start()
    given = here.given(2)
    assigned = environment.assignment({name: str(value) for name, value in given.items()})
    assert assigned is not None
    assert (assigned.spec, assigned.run_id, assigned.store) == (SPEC, "run-1", "s3://bucket/x")
    assert (assigned.attempt, assigned.launcher, assigned.scheduled) == (2, "local", None)


def test_an_attempt_that_does_not_end_is_told_to_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    here = Here(tmp_path, ["save", 0], monkeypatch, clock=lambda: now[0])
    late = once_there(tmp_path / "1.json", lambda: now.__setitem__(0, 66.0))
    assert here.start().exit_code == 0
    late.join()
    assert here.said[0] == "attempt 1 of run run-1 is still there after 66s; stopping it"
    assert "143" in here.said[1]


def test_an_attempt_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    here = Here(tmp_path, ["hang"], monkeypatch, clock=lambda: now[0], retry=RetryPolicy(attempts=1))
    late = once_there(tmp_path / "1.json", lambda: now.__setitem__(0, 66.0))
    assert here.start().exit_code == 137
    late.join()
    with pytest.raises(ProcessLookupError):
        os.kill(here.given(1)["pid"], 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_reaches_the_attempt_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    here = Here(tmp_path, ["save", 0], monkeypatch)
    before = signal.getsignal(number)
    sender = once_there(tmp_path / "1.json", lambda: os.kill(os.getpid(), number))
    assert here.start().exit_code == 143
    sender.join()
    assert here.attempts == 1
    assert signal.getsignal(number) is before


# --- the environment as the job reads it


def given(**more: str) -> dict[str, str]:
    return {
        **environment.written(SPEC, launcher="aws-batch"),
        environment.STORE: "s3://bucket/x",
        environment.RUN_ID: "run-1",
        **more,
    }


def test_without_a_launcher_there_is_no_assignment() -> None:
    assert environment.assignment({"PATH": "/bin"}) is None


@pytest.mark.parametrize(
    ("more", "attempt"),
    [
        ({}, None),
        ({"AWS_BATCH_JOB_ATTEMPT": "3"}, 3),
        ({"AWS_BATCH_JOB_ATTEMPT": "3", "STEELYARD_ATTEMPT_BASE": "10"}, 13),
        ({"STEELYARD_ATTEMPT": "4", "AWS_BATCH_JOB_ATTEMPT": "1"}, 4),
    ],
)
def test_the_attempt_number_goes_on_after_a_resubmission(more: dict[str, str], attempt: int | None) -> None:
    assigned = environment.assignment(given(**more))
    assert assigned is not None
    assert assigned.attempt == attempt


@pytest.mark.parametrize(
    ("more", "time_text"),
    [
        ({"STEELYARD_SCHEDULED_TIME": "2026-11-30T03:00:00Z"}, "20261130T030000Z"),
        ({"STEELYARD_SCHEDULED_TIME": "2026-11-30T03:00:00+01:00"}, "20261130T020000Z"),
        ({"STEELYARD_SCHEDULED_TIME": "2026-11-30T03:00:00"}, "20261130T030000Z"),
        ({"STEELYARD_JOB": "steelyard-weekly-29933460"}, "20261130T030000Z"),
    ],
)
def test_a_scheduled_run_is_named_after_its_time(more: dict[str, str], time_text: str) -> None:
    environ = given(STEELYARD_SCHEDULE="weekly", **more)
    del environ[environment.RUN_ID]
    assigned = environment.assignment(environ)
    assert assigned is not None
    assert assigned.scheduled == environment.Scheduled("weekly", time_text)
    assert assigned.run_id == f"weekly-{time_text.lower()}"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"STEELYARD_SPEC": "{"}, "STEELYARD_SPEC is not JSON"),
        ({"STEELYARD_SPEC": '{"recipe": "flights", "x": 1}'}, "STEELYARD_SPEC: `x`"),
        ({"STEELYARD_RUN_ID": "../up"}, "STEELYARD_RUN_ID '../up' must be"),
        ({"STEELYARD_STORE": ""}, "STEELYARD_STORE is not set"),
        ({"STEELYARD_LAUNCHER": "cron"}, "STEELYARD_LAUNCHER is 'cron'"),
        ({"STEELYARD_ATTEMPT": "-1"}, "STEELYARD_ATTEMPT is '-1'"),
        ({"STEELYARD_SCHEDULE": "weekly"}, "STEELYARD_SCHEDULED_TIME is ''"),
        ({"STEELYARD_SCHEDULE": "weekly", "STEELYARD_SCHEDULED_TIME": "<aws.scheduler.scheduled-time>"}, "not a time"),
        (
            {"STEELYARD_SCHEDULE": "Weekly", "STEELYARD_SCHEDULED_TIME": "2026-11-30T03:00:00Z"},
            "schedule name 'Weekly'",
        ),
    ],
)
def test_a_damaged_environment_is_refused_by_name(more: dict[str, str], why: str) -> None:
    with pytest.raises(SpecError) as caught:
        environment.assignment(given(**more))
    assert why in str(caught.value)
