"""What the listener's one timer does to connections when the event loop stands still: nothing that their clients did not earn."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from gateway.dataplane import DataPlane
from gateway.http import listener as module
from gateway.http.listener import Listener
from gateway.http.options import HttpOptions
from gateway.runtime.admission import Admission, AdmissionOptions
from tests.support.connections import predictions
from tests.support.manualclock import LIMIT_S, until

HEAD = b"GET /v2/models/m/infer HTTP/1.1\r\n"
TURNS = 4
"""Of the timer, after which a client has had its time."""


def served(work: Coroutine[Any, Any, None]) -> None:
    """On the loop that serves."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.01)


@contextlib.asynccontextmanager
async def listening() -> Any:  # Any: an iterator of a client that has sent the first line of its request
    nobody: Any = None  # no request gets as far as a model
    admission = Admission(AdmissionOptions())
    options = HttpOptions(head_timeout_s=TURNS * module.SWEEP_S)
    listener = Listener(nobody, predictions(DataPlane(nobody, admission, nobody, timeout_s=30)), options)
    stopped = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        server.setblocking(False)
        client.setblocking(False)
        serving = asyncio.create_task(listener.serve(server, stopped))
        await listener.accepting.wait()
        await asyncio.get_running_loop().sock_connect(client, server.getsockname())
        client.send(HEAD)
        await until(lambda: any(each._reader.is_reading for each in listener.connections))
        try:
            yield client
        finally:
            client.close()
            stopped.set()
            await serving


def stall() -> None:
    """The loop stands still for longer than a client may take."""
    time.sleep(2 * TURNS * module.SWEEP_S)


async def heard(client: socket.socket) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.get_running_loop().sock_recv(client, 4096)


def test_a_stall_of_the_loop_is_on_no_clients_account() -> None:
    async def scenario() -> None:
        async with listening() as client:
            stall()
            for _ in range(3):  # turns in which the timer notices how late it is
                await asyncio.sleep(0)
            client.send(b"Host: x\r\n\r\n")
            assert (await heard(client)).startswith(b"HTTP/1.1 405")

    served(scenario())


def test_after_a_stall_a_clients_time_still_has_an_end() -> None:
    async def scenario() -> None:
        async with listening() as client:
            stall()
            assert (await heard(client)).startswith(b"HTTP/1.1 408")

    served(scenario())
