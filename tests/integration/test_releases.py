"""Releases as an operator makes them and callers see them: real commands, real gateway processes, a store between them."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import layout
from gateway.objectstore.local import LocalStore
from gateway.objectstore.opening import open_store
from gateway.registry import releasing
from tests.support import gateways, goldens, models, servers, stores
from tests.support.faults import Crash, CrashingStore
from tests.support.gateways import Gateway, until

ROW = dict(models.TINY_EXAMPLES.rows[0])
BODY = {"rows": [ROW]}
POLL = {"STEELYARD_REPOSITORY__POLL_S": "0.05"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three versions of `tiny`, the first promoted."""
    root = tmp_path / "store"
    root.mkdir()
    for seed in range(3):
        asyncio.run(goldens.publish_tiny(LocalStore(root), seed=seed, promote_to="champion" if seed == 0 else None))
    return root


def steelyard_models(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "gateway", "models", *arguments, "--store", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def release(gateway: Gateway, alias: str = "champion") -> Any:
    return next(state for state in gateway.get("/v1/releases").json if state["alias"] == alias)


def metric(gateway: Gateway, sample: str) -> float:
    lines = gateway.get("/metrics").body.decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"steelyard_{sample} "))


def version(gateway: Gateway, path: str = "/v1/predict/tiny", **headers: str) -> int:
    answer = gateway.request("POST", path, BODY, **headers)
    assert answer.status == 200, answer.body
    number: int = answer.json["version"]
    return number


@contextlib.contextmanager
def calling(gateway: Gateway, clients: int = 4) -> Iterator[list[tuple[int, int]]]:
    """Clients that call all the time; what they got, as (status, version). All have had an answer before and after the block."""
    answers: list[tuple[int, int]] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            answer = gateway.post("/v1/predict/tiny", BODY)
            answers.append((answer.status, answer.json.get("version", 0)))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(answers) > clients)
        yield answers
        seen = len(answers)
        until(lambda: len(answers) > seen + clients)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_promotions_and_rollbacks_under_load_fail_no_request(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, **POLL) as gateway, calling(gateway) as answers:
        for arguments, expected in (
            (["promote", "tiny", "2"], 2),
            (["canary", "tiny", "3", "--percent", "50"], 2),
            (["promote", "tiny", "3", "--reason", "better"], 3),
            (["rollback", "tiny", "--to", "2"], 2),
            (["rollback", "tiny"], 1),
        ):
            out = steelyard_models(root, *arguments)
            generation = int(out.rsplit("generation ", 1)[1].rstrip(")\n"))
            until(lambda g=generation: release(gateway)["generation"] == g)  # type: ignore[misc]
            assert release(gateway)["version"] == expected
    assert {status for status, _ in answers} == {200}
    assert {number for _, number in answers} == {1, 2, 3}
    assert answers[-1] == (200, 1)
    history = steelyard_models(root, "history", "tiny").splitlines()
    assert [line.split()[0] for line in history[1:]] == ["6", "5", "4", "3", "2", "1"]
    assert "better" in history[3]
    assert "as in generation 2" in history[2]


def test_a_canary_gets_its_share_and_keeps_its_callers_in_every_gateway(root: Path, tmp_path: Path) -> None:
    steelyard_models(root, "canary", "tiny", "2", "--percent", "30")
    with gateways.running(root, tmp_path) as one, gateways.running(root, tmp_path) as two:
        for gateway in (one, two):
            version(gateway)
            until(lambda g=gateway: release(g)["canaries"][0]["is_loaded"])  # type: ignore[misc]
        keys = [f"customer-{number}" for number in range(200)]
        first = {key: version(one, Steelyard_Sticky=key) for key in keys}
        assert {key: version(two, Steelyard_Sticky=key) for key in keys} == first
        assert Counter(first.values())[2] == pytest.approx(60, abs=25)
        assert Counter(version(one) for _ in range(200))[2] == pytest.approx(60, abs=40)
        answer = one.request("POST", "/v1/predict/tiny/versions/1", BODY, Steelyard_Sticky=keys[0])
        assert answer.json["version"] == 1  # a number is a number


def test_a_shadow_is_compared_and_never_returned(root: Path, tmp_path: Path) -> None:
    steelyard_models(root, "shadow", "tiny", "2")
    with gateways.running(root, tmp_path) as gateway:
        version(gateway)
        until(lambda: release(gateway)["shadow_version"] == 2)
        answers = {version(gateway) for _ in range(50)}
        assert answers == {1}
        until(lambda: _compared(gateway) == 50)
        seen = release(gateway)["comparison"]
        assert seen["failures"] == 0
        assert 0 < seen["max_abs_difference"] < 1
        assert seen["shadow_cpu_ns"] > 0
        assert seen["shadow_run_ns"] > 0
        assert seen["rows"] == seen["requests"]
        assert metric(gateway, 'shadow_requests_total{model="tiny",alias="champion",version="2",result="failed"}') == 0
        assert metric(gateway, 'alias_version{model="tiny",alias="champion"}') == 1


def _compared(gateway: Gateway) -> int:
    seen = release(gateway)["comparison"]
    compared: int = seen["requests"] + seen["dropped"]
    return compared


def test_a_release_that_answers_otherwise_here_is_refused_and_rolled_back(root: Path, tmp_path: Path) -> None:
    asyncio.run(goldens.publish_tiny(LocalStore(root), seed=7, error=0.01, promote_to=None))
    with gateways.running(root, tmp_path, **POLL) as gateway:
        assert version(gateway) == 1
        steelyard_models(root, "promote", "tiny", "4")
        until(lambda: bool(release(gateway)["problem"]))
        [loaded] = gateway.get("/v1/loaded").json
        assert loaded["version"] == "1"
        assert "version 4 is refused: model 'tiny', variant 'fp32', output 'probability': is 0." in loaded["problem"]
        assert "tiny@1 stays: version 4 is refused" in gateway.log.read_text()
        assert gateway.post("/v1/predict/tiny/versions/4", BODY).status == 503
        assert version(gateway) == 1
        steelyard_models(root, "rollback", "tiny")
        until(lambda: not release(gateway)["problem"])
        assert (release(gateway)["version"], release(gateway)["generation"]) == (1, 3)


