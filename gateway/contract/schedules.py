"""What the bucket holds about runs that start by themselves: who took an event, who holds a schedule, who resubmitted a run.

Events are delivered at least once and supervisors run side by side, so each decision is a conditional write that one of them wins.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.contract.words import Count, Name, Positive

EventTime = Annotated[str, Meta(pattern=r"^[0-9]{8}T[0-9]{6}Z$(?!\n)")]
"""20261130T030000Z: UTC, without the signs that a file name should not have."""


class ScheduleClaim(msgspec.Struct, frozen=True):
    """`schedules/<name>/<time>.json`. `job` is what all attempts of one submission share: a later attempt finds its own claim."""

    schedule: Name
    time: EventTime
    run_id: Name
    job: str
    claimed_ns: Count
    schema_version: int = 1


class ScheduleLease(msgspec.Struct, frozen=True):
    """`schedules/<name>/lease.json`: nobody else runs the schedule until `expires_ns`, which is 0 once it was given back."""

    schedule: Name
    run_id: Name
    expires_ns: Count
    schema_version: int = 1


class Submission(msgspec.Struct, frozen=True):
    """`submissions/<run>/<n>.json`: whether there is an n-th submission, and why. `job` is its id, "" until it has one."""

    run_id: Name
    number: Positive
    decision: Literal["resubmit", "give-up"]
    reason: str
    decided_ns: Count
    job: str = ""
    schema_version: int = 1
