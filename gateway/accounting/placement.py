"""Where this process runs and what it was given there, as far as the platform says it.

ECS says it by its task metadata, Lambda and Cloud Run by the environment. Asked once, before the gateway serves. What is not said
stays empty: then settings and `gateway.cgroup` answer. No answer is never a reason not to start.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

logger = logging.getLogger(__name__)

ECS_METADATA = "ECS_CONTAINER_METADATA_URI_V4"
METADATA_TIMEOUT_S = 1.0
"""The endpoint is on the task's own host and answers within milliseconds; a start does not wait longer than this, twice."""
METADATA_BYTES_MAX = 1 << 20
LAMBDA_MB_PER_VCPU = 1769
"""At this memory a function has one vCPU's worth; in proportion otherwise (AWS Lambda developer guide, memory)."""
RESTARTED_NS = 60 * 10**9
"""A process that began this long after its container is not the first one in it, and the pull was billed to that one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Placement(msgspec.Struct, frozen=True):
    """What the platform says of itself; "" and 0 where it says nothing. `billed_from_ns` is when its bill began.

    `resource` is the name by which its bill knows the container, `resource_id` the last part of it: an ECS task's ARN ends so.
    """

    source: str = ""
    platform: str = ""
    vcpu_milli: int = 0
    memory_bytes: int = 0
    billed_from_ns: int = 0
    resource_id: str = ""
    resource: str = ""


class _Limits(msgspec.Struct, frozen=True, rename="pascal"):
    cpu: float = msgspec.field(default=0, name="CPU")
    memory: int = 0


class _Task(msgspec.Struct, frozen=True, rename="pascal"):
    """Task metadata, version 4 (Amazon ECS developer guide): vCPUs, MiB."""

    launch_type: str = ""
    task_arn: str = msgspec.field(default="", name="TaskARN")
    limits: _Limits = _Limits()
    pull_started_at: datetime | None = None


class _Container(msgspec.Struct, frozen=True, rename="pascal"):
    started_at: datetime | None = None


def find(environ: Mapping[str, str], *, machine: str, started_ns: int) -> Placement:
    """Ask the platform that the environment names. `machine` is the CPU's architecture as `platform.machine` has it."""
    arch = "arm" if machine in {"aarch64", "arm64"} else "x86"
    if uri := environ.get(ECS_METADATA):
        return _ecs(uri, arch, environ.get("AWS_EXECUTION_ENV", ""), started_ns)
    if "AWS_LAMBDA_FUNCTION_NAME" in environ:
        return _lambda(environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", ""), arch)
    if "K_SERVICE" in environ and "K_REVISION" in environ:
        # Services are billed by requests unless set otherwise, which an instance cannot see; its size is its cgroup's.
        return Placement("Cloud Run's environment", "cloud-run-requests")
    return Placement()


def _ecs(uri: str, arch: str, execution: str, started_ns: int) -> Placement:
    try:
        task = msgspec.json.decode(_get(f"{uri}/task"), type=_Task)
        mine = msgspec.json.decode(_get(uri), type=_Container)
    except Exception as error:  # whatever a foreign endpoint does, the gateway starts
        logger.warning("accounting: the ECS metadata at %s cannot be read: %s", uri, error)
        platform = f"fargate-{arch}" if execution == "AWS_ECS_FARGATE" else ""
        return Placement("AWS_EXECUTION_ENV" if platform else "", platform)
    if task.launch_type != "FARGATE":
        return Placement()  # the machine below is what is billed, and the task does not know it
    return Placement(
        "ECS task metadata",
        f"fargate-{arch}",
        max(0, round(task.limits.cpu * 1000)),
        max(0, task.limits.memory) << 20,
        _pull_ns(task, mine, started_ns),
        task.task_arn.rpartition("/")[2],
        task.task_arn,
    )


def _pull_ns(task: _Task, mine: _Container, started_ns: int) -> int:
    """The bill begins with the pull of the image, for the first process of a container."""
    if task.pull_started_at is None or mine.started_at is None:
        return 0
    pulled_ns, begun_ns = _ns(task.pull_started_at), _ns(mine.started_at)
    is_first = pulled_ns <= begun_ns and abs(started_ns - begun_ns) <= RESTARTED_NS
    return pulled_ns if is_first and pulled_ns < started_ns else 0


def _lambda(memory_mb: str, arch: str) -> Placement:
    megabytes = int(memory_mb) if memory_mb.isdecimal() else 0
    vcpu_milli = max(1, megabytes * 1000 // LAMBDA_MB_PER_VCPU) if megabytes else 0
    return Placement("Lambda's environment", f"lambda-{arch}", vcpu_milli, megabytes << 20)


def _ns(moment: datetime) -> int:
    utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (utc - _EPOCH) // timedelta(microseconds=1) * 1000


def _get(url: str) -> bytes:
    import http.client  # noqa: PLC0415 - 10 ms that only a start on ECS needs
    from urllib.parse import urlsplit  # noqa: PLC0415

    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url} is no http address")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=METADATA_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        body = answer.read(METADATA_BYTES_MAX)
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{url} answers {answer.status}")
    return body