def test_a_canary_and_a_shadow_that_are_damaged_leave_the_champion_alone(root: Path, tmp_path: Path) -> None:
    for number in (2, 3):
        record = json.loads((root / layout.version("tiny", number)).read_bytes())
        manifest = json.loads((root / layout.manifest("tiny", record["manifest_sha256"])).read_bytes())
        for file in manifest["files"]:
            if file["role"] == "model":
                (root / layout.blob("tiny", file["sha256"])).unlink()
    steelyard_models(root, "canary", "tiny", "2", "--percent", "100")
    steelyard_models(root, "shadow", "tiny", "3")
    with gateways.running(root, tmp_path, **POLL) as gateway:
        assert {version(gateway) for _ in range(20)} == {1}
        until(lambda: release(gateway)["problem"].count("is missing from the store") == 2)
        assert {version(gateway) for _ in range(20)} == {1}
        [loaded] = gateway.get("/v1/loaded").json
        assert "version 2 does not take part in alias 'champion'" in loaded["problem"]


def test_an_alias_is_a_version_of_its_own(root: Path, tmp_path: Path) -> None:
    steelyard_models(root, "promote", "tiny", "2", "--alias", "beta")
    with gateways.running(root, tmp_path, **POLL) as gateway:
        assert version(gateway, "/v1/predict/tiny/versions/beta") == 2
        assert version(gateway, "/v1/predict/tiny/versions/champion") == 1
        assert gateway.get("/v2/models/tiny/versions/beta/ready").status == 200
        assert gateway.get("/v2/models/tiny/versions/beta").status == 200
        steelyard_models(root, "promote", "tiny", "3", "--alias", "beta")
        until(lambda: version(gateway, "/v1/predict/tiny/versions/beta") == 3)
        assert version(gateway) == 1
        answer = gateway.post("/v1/predict/tiny/versions/gamma", BODY)
        assert (answer.status, answer.error) == (
            404,
            "model 'tiny' has no version or alias 'gamma'; versions: 1, 2, 3; aliases: beta, champion",
        )


def test_a_decision_cut_off_between_log_and_alias_is_completed_by_the_same_command(root: Path, tmp_path: Path) -> None:
    author = releasing.Author(actor="tests", reason="", now_ns=1)
    promotion = {"model": "tiny", "alias": "champion", "version": 2, "author": author}

    async def cut_off() -> None:
        calls = 0
        while not (root / layout.promotion("tiny", 2)).exists():
            calls += 1
            with contextlib.suppress(Crash):
                await releasing.promote(CrashingStore(LocalStore(root), crash_at=calls, after_effect=True), **promotion)

    with gateways.running(root, tmp_path, **POLL) as gateway:
        assert version(gateway) == 1
        asyncio.run(cut_off())
        assert json.loads((root / layout.alias("tiny", "champion")).read_bytes())["version"] == 1
        steelyard_models(root, "promote", "tiny", "2")
        until(lambda: version(gateway) == 2)
    assert not (root / layout.promotion("tiny", 3)).exists()


def test_more_models_than_memory_all_answer(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    names = [f"m{number}" for number in range(6)]
    for seed, name in enumerate(names):
        asyncio.run(models.publish_mlp(LocalStore(root), name, seed=seed))
    tensors = {"inputs": [{"name": "features", "shape": [1, 32], "datatype": "FP32", "data": [0.5] * 32}]}
    with gateways.running(root, tmp_path) as gateway:
        gateway.post(f"/v2/models/{names[0]}/infer", tensors)
        one_bytes = gateway.get("/v1/loaded").json[0]["resident_bytes"]
    budget = {"STEELYARD_REPOSITORY__MEMORY_BYTES_MAX": str(one_bytes * 5 // 2)}
    with gateways.running(root, tmp_path, "--preload", names[0], **budget) as gateway:
        answers = {}
        for name in names * 3:
            answer = gateway.post(f"/v2/models/{name}/infer", tensors)
            assert answer.status == 200, answer.body
            data = answer.json["outputs"][0]["data"]
            assert answers.setdefault(name, data) == data
            loaded = gateway.get("/v1/loaded").json
            assert sum(state["resident_bytes"] for state in loaded) <= one_bytes * 5 // 2
            assert names[0] in {state["name"] for state in loaded}
        assert len({tuple(data) for data in answers.values()}) == len(names)
        assert metric(gateway, "evictions_total") > 0
        assert metric(gateway, "models_bytes") == sum(state["resident_bytes"] for state in loaded)


def test_a_large_model_comes_from_s3_in_parts(
    moto: servers.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{stores.bucket(moto, monkeypatch)}/prefix"

    async def publish() -> None:
        async with contextlib.aclosing(open_store(url)) as store:
            await models.publish_mlp(store, "large", hidden=50_000)  # 8.4 MB

    asyncio.run(publish())
    tensors = {"inputs": [{"name": "features", "shape": [1, 32], "datatype": "FP32", "data": [0.5] * 32}]}
    with gateways.running(url, tmp_path) as gateway:
        assert gateway.post("/v2/models/large/infer", tensors).status == 200
        [cached] = [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".onnx"]
        assert cached.stat().st_size > 8 << 20
        assert gateway.terminate() == 0
