"""`steelyard serve` told by the environment that it is a Lambda function. Process, store, HTTP and signals are real.

Lambda cannot be had here: tests/support/lambdaapi.py says what it plays. What is frozen in between is not tried.
"""

import asyncio
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gateway.cli.ledger import ledger
from gateway.lambdaruntime.events import RESPONSE_BYTES_MAX
from gateway.objectstore.local import LocalStore
from tests.support import gateways, lambdaapi, models
from tests.support.gateways import Gateway
from tests.support.lambdaapi import LambdaApi

ROW = dict(models.TINY_EXAMPLES.rows[0])
ROWS = json.dumps({"rows": [ROW]}).encode()
FUNCTION = {"AWS_LAMBDA_FUNCTION_NAME": "flights", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"}
WIDE = 100_000
NEXT = "GET /2018-06-01/runtime/invocation/next"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(_publish(root))
    return root


async def _publish(root: Path) -> None:
    await models.publish_tiny(LocalStore(root))
    await models.publish_mlp(LocalStore(root))
    await models.publish_mlp(LocalStore(root), "wide", features=2, hidden=1, outputs=WIDE)


@pytest.fixture(scope="module")
def api() -> Iterator[LambdaApi]:
    with lambdaapi.playing() as playing:
        yield playing


@pytest.fixture(scope="module")
def gateway(store: Path, api: LambdaApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(store, tmp_path_factory.mktemp("gateway"), api) as gateway:
        yield gateway


def running(store: Path, folder: Path, api: LambdaApi, **environment: str) -> Any:  # Any: a context manager
    """A function whose URL anybody may call."""
    told = FUNCTION | {"AWS_LAMBDA_RUNTIME_API": api.address} | environment
    return gateways.running(store, folder, "--insecure-no-auth", **told)


def lines(root: Path, kind: str) -> list[dict[str, Any]]:
    """Of all segments in the store."""
    segments = sorted(root.glob("ledger/v1/**/*.jsonl.gz"))
    found = [json.loads(line) for path in segments for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [line for line in found if line["type"] == kind]


def but_receipt(body: bytes) -> Any:  # Any: JSON
    """An answer's own part: two calls cost different things."""
    answer = json.loads(body)
    assert answer.pop("receipt")["cost_picousd"] > 0
    assert answer["predictions"]
    return answer


def test_an_event_is_answered_like_a_request(api: LambdaApi, gateway: Gateway) -> None:
    direct = gateway.request("POST", "/v1/predict/tiny", ROWS)
    outcome = api.request("POST", "/v1/predict/tiny", ROWS, content_type="application/json")
    assert outcome.json["statusCode"] == direct.status == 200
    assert but_receipt(outcome.content) == but_receipt(direct.body)
    headers = outcome.json["headers"]
    assert int(headers["steelyard-cost-picousd"]) > 200_000  # an invocation's fee is in it
    assert headers["steelyard-model"] == "tiny@1"
    assert headers["content-type"] == "application/json"
    assert not {"connection", "content-length", "transfer-encoding"} & set(headers)


def test_tensors_travel_as_bytes_both_ways(api: LambdaApi, gateway: Gateway) -> None:
    features = np.linspace(-1, 1, 3 * 32, dtype=np.float32).tobytes()
    shape = {
        "name": "features",
        "shape": [3, 32],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(features)},
    }
    head = json.dumps({"inputs": [shape], "parameters": {"binary_data_output": True}}).encode()
    sent = {"inference_header_content_length": str(len(head)), "content_type": "application/octet-stream"}
    direct = gateway.request("POST", "/v2/models/mlp/infer", head + features, **sent)
    outcome = api.request("POST", "/v2/models/mlp/infer", head + features, **sent)
    assert outcome.json["isBase64Encoded"]
    scores = int(outcome.json["headers"]["inference-header-content-length"])
    assert outcome.content[scores:] == direct.body[int(direct.headers["inference-header-content-length"]) :]
    assert len(outcome.content[scores:]) == 3 * 10 * 4


def test_a_body_that_is_packed_comes_back_packed(api: LambdaApi, gateway: Gateway) -> None:
    rows = json.dumps({"rows": [ROW] * 1000}).encode()
    sent = {"content_encoding": "gzip", "accept_encoding": "gzip"}
    outcome = api.request("POST", "/v1/predict/tiny", gzip.compress(rows), **sent)
    assert outcome.json["headers"]["content-encoding"] == "gzip"
    assert outcome.json["isBase64Encoded"]
    direct = gateway.request("POST", "/v1/predict/tiny", rows)
    assert but_receipt(gzip.decompress(outcome.content)) == but_receipt(direct.body)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/health/ready", 200),
        ("HEAD", "/v2/health/ready", 405),
        ("GET", "/v1/predict/tiny", 405),
        ("GET", "/v2/models/a b\r\nx: é", 404),
        ("GET", "/v2/models/n%C3%A4her?a=%20&b=c", 404),
        ("GET", "", 200),
    ],
)
def test_other_routes_answer_as_over_http(
    api: LambdaApi, gateway: Gateway, method: str, path: str, status: int
) -> None:
    outcome = api.request(method, path)
    assert outcome.json["statusCode"] == status
    if method == "HEAD":
        assert outcome.content == b""
    assert gateway.process.poll() is None


