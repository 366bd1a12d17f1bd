"""What an installation has: queues, roles, a namespace. From the environment, because it is the same for every job of a team.

STEELYARD_BATCH_QUEUE_SPOT=..., STEELYARD_KUBERNETES_NAMESPACE=...: the fields below, in capitals. An unknown one is an error.
"""

import os
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from gateway import config
from trainers.errors import SpecError

T = TypeVar("T", bound=msgspec.Struct)

BATCH = "STEELYARD_BATCH_"
KUBERNETES = "STEELYARD_KUBERNETES_"


class BatchSite(msgspec.Struct, frozen=True):
    """AWS Batch and EventBridge Scheduler. Names or ARNs; empty is not there.

    `queue_supervisor` is a queue on small machines without GPU, where schedules have their runs looked after every
    `supervisor_minutes`. `dead_letter_arn` is an SQS queue for events that could not be delivered.
    """

    queue_spot: str = ""
    queue_on_demand: str = ""
    queue_supervisor: str = ""
    supervisor_minutes: config.Amount = 30
    job_role_arn: str = ""
    execution_role_arn: str = ""
    log_group: str = ""
    scheduler_role_arn: str = ""
    dead_letter_arn: str = ""


class KubernetesSite(msgspec.Struct, frozen=True):
    """`secret` is the name of a Secret whose keys become environment variables, such as credentials for the store."""

    namespace: str = "default"
    service_account: str = ""
    secret: str = ""


def batch(environ: Mapping[str, str] = os.environ) -> BatchSite:
    """Raises `SpecError` for a variable that no field has."""
    return _loaded(BatchSite, BATCH, environ)


def kubernetes(environ: Mapping[str, str] = os.environ) -> KubernetesSite:
    """Raises `SpecError` for a variable that no field has."""
    return _loaded(KubernetesSite, KUBERNETES, environ)


def needed(site: BatchSite, name: str, what: str) -> str:
    """Raises `SpecError` that names the variable when this field is empty."""
    value = getattr(site, name)
    assert isinstance(value, str)
    if not value:
        raise SpecError(f"set {BATCH}{name.upper()} to {what}")
    return value


def _loaded(kind: type[T], prefix: str, environ: Mapping[str, str]) -> T:
    known = {f"{prefix}{field.name.upper()}" for field in msgspec.structs.fields(kind)}
    for name in environ:
        if name.startswith(prefix) and name not in known:
            raise SpecError(f"environment variable {name} is unknown; there are: {', '.join(sorted(known))}")
    return config.load(kind, path=None, environ=environ, prefix=prefix)
