"""The loop on Lambda where a part of it fails: a gateway that never answers, an API that is gone. All sockets are real."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.errors import GatewayError, SettingsError
from gateway.lambdaruntime import serving
from gateway.lambdaruntime.api import RuntimeApi
from gateway.lambdaruntime.serving import ANSWER_MS, Invocations
from tests.support import lambdaapi
from tests.support.lambdaapi import LambdaApi, Outcome

GET = lambdaapi.event("GET", "/v2/health/live")


@pytest.fixture
def api() -> Iterator[LambdaApi]:
    with lambdaapi.playing() as playing:
        yield playing


@contextlib.asynccontextmanager
async def looping(api: LambdaApi, answer: bytes, host: str = "127.0.0.1") -> AsyncIterator[None]:
    """The loop beside a server that says `answer` to everything, or nothing when it is empty."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not answer:
            await reader.read()
        writer.close()

    with socket.create_server((host, 0)) as listening:
        async with await asyncio.start_server(serve, sock=listening), invoked(api, listening):
            yield


def invoked(api: LambdaApi, listening: socket.socket) -> Invocations:
    accepting = asyncio.Event()
    accepting.set()
    runtime = RuntimeApi(api.address)
    return Invocations(runtime, listening, accepting, timeout_ms=30_000, visit=None, stop=lambda: None)


async def invoke(api: LambdaApi, *, left_ms: int = 30_000) -> Outcome:
    with ThreadPoolExecutor(1) as caller:
        return await asyncio.get_running_loop().run_in_executor(caller, lambda: api.invoke(GET, left_ms=left_ms))


async def test_a_gateway_that_does_not_answer_is_waited_for_until_the_function_ends(api: LambdaApi) -> None:
    async with looping(api, b""):
        outcome = await invoke(api, left_ms=ANSWER_MS)
    assert outcome.json["statusCode"] == 503
    assert "raise its timeout" in outcome.error


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b"what?\r\n\r\n"])
async def test_half_an_answer_is_none(api: LambdaApi, answer: bytes) -> None:
    async with looping(api, answer):
        outcome = await invoke(api)
    assert outcome.json["statusCode"] == 503


async def test_what_is_answered_when_the_process_stops_is_still_handed_back(
    api: LambdaApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LAST_ANSWER_S", 30)
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await gate.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with await asyncio.start_server(serve, sock=listening):
            async with invoked(api, listening):
                outcome = asyncio.create_task(invoke(api))
                await arrived.wait()
                gate.set()
            assert (await outcome).json["statusCode"] == 204


async def test_a_wildcard_is_reached_on_this_machine(api: LambdaApi) -> None:
    async with looping(api, b"HTTP/1.1 204 No Content\r\na: 1\r\na: 2\r\n\r\n", host="0.0.0.0"):
        outcome = await invoke(api)
    assert outcome.json == {"statusCode": 204, "headers": {"a": "1, 2"}, "body": "", "isBase64Encoded": True}


async def test_an_api_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(GatewayError, match=rf"127\.0\.0\.1:{port} \(AWS_LAMBDA_RUNTIME_API\) is not there"):
        await RuntimeApi(f"127.0.0.1:{port}").next()


@pytest.mark.parametrize("address", ["", "127.0.0.1", ":9001", "127.0.0.1:http"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(SettingsError, match="AWS_LAMBDA_RUNTIME_API must be HOST:PORT"):
        RuntimeApi(address)


async def test_an_error_of_the_container_ends_the_loop() -> None:
    """500 means that this process can do no more (the developer guide: exit promptly)."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"errorMessage": "gone"}).encode()
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with await asyncio.start_server(refuse, sock=listening):
            stopped, accepting = asyncio.Event(), asyncio.Event()
            accepting.set()
            api = RuntimeApi(f"127.0.0.1:{listening.getsockname()[1]}")
            with pytest.raises(GatewayError, match="answers 500"):
                async with Invocations(api, listening, accepting, timeout_ms=1, visit=None, stop=stopped.set):
                    await stopped.wait()
