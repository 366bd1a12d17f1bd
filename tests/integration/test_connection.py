"""HTTP framing from both sides of every limit: what clients, proxies and attackers send, through real sockets to a real process."""

import contextlib
import json
import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gateways, models
from tests.support.gateways import Gateway

ROW = dict(models.TINY_EXAMPLES.rows[0])
BODY = json.dumps({"rows": [ROW]}).encode()
HEAD = b"POST /v1/predict/tiny HTTP/1.1\r\nHost: x\r\n"
POST = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def gateway(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = {
        "HEAD_BYTES_MAX": "4096",
        "HEADERS_MAX": "20",
        "BODY_BYTES_MAX": "100000",
        "HEAD_TIMEOUT_S": "1",
        "BODY_TIMEOUT_S": "1",
        "KEEP_ALIVE_S": "2",
        "WRITE_TIMEOUT_S": "1",
    }
    environment = {f"STEELYARD_SERVER__{name}": value for name, value in settings.items()}
    with gateways.running(store, tmp_path_factory.mktemp("gateway"), "--preload", "tiny", **environment) as running:
        yield running


class Wire:
    """A raw connection that reads whole responses."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def response(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", "0")) if has_body else 0
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return int(status.split()[1]), headers, body

    def is_closed(self) -> bool:
        """Waits until the other side closes; what it still says is kept."""
        try:
            while data := self.socket.recv(65536):
                self._received += data
        except ConnectionResetError:
            pass
        return True

    @property
    def unread(self) -> bytes:
        return self._received

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the gateway closed after {self._received[:200]!r}"
        self._received += data


@pytest.fixture
def wire(gateway: Gateway) -> Iterator[Wire]:
    wire = Wire(gateway.port)
    with contextlib.closing(wire.socket):
        yield wire


def predicted(response: tuple[int, dict[str, str], bytes]) -> bool:
    status, headers, body = response
    return status == 200 and "steelyard-cost-picousd" in headers and "predictions" in json.loads(body)


def test_one_connection_serves_one_request_after_another(wire: Wire) -> None:
    for _ in range(3):
        wire.send(POST)
        assert predicted(wire.response())
        wire.send(HEALTH)
        assert wire.response()[0] == 200


def test_what_is_sent_ahead_is_answered_in_order(wire: Wire) -> None:
    missing = POST.replace(b"/tiny", b"/none")
    wire.send((POST + HEALTH + missing) * 20)
    for _ in range(20):
        assert predicted(wire.response())
        assert json.loads(wire.response()[2]) == {"live": True}
        assert wire.response()[0] == 404


def test_a_request_may_arrive_byte_by_byte(wire: Wire) -> None:
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(len(POST)):
        wire.send(POST[at : at + 1])
    assert predicted(wire.response())


def test_chunks_make_one_body(wire: Wire) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert predicted(wire.response())


def test_a_trailer_is_not_a_header(wire: Wire) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    wire.send(chunked + b"Steelyard-Timeout-Ms: soon\r\n\r\n")  # as a header it would be refused
    assert predicted(wire.response())


@pytest.mark.parametrize("endless", [b"1;x=%b\r\n", b"0\r\nx: %b", b"0\r\n%b"])
def test_what_surrounds_a_chunked_body_is_bounded(wire: Wire, endless: bytes) -> None:
    filling = b"y" * 100_000 if b"x" in endless else b"a: b\r\n" * 20_000
    with contextlib.suppress(ConnectionError):
        wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        wire.send(endless % filling)
        for _ in range(50):
            wire.send(filling)
    status, headers, body = wire.response()
    assert (status, headers["connection"]) in {(431, "close"), (400, "close")}
    assert json.loads(body)["error"]
    assert wire.is_closed()


def test_a_client_that_asks_first_is_told_to_go_on(wire: Wire) -> None:
    wire.send(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    assert wire.response()[0] == 100
    wire.send(BODY)
    assert predicted(wire.response())


def test_a_client_that_asks_first_is_refused_before_it_sends(wire: Wire) -> None:
    wire.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
    status, headers, body = wire.response()
    assert (status, headers["connection"]) == (413, "close")
    assert "server.body_bytes_max" in json.loads(body)["error"]
    assert wire.is_closed()


@pytest.mark.parametrize(
    "request_", [POST.replace(b"1.1", b"1.0", 1), POST.replace(b"Host: x", b"Host: x\r\nConnection: close", 1)]
)
def test_a_last_request_is_answered_and_the_connection_closed(wire: Wire, request_: bytes) -> None:
    wire.send(request_ + HEALTH)
    response = wire.response()
    assert predicted(response)
    assert response[1]["connection"] == "close"
    assert wire.is_closed()
    assert wire.unread == b""


@pytest.mark.parametrize("origin", [b"http://h", b"HTTPS://u@h:80", b"http://[::1]:8", b"http://"])
def test_a_target_may_name_its_host(wire: Wire, origin: bytes) -> None:  # RFC 9112, 3.2.2
    wire.send(POST.replace(b"POST ", b"POST " + origin, 1))
    assert predicted(wire.response())
    wire.send(HEALTH.replace(b"GET ", b"GET " + origin, 1))
    assert wire.response()[0] == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://h", 200),
        (b"http://h?a=/v2/none", 200),
        (b"http://h/v2/none", 404),
        (b"http://h/http://h/v2", 404),
        (b"ftp://h/v2", 404),
        (b"//h/v2", 404),
        (b"*", 404),
    ],
)
def test_what_a_target_names_is_its_path(gateway: Gateway, wire: Wire, target: bytes, status: int) -> None:
    wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert wire.response()[0] == status
    assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"])
def test_another_version_of_http_is_refused(wire: Wire, version: bytes, more: bytes) -> None:
    wire.send(POST.replace(b"HTTP/1.1\r\n", b"HTTP/%b\r\n%b" % (version, more), 1) + HEALTH)
    status, headers, body = wire.response()
    assert (status, headers["connection"]) == (505, "close")
    assert f"HTTP/{version.decode()}" in json.loads(body)["error"]
    assert wire.is_closed()
    assert wire.unread == b""


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"])
def test_an_old_client_is_sent_no_chunks(wire: Wire, more: bytes) -> None:
    wire.send(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
    wire.send(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.0\r\n%b\r\n" % more)
    new = wire.response()
    old = wire.response()
    assert "connection" not in new[1]
    assert (old[0], old[1]["connection"], "transfer-encoding" in old[1]) == (200, "close", False)
    assert old[2] == new[2]
    assert wire.is_closed()


def test_head_has_no_body(wire: Wire) -> None:
    wire.send(b"HEAD /v1/predict/tiny HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.response(has_body=False)[0] == 405
    wire.send(b"HEAD /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    wire.response(has_body=False)
    wire.send(POST)
    assert predicted(wire.response())


def test_an_upgrade_is_not_followed(wire: Wire) -> None:
    wire.send(HEALTH.replace(b"Host: x", b"Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c"))
    status, headers, _ = wire.response()
    assert (status, headers["connection"]) == (200, "close")
    assert wire.is_closed()


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"GARBAGE\r\n\r\n", 400, "not HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not HTTP/1.1"),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "not HTTP/1.1"),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "not HTTP/1.1"),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400, "not HTTP/1.1"),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400, "not HTTP/1.1"),
        (HEAD + b"Content-Length: 18446744073709551615\r\n\r\n", 413, "server.body_bytes_max"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "not HTTP/1.1"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400, "not HTTP/1.1"),
        (HEAD + b"A b: c\r\n\r\n", 400, "not HTTP/1.1"),
        (HEAD + b"".join(b"h%d: x\r\n" % i for i in range(30)) + b"\r\n", 431, "server.headers_max"),
        (HEAD + b"".join(b"%d: x\r\n" % i for i in range(10_000)), 431, "server.head_bytes_max"),
        (HEAD + b"h: " + b"x" * 5000 + b"\r\n\r\n", 431, "server.head_bytes_max"),
        (b"POST /" + b"x" * 5000, 431, "server.head_bytes_max"),
        (b"POST /" + b"x" * 200_000, 431, "server.head_bytes_max"),
    ],
)
def test_what_is_not_a_sound_request_is_refused_and_closed(
    gateway: Gateway, wire: Wire, data: bytes, status: int, message: str
) -> None:
    with contextlib.suppress(ConnectionError):  # it may close before all of it is sent
        wire.send(data)
    answered, headers, body = wire.response()
    assert (answered, headers["connection"]) == (status, "close")
    assert message in json.loads(body)["error"]
    assert wire.is_closed()
    assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
    assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (HEAD + b"Content-Length: 100001\r\n\r\n", 413),
        (HEAD + b"".join(b"h%d: x\r\n" % i for i in range(30)) + b"\r\n", 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("before", [POST, HEALTH, POST + HEALTH])
def test_a_refusal_does_not_overtake_the_answers_before_it(
    wire: Wire, before: bytes, refused: bytes, status: int
) -> None:
    wire.send(before + refused + refused)
    for _ in range(before.count(b" HTTP/1.1\r\n")):
        assert wire.response()[0] == 200
    assert wire.response()[0] == status
    assert wire.is_closed()
    assert wire.unread == b""


def test_a_long_body_is_no_part_of_the_next_head(wire: Wire) -> None:
    body = json.dumps({"rows": [ROW] * 500}).encode()
    wire.send(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) + POST[:20])
    assert predicted(wire.response())
    wire.send(POST[20:])
    assert predicted(wire.response())


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (HEAD, "the head did not arrive within 1 s"),
        (HEAD + b"Content-Length: 10\r\n\r\n{", "the body did not arrive within 1 s"),
        (POST + HEAD, "the head did not arrive within 1 s"),
        (HEALTH + HEAD, "the head did not arrive within 1 s"),
        (HEALTH + HEAD + b"Content-Length: 10\r\n\r\n{", "the body did not arrive within 1 s"),
    ],
)
def test_a_sender_that_stalls_is_given_up(wire: Wire, data: bytes, sentence: str) -> None:
    wire.send(data)
    if data.startswith((POST, HEALTH)):
        assert wire.response()[0] == 200
    status, _, body = wire.response()
    assert (status, json.loads(body)["error"]) == (408, sentence)
    assert wire.is_closed()


def test_a_drop_now_and_then_is_no_more_time(wire: Wire) -> None:
    wire.send(b"POST /v1/predict/tiny HTTP/1.1\r\n")
    wire.socket.settimeout(0.1)
    with contextlib.suppress(ConnectionError):
        for number in range(100):  # ten seconds of drops would be long enough for anybody
            wire.send(b"h%d: x\r\n" % number)
            with contextlib.suppress(TimeoutError):
                if wire.socket.recv(65536).startswith(b"HTTP/1.1 408"):
                    return
    pytest.fail("the slow sender was not given up")


def test_a_connection_that_asks_nothing_is_closed_without_a_word(wire: Wire) -> None:
    wire.send(POST)
    assert predicted(wire.response())
    assert wire.is_closed()
    assert wire.unread == b""


def test_a_reader_that_stalls_is_given_up_and_costs_no_memory(wire: Wire) -> None:
    """It asks for the interactive page's largest script again and again, and reads nothing."""
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.send(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
    poll = select.poll()
    poll.register(wire.socket, select.POLLERR | select.POLLHUP)
    assert poll.poll(20_000), "the connection was not cut"


def test_a_client_that_leaves_in_the_middle_of_an_answer_is_no_failure_of_ours(gateway: Gateway) -> None:
    """Some while the file is read, some while it is sent."""
    for _ in range(20):
        leaving = Wire(gateway.port)
        leaving.send(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
        assert leaving.socket.recv(12) == b"HTTP/1.1 200"
        leaving.socket.close()
    assert gateway.get("/docs/assets/swagger-ui-bundle.js").status == 200
    assert "Traceback" not in gateway.log.read_text()


def test_more_connections_than_allowed_are_told_so(store: Path, tmp_path: Path) -> None:
    """With the timeouts of the default: none of those that are allowed is given up before it asks."""
    environment = {"STEELYARD_SERVER__CONNECTIONS_MAX": "4"}
    with (
        gateways.running(store, tmp_path, "--preload", "tiny", **environment) as gateway,
        contextlib.ExitStack() as stack,
    ):
        wires = [Wire(gateway.port) for _ in range(6)]
        for wire in wires:
            stack.callback(wire.socket.close)
        status, headers, body = wires[-1].response()
        assert (status, headers["connection"]) == (503, "close")
        assert "server.connections_max" in json.loads(body)["error"]
        wires[0].send(POST)
        assert predicted(wires[0].response())


def test_sigterm_finishes_what_is_under_way_and_says_goodbye(store: Path, tmp_path: Path) -> None:
    with gateways.running(store, tmp_path, "--preload", "tiny", STEELYARD_SERVER__LINGER_S="1") as gateway:
        begun, idle = Wire(gateway.port), Wire(gateway.port)
        begun.send(POST[:-10])
        idle.send(POST)
        assert predicted(idle.response())
        gateway.process.terminate()
        assert _until_not_ready(gateway)
        late = Wire(gateway.port)  # while it lingers, new connections are still served
        late.send(POST)
        assert predicted(late.response())
        begun.send(POST[-10:])
        assert predicted(begun.response())
        assert idle.is_closed()
        assert gateway.process.wait(20) == 0
    for wire in (begun, idle, late):
        wire.socket.close()


def test_a_grace_period_has_an_end(store: Path, tmp_path: Path) -> None:
    environment = {"STEELYARD_SERVER__DRAIN_S": "1", "STEELYARD_SERVER__BODY_TIMEOUT_S": "60"}
    with gateways.running(store, tmp_path, "--preload", "tiny", **environment) as gateway:
        begun = Wire(gateway.port)
        begun.send(POST[:-10])
        gateway.get("/v2/health/live")
        gateway.process.terminate()
        status, _, body = begun.response()
        assert (status, json.loads(body)["error"]) == (503, "the gateway is shutting down")
        assert gateway.process.wait(20) == 0
        begun.socket.close()
        assert re.search("1 connections were cut off", gateway.log.read_text())


def _until_not_ready(gateway: Gateway) -> bool:
    while gateway.get("/v2/health/ready").status == 200:
        pass
    return True


@pytest.mark.parametrize("name", ["%00", "x" * 400, "%2e%2e/x", "a" + "/a" * 200, "%ff", "%00/swagger-ui.css", ""])
def test_a_file_that_no_system_has_is_not_found(gateway: Gateway, name: str) -> None:
    assert gateway.get(f"/docs/assets/{name}").status == 404
    assert gateway.get("/docs/assets/swagger-ui.css").status == 200
    assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize("host", [b"[", b"x:abc", b"x:99999999", b"x/docs?", b"\xff", b"a b", b""])
@pytest.mark.parametrize("path", [b"/v1/loaded", b"/v2/none"])
def test_no_host_header_makes_a_failure_of_ours(gateway: Gateway, wire: Wire, host: bytes, path: bytes) -> None:
    wire.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host))
    assert wire.response()[0] in {200, 400, 404}
    assert "Traceback" not in gateway.log.read_text()
