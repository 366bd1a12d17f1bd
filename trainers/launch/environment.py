"""What a launched process finds in its environment, the same on a laptop, AWS Batch and Kubernetes; written here and read here.

STEELYARD_SPEC            the job spec as canonical JSON
STEELYARD_RUN_ID          absent for a scheduled job, whose run is named after its scheduled time
STEELYARD_STORE           the object store's URL
STEELYARD_LAUNCHER        local, aws-batch or kubernetes
STEELYARD_ATTEMPT         which attempt this is, from 1; on AWS Batch STEELYARD_ATTEMPT_BASE + AWS_BATCH_JOB_ATTEMPT, else absent
STEELYARD_JOB             what all attempts of one submission share; AWS Batch: else AWS_BATCH_JOB_ID
STEELYARD_SCHEDULE        the schedule that started it, and
STEELYARD_SCHEDULED_TIME  for when; Kubernetes: the end of the job's name, which is the minute
"""

import os
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from gateway.contract.words import NAME_RULE, is_name
from trainers.errors import SpecError
from trainers.spec import jobspec, reading
from trainers.spec.jobspec import JobSpec

Launcher = Literal["local", "aws-batch", "kubernetes"]
LAUNCHERS: tuple[Launcher, ...] = ("local", "aws-batch", "kubernetes")

SPEC = "STEELYARD_SPEC"
RUN_ID = "STEELYARD_RUN_ID"
STORE = "STEELYARD_STORE"
LAUNCHER = "STEELYARD_LAUNCHER"
ATTEMPT = "STEELYARD_ATTEMPT"
ATTEMPT_BASE = "STEELYARD_ATTEMPT_BASE"
JOB = "STEELYARD_JOB"
SCHEDULE = "STEELYARD_SCHEDULE"
SCHEDULED_TIME = "STEELYARD_SCHEDULED_TIME"

SCHEDULE_NAME_LENGTH_MAX = 40
"""With the time behind it a run id still has 63 letters at most, and Kubernetes allows a CronJob 52."""

RUN_NAME_LENGTH_MAX = 40
RESERVED = "supervisor"
_CRONJOB_MINUTE = re.compile(r"-(\d{8})$")


class Scheduled(msgspec.Struct, frozen=True):
    """The event that started a job; `time` is 20261130T030000Z, in UTC."""

    schedule: str
    time: str

    @property
    def run_id(self) -> str:
        """The same for every event of the same time, so that a doubled one can only be the same run."""
        return f"{self.schedule}-{self.time.lower()}"


class Assignment(msgspec.Struct, frozen=True):
    """What this process was launched to do. `attempt` is None where the launcher cannot know: then the store's records count."""

    spec: JobSpec
    run_id: str
    store: str
    launcher: Launcher
    attempt: int | None
    job: str
    scheduled: Scheduled | None


def written(spec: JobSpec, *, launcher: Launcher) -> dict[str, str]:
    """What is the same for every run of this spec."""
    return {SPEC: jobspec.canonical(spec).decode(), LAUNCHER: launcher}


def assignment(environ: Mapping[str, str]) -> Assignment | None:
    """None when no launcher started this process. Raises `SpecError` for a damaged environment."""
    if SPEC not in environ:
        return None
    spec = reading.submitted(environ[SPEC], source=SPEC)
    scheduled = _scheduled(environ)
    run_id = environ.get(RUN_ID) or (scheduled.run_id if scheduled else "")
    if not is_name(run_id):
        raise SpecError(f"{RUN_ID} {run_id!r} must be {NAME_RULE}")
    if not environ.get(STORE):
        raise SpecError(f"{STORE} is not set; a launched job needs the object store it writes to")
    launcher = next((name for name in LAUNCHERS if name == environ.get(LAUNCHER)), None)
    if launcher is None:
        raise SpecError(f"{LAUNCHER} is {environ.get(LAUNCHER)!r}, none of {', '.join(LAUNCHERS)}")
    job = environ.get(JOB) or environ.get("AWS_BATCH_JOB_ID") or run_id
    return Assignment(spec, run_id, environ[STORE], launcher, _attempt(environ), job, scheduled)


def new_run_id(name: str, now: datetime) -> str:
    """Readable, and different from every other."""
    return f"{name[:RUN_NAME_LENGTH_MAX]}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a child that is launched anew."""
    ours = {SPEC, RUN_ID, STORE, LAUNCHER, ATTEMPT, ATTEMPT_BASE, JOB, SCHEDULE, SCHEDULED_TIME}
    return {name: value for name, value in environ.items() if name not in ours}


def _attempt(environ: Mapping[str, str]) -> int | None:
    if ATTEMPT in environ:
        return _number(environ, ATTEMPT)
    if "AWS_BATCH_JOB_ATTEMPT" in environ:
        return _number({ATTEMPT_BASE: "0", **environ}, ATTEMPT_BASE) + _number(environ, "AWS_BATCH_JOB_ATTEMPT")
    return None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise SpecError(f"{name} is {text!r}, not a number of attempts")
    return int(text)


def _scheduled(environ: Mapping[str, str]) -> Scheduled | None:
    name = environ.get(SCHEDULE)
    if not name:
        return None
    check_schedule_name(name)
    return Scheduled(name, f"{_scheduled_time(environ):%Y%m%dT%H%M%SZ}")


def _scheduled_time(environ: Mapping[str, str]) -> datetime:
    """From EventBridge's text, or from the name of the Job that a CronJob made: its last part is the minute since 1970."""
    text = environ.get(SCHEDULED_TIME, "")
    minute = _CRONJOB_MINUTE.search(environ.get(JOB, ""))
    if not text and minute:
        return datetime.fromtimestamp(int(minute[1]) * 60, UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise SpecError(f"{SCHEDULED_TIME} is {text!r}, not a time such as 2026-11-30T03:00:00Z") from None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def check_schedule_name(name: str) -> None:
    """Raises `SpecError`. Names that begin with `supervisor` are ours."""
    if not is_name(name) or len(name) > SCHEDULE_NAME_LENGTH_MAX or name.startswith(RESERVED):
        raise SpecError(
            f"schedule name '{name}' must be {NAME_RULE}; here at most {SCHEDULE_NAME_LENGTH_MAX}, not beginning with '{RESERVED}'"
        )


def current() -> Assignment | None:
    """This process's own."""
    return assignment(os.environ)
