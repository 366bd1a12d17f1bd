"""Between Lambda's JSON and HTTP: an event of a function URL becomes a request, an answer becomes what Lambda makes one of.

Plain functions over bytes. Format 2.0 of payloads, as function URLs and HTTP APIs of API Gateway have it (AWS Lambda developer
guide, "Invoking Lambda function URLs").
"""

import base64
import binascii
import re
from typing import Literal
from urllib.parse import quote

import msgspec

from gateway.lambdaruntime.exchange import Answer, encode

RESPONSE_BYTES_MAX = 6 * 1024 * 1024
"""What Lambda takes as an answer, as JSON with everything in it (AWS Lambda quotas: 6 MB, synchronous)."""

TIMEOUT = "steelyard-timeout-ms"
_SAFE = (
    "/%:@!$&'()*+,;=~-._?[]"  # left as they are: what is encoded already stays so, and what could end a line does not
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE = re.compile(r"[^\r\n\0]*")
_HOP = {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_TEXT = re.compile(r"text/|application/json\b")


class NotAnHttpEvent(Exception):
    """Nobody called the function's URL; the message says what to do."""


class _Http(msgspec.Struct):
    method: str


class _Context(msgspec.Struct):
    http: _Http


class _Event(msgspec.Struct, rename="camel"):
    version: Literal["2.0"]
    raw_path: str
    request_context: _Context
    raw_query_string: str = ""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    body: str | None = None
    is_base64_encoded: bool = False


class _Reply(msgspec.Struct, rename="camel"):
    status_code: int
    headers: dict[str, str]
    body: str
    is_base64_encoded: bool


class Sent(msgspec.Struct, frozen=True):
    """The request as it goes to our listener."""

    encoded: bytes
    is_head: bool


def request(event: bytes, *, left_ms: int, timeout_ms: int, trace: str) -> Sent:
    """The event as a request that is answered within `left_ms`. Raises `NotAnHttpEvent`.

    `timeout_ms` is what the gateway gives a request anyway: only a function with less of it left says so in a header, for that is
    stronger than a wish in the body. `trace` is X-Ray's header, or empty.
    """
    found = _decoded(event)
    headers = {name.lower(): value for name, value in found.headers.items() if name.lower() not in _HOP}
    if found.cookies:
        headers["cookie"] = "; ".join(found.cookies)
    if trace:
        headers["x-amzn-trace-id"] = trace
    asked = headers.get(TIMEOUT)
    if asked is None and left_ms < timeout_ms:
        headers[TIMEOUT] = str(left_ms)
    elif asked is not None and asked.isascii() and asked.isdigit() and len(asked) <= 9:
        headers[TIMEOUT] = str(min(int(asked) or left_ms, left_ms))
    method = found.request_context.http.method
    if not _NAME.fullmatch(method) or not all(
        _NAME.fullmatch(name) and _LINE.fullmatch(value) for name, value in headers.items()
    ):
        raise NotAnHttpEvent("a method, or a header's name or value, is none that HTTP could carry")
    return Sent(encode(method, _target(found), headers, _body(found)), method == "HEAD")


def reply(answer: Answer) -> bytes:
    """What Lambda turns back into this answer. One that Lambda does not carry becomes 413, with the receipt if there was one."""
    is_text, body = _as_text(answer)
    kept = {name: value for name, value in answer.headers.items() if name not in _HOP}
    encoded = msgspec.json.encode(_Reply(answer.status, kept, body, not is_text))
    if len(encoded) <= RESPONSE_BYTES_MAX:
        return encoded
    receipt = {name: value for name, value in kept.items() if name.startswith("steelyard-")}
    return too_large(f"is {len(encoded)} bytes", receipt)


def too_large(how: str, headers: dict[str, str] | None = None) -> bytes:
    """The refusal of an answer beyond `RESPONSE_BYTES_MAX`; `how` says how far."""
    return refusal(
        413,
        f"the answer {how} as Lambda carries it, whose limit is {RESPONSE_BYTES_MAX}: ask for fewer rows at a time, "
        "for gzip (Accept-Encoding), or a gateway that is no function",
        headers,
    )


def refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> bytes:
    """An answer that the gateway did not give, in the form of those that it gives."""
    body = msgspec.json.encode({"error": sentence}).decode()
    return msgspec.json.encode(
        _Reply(status, (headers or {}) | {"content-type": "application/json"}, body, is_base64_encoded=False)
    )


def _decoded(event: bytes) -> _Event:
    try:
        return msgspec.json.decode(event, type=_Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAnHttpEvent(
            f"this function answers its URL only (events of payload format 2.0), and this event is none: {error}"
        ) from error


def _target(event: _Event) -> str:
    """Lambda may hand out a path decoded: what has no place in a request line is encoded again."""
    path = quote(event.raw_path, safe=_SAFE.replace("?", ""))
    query = quote(event.raw_query_string.removeprefix("?"), safe=_SAFE)
    path = path if path.startswith("/") else f"/{path}"
    return f"{path}?{query}" if query else path


def _body(event: _Event) -> bytes:
    body = event.body or ""
    if not event.is_base64_encoded:
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise NotAnHttpEvent(f"the event's body is not base64, though it says so: {error}") from error


def _as_text(answer: Answer) -> tuple[bool, str]:
    """Text as it is, all else in base64: JSON would make six bytes of each zero in a tensor."""
    if "content-encoding" not in answer.headers and _TEXT.match(answer.headers.get("content-type", "")):
        try:
            return True, answer.body.decode()
        except UnicodeDecodeError:
            pass
    return False, base64.b64encode(answer.body).decode()