def test_refusals_come_back_as_they_are(api: LambdaApi, gateway: Gateway) -> None:
    outcome = api.request("POST", "/v1/predict/nobody", ROWS)
    direct = gateway.request("POST", "/v1/predict/nobody", ROWS)
    assert (outcome.json["statusCode"], outcome.error) == (direct.status, direct.error) == (404, direct.error)
    outcome = api.request("POST", "/v1/predict/tiny", ROWS, steelyard_timeout_ms="soon")
    assert outcome.json["statusCode"] == 400
    assert "steelyard-timeout-ms" in outcome.error


@pytest.mark.parametrize(
    "event",
    [
        {"rows": [ROW]},
        b"[1, 2]",
        b"not json",
        b"[" * 100_000,
        {"version": "1.0", "path": "/v1/predict/tiny", "httpMethod": "POST"},
        lambdaapi.event("POST", "/v1/predict/tiny", ROWS) | {"isBase64Encoded": True},
        lambdaapi.event("GET", "/", a="b\r\nevil: yes"),
        lambdaapi.event("GET /evil HTTP/1.1\r\n", "/"),
    ],
)
def test_an_event_that_is_no_request_is_an_error_of_its_own(
    api: LambdaApi, gateway: Gateway, event: bytes | object
) -> None:
    outcome = api.invoke(event)
    assert outcome.how == "error"
    assert (
        outcome.json["errorType"] == outcome.headers["lambda-runtime-function-error-type"] == "Steelyard.NotAnHttpEvent"
    )
    assert "event" in outcome.error or "HTTP could carry" in outcome.error
    assert api.request("GET", "/v2/health/live").json["statusCode"] == 200
    assert gateway.process.poll() is None


def test_an_answer_beyond_lambdas_limit_is_refused_with_a_sentence(api: LambdaApi, gateway: Gateway) -> None:
    body = json.dumps(
        {"inputs": [{"name": "features", "shape": [8, 2], "datatype": "FP32", "data": [0.3] * 16}]}
    ).encode()
    assert len(gateway.request("POST", "/v2/models/wide/infer", body).body) > RESPONSE_BYTES_MAX
    outcome = api.request("POST", "/v2/models/wide/infer", body)
    assert outcome.json["statusCode"] == 413
    assert "fewer rows" in outcome.error
    assert str(RESPONSE_BYTES_MAX) in outcome.error


def test_the_functions_time_bounds_a_prediction(store: Path, tmp_path: Path) -> None:
    with lambdaapi.playing() as api, running(store, tmp_path, api):
        late = api.invoke(lambdaapi.event("POST", "/v1/predict/tiny", ROWS), left_ms=0)  # it has yet to be loaded
        assert late.json["statusCode"] == 503
        assert api.request("POST", "/v1/predict/tiny", ROWS).json["statusCode"] == 200


