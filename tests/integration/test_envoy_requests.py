"""What of a request passes Envoy with the shipped file, what is refused at it, and what its log says of one."""

import contextlib
import json
import socket
from pathlib import Path

import pytest

from tests.support import edges
from tests.support.edges import Edge
from tests.support.stubs import Pair


def test_headers_that_follow_a_request_pass_as_they_are(edge: Edge, pair: Pair) -> None:
    pair.begin()
    sent = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "x-request-id": "theirs",
        "steelyard-timeout-ms": "250",
        "steelyard-priority": "1",
        "steelyard-sticky": "k",
        "authorization": "Bearer x",
    }
    answer = edge.request("POST", "/v1/predict/tiny", b"{}", **sent)
    assert pair.seen[0].headers.items() >= sent.items()
    assert answer.headers["x-request-id"] == "theirs"
    assert "server" not in answer.headers or "envoy" not in answer.headers["server"]


def test_a_failure_is_logged_without_what_is_the_callers(pair: Pair, tmp_path: Path) -> None:
    with edges.running(tmp_path, pair.stubs) as edge:
        pair.begin(503, 404)
        for model in ("broken", "unknown"):
            edge.request(
                "POST", f"/v1/predict/{model}?token=SECRET", b'{"rows": "SECRET"}', Authorization="Bearer SECRET"
            )
        edge.await_(lambda: edge.log.read_text().count("\n") >= 1)
        [line] = edge.log.read_text().splitlines()
    logged = json.loads(line)
    assert (logged["status"], logged["path"], logged["attempts"]) == (503, "/v1/predict/broken", 1)
    assert "SECRET" not in line


def test_metrics_and_admin_are_not_for_callers(edge: Edge, pair: Pair) -> None:
    pair.begin()
    for path in ("/metrics", "/metrics/", "/metrics?x", "//metrics", "/docs/../metrics"):
        assert edge.get(path).status == 404
    assert pair.seen == []
    assert edge.admin.startswith("127.0.0.1:")


HEAD = b"POST /v1/predict/tiny HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (HEAD + b"Content-Length : 3\r\n\r\nabc", 400),
        (HEAD + b"x_y: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (HEAD + b"A: b\x00c\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"POST /v1/predict%2ftiny HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"GET /v2%5c HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.0\r\n\r\n", 426),
        (HEAD + b"a: " + b"x" * 33_000 + b"\r\n\r\n", 431),
        (HEAD + b"".join(b"a%d: x\r\n" % number for number in range(101)) + b"\r\n", 431),
        (HEAD + b"Content-Length: 16777217\r\n\r\n" + b"x" * 16_777_217, 413),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_two_readers_could_read_differently_reaches_no_gateway(
    edge: Edge, pair: Pair, request_: bytes, status: int
) -> None:
    pair.begin()
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as connection:
        with contextlib.suppress(ConnectionError):  # it may have answered before the end
            connection.sendall(request_)
        line = connection.makefile("rb").readline()
    assert line.split()[1] == b"%d" % status
    assert pair.seen == []
