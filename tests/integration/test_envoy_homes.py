"""Who gets a request from Envoy with the shipped file: each model has one home, and what that is when gateways change."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.objectstore.local import LocalStore
from tests.support import edges, gateways, models, stubs
from tests.support.edges import Edge
from tests.support.stubs import Pair

ROW = dict(models.TINY_EXAMPLES.rows[0])
MODELS = [f"m{number}" for number in range(6)]


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


def test_what_is_no_models_goes_to_each_gateway_in_turn(edge: Edge, pair: Pair) -> None:
    pair.begin()
    assert {edge.get("/v2/models").status for _ in range(8)} == {200}
    assert Counter(seen.stub for seen in pair.seen) == {0: 4, 1: 4}


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


def test_gateways_come_and_go_while_envoy_runs(pair: Pair, tmp_path: Path) -> None:
    with edges.running(tmp_path, pair.stubs[:1]) as edge:
        for some in (pair.stubs, pair.stubs[1:], [], pair.stubs[:1]):
            edge.follow(some)
            pair.begin()
            statuses = {edge.post(f"/v1/predict/m{number}", b"{}").status for number in range(16)}
            assert statuses == ({200} if some else {503})
            assert {seen.stub for seen in pair.seen} == {stub.number for stub in some}


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
