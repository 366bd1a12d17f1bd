"""Deadlines, priorities and full queues as clients meet them: a real gateway, one worker, a model whose run takes milliseconds."""

import asyncio
import concurrent.futures
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.objectstore.local import LocalStore
from tests.support import gateways, models
from tests.support.gateways import Answer, Gateway

IMAGE = {"inputs": [{"name": "image", "shape": [1, 3, 96, 96], "datatype": "FP32", "data": [0.5] * 3 * 96 * 96}]}
BODY = json.dumps(IMAGE).encode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(models.publish_cnn(LocalStore(root)))
    with gateways.running(
        root,
        tmp_path_factory.mktemp("gateway"),
        "--preload",
        "cnn",
        STEELYARD_RUNTIME__WORKERS="1",
        STEELYARD_RUNTIME__QUEUE_ROWS_MAX="24",
    ) as running:
        yield running


def infer(gateway: Gateway, body: bytes | dict[str, Any] = BODY, **headers: str) -> Answer:
    return gateway.request("POST", "/v2/models/cnn/infer", body, **headers)


@pytest.mark.parametrize(
    "ask",
    [
        lambda gateway: infer(gateway, Steelyard_Timeout_Ms="1"),
        lambda gateway: infer(gateway, IMAGE | {"parameters": {"timeout": 1}}),
    ],
)
def test_what_cannot_be_in_time_is_refused_with_a_time_to_come_back(gateway: Gateway, ask: Any) -> None:
    assert infer(gateway).status == 200
    answer = ask(gateway)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "deadline" in answer.error


def test_a_crowd_is_answered_in_time_or_refused_and_never_hangs(gateway: Gateway) -> None:
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: infer(gateway, Steelyard_Timeout_Ms="400"), range(300)))
    statuses = {answer.status for answer in answers}
    assert 200 in statuses
    assert statuses <= {200, 429, 503}
    refused = [answer for answer in answers if answer.status != 200]
    assert refused, "the crowd was too small to fill the queue"
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.error


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "99999999999"])
@pytest.mark.parametrize("name", ["Steelyard-Timeout-Ms", "Steelyard-Priority"])
def test_a_header_that_is_no_number_is_refused(gateway: Gateway, name: str, value: str) -> None:
    answer = infer(gateway, **{name: value})
    assert answer.status == 400
    assert name.lower() in answer.error


def test_the_whole_crowds_cpu_is_in_the_receipts_of_those_who_caused_it(gateway: Gateway) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [answer for answer in pool.map(lambda _: infer(gateway), range(16)) if answer.status == 200]
    assert answers
    assert all(int(answer.headers["steelyard-cost-picousd"]) > 0 for answer in answers)
