"""The gateway as its clients see it: a real process, real HTTP, real ONNX files from a real store."""

import asyncio
import concurrent.futures
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import layout
from gateway.objectstore.local import LocalStore
from tests.support import gateways, models
from tests.support.gateways import ANSWER_S, Gateway, until
from trainers import publish

ROW = dict(models.TINY_EXAMPLES.rows[0])
TENSORS = {
    "inputs": [
        {"name": "categories", "shape": [1, 2], "datatype": "BYTES", "data": ["AA", "JFK"]},
        {"name": "numbers", "shape": [1, 3], "datatype": "FP32", "data": [7, 733.0, 12.5]},
    ]
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(_publish_all(root))
    return root


async def _publish_all(root: Path) -> None:
    store = LocalStore(root)
    await models.publish_tiny(store)
    await models.publish_mlp(store)
    await models.publish_tiny(store, "unpromoted", promote_to=None)


@pytest.fixture(scope="module")
def gateway(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateways.running(
        store,
        tmp_path_factory.mktemp("gateway"),
        STEELYARD_SERVER__BODY_BYTES_MAX="100000",
        STEELYARD_SERVER__BODY_TIMEOUT_S="1",
    ) as running:
        yield running


def test_health_and_metadata_are_the_protocols(gateway: Gateway) -> None:
    assert gateway.get("/v2/health/live").json == {"live": True}
    assert gateway.get("/v2/health/ready").json == {"ready": True, "live": True}
    server = gateway.get("/v2").json
    assert server["name"] == "steelyard"
    assert {"binary_tensor_data", "model_configuration"} <= set(server["extensions"])
    metadata = gateway.get("/v2/models/tiny").json
    assert metadata["versions"] == ["1"]
    assert metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"] == [
        {"name": "categories", "datatype": "BYTES", "shape": [-1, 2]},
        {"name": "numbers", "datatype": "FP32", "shape": [-1, 3]},
    ]
    assert gateway.get("/v2/models/tiny/versions/1").json == metadata
    assert gateway.get("/v2/models/tiny/ready").json == {"name": "tiny", "ready": True}
    assert gateway.get("/v2/models/tiny/versions/1/ready").status == 200
    assert gateway.get("/v2/models").json["models"] == ["mlp", "tiny", "unpromoted"]


def test_both_doors_give_the_same_answer_and_a_receipt(gateway: Gateway) -> None:
    rows = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
    tensors = gateway.post("/v2/models/tiny/infer", TENSORS)
    assert rows.status == tensors.status == 200
    probability = rows.json["predictions"][0]["late_probability"]
    assert tensors.json["outputs"][0]["data"] == [probability]
    assert 0 < probability < 1
    for answer in (rows, tensors):
        assert answer.headers["steelyard-model"] == "tiny@1"
        assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", answer.headers["steelyard-request-id"])
        assert int(answer.headers["steelyard-cost-picousd"]) > 0
        assert re.fullmatch(
            r"decode;dur=[\d.]+, queue;dur=[\d.]+, run;dur=[\d.]+, encode;dur=[\d.]+", answer.headers["server-timing"]
        )
    receipt = rows.json["receipt"]
    assert receipt["cost_picousd"] == int(rows.headers["steelyard-cost-picousd"])
    assert (receipt["model"], receipt["version"], receipt["rows"], receipt["batch_rows"]) == ("tiny", 1, 1, 1)
    assert receipt["cpu_ns"] > 0
    assert receipt["request_bytes"] == len(json.dumps({"rows": [ROW]}))
    assert receipt["response_bytes"] > 0
    assert "receipt" not in tensors.json


def test_a_version_can_be_asked_for_by_number(gateway: Gateway) -> None:
    assert gateway.post("/v2/models/tiny/versions/1/infer", TENSORS).json["model_version"] == "1"
    assert gateway.post("/v1/predict/tiny/versions/1", {"rows": [ROW]}).status == 200
    assert gateway.post("/v1/predict/unpromoted/versions/1", {"rows": [ROW]}).status == 200


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v2/models/nosuch/infer", 404, "no model is named 'nosuch'; published: mlp, tiny, unpromoted"),
        ("/v1/predict/nosuch", 404, "no model is named 'nosuch'; published: mlp, tiny, unpromoted"),
        ("/v2/models/tiny/versions/7/infer", 404, "model 'tiny' has no version 7; published: 1"),
        ("/v2/models/unpromoted/infer", 404, "none is promoted to 'champion' yet"),
        ("/v2/models/tiny/versions/x/infer", 404, "has no version or alias 'x'; versions: 1; aliases: champion"),
        ("/v2/models/..%2F..%2Fetc/infer", 404, "no route|no model"),
        ("/v2/models/%00/infer", 404, "no model is named"),
        ("/v2/models/TINY/infer", 404, "no model is named 'TINY'"),
        ("/v2/models/" + "x" * 500 + "/infer", 404, "no model is named"),
        ("/v3/nothing", 404, "no route POST /v3/nothing"),
    ],
)
def test_what_does_not_exist_is_404_and_names_what_does(gateway: Gateway, path: str, status: int, message: str) -> None:
    answer = gateway.post(path, TENSORS)
    assert answer.status == status
    assert re.search(message, answer.error)
    for twice in range(2):  # the second answer comes from memory
        assert gateway.post(path, TENSORS).error == answer.error, twice


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/predict/tiny", b"not json", 400, "malformed"),
        ("/v1/predict/tiny", b"", 400, "truncated|malformed"),
        ("/v1/predict/tiny", {"rows": []}, 400, "'rows' is empty"),
        ("/v1/predict/tiny", {"rows": [{}]}, 400, "missing required field `carrier`"),
        ("/v1/predict/tiny", {"rows": [ROW | {"x": 1}]}, 400, "unknown field `x`"),
        ("/v1/predict/tiny", {"rows": [ROW | {"hour": "7"}]}, 400, r"Expected `int`, got `str`.*\.hour"),
        ("/v1/predict/tiny", b'{"rows": [{"wind": NaN}]}', 400, "'wind'; JSON has no NaN"),
        ("/v1/predict/tiny", b"[" * 50_000, 400, "nested too deeply|Expected"),
        ("/v1/predict/tiny", b"\xff\xfe", 400, "UTF-8|malformed"),
        ("/v1/predict/tiny", b"x" * 100_001, 413, r"larger than 100000 bytes \(server.body_bytes_max\)"),
        ("/v2/models/mlp/infer", {"inputs": []}, 400, "input 'features' is missing"),
        ("/v2/models/tiny/infer", TENSORS | {"outputs": [{"name": "y"}]}, 400, "no output 'y'; it has: 'probability'"),
        ("/v2/health/nothing", {}, 404, "no route"),
    ],
)
def test_bad_input_gets_a_sentence_and_the_gateway_goes_on(
    gateway: Gateway, path: str, body: Any, status: int, message: str
) -> None:
    answer = gateway.post(path, body)
    assert answer.status == status
    assert re.search(message, answer.error), answer.error
    assert answer.headers["content-type"].startswith("application/json")
    assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
    assert "Traceback" not in gateway.log.read_text()


