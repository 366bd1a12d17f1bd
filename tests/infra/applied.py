"""What tests of the applied stack do with it: start what it says in the roles that it gives, and ask whether a call is refused.

Everything here is a real process with real clients; only AWS itself is moto's server, which judges policies with their conditions
(tests/support/awsserver.py).
"""

import contextlib
import json
import os
from typing import Any  # Any: AWS's answers are JSON

import pytest
from botocore.exceptions import ClientError

from gateway.objectstore.opening import open_store
from tests.infra.conftest import Stack
from tests.support import accesskeys, models

WAIT_S = 60
ROW = dict(models.TINY_EXAMPLES.rows[0])


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


def keys_of(stack: Stack) -> set[str]:
    pages = stack.account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stack.bucket)
    return {row["Key"] for page in pages for row in page.get("Contents", ())}


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


def refusal(call: Any, **arguments: Any) -> str:
    """The code of the refusal; "" when the call went through."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


DENIED = {"AccessDenied", "AccessDeniedException", "403"}
