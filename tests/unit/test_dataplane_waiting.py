"""Calls whose model is still being loaded: how many may wait, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter_ns
from typing import Any

import pytest

from gateway.access.caller import Caller
from gateway.calls import Call, Sent
from gateway.dataplane import DataPlane, Pending
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.http.rows import Rows
from gateway.runtime.admission import Admission, AdmissionOptions


class NeverLoaded:
    """A repository whose loads do not end."""

    def resident(self, *_: object) -> None:
        return None

    async def ready(self, *_: object) -> Any:
        await asyncio.Event().wait()


def plane(admission: Admission, timeout_s: float) -> DataPlane:
    nobody: Any = None  # nothing is charged before a model is there
    repository: Any = NeverLoaded()
    return DataPlane(repository, admission, nobody, timeout_s=timeout_s)


def call(timeout_ms: int = 0) -> Call:
    return Call("r", "m", None, Sent(b"{}"), Rows(), perf_counter_ns(), Caller(lambda: 0), timeout_ms=timeout_ms)


@asynccontextmanager
async def started(of: DataPlane, one: Call) -> AsyncIterator[Pending]:
    begun = of.start(one)
    assert isinstance(begun, Pending)
    try:
        yield begun
    finally:
        of.drop(begun)


async def test_calls_that_start_together_do_not_pass_the_limit() -> None:
    admission = Admission(AdmissionOptions(requests_max=2))
    of = plane(admission, 30)
    async with started(of, call()), started(of, call()):
        assert (admission.requests, admission.body_bytes) == (2, 4)
        with pytest.raises(Overloaded, match="requests_max is 2"):
            of.start(call())
    assert (admission.requests, admission.body_bytes) == (0, 0)


@pytest.mark.parametrize("timeout_ms", [0, 1, 999_999_999])
async def test_no_caller_waits_for_a_load_longer_than_the_gateways_timeout(timeout_ms: int) -> None:
    of = plane(Admission(AdmissionOptions()), 0.01)
    async with asyncio.timeout(20), started(of, call(timeout_ms)) as pending:
        with pytest.raises(DeadlineExceeded, match="loading the model"):
            await of.finish(pending)