def test_a_body_over_the_gateways_limit_is_its_own_413(store: Path, tmp_path: Path) -> None:
    with lambdaapi.playing() as api, running(store, tmp_path, api, STEELYARD_SERVER__BODY_BYTES_MAX="1000"):
        outcome = api.request("POST", "/v1/predict/tiny", b"x" * 5_000_000)
        assert outcome.json["statusCode"] == 413
        assert "server.body_bytes_max" in outcome.error


def test_an_answer_that_lambda_does_not_take_ends_nothing(store: Path, tmp_path: Path) -> None:
    with lambdaapi.playing() as api, running(store, tmp_path, api) as gateway:
        api.answer_status = 413
        api.request("GET", "/v2/health/live")
        api.answer_status = 202
        assert api.request("GET", "/v2/health/live").json["statusCode"] == 200
        assert "was not taken (413)" in gateway.log.read_text()


def test_invocations_are_billed_and_sigterm_writes_the_close(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    asyncio.run(models.publish_tiny(LocalStore(root)))
    each = {"STEELYARD_LEDGER__BEFORE_ANSWERS": "each", "STEELYARD_LEDGER__ANSWER_WAIT_S": "30"}
    with lambdaapi.playing() as api, running(root, tmp_path, api, **each) as gateway:
        receipts = []
        for count in range(1, 3):
            outcome = api.request("POST", "/v1/predict/tiny", ROWS)
            receipts.append(int(outcome.json["headers"]["steelyard-cost-picousd"]))
            assert len(lines(root, "request")) == count  # written before Lambda could freeze the process
        assert api.invoke({"rows": [ROW]}).how == "error"
        assert gateway.terminate() == 0
        assert api.registered == [("steelyard", b'{"events":[]}')]
        assert api.asked.index("POST /2020-01-01/extension/register") < api.asked.index(NEXT)
    charges = lines(root, "charge")
    assert {each["sku"].split("-")[0] for each in charges if each["sku"] != "lambda/requests"} == {"lambda"}
    assert sum(each["quantity"] for each in charges if each["sku"] == "lambda/requests") == 3
    infer = [each for each in lines(root, "posting") if each["account"] == "infer"]
    assert sum(each["cost_picousd"] for each in infer) == sum(receipts)
    assert len(list(root.glob("ledger/v1/containers/*/*-close.json"))) == 1
    verified = CliRunner().invoke(ledger, ["verify", "--store", str(root)])
    assert verified.exit_code == 0, verified.output


def test_where_lambda_goes_away_the_process_ends_in_order(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    asyncio.run(models.publish_tiny(LocalStore(root)))
    with lambdaapi.playing() as api, running(root, tmp_path, api) as gateway:
        assert api.request("POST", "/v1/predict/tiny", ROWS).json["statusCode"] == 200
        api.close()
        assert gateway.process.wait(timeout=30) == 1
        assert "Error: Lambda's Runtime API at" in gateway.log.read_text()
    assert len(list(root.glob("ledger/v1/containers/*/*-close.json"))) == 1
    assert CliRunner().invoke(ledger, ["verify", "--store", str(root)]).exit_code == 0


@pytest.mark.parametrize(
    ("environment", "kind", "part"),
    [
        ({}, "Steelyard.SettingsError", "the store holds no usable key"),
        ({"STEELYARD_SERVER__PRT": "1"}, "Steelyard.SettingsError", "STEELYARD_SERVER__PRT"),
    ],
)
def test_a_start_that_fails_is_told_to_lambda(store: Path, environment: dict[str, str], kind: str, part: str) -> None:
    """Among them: a function is open to others though the gateway binds loopback only."""
    with lambdaapi.playing() as api:
        told = os.environ | FUNCTION | {"AWS_LAMBDA_RUNTIME_API": api.address} | environment
        command = [sys.executable, "-m", "gateway", "serve", "--store", str(store), "--port", "0"]
        done = subprocess.run(command, env=told, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        [told_error] = api.init_errors
        assert told_error["errorType"] == kind
        assert part in told_error["errorMessage"]
        assert told_error["errorMessage"] in done.stderr
        assert NEXT not in api.asked