def test_wrong_methods_and_encodings_are_refused(gateway: Gateway) -> None:
    answer = gateway.get("/v1/predict/tiny")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert gateway.post("/v2/health/live", {}).status == 405
    zipped = gateway.request("POST", "/v1/predict/tiny", b"x", Content_Encoding="br")
    assert (zipped.status, "Content-Encoding" in zipped.error) == (400, True)


def test_a_body_that_stops_half_way_is_given_up(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/predict/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        head = connection.recv(4096)
    assert head.startswith(b"HTTP/1.1 408")


def test_a_huge_promise_is_refused_before_the_body_is_read(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/predict/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    chunk = b"%x\r\n%s\r\n" % (60_000, b"x" * 60_000)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/predict/tiny HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 2
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_the_documentation_needs_no_internet(gateway: Gateway) -> None:
    page = gateway.get("/docs").body.decode()
    sources = re.findall(r'(?:src|href)="?([^" >]+)', page)
    assert sources
    for source in sources:
        assert not source.startswith(("http:", "https:", "//")), source
        if source.startswith("/"):
            assert gateway.get(source).status == 200
    document = gateway.get("/docs/openapi.json").json
    assert {"/v2/models/{model}/infer", "/v1/predict/{model}", "/v2/health/ready", "/v2/models/{model}"} <= set(
        document["paths"]
    )


def test_a_short_run_whose_deadline_has_passed_is_not_begun(gateway: Gateway) -> None:
    late = gateway.post("/v2/models/tiny/infer", TENSORS | {"parameters": {"timeout": 1}})  # a microsecond
    assert (late.status, "deadline" in late.error) == (503, True)
    assert gateway.post("/v2/models/tiny/infer", TENSORS | {"parameters": {"timeout": 10_000_000}}).status == 200


def test_many_clients_each_get_their_own_answer(gateway: Gateway) -> None:
    rows = [ROW | {"hour": hour, "distance": float(distance)} for hour in range(24) for distance in (100, 2000)]
    expected = [gateway.post("/v1/predict/tiny", {"rows": [row]}).json["predictions"][0] for row in rows]
    assert len({json.dumps(answer) for answer in expected}) > 40
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda row: gateway.post("/v1/predict/tiny", {"rows": [row]}).json["predictions"][0], rows * 5)
        )
    assert answers == expected * 5


