"""Fixtures that more than one test file needs: servers that are started once and shared."""

from collections.abc import Iterator

import pytest

from tests.support import batches, servers


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
