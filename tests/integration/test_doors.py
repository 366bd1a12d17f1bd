"""Every door over real HTTP with plain httpx, and hostile bodies: each the right 4xx with a sentence, and the process goes on."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.objectstore.local import LocalStore
from tests.support import gateways, identities, models
from tests.support.gateways import Gateway

ROW: dict[str, Any] = dict(models.TINY_EXAMPLES.rows[0])
X = [round(0.01 * i, 2) for i in range(32)]
INFER = {"inputs": [{"name": "features", "shape": [1, 32], "datatype": "FP32", "data": X}]}
LIMIT = 1_000_000
HEAD = "Inference-Header-Content-Length"


async def _publish(root: Path) -> None:
    store = LocalStore(root)
    await models.publish_tiny(store)
    await models.publish_mlp(store)
    await identities.publish(store, "image", identities.IMAGE_SIGNATURE)
    await identities.publish(store, "half", identities.signature({"x": ("FP16", (2,))}))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(_publish(root))
    with gateways.running(
        root,
        tmp_path_factory.mktemp("gateway"),
        "--preload",
        "mlp",
        STEELYARD_COMPRESSION__INFLATED_BYTES_MAX=str(LIMIT),
        STEELYARD_SAGEMAKER__DEFAULT_MODEL="mlp",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}") as client:
        yield client


def scores(client: httpx.Client) -> list[float]:
    answer: list[float] = (
        client.post("/v2/models/mlp/infer", json=INFER).raise_for_status().json()["outputs"][0]["data"]
    )
    return answer


def test_every_door_gives_the_same_numbers(client: httpx.Client) -> None:
    want = scores(client)
    doors: list[tuple[str, Any, dict[str, str]]] = [
        ("/v1/predict/mlp", {"rows": [{"features": X}]}, {}),
        ("/v1/models/mlp:predict", {"instances": [X]}, {}),
        ("/v1/models/mlp/versions/1:predict", {"instances": [{"features": X}]}, {}),
        ("/v1/models/mlp%3Apredict", {"inputs": {"features": [X]}}, {}),
        ("/invocations", {"instances": [X]}, {}),
        ("/invocations", {"rows": [{"features": X}]}, {"X-Amzn-SageMaker-Target-Model": "mlp"}),
    ]
    for path, body, headers in doors:
        answer = client.post(path, json=body, headers=headers).raise_for_status()
        [prediction] = answer.json()["predictions"]
        assert (prediction["scores"] if isinstance(prediction, dict) else prediction) == want, path
        assert answer.headers["steelyard-model"] == "mlp@1"
    answer = client.post("/invocations", json=INFER).raise_for_status()
    assert answer.json()["outputs"][0]["data"] == want


def test_the_row_door_gives_its_receipt(client: httpx.Client) -> None:
    answer = client.post("/v1/predict/tiny", json={"rows": [ROW, ROW | {"wind": None}]}).raise_for_status().json()
    assert [set(prediction) for prediction in answer["predictions"]] == [{"late_probability"}] * 2
    assert answer["receipt"]["rows"] == 2


def test_csv_goes_in_and_out(client: httpx.Client) -> None:
    headers = {"Content-Type": "text/csv", "Accept": "text/csv", "X-Amzn-SageMaker-Target-Model": "tiny"}
    answer = client.post("/invocations", content="AA,JFK,7,733.0,12.5\nAA,JFK,7,733.0,\n", headers=headers)
    rows = client.post("/v1/predict/tiny", json={"rows": [ROW, ROW | {"wind": None}]}).json()["predictions"]
    assert [float(line) for line in answer.text.split()] == [row["late_probability"] for row in rows]
    assert answer.headers["content-type"] == "text/csv"


def test_the_routes_of_other_servers_are_there(client: httpx.Client) -> None:
    assert client.get("/ping").status_code == 200
    assert "mlp" in client.get("/v1/models").json()["models"]
    assert client.get("/v1/models/mlp").json() == {"name": "mlp", "ready": True}
    assert client.get("/v1/models/nosuch").status_code == 404
    assert client.get("/v2/models/tiny/versions/1/config").json()["input"][0]["data_type"] == "TYPE_STRING"
    assert client.get("/v1/models/mlp:predict").status_code == 405
    assert client.post("/v1/models/mlp:explain", json={}).status_code in {404, 405}
    assert "no route" in client.get("/v2/systemsharedmemory/status").json()["error"]  # OIP E15
    paths = client.get("/docs/openapi.json").json()["paths"]
    assert {
        "/v1/models/{model}:predict", "/invocations", "/ping", "/v2/repository/index", "/v2/models/{model}/config",
        "/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload", "/v1/models/{model}",
    } <= set(paths)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v2/repository/index", b'{"ready": "yes"}', "Expected `bool`, got `str`"),
        ("/v2/repository/index", b"nonsense", "malformed"),
        ("/v2/repository/index", b"[" * 250_000, "nested too deeply"),  # OIP-22
        ("/v2/repository/models/mlp/load", b'{"parameters": 5}', "Expected `object`, got `int`"),
        ("/v2/repository/models/mlp/load", b'{"parameters": {"config": "{}"}}', "'config' is not supported"),
        (
            "/v2/repository/models/mlp/load",
            b'{"parameters": {"file:1/model.onnx": "' + b"QUJD" * 2_000_000 + b'"}}',
            "'file:1/model.onnx' is not supported",
        ),
        ("/v2/repository/models/mlp/unload", b'{"parameters": {"unload_dependents": "yes"}}', "Expected `bool`"),
    ],
)
def test_a_wrong_repository_request_is_a_sentence(client: httpx.Client, path: str, body: bytes, message: str) -> None:
    answer = client.post(path, content=body)
    assert (answer.status_code, bool(re.search(message, answer.json()["error"]))) == (400, True), answer.text
    assert client.post("/v2/repository/index").status_code == 200


@pytest.mark.parametrize(
    "name", ["..%2F..%2Fetc", "%2e%2e", "%00", "mlp%00", "a%2Fb", "MLP", "%ff", "x" * 200, "%E2%80%AE"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/{}/config"),
        ("GET", "/v2/models/{}/versions/1/config"),
        ("GET", "/v2/models/{}/stats"),
        ("GET", "/v2/models/{}/versions/1/stats"),
        ("GET", "/v1/models/{}"),
        ("POST", "/v2/repository/models/{}/load"),
        ("POST", "/v2/repository/models/{}/unload"),
        ("POST", "/v1/models/{}:predict"),
        ("POST", "/v2/models/{}/infer"),
        ("POST", "/v2/models/mlp/versions/{}/infer"),
    ],
)
def test_strange_names_are_not_found(gateway: Gateway, method: str, path: str, name: str) -> None:  # OIP-2, 7
    answer = gateway.request(method, path.format(name), b'{"instances": [[1]]}' if method == "POST" else None)
    assert answer.status in {400, 404}, answer.body
    assert re.search(r"no model is named|no route|is not a number|has no version", answer.error), answer.error
    assert "Traceback" not in gateway.log.read_text()


def image(data: Any) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "pixels", "shape": [1, 3, 96, 96], "datatype": "FP32", "data": data}]}
    ).encode()


@pytest.mark.parametrize("nested", [False, True])
def test_long_json_gives_the_numbers_it_was(client: httpx.Client, nested: bool) -> None:
    pixels = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    answer = client.post(
        "/v2/models/image/infer", content=image(pixels.tolist() if nested else pixels.ravel().tolist())
    )
    assert np.array_equal(np.array(answer.json()["outputs"][0]["data"], np.float32), pixels.ravel())
    for bad, message in ((None, "got `null`"), ("1", "got `str`"), ([1], "got `array`"), (True, "got `bool`")):
        data: list[Any] = pixels.ravel().tolist()
        data[20_000] = bad
        refused = client.post("/v2/models/image/infer", content=image(data))
        assert (refused.status_code, message in refused.json()["error"]) == (400, True), refused.text


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"[" * 101 + b"]" * 101, {}, 400, "nested too deeply"),
        (b'{"x":' * 101 + b"1" + b"}" * 101, {}, 400, "nested too deeply"),
        (b'{"inputs":' + b"[" * 250_000, {}, 400, "nested too deeply"),
        ({"inputs": [INFER["inputs"][0] | {"shape": [2**62, 2**62]}]}, {}, 400, "shape"),
        ({"inputs": [INFER["inputs"][0] | {"shape": [2**31, 32]}]}, {}, 400, "has 68719476736 elements; at most"),
        ({"inputs": [INFER["inputs"][0] | {"shape": [-1, -32]}]}, {}, 400, "shape"),
        ({"inputs": [INFER["inputs"][0] | {"shape": [10**40, 32]}]}, {}, 400, "Expected `int` <= 9223372036854775807"),
        (INFER | {"parameters": {"timeout": 10**4000}}, {}, 400, "Expected `int` <= 9223372036854775807"),
        ({"inputs": [INFER["inputs"][0] | {"shape": "1,32"}]}, {}, 400, "Expected `array`, got `str`"),
        ({"inputs": [INFER["inputs"][0] | {"data": ["0.1"] * 32}]}, {}, 400, "Expected `float`, got `str`"),
        ({"inputs": [INFER["inputs"][0] | {"data": [1e39] * 32}]}, {}, 400, "element 0 does not fit FP32"),
        ({"inputs": INFER["inputs"] * 2}, {}, 400, "'features' appears twice"),
        ({"inputs": [INFER["inputs"][0] | {"datatype": "FP16"}]}, {}, 400, "is FP16; the model takes FP32"),
        (INFER | {"parameters": {"sequence_id": 5}}, {}, 400, "sequences are not served"),
        (INFER | {"outputs": [{"name": "scores"}] * 2}, {}, 400, "already exists in request"),
        (b"\x00" * 128, {HEAD: "-1"}, 400, "must be a whole number"),
        (b"\x00" * 128, {HEAD: "99999999999999999999"}, 400, "more than the body's 128 bytes"),
        (b"\x00" * 127, {HEAD: "0"}, 400, "is 127 bytes; one row"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-10], {"Content-Encoding": "gzip"}, 400, "ends before"),
        (gzip.compress(b"{}", mtime=0) + b"garbage", {"Content-Encoding": "gzip"}, 400, "7 bytes follow the gzip stream"),
        (gzip.compress(bytes(50 << 20), mtime=0), {"Content-Encoding": "gzip"}, 413, f"more than {LIMIT} bytes"),
        (zlib.compress(bytes(200 << 20)), {"Content-Encoding": "deflate"}, 413, f"more than {LIMIT} bytes"),
        (b"plain", {"Content-Encoding": "gzip"}, 400, "not gzip"),
        (b"plain", {"Content-Encoding": "br"}, 400, "send gzip, deflate or identity"),
    ],
)  # fmt: skip
def test_a_hostile_body_is_a_sentence(
    gateway: Gateway, client: httpx.Client, body: Any, headers: dict[str, str], status: int, message: str
) -> None:  # OIP-20, 21, 22
    want = scores(client)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/v2/models/mlp/infer", content=content, headers=headers)
    assert (answer.status_code, bool(re.search(message, answer.json()["error"]))) == (status, True), answer.text
    assert scores(client) == want
    assert "Traceback" not in gateway.log.read_text()


def test_half_floats_are_refused_as_json(client: httpx.Client) -> None:  # OIP-11
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP16", "data": [1, 2]}]}
    assert "FP16 cannot be sent as JSON" in client.post("/v2/models/half/infer", json=body).json()["error"]


def test_ten_thousand_keys_of_garbage_change_nothing(client: httpx.Client) -> None:
    garbage = {f"key{at}": {"deep": [at]} for at in range(10_000)}
    answer = client.post("/v2/models/mlp/infer", json=garbage | INFER)
    assert answer.json()["outputs"][0]["data"] == scores(client)


def test_memory_is_back_where_it_was_after_bombs(gateway: Gateway, client: httpx.Client) -> None:
    bombs = [gzip.compress(bytes(50 << 20)), gzip.compress(image([0.5] * 27648) * 5)]
    before_kb = peak_kb = 0
    for repeat in range(40):
        for bomb in bombs:
            assert (
                client.post("/v2/models/image/infer", content=bomb, headers={"Content-Encoding": "gzip"}).status_code
                >= 400
            )
        if repeat == 9:
            before_kb = _resident_kb(gateway)
    peak_kb = _resident_kb(gateway)
    assert peak_kb - before_kb < 20_000


def _resident_kb(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize("accept", ["gzip", "deflate"])
def test_answers_are_compressed_when_it_pays_and_is_accepted(client: httpx.Client, accept: str) -> None:  # OIP-21
    body = image([0.5] * 27648)
    plain = client.post("/v2/models/image/infer", content=body, headers={"Accept-Encoding": "identity"})
    packed = client.post("/v2/models/image/infer", content=body, headers={"Accept-Encoding": accept})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == accept
    assert int(packed.headers["content-length"]) < len(plain.content) // 10
    assert packed.json() == plain.json()
    assert (
        "content-encoding"
        not in client.post("/v2/models/mlp/infer", json=INFER, headers={"Accept-Encoding": accept}).headers
    )
    head = json.dumps({"inputs": [{"name": "pixels", "shape": [1, 3, 96, 96], "datatype": "FP32",
                                   "parameters": {"binary_data_size": 110_592}}],
                       "parameters": {"binary_data_output": True}}).encode()  # fmt: skip
    raw = np.full(27648, 0.5, np.float32).tobytes()
    answer = client.post(
        "/v2/models/image/infer",
        content=zlib.compress(head + raw),
        headers={"Content-Encoding": "deflate", "Accept-Encoding": accept, HEAD: str(len(head))},
    )
    assert answer.headers["content-encoding"] == accept
    assert answer.content[int(answer.headers[HEAD]) :] == raw  # both lengths are those of the uncompressed JSON