def test_a_promotion_is_followed_without_a_failed_request(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    local = LocalStore(root)
    asyncio.run(models.publish_tiny(local))
    with gateways.running(root, tmp_path, STEELYARD_REPOSITORY__POLL_S="0.05") as gateway:
        versions = [gateway.post("/v1/predict/tiny", {"rows": [ROW]}).json["version"]]
        asyncio.run(models.publish_tiny(local, seed=1))
        versions += _predict_until(gateway, lambda answers: answers[-1] == 2)
        assert versions == sorted(versions)
        loaded = gateway.get("/v1/loaded").json
        assert [(state["name"], state["version"]) for state in loaded] == [("tiny", "2")]


@pytest.mark.parametrize("damage", ["flip a byte", "remove the blob", "newer schema", "garbage alias"])
def test_a_damaged_release_is_refused_and_the_old_one_stays(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "store"
    root.mkdir()
    local = LocalStore(root)
    asyncio.run(models.publish_tiny(local))
    with gateways.running(root, tmp_path, STEELYARD_REPOSITORY__POLL_S="0.05") as gateway:
        assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).json["version"] == 1
        record = asyncio.run(models.publish_tiny(local, seed=1, promote_to=None))
        _damage(root, damage, record.manifest_sha256)
        if damage == "garbage alias":
            (root / layout.alias("tiny", layout.CHAMPION)).write_bytes(b"{}")
        else:
            asyncio.run(_promote(local, record.version))
        reason = _await_problem(gateway)
        assert re.search("digest|sha256|missing|schema_version 99|not valid", reason)
        assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).json["version"] == 1
        assert "stays" in gateway.log.read_text()


