"""One small HTTP question to a program of ours on this machine: its readiness, its metrics, Envoy's own pages."""

import asyncio
import contextlib
import http.client

from gateway.cluster.envoyfile import Address

TIMEOUT_S = 5.0
"""All of them answer from memory, in milliseconds."""


async def ask(address: Address, path: str, *, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    """Status and body. Raises `OSError` when nobody answers in time, or not in HTTP."""
    return await asyncio.to_thread(_ask, address, path, method, body)


def _ask(address: Address, path: str, method: str, body: bytes | None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(f"{address} does not answer in HTTP: {error}") from error
