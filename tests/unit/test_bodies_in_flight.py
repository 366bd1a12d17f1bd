"""What bodies hold of memory while they wait, compressed or not, and what they become: all of it within `admission.bytes_max`."""

import asyncio
import gzip
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.dataplane import DataPlane
from gateway.runtime.admission import Admission, AdmissionOptions
from tests.support.connections import lines
from tests.support.manualclock import until

LIMIT = 100_000


class NeverLoaded:
    """A repository whose loads do not end."""

    def resident(self, *_: object) -> None:
        return None

    async def ready(self, *_: object) -> Any:
        await asyncio.Event().wait()


@pytest.fixture
def admission() -> Admission:
    return Admission(AdmissionOptions(bytes_max=LIMIT))


@pytest.fixture
def dataplane(admission: Admission) -> DataPlane:
    nobody: Any = None  # nothing is charged before a model is there
    repository: Any = NeverLoaded()
    return DataPlane(repository, admission, nobody, timeout_s=30)


@contextmanager
def busy_threads() -> Iterator[None]:
    """Nothing is inflated in a thread before this ends."""
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        pool.submit(go.wait, 20)
        try:
            yield
        finally:
            go.set()


def post(body: bytes, coding: bytes = b"gzip") -> bytes:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (coding, len(body)) + body


async def test_bodies_that_wait_to_be_inflated_are_counted(dataplane: DataPlane, admission: Admission) -> None:
    body = gzip.compress(random.Random(0).randbytes(40_000))
    with lines(dataplane, admission) as line, busy_threads():
        waiting = [line() for _ in range(2)]
        for one in waiting:
            one.send(post(body))
        await until(lambda: admission.body_bytes == 2 * len(body))
        refused = line()
        refused.send(post(body))
        await until(lambda: refused.sent)
        assert refused.sent.startswith(b"HTTP/1.1 429")
        assert b"bytes_max is 100000" in refused.sent
        assert waiting[0].sent == b""
    await until(lambda: (admission.requests, admission.body_bytes) == (0, 0))


@pytest.mark.parametrize("size", [LIMIT + 1, 10_000_000], ids=["on the loop", "in a thread"])
async def test_what_a_body_becomes_has_to_fit_too(dataplane: DataPlane, admission: Admission, size: int) -> None:
    with lines(dataplane, admission) as line:
        refused, taken = line(), line()
        refused.send(post(gzip.compress(bytes(size))))
        await until(lambda: refused.sent)
        assert refused.sent.startswith(b"HTTP/1.1 429")
        assert b"bytes_max is 100000" in refused.sent
        taken.send(post(gzip.compress(bytes(LIMIT))))
        assert admission.body_bytes == LIMIT
        refused.send(post(gzip.compress(b"{}")))
        await until(lambda: refused.sent.count(b"HTTP/1.1 429") == 2)
        assert taken.sent == b""
    await until(lambda: (admission.requests, admission.body_bytes) == (0, 0))