def test_a_damaged_first_release_is_a_sentence(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    record = asyncio.run(models.publish_tiny(LocalStore(root)))
    _damage(root, "flip a byte", record.manifest_sha256)
    with gateways.running(root, tmp_path) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        assert (answer.status, "sha256" in answer.error) == (503, True)


def test_a_store_that_goes_away_does_not_stop_what_is_loaded(tmp_path: Path) -> None:
    root = models.tiny_store(tmp_path / "store")
    with gateways.running(root, tmp_path, STEELYARD_REPOSITORY__POLL_S="0.05") as gateway:
        assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
        shutil.move(root, tmp_path / "gone")
        assert _await_problem(gateway)
        assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
        answer = gateway.post("/v1/predict/mlp", {"rows": [{}]})
        assert (answer.status, "retry-after" in answer.headers) == (503, True)
        shutil.move(tmp_path / "gone", root)
        until(lambda: not any(state["problem"] for state in gateway.get("/v1/loaded").json))


def test_versions_asked_for_by_number_do_not_pile_up(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    for seed in range(4):
        asyncio.run(models.publish_tiny(LocalStore(root), seed=seed))
    with gateways.running(root, tmp_path, STEELYARD_REPOSITORY__PINNED_MAX="2") as gateway:
        assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).json["version"] == 4
        for version in (1, 2, 1, 3):
            assert gateway.post(f"/v1/predict/tiny/versions/{version}", {"rows": [ROW]}).json["version"] == version
        assert gateway.get("/v2/models/tiny/versions/2").status == 200  # a signature needs no load
        assert {state["version"] for state in gateway.get("/v1/loaded").json} == {"1", "3", "4"}


def test_a_cache_that_cannot_be_used_is_a_sentence(store: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with gateways.running(store, tmp_path) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        assert (answer.status, "cache" in answer.error) == (503, True)


async def _promote(store: LocalStore, version: int) -> None:
    await publish.promote(
        store, model="tiny", alias=layout.CHAMPION, version=version, actor="test", reason="test", now_ns=models.NOW_NS
    )


def _damage(root: Path, damage: str, manifest_sha256: str) -> None:
    manifest = root / layout.manifest("tiny", manifest_sha256)
    tree = json.loads(manifest.read_bytes())
    blob = root / layout.blob("tiny", next(file["sha256"] for file in tree["files"] if file["role"] == "model"))
    if damage == "flip a byte":
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
    elif damage == "remove the blob":
        blob.unlink()
    elif damage == "newer schema":
        manifest.write_bytes(json.dumps(tree | {"schema_version": 99}).encode())


def _predict_until(gateway: Gateway, done: Callable[[list[int]], bool]) -> list[int]:
    answers: list[int] = []
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        answer = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        assert answer.status == 200, answer.body
        answers.append(answer.json["version"])
        if done(answers):
            return answers
    raise AssertionError(f"it never happened: {sorted(set(answers))}")


def _await_problem(gateway: Gateway) -> str:
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        for state in gateway.get("/v1/loaded").json:
            if state["problem"]:
                problem: str = state["problem"]
                return problem
        time.sleep(0.02)
    raise AssertionError("no problem was reported")


def test_what_can_be_no_model_in_the_store_is_passed_over(tmp_path: Path) -> None:
    root = models.tiny_store(tmp_path / "store")
    for folder in (b"\xff", b"UPPER", b"new\nline", b"a b"):
        stray = root / "models" / os.fsdecode(folder) / "versions"
        stray.mkdir(parents=True)
        (stray / "1.json").write_bytes(b"{}")
    for name in ("x.json", "01.json", "-1.json", "1e3.json"):
        (root / layout.versions("tiny") / name).write_bytes(b"{}")
    (root / layout.alias("tiny", "champion")).with_name("Not An Alias.json").write_bytes(b"{}")
    with gateways.running(root, tmp_path) as gateway:
        assert gateway.get("/v2/models").json == {"models": ["tiny"]}
        assert gateway.get("/v2/models/tiny").json["versions"] == ["1"]
        index = gateway.post("/v2/repository/index", {})
        assert (index.status, {row["name"] for row in index.json}) == (200, {"tiny"})
        for path in ("/v1/predict/nosuch", "/v1/predict/tiny/versions/77", "/v2/models/nosuch/infer"):
            assert gateway.post(path, {"rows": [ROW]}).status == 404, path
        for path in ("/v2/models/nosuch", "/v2/models/tiny/versions/77"):
            assert gateway.get(path).status == 404, path
        assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
        assert "Traceback" not in gateway.log.read_text()
