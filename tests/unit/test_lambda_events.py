"""Events of a function URL as requests and answers as what Lambda takes, read back by our own reader of HTTP and by JSON's."""

import base64
import json
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lambdaruntime import events
from gateway.lambdaruntime.events import NotAnHttpEvent
from gateway.lambdaruntime.exchange import Answer
from tests.support import lambdaapi

LEFT_MS = 5_000
TIMEOUT_MS = 30_000


class Read:
    """What a server makes of the bytes."""

    def __init__(self, encoded: bytes) -> None:
        self.messages = 0
        self.target = b""
        self.headers: dict[str, str] = {}
        self.body = b""
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(encoded)
        self.method = parser.get_method().decode()

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        self.messages += 1


def read(event: object, *, left_ms: int = LEFT_MS, timeout_ms: int = TIMEOUT_MS, trace: str = "") -> Read:
    sent = events.request(json.dumps(event).encode(), left_ms=left_ms, timeout_ms=timeout_ms, trace=trace)
    found = Read(sent.encoded)
    assert found.messages == 1
    return found


@given(
    path=st.text(max_size=40),
    query=st.text(max_size=40),
    value=st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=40),
    body=st.binary(max_size=200),
)
def test_whatever_an_event_holds_is_one_request_of_ours(path: str, query: str, value: str, body: bytes) -> None:
    """No path, query or body makes a second one, or a header."""
    event = lambdaapi.event("POST", "/", body, x_value=value) | {"rawPath": path, "rawQueryString": query}
    sent = events.request(json.dumps(event).encode(), left_ms=LEFT_MS, timeout_ms=TIMEOUT_MS, trace="")
    head, _, rest = sent.encoded.partition(b"\r\n\r\n")
    assert rest == body
    first, *lines = head.split(b"\r\n")
    assert first.startswith(b"POST /")
    assert first.endswith(b" HTTP/1.1")
    assert first.count(b" ") == 2
    assert len(lines) == 7


@pytest.mark.parametrize("member", ["rawPath", "body"])
def test_half_a_letter_is_refused(member: str) -> None:
    """JSON can say what no text holds."""
    event = json.dumps(lambdaapi.event("GET", "/") | {member: "/\ud800"}).encode()
    with pytest.raises(NotAnHttpEvent, match="this event is none"):
        events.request(event, left_ms=LEFT_MS, timeout_ms=TIMEOUT_MS, trace="")


def test_what_concerns_one_connection_is_left_out_and_cookies_come_together() -> None:
    event = lambdaapi.event("POST", "/v1/predict/a%20b?x=1&y=%26", b"{}", connection="upgrade", expect="100-continue")
    found = read(event | {"cookies": ["a=1", "b=2"]}, trace="Root=1;Parent=2;Sampled=1")
    assert (found.method, found.target, found.body) == ("POST", b"/v1/predict/a%20b?x=1&y=%26", b"{}")
    assert found.headers["connection"] == "close"
    assert found.headers["content-length"] == "2"
    assert found.headers["cookie"] == "a=1; b=2"
    assert found.headers["x-amzn-trace-id"] == "Root=1;Parent=2;Sampled=1"
    assert found.headers["x-forwarded-for"] == "203.0.113.9"
    assert "expect" not in found.headers


@pytest.mark.parametrize(
    ("asked", "left_ms", "told"),
    [
        (None, 40_000, None),  # the gateway's own limit comes first, and the body may wish for less
        (None, 5_000, "5000"),
        ("100", 5_000, "100"),
        ("9000", 5_000, "5000"),
        ("9000", 40_000, "9000"),
        ("0", 5_000, "5000"),
        ("soon", 5_000, "soon"),  # the gateway refuses it with its own sentence
        ("9" * 10, 5_000, "9" * 10),
    ],
)
def test_the_shorter_of_two_times_is_given_on(asked: str | None, left_ms: int, told: str | None) -> None:
    headers = {} if asked is None else {"steelyard_timeout_ms": asked}
    found = read(lambdaapi.event("POST", "/", b"{}", **headers), left_ms=left_ms)
    assert found.headers.get("steelyard-timeout-ms") == told


def reply(body: bytes, content_type: str, **headers: str) -> Any:  # Any: JSON
    answer = Answer(200, {"content-type": content_type, "steelyard-cost-picousd": "7"} | headers, body)
    encoded = events.reply(answer)
    assert len(encoded) <= events.RESPONSE_BYTES_MAX
    return json.loads(encoded)


@given(st.binary(max_size=300), st.sampled_from(["application/json", "text/plain; version=0.0.4", "image/png", ""]))
def test_every_body_comes_back_as_it_was(body: bytes, content_type: str) -> None:
    found = reply(body, content_type)
    text: str = found["body"]
    assert (base64.b64decode(text) if found["isBase64Encoded"] else text.encode()) == body


def test_text_is_legible_and_what_is_packed_is_not() -> None:
    assert reply(b'{"a":"\xc3\xa4"}', "application/json")["body"] == '{"a":"ä"}'
    assert reply(b"{}", "application/json", **{"content-encoding": "gzip"})["isBase64Encoded"]


def test_the_limit_is_lambdas_and_what_escapes_counts() -> None:
    whole = b"x" * (events.RESPONSE_BYTES_MAX - 200)
    assert reply(whole, "text/plain")["statusCode"] == 200
    found = reply(whole.replace(b"x", b'"'), "text/plain")  # each takes two bytes in JSON
    assert found["statusCode"] == 413
    assert found["headers"]["steelyard-cost-picousd"] == "7"  # it was paid for
    assert "fewer rows" in json.loads(found["body"])["error"]


def test_zeros_of_a_tensor_take_a_third_more_and_not_six_times() -> None:
    assert reply(bytes(4_000_000), "application/octet-stream")["statusCode"] == 200
