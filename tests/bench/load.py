"""A closed-loop HTTP/1.1 load generator: N connections, each sends its next request when the last answer is complete.

Reads a plan as JSON from stdin ({"port", "path", "body", "connections", "seconds"}) and prints requests per second, latency
percentiles and its own share of a core as JSON: near 1, it is the bottleneck and not the server. Runs as a process of its own,
pinned to a core of its own.
"""

import asyncio
import json
import sys
import time
from typing import cast

import uvloop


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, latencies: list[int], failures: list[bytes]) -> None:
        self._request = request
        self._latencies = latencies
        self._failures = failures
        self._received = b""
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
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def _send(self) -> None:
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._request)

    def close(self) -> None:
        self._transport.close()


async def run(plan: dict[str, object]) -> dict[str, float]:
    body = str(plan["body"]).encode()
    head = f"POST {plan['path']} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
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
        client.close()
    await asyncio.gather(*(client.closed for client in clients))
    if failures:
        raise SystemExit(f"{len(failures)} answers were not 200, the first: {failures[0][:300]!r}")
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
