"""A closed-loop HTTP/1.1 load generator: N connections, each sends its next request when the last answer is complete.

Reads a plan as JSON from stdin (`tests.bench.cell.measure` writes it; the body is base64) and prints requests per second, latency
percentiles and its own share of a core as JSON: near 1, it is the bottleneck and not the server. Runs as a process of its own,
pinned to a core of its own.
"""

import asyncio
import base64
import contextlib
import json
import sys
import time
from typing import cast

import uvloop

ANSWER_S = 30  # more than any server needs for one answer, even with 64 large requests before it


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, latencies: list[int], failures: list[bytes]) -> None:
        self._request = request
        self._latencies = latencies
        self._failures = failures
        self._received = b""
        self._is_last = False
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._received.lower().find(b"content-length:") + 15
        length = int(self._received[at : self._received.find(b"\r\n", at)])
        if len(self._received) < head + 4 + length:
            return
        self._latencies.append(time.perf_counter_ns() - self._sent_ns)
        if not self._received.startswith(b"HTTP/1.1 200"):
            self._failures.append(self._received)
        self._received = b""
        if self._is_last:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_last:
            self._failures.append(b"the server closed a connection")
        self.closed.set_result(None)

    def _send(self) -> None:
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._request)

    def finish(self) -> None:
        """With the answer that is due: a server left with requests to answer would start its next measurement with them."""
        self._is_last = True


async def run(plan: dict[str, object]) -> dict[str, float]:
    body = base64.b64decode(str(plan["body"]))
    head = f"POST {plan['path']} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n{plan['headers']}\r\n"
    latencies: list[int] = []
    failures: list[bytes] = []
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(int(str(plan["connections"]))):
        _, client = await loop.create_connection(
            lambda: Client(head.encode() + body, latencies, failures), "127.0.0.1", int(str(plan["port"]))
        )
        clients.append(client)
    await asyncio.sleep(0.5)  # connections and caches warm up; not counted
    warm_up = len(latencies)
    latencies.clear()
    began, cpu_began = time.perf_counter(), time.process_time()
    await asyncio.sleep(float(str(plan["seconds"])))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    counted = sorted(latencies)
    for client in clients:
        client.finish()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            await asyncio.gather(*(client.closed for client in clients))
    if not counted:  # no answer takes less than the seconds asked for
        counted, elapsed = sorted(latencies), time.perf_counter() - began
    if failures:
        raise SystemExit(f"{len(failures)} failures, the first: {failures[0][:300]!r}")
    if not counted:
        raise SystemExit("no answer came back")
    return {
        "rps": len(counted) / elapsed,
        "p50_us": counted[len(counted) // 2] / 1e3,
        "p99_us": counted[len(counted) * 99 // 100] / 1e3,
        "load_busy": cpu / elapsed,
        "answers": warm_up + len(latencies),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
