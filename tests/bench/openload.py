"""An open-loop HTTP/1.1 load generator: requests leave at given times, whether or not earlier ones were answered.

Reads a plan as JSON from stdin (`tests.bench.advise` writes it) and prints per request, in nanoseconds, when it really left, how
long its answer took from then, what its `server-timing` header says it held the server for (decode, run and encode), and its
receipt in pico-dollars.
"""

import asyncio
import base64
import json
import re
import sys
import time
from typing import cast

import uvloop

CONNECTIONS = 64
"""Opened before; more are opened as they are needed."""


class Connection(asyncio.Protocol):
    """Answers one request at a time; the pool hands it out when it is idle."""

    def __init__(self) -> None:
        self._received = b""
        self.answered: asyncio.Future[tuple[int, int, int]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, int, int]]":
        self.answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0 or self.answered is None:
            return
        at = self._received.lower().find(b"content-length:") + 15
        length = int(self._received[at : self._received.find(b"\r\n", at)])
        if len(self._received) < head + 4 + length:
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            raise SystemExit(self._received[:300].decode(errors="replace"))
        held, cost = held_ns(self._received), cost_picousd(self._received)
        self._received = b""
        answered, self.answered = self.answered, None
        answered.set_result((time.perf_counter_ns(), held, cost))


def held_ns(answer: bytes) -> int:
    """By the `server-timing` in these headers."""
    parts = dict(re.findall(rb"(\w+);dur=([0-9.]+)", answer))
    return round(sum(float(parts[part]) for part in (b"decode", b"run", b"encode")) * 1e6)


def cost_picousd(answer: bytes) -> int:
    """The receipt in these headers."""
    found = re.search(rb"steelyard-cost-picousd: (\d+)", answer)
    assert found is not None
    return int(found[1])


async def run(plan: dict[str, object]) -> dict[str, object]:
    body = base64.b64decode(str(plan["body"]))
    request = f"POST {plan['path']} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    due = cast("list[int]", plan["due_ns"])
    loop = asyncio.get_running_loop()
    port = int(str(plan["port"]))

    async def opened() -> Connection:
        return (await loop.create_connection(Connection, "127.0.0.1", port))[1]

    idle = list(await asyncio.gather(*(opened() for _ in range(CONNECTIONS))))
    sent: list[int] = [0] * len(due)
    latencies: list[int] = [0] * len(due)
    held: list[int] = [0] * len(due)
    costs: list[int] = [0] * len(due)
    began = time.perf_counter_ns() + 100_000_000

    async def one(number: int) -> None:
        connection = idle.pop() if idle else await opened()
        left = time.perf_counter_ns()
        sent[number] = left - began
        answered, held[number], costs[number] = await connection.ask(request)
        latencies[number] = answered - left
        idle.append(connection)

    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(due):
            wait = began + at - time.perf_counter_ns()
            if wait > 0:
                await asyncio.sleep(wait / 1e9)
            group.create_task(one(number))
    return {"latency_ns": latencies, "sent_ns": sent, "held_ns": held, "cost_picousd": costs}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
