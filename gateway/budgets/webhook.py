"""One JSON body to one URL: POST over HTTP/1.1, one answer awaited, nothing followed. The URL is the operator's, checked when read.

The signature is `Steelyard-Signature: t=<seconds>,v1=<hex>`: HMAC-SHA256 of `<seconds>.<body>`, so that a receiver can refuse a
forged body and an old one.
"""

import asyncio
import hashlib
import hmac
import ssl
from urllib.parse import urlsplit

from gateway.budgets.budgetfile import Webhook

HEAD_BYTES_MAX = 16 << 10
"""Of an answer; its body is not read."""

INTERIM_MAX = 4
"""Answers 1xx before the answer."""


class Undelivered(Exception):
    """Why; carries no secret."""


async def deliver(webhook: Webhook, body: bytes, secret: bytes | None, now_s: int) -> int:
    """The status, one of 2xx. Raises `Undelivered` for any other, a time-out, or no connection."""
    try:
        async with asyncio.timeout(webhook.timeout_s):
            status = await _posted(webhook, body, headers(body, secret, now_s))
    except TimeoutError:
        raise Undelivered(f"no answer within {webhook.timeout_s:g} s") from None
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise Undelivered(f"{type(error).__name__}: {error}") from error
    if 300 <= status < 400:
        raise Undelivered(f"answered {status}; redirects are not followed: give the final URL")
    if not 200 <= status < 300:
        raise Undelivered(f"answered {status}")
    return status


def headers(body: bytes, secret: bytes | None, now_s: int) -> dict[str, str]:
    """Beside those that HTTP needs."""
    made = {"content-type": "application/json", "user-agent": "steelyard"}
    if secret is not None:
        signed = hmac.new(secret, f"{now_s}.".encode() + body, hashlib.sha256).hexdigest()
        made["steelyard-signature"] = f"t={now_s},v1={signed}"
    return made


async def _posted(webhook: Webhook, body: bytes, more: dict[str, str]) -> int:
    parts = urlsplit(webhook.url)
    host = parts.hostname or ""
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        host, port, ssl=secure, server_hostname=host if secure else None, limit=HEAD_BYTES_MAX
    )
    try:
        named = f"[{host}]" if ":" in host else host
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [
            f"POST {target} HTTP/1.1",
            f"host: {named}:{port}",
            "connection: close",
            f"content-length: {len(body)}",
        ]
        lines += [f"{name}: {value}" for name, value in more.items()]
        writer.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        await writer.drain()
        return await _status(reader)
    finally:
        writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    for _ in range(INTERIM_MAX + 1):
        head = await reader.readuntil(b"\r\n\r\n")
        version, _, rest = head.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("what answers does not speak HTTP/1.1")
        if not rest.startswith(b"1"):
            return int(rest[:3])
    raise ValueError("nothing but interim answers")
