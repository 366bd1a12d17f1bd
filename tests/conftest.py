"""What more than one test file needs: servers that are started once and shared, PyTorch on one thread, untimed properties."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import batches, servers

# An example of a millisecond took 400 ms where its process was not given the CPU, and drawing ten may take more than a second:
# neither is a failure. `make test` draws the same examples every time; `--hypothesis-profile=thorough` draws others, and more.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", _UNTIMED, derandomize=True)
settings.register_profile("thorough", _UNTIMED, max_examples=1000)
settings.load_profile("repeatable")


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
