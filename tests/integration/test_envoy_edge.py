"""Envoy with the shipped file before real gateways, and before servers that fail on request: who is asked, and asked again."""

import asyncio
import contextlib
import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.objectstore.local import LocalStore
from tests.support import accesskeys, edges, gateways, models, stubs
from tests.support.edges import Edge
from tests.support.stubs import Pair

ROW = dict(models.TINY_EXAMPLES.rows[0])
MODELS = [f"m{number}" for number in range(6)]
OLD = "http.edge.downstream_cx_max_duration_reached"
NOT_ADMITTED = {"steelyard-not-admitted": "overloaded"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with stubs.running() as pair:
        yield pair


@pytest.fixture(scope="module")
def edge(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edges.running(tmp_path_factory.mktemp("edge"), pair.stubs) as edge:
        yield edge


def test_a_model_has_one_home_whichever_door_is_used(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    asyncio.run(publish(store))
    with contextlib.ExitStack() as stack:
        three = [stack.enter_context(gateways.running(store, tmp_path)) for _ in range(3)]
        edge = stack.enter_context(edges.running(tmp_path, three))
        homes = {model: set(asked_at_every_door(edge, model)) for model in MODELS}
        assert all(len(home) == 1 for home in homes.values()), homes
        assert len(set.union(*homes.values())) > 1
        loaded = Counter(version["name"] for gateway in three for version in gateway.get("/v1/loaded").json)
        assert loaded == dict.fromkeys(MODELS, 1)


async def publish(store: Path) -> None:
    for seed, model in enumerate(MODELS):
        await models.publish_tiny(LocalStore(store), model, seed=seed)


def asked_at_every_door(edge: Edge, model: str) -> Iterator[str]:
    """The gateways that answer, as their request ids begin; a question about readiness loads the model where it is asked."""
    assert edge.get(f"/v2/models/{model}/ready").status == 200
    assert edge.get(f"/v1/models/{model}?x=1").status == 200
    tensors = {
        "inputs": [
            {"name": "categories", "datatype": "BYTES", "shape": [1, 2], "data": ["AA", "JFK"]},
            {"name": "numbers", "datatype": "FP32", "shape": [1, 3], "data": [7, 733, 12]},
        ]
    }
    for path, body, headers in (
        (f"/v1/predict/{model}", {"rows": [ROW]}, {}),
        (f"/v1/predict/{model}/versions/1", {"rows": [ROW]}, {}),
        (f"/v2/models/{model}/infer", tensors, {}),
        (f"/v2/models/{model}/versions/champion/infer", tensors, {}),
        (f"/v1/models/{model}:predict", {"instances": [ROW]}, {}),
        (f"/v1/models/{model}/versions/1:predict", {"instances": [ROW]}, {}),
        ("/invocations", {"instances": [ROW]}, {"X-Amzn-SageMaker-Target-Model": model}),
    ):
        answer = edge.request("POST", path, body, **headers)
        assert answer.status == 200, answer
        yield answer.headers["steelyard-request-id"].partition("-")[0]


def test_a_callers_own_limit_holds_in_front_of_several_gateways(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    asyncio.run(publish(store))
    key, _ = asyncio.run(accesskeys.added(LocalStore(store), rps=1))
    with contextlib.ExitStack() as stack:
        two = [stack.enter_context(gateways.running(store, tmp_path)) for _ in range(2)]
        edge = stack.enter_context(edges.running(tmp_path, two))
        answers = [edge.request("POST", "/v1/predict/m0", {"rows": [ROW]}, Steelyard_Key=key) for _ in range(4)]
        assert [answer.status for answer in answers].count(429) >= 2
        assert edge.counter("cluster.by_model.upstream_rq_retry") == 0
        assert edge.get("/v1/predict/m0").status in {401, 405}


def test_what_a_full_gateway_refuses_another_one_answers(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    asyncio.run(models.publish_cnn(LocalStore(store)))
    image = b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 96, 96], "data": [%b]}]}'
    body = image % b",".join([b"0"] * (3 * 96 * 96))
    narrow = {"STEELYARD_ADMISSION__REQUESTS_MAX": "1"}
    with contextlib.ExitStack() as stack:
        two = [stack.enter_context(gateways.running(store, tmp_path, "--preload", "cnn", **narrow)) for _ in range(2)]
        edge = stack.enter_context(edges.running(tmp_path, two))
        with ThreadPoolExecutor(6) as callers:
            answers = list(callers.map(lambda _: edge.post("/v2/models/cnn/infer", body), range(60)))
        assert {answer.status for answer in answers} <= {200, 429}
        assert edge.counter("cluster.by_model.upstream_rq_retry_success") > 0
        refused = [answer for answer in answers if answer.status == 429]
        assert all(answer.headers["steelyard-not-admitted"] == "overloaded" for answer in refused)


def test_what_is_no_models_goes_to_each_gateway_in_turn(edge: Edge, pair: Pair) -> None:
    pair.begin()
    assert {edge.get("/v2/models").status for _ in range(8)} == {200}
    assert Counter(seen.stub for seen in pair.seen) == {0: 4, 1: 4}


@pytest.mark.parametrize(
    "first",
    [None, (429, NOT_ADMITTED), (503, NOT_ADMITTED)],
    ids=["closed without an answer", "full", "would be late"],
)
def test_who_was_not_answered_or_not_let_in_is_sent_to_another(
    edge: Edge, pair: Pair, first: tuple[int, dict[str, str]] | None
) -> None:
    for number in range(16):
        pair.begin(first)
        answer = edge.post(f"/v1/predict/model{number}", b'{"rows": []}')
        assert answer.status == 200
        assert [seen.body for seen in pair.seen] == [b'{"rows": []}'] * 2
        assert {seen.stub for seen in pair.seen} == {0, 1}
    edge.await_healthy({f"127.0.0.1:{stub.port}" for stub in pair.stubs})


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 429, 500, 503, 504])
def test_whatever_else_is_answered_is_the_answer(edge: Edge, pair: Pair, status: int) -> None:
    pair.begin(status)
    forced = {
        "x-envoy-retry-on": "5xx,retriable-4xx",
        "x-envoy-max-retries": "5",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    answer = edge.request("POST", "/v1/predict/tiny", b"{}", **forced)
    assert (answer.status, len(pair.seen)) == (status, 1)
    assert not [
        name for name in pair.seen[0].headers if name.startswith(("x-envoy-retry", "x-envoy-max", "x-envoy-upstream"))
    ]


def test_twice_refused_is_refused(edge: Edge, pair: Pair) -> None:
    pair.begin((429, NOT_ADMITTED), (429, NOT_ADMITTED))
    assert edge.post("/v1/predict/tiny", b"{}").status == 429
    assert len(pair.seen) == 2
    pair.begin(None, None)
    lost = edge.post("/v1/predict/tiny", b"{}")
    assert (lost.status, lost.headers["retry-after"]) == (503, "1")
    assert lost.error == "a gateway went away, and no other took the request; try again"
    assert len(pair.seen) == 2


def test_what_changes_a_gateway_is_sent_once(edge: Edge, pair: Pair) -> None:
    for path in ("/v2/repository/models/tiny/unload", "/v2/logging"):
        pair.begin(None)
        assert edge.post(path, b"{}").status == 503
        assert len(pair.seen) == 1


def test_a_large_body_can_be_sent_again_too(edge: Edge, pair: Pair) -> None:
    body = b"x" * (8 << 20)
    pair.begin((503, NOT_ADMITTED))
    assert edge.post("/v2/models/tiny/infer", body).status == 200
    assert [seen.body == body for seen in pair.seen] == [True, True]


def test_a_dead_gateway_fails_no_model_before_it_is_noticed(pair: Pair, tmp_path: Path) -> None:
    """Without ejection every model whose home is dead meets it, and Maglev must find the other one within its attempts."""
    text = edges.envoyfile.shipped().replace(
        "enforcing_consecutive_local_origin_failure: 100", "enforcing_consecutive_local_origin_failure: 0"
    )
    with edges.running(tmp_path, pair.stubs, text=text) as edge:
        pair.begin()
        pair.broken = {0}
        try:
            statuses = Counter(edge.post(f"/v1/predict/model{number}", b"{}").status for number in range(128))
        finally:
            pair.broken = set()
        assert statuses == {200: 128}
        assert edge.counter("cluster.by_model.upstream_rq_retry") > 32


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


def test_callers_bring_about_no_ejection(edge: Edge, pair: Pair) -> None:
    """A broken model answers 503, and so does a deadline of a millisecond: whoever sends many must not take gateways away."""
    for status in (503, 429):
        for _ in range(20):
            pair.begin(status)
            assert edge.post("/v1/predict/tiny", b"{}").status == status
    assert edge.counter("cluster.by_model.outlier_detection.ejections_active") == 0


def test_failures_of_its_own_eject_a_gateway(pair: Pair, tmp_path: Path) -> None:
    text = edges.envoyfile.shipped().replace(
        "base_ejection_time: 3s", "base_ejection_time: 30s"
    )  # this machine may be slow
    with edges.running(tmp_path, pair.stubs, text=text) as edge:
        for _ in range(5):
            pair.begin(500)
            assert edge.post("/v1/predict/tiny", b"{}").status == 500
        failing = pair.seen[0].stub
        pair.begin()
        assert edge.post("/v1/predict/tiny", b"{}").status == 200
        assert pair.seen[0].stub != failing
        assert edge.counter("cluster.by_model.outlier_detection.ejections_active") == 1


def test_without_gateways_the_caller_is_told_when_to_come_back(tmp_path: Path) -> None:
    with edges.running(tmp_path, []) as edge:
        answer = edge.post("/v1/predict/tiny", {"rows": []})
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.json == {"error": "no gateway is ready; try again"}


def test_gateways_come_and_go_while_envoy_runs(pair: Pair, tmp_path: Path) -> None:
    with edges.running(tmp_path, pair.stubs[:1]) as edge:
        for some in (pair.stubs, pair.stubs[1:], [], pair.stubs[:1]):
            edge.follow(some)
            pair.begin()
            statuses = {edge.post(f"/v1/predict/m{number}", b"{}").status for number in range(16)}
            assert statuses == ({200} if some else {503})
            assert {seen.stub for seen in pair.seen} == {stub.number for stub in some}


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


def test_gateways_behind_one_dns_name_are_found(pair: Pair, tmp_path: Path) -> None:
    [stub, _] = pair.stubs
    name = edges.envoyfile.Address("localhost", stub.port)
    text = edges.envoyfile.configured(edges.envoyfile.shipped(), dns=name).replace(
        "type: STRICT_DNS", "type: STRICT_DNS\n    dns_lookup_family: V4_ONLY"
    )
    with edges.running(tmp_path, [stub], text=text) as edge:
        pair.begin()
        assert edge.post("/v1/predict/tiny", b"{}").status == 200
        assert edge.get("/v2").status == 200
        assert [seen.stub for seen in pair.seen] == [0, 0]


def test_a_hot_model_overflows_to_other_gateways(tmp_path: Path) -> None:
    with stubs.running() as own, edges.running(tmp_path, own.stubs) as edge:
        own.begin(*[stubs.HANGS] * 8)
        with ThreadPoolExecutor(8) as callers:
            answers = []
            for _ in range(8):  # one after the other: Envoy counts what is on a connection, not what waits for one
                answers.append(callers.submit(edge.post, "/v1/predict/hot", b"{}"))
                edge.await_(lambda: len(own.seen) == len(answers))
            shares = sorted(Counter(seen.stub for seen in own.seen).values())
            own.over.set()
            assert [answer.result().status for answer in answers] == [200] * 8  # hung up on, and asked of the other one
    assert len(shares) == 2
    assert max(shares) <= 6  # 1.25 times the mean of nine, the next one counted, over two gateways, rounded up


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
