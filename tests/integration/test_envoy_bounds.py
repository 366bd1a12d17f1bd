"""What Envoy with the shipped file refuses itself, in the gateway's words, and how long callers may take and stay."""

import contextlib
import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import edges, stubs
from tests.support.stubs import Pair

OLD = "http.edge.downstream_cx_max_duration_reached"


def test_without_gateways_the_caller_is_told_when_to_come_back(tmp_path: Path) -> None:
    with edges.running(tmp_path, []) as edge:
        answer = edge.post("/v1/predict/tiny", {"rows": []})
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.json == {"error": "no gateway is ready; try again"}


@pytest.mark.parametrize(
    ("wide", "narrow", "status", "sentence"),
    [
        ("max_requests: 4096", "max_requests: 0", 503, "too many requests are in flight; try again"),
        ("timeout: 31s", "timeout: 0.1s", 504, "no gateway answered in time; try again"),
    ],
    ids=["circuit breaker", "time-out"],
)
def test_full_and_late_are_said_as_the_gateway_says_it(
    pair: Pair, tmp_path: Path, wide: str, narrow: str, status: int, sentence: str
) -> None:
    text = edges.envoyfile.shipped()
    assert wide in text
    with edges.running(tmp_path, pair.stubs, text=text.replace(wide, narrow)) as edge:
        pair.begin(stubs.HANGS)
        answer = edge.post("/v1/predict/tiny", b"{}")
    assert (answer.status, answer.headers["retry-after"], answer.error) == (status, "1", sentence)
    assert len(pair.seen) == (status == 504), "a slow answer is not asked for again"


def test_envoy_refuses_before_its_memory_is_full(pair: Pair, tmp_path: Path) -> None:
    text = edges.envoyfile.shipped().replace("max_heap_size_bytes: 1073741824", "max_heap_size_bytes: 1000000")
    action, after = "  - name: envoy.overload_actions.stop_accepting_connections\n", "\nstatic_resources:"
    text = text.partition(action)[0] + after + text.partition(after)[2]  # far over its limit it would not even accept
    with edges.running(tmp_path, pair.stubs, text=text) as edge:
        edge.await_(lambda: edge.counter("overload.envoy.overload_actions.stop_accepting_requests.active") == 1)
        pair.begin()
        answer = edge.post("/v1/predict/tiny", b"{}")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.error == "too many requests are in flight; try again"
    assert pair.seen == []


@pytest.mark.parametrize(
    ("wide", "narrow", "part"),
    [
        (
            "request_headers_timeout: 5s",
            "request_headers_timeout: 0.1s",
            b"POST /v1/predict/tiny HTTP/1.1\r\nHost: x\r\n",
        ),
        (
            "request_timeout: 15s",
            "request_timeout: 0.1s",
            b"POST /v1/predict/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        ),
    ],
    ids=["head", "body"],
)
def test_who_sends_half_a_request_is_let_go_and_no_gateway_hears_of_it(
    pair: Pair, tmp_path: Path, wide: str, narrow: str, part: bytes
) -> None:
    text = edges.envoyfile.shipped()
    assert wide in text
    with edges.running(tmp_path, pair.stubs, text=text.replace(wide, narrow)) as edge:
        pair.begin()
        with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as connection:
            connection.sendall(part)
            assert connection.makefile("rb").readline().split()[1] == b"408"
    assert pair.seen == []


def test_an_old_connection_ends_with_an_answer(tmp_path: Path) -> None:
    """So that an Envoy that is to go loses its callers one by one, and no request."""
    text = edges.envoyfile.shipped().replace("max_connection_duration: 60s", "max_connection_duration: 0.1s")
    with stubs.running() as own, edges.running(tmp_path, own.stubs, text=text) as edge, ThreadPoolExecutor(1) as caller:
        own.begin(stubs.HANGS)
        answer = caller.submit(edge.post, "/v1/predict/tiny", b"{}")
        edge.await_(lambda: len(own.seen) == 1)
        edge.await_(lambda: edge.counter(OLD) == 1)
        own.over.set()
        assert (answer.result().status, answer.result().headers["connection"]) == (200, "close")


def test_an_old_connection_is_left_between_requests_only(tmp_path: Path) -> None:
    text = edges.envoyfile.shipped().replace("max_connection_duration: 60s", "max_connection_duration: 0.5s")
    text = text.replace("drain_timeout: 15s", "drain_timeout: 0.1s")
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(stubs.running())
        edge = stack.enter_context(edges.running(tmp_path, own.stubs, text=text))
        busy = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)))
        own.begin(stubs.HANGS)
        busy.request("POST", "/v1/predict/tiny", b"{}")
        edge.await_(lambda: len(own.seen) == 1)
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", edge.port), timeout=10))
        idle.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.makefile("rb").read().startswith(b"HTTP/1.1 200")  # to its end: Envoy hangs up on who came later
        own.over.set()
        assert busy.getresponse().status == 200
