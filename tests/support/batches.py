"""AWS Batch and EventBridge Scheduler by moto's server in this process: real HTTP, real clients, jobs whose fate a test decides.

moto runs no container: a submitted job has succeeded at once, until the test says what else happened to it.
"""

import contextlib
import functools
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import boto3
import msgspec
import pytest
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.config import default_user_config
from moto.server import ThreadedMotoServer

from tests.support.servers import free_ports
from trainers.launch.site import BatchSite

REGION = "us-east-1"
SPOT, ON_DEMAND = "gpu-spot", "gpu-on-demand"
ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/scheduler"

SITE = BatchSite(queue_spot=SPOT, queue_on_demand=ON_DEMAND, scheduler_role_arn=ROLE)


class Cloud(msgspec.Struct, frozen=True):
    url: str

    def client(self, service: str) -> Any:
        return _client(self.url, service)

    def happened(self, job: str, status: str, *, attempts: list[dict[str, Any]] | None = None) -> None:
        """From now on the job is in this state."""
        found = get_backend("batch")[DEFAULT_ACCOUNT_ID][REGION].get_job_by_id(job)
        found.status = status
        if attempts is not None:
            found.attempts = attempts
        if status == "RUNNABLE":
            found.job_stopped = False

    def created(self, job: str, at: float) -> None:
        found = get_backend("batch")[DEFAULT_ACCOUNT_ID][REGION].get_job_by_id(job)
        found.job_created_at = datetime.fromtimestamp(at)  # noqa: DTZ006 - as moto keeps it

    def jobs(self, queue: str) -> list[dict[str, Any]]:
        """As an operator's own client sees them."""
        batch = self.client("batch")
        rows = batch.list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["*"]}])["jobSummaryList"]
        described: list[dict[str, Any]] = (
            batch.describe_jobs(jobs=[row["jobId"] for row in rows])["jobs"] if rows else []
        )
        return described


@functools.cache
def _client(url: str, service: str) -> Any:
    """With credentials of its own, whatever the environment says meanwhile."""
    keys = {"aws_access_key_id": "steelyard-test", "aws_secret_access_key": "only-for-tests"}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)


def environment(url: str) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "steelyard-test",
        "AWS_SECRET_ACCESS_KEY": "only-for-tests",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def running() -> Iterator[Cloud]:
    (port,) = free_ports(1)
    default_user_config["batch"] = {"use_docker": False}
    server = ThreadedMotoServer("127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        cloud = Cloud(f"http://127.0.0.1:{port}")
        yield cloud
    finally:
        server.stop()


def emptied(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The same, empty but for the two queues. AWS is this server until the test ends."""
    for name, value in environment(cloud.url).items():
        monkeypatch.setenv(name, value)
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    urllib.request.urlopen(urllib.request.Request(f"{cloud.url}/moto-api/reset", method="POST")).close()
    _add_queues(cloud)
    return cloud


def _add_queues(cloud: Cloud) -> None:
    role = cloud.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    batch = cloud.client("batch")
    place = batch.create_compute_environment(
        computeEnvironmentName="gpu", type="UNMANAGED", state="ENABLED", serviceRole=role
    )["computeEnvironmentArn"]
    for name in (SPOT, ON_DEMAND):
        order = [{"order": 1, "computeEnvironment": place}]
        batch.create_job_queue(jobQueueName=name, state="ENABLED", priority=1, computeEnvironmentOrder=order)
