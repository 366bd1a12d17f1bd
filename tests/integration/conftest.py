"""Two servers that behave as a test says, and an Envoy with the shipped file before them: one of each for every file that asks."""

from collections.abc import Iterator

import pytest

from tests.support import edges, stubs
from tests.support.edges import Edge
from tests.support.stubs import Pair


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with stubs.running() as pair:
        yield pair


@pytest.fixture(scope="module")
def edge(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edges.running(tmp_path_factory.mktemp("edge"), pair.stubs) as edge:
        yield edge
