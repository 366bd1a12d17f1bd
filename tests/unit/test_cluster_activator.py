"""The activator of the demonstration: it holds a request until there is a gateway, and no longer than the caller would wait."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.cluster import activator
from gateway.cluster.activator import Activator
from gateway.cluster.envoyfile import Address
from tests.support.repositories import until

BODY = b"b" * 100_000


@asynccontextmanager
async def upstream(seen: list[bytes]) -> AsyncIterator[Address]:
    """A gateway: answers one request and closes, as it is asked to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        seen.append(head + (await reader.readexactly(int(length[1])) if length else b""))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])


async def ask(address: Address, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def post(*headers: str, body: bytes = BODY) -> bytes:
    lines = ["POST /v1/predict/m HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_requests_wait_for_the_gateway_and_reach_it_whole() -> None:
    seen: list[bytes] = []
    woken: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    async with upstream(seen) as gateway, activator.running(Activator()) as holding:
        holding.gateway = lambda: asyncio.shield(woken)
        asking = [
            asyncio.create_task(ask(holding.address, post(f"x-number: {n}", "connection: keep-alive")))
            for n in range(5)
        ]
        await until(lambda: holding.waiting == 5)
        assert seen == []
        woken.set_result(gateway)
        answers = await asyncio.gather(*asking)
    assert [answer.endswith(b"\r\n\r\nok") for answer in answers] == [True] * 5
    assert sorted(re.findall(rb"x-number: (\d)", b"".join(seen))) == [b"0", b"1", b"2", b"3", b"4"]
    assert all(request.endswith(b"connection: close\r\n\r\n" + BODY) for request in seen)
    assert all(request.lower().count(b"connection:") == 1 for request in seen)
    assert (holding.waiting, holding.held, len(holding.passed)) == (0, 5, 5)


async def test_a_callers_deadline_runs_while_it_is_held() -> None:
    never: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    async with activator.running(Activator()) as holding:
        holding.gateway = lambda: asyncio.shield(never)
        answer = await ask(holding.address, post("Steelyard-Timeout-Ms: 1"))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in answer
    assert b'{"error":"no gateway was ready within the time; try again"}' in answer


async def test_the_gateway_is_told_what_is_left_of_the_deadline() -> None:
    seen: list[bytes] = []
    async with upstream(seen) as gateway, activator.running(Activator()) as holding:

        async def woken() -> Address:
            return gateway

        holding.gateway = woken
        assert (await ask(holding.address, post("steelyard-timeout-ms: 60000"))).startswith(b"HTTP/1.1 200 ")
    left = re.search(rb"steelyard-timeout-ms: (\d+)\r\n", seen[0])
    assert left
    assert 1 <= int(left[1]) <= 60000


async def test_it_is_ready_without_waking_anybody() -> None:
    async with activator.running(Activator()) as holding:
        answer = await ask(holding.address, b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert holding.held == 0


async def test_it_holds_no_more_than_its_limit() -> None:
    seen: list[bytes] = []
    woken: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    async with upstream(seen) as gateway, activator.running(Activator(held_max=1)) as holding:
        holding.gateway = lambda: asyncio.shield(woken)
        first = asyncio.create_task(ask(holding.address, post()))
        await until(lambda: holding.waiting == 1)
        assert b'{"error":"too many requests wait' in await ask(holding.address, post())
        woken.set_result(gateway)
        assert (await first).endswith(b"ok")
