"""Which requests Envoy with the shipped file sends again, to whom, and whom it ejects: never at a caller's bidding."""

import asyncio
import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.objectstore.local import LocalStore
from tests.support import accesskeys, edges, gateways, models
from tests.support.edges import Edge
from tests.support.stubs import Pair

ROW = dict(models.TINY_EXAMPLES.rows[0])
NOT_ADMITTED = {"steelyard-not-admitted": "overloaded"}


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


def test_a_callers_own_limit_holds_in_front_of_several_gateways(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    asyncio.run(models.publish_tiny(LocalStore(store), "m0"))
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
