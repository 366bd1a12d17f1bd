"""What more than one test file needs: servers that are started once and shared, and PyTorch on one thread."""

import sys
from collections.abc import Iterator

import pytest

from tests.support import batches, servers


def pytest_collection_finish() -> None:
    """PyTorch's threads wait for each other by spinning: with two of them small networks train at half the speed, and at a sixth
    where something else runs on the same CPUs. Tests of threads set their own number.
    """
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def moto() -> Iterator[servers.S3Server]:
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[servers.S3Server]:
    with servers.seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def batch_server() -> Iterator[batches.Cloud]:
    with batches.running() as cloud:
        yield cloud
