"""Keys as clients meet them: a real gateway that listens where others could reach it, and a store that holds keys."""

import asyncio
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.accounting import segment
from gateway.objectstore.local import LocalStore
from tests.support import gateways, models
from tests.support.gateways import Answer, Gateway, until

ROW = dict(models.TINY_EXAMPLES.rows[0])
MLP = {"inputs": [{"name": "features", "shape": [1, 32], "datatype": "FP32", "data": [0.1] * 32}]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(_publish(root))
    return root


async def _publish(root: Path) -> None:
    await models.publish_tiny(LocalStore(root))
    await models.publish_mlp(LocalStore(root))


@pytest.fixture(scope="module")
def keys(store: Path) -> dict[str, str]:
    return {
        "all": add(store, "--tenant", "everything", "--rights", "predict,admin,costs"),
        "tiny": add(store, "--tenant", "only-tiny", "--models", "tiny"),
        "tiny-admin": add(store, "--tenant", "only-tiny", "--models", "tiny", "--rights", "admin"),
        "costs": add(store, "--tenant", "finance", "--rights", "costs"),
        "slow": add(store, "--tenant", "slow", "--rps", "1"),
        "poor": add(store, "--tenant", "poor", "--budget-usd-per-day", "0.000000000001"),
    }


@pytest.fixture(scope="module")
def gateway(store: Path, keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    assert keys
    with gateways.running(
        store,
        tmp_path_factory.mktemp("gateway"),
        STEELYARD_ACCESS__POLL_S="0.1",
        STEELYARD_LEDGER__FLUSH_INTERVAL_S="0.2",
    ) as running:
        yield running


def add(store: Path, *arguments: str) -> str:
    return steelyard("keys", "add", "--store", str(store), *arguments).stdout.strip()


def steelyard(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "gateway", *arguments], capture_output=True, text=True, check=True)


def predict(gateway: Gateway, model: str, key: str | None, body: Any = None) -> Answer:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = body or ({"rows": [ROW]} if model == "tiny" else MLP)
    path = "/v1/predict/tiny" if model == "tiny" else f"/v2/models/{model}/infer"
    return gateway.request("POST", path, body, **headers)


def test_a_good_key_is_served_through_either_header(gateway: Gateway, keys: dict[str, str]) -> None:
    assert predict(gateway, "tiny", keys["all"]).status == 200
    assert gateway.request("POST", "/v1/predict/tiny", {"rows": [ROW]}, Steelyard_Key=keys["tiny"]).status == 200


@pytest.mark.parametrize("key", [None, "nonsense", "sy_000000000000_" + "0" * 40])
def test_without_a_good_key_nothing_is_answered(gateway: Gateway, key: str | None) -> None:
    answer = predict(gateway, "tiny", key)
    assert (answer.status, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
    headers = {} if key is None else {"Steelyard-Key": key}
    for path in ("/v2", "/v2/models", "/v2/models/tiny", "/v2/models/tiny/ready", "/v1/loaded"):
        assert gateway.request("GET", path, **headers).status == 401, path


def test_health_and_documentation_need_none(gateway: Gateway) -> None:
    for path in ("/", "/v2/health/live", "/v2/health/ready", "/docs", "/docs/openapi.json"):
        assert gateway.get(path).status == 200, path


def test_a_key_opens_its_own_models_only(gateway: Gateway, keys: dict[str, str]) -> None:
    assert predict(gateway, "tiny", keys["tiny"]).status == 200
    refused = predict(gateway, "mlp", keys["tiny"])
    assert refused.status == 403
    assert "mlp" in refused.error
    assert gateway.request("GET", "/v2/models/mlp", Steelyard_Key=keys["tiny"]).status == 403
    assert gateway.request("GET", "/v2/models/tiny", Steelyard_Key=keys["tiny"]).status == 200
    assert gateway.request("GET", "/v2/models", Steelyard_Key=keys["tiny"]).json == {"models": ["tiny"]}


def test_a_key_without_the_right_is_refused(gateway: Gateway, keys: dict[str, str]) -> None:
    assert predict(gateway, "tiny", keys["costs"]).status == 403
    assert gateway.request("GET", "/v1/loaded", Steelyard_Key=keys["tiny"]).status == 403
    assert gateway.request("GET", "/v1/loaded", Steelyard_Key=keys["all"]).status == 200


def test_what_is_loaded_is_shown_of_a_keys_own_models_only(gateway: Gateway, keys: dict[str, str]) -> None:
    for model in ("tiny", "mlp"):
        assert predict(gateway, model, keys["all"]).status == 200
    names = [
        {row["name"] for row in gateway.request("GET", "/v1/loaded", Steelyard_Key=keys[key]).json}
        for key in ("all", "tiny-admin")
    ]
    assert names == [{"tiny", "mlp"}, {"tiny"}]


def test_a_rate_is_held_and_says_when_to_come_back(gateway: Gateway, keys: dict[str, str]) -> None:
    assert predict(gateway, "tiny", keys["slow"]).status == 200
    answers = (predict(gateway, "tiny", keys["slow"]) for _ in range(50))  # of which two have to come within one second
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["retry-after"]) == 1


def test_a_spent_budget_is_refused_until_midnight(gateway: Gateway, keys: dict[str, str]) -> None:
    assert predict(gateway, "tiny", keys["poor"]).status == 200  # costs far more than a pico-dollar
    refused = predict(gateway, "tiny", keys["poor"])
    assert refused.status == 429
    assert "00:00" in refused.error
    assert 0 < int(refused.headers["retry-after"]) <= 86_400


def test_a_refused_request_is_not_left_counted(gateway: Gateway, store: Path) -> None:
    key = add(store, "--tenant", "narrow", "--concurrency", "1")
    _await_status(gateway, key, 200)
    for body in ({"rows": []}, {"rows": [{}]}, {"rows": [ROW]}):
        predict(gateway, "tiny", key, body)
    assert predict(gateway, "nowhere", key).status == 404
    assert predict(gateway, "tiny", key).status == 200


def test_new_and_revoked_keys_are_known_to_a_running_gateway(gateway: Gateway, store: Path) -> None:
    key = add(store, "--tenant", "brief")
    _await_status(gateway, key, 200)
    steelyard("keys", "revoke", "--store", str(store), key.split("_")[1])
    _await_status(gateway, key, 401)


def test_the_ledger_knows_the_tenant_and_nobody_knows_the_key(
    gateway: Gateway, store: Path, keys: dict[str, str]
) -> None:
    assert predict(gateway, "tiny", keys["tiny"]).status == 200
    until(lambda: "only-tiny" in _tenants(store))
    text = gateway.log.read_text() + "".join(
        path.read_text(errors="replace") for path in store.rglob("*") if path.is_file() and path.suffix == ".json"
    )
    for key in keys.values():
        assert key not in text
        assert key.rsplit("_", 1)[1] not in text


def _tenants(store: Path) -> set[str]:
    segments = [segment.decode(path.read_bytes()) for path in store.glob("ledger/v1/dt=*/**/*.jsonl.gz")]
    return {request.tenant for parsed in segments for request in parsed.requests}


def _await_status(gateway: Gateway, key: str, status: int) -> None:
    until(lambda: predict(gateway, "tiny", key).status == status, f"never {status}")


def test_the_other_doors_ask_for_keys_too(gateway: Gateway, keys: dict[str, str]) -> None:
    doors: list[tuple[str, Any, dict[str, str]]] = [
        ("/v1/models/mlp:predict", {"instances": [[0.1] * 32]}, {}),
        ("/invocations", {"instances": [[0.1] * 32]}, {"X-Amzn-SageMaker-Target-Model": "mlp"}),
    ]
    for path, body, headers in doors:
        assert gateway.request("POST", path, body, **headers).status == 401
        assert gateway.request("POST", path, body, Steelyard_Key=keys["tiny"], **headers).status == 403
        assert gateway.request("POST", path, body, Steelyard_Key=keys["all"], **headers).status == 200


def test_the_repository_shows_a_key_its_models_and_changes_for_admins(gateway: Gateway, keys: dict[str, str]) -> None:
    index = gateway.request("POST", "/v2/repository/index", b"", Steelyard_Key=keys["tiny"]).json
    assert {entry["name"] for entry in index} == {"tiny"}
    assert gateway.request("GET", "/v1/models", Steelyard_Key=keys["tiny"]).json == {"models": ["tiny"]}
    for action in ("load", "unload"):
        path = f"/v2/repository/models/tiny/{action}"
        assert gateway.request("POST", path, b"").status == 401
        assert gateway.request("POST", path, b"", Steelyard_Key=keys["tiny"]).status == 403
        assert gateway.request("POST", path, b"", Steelyard_Key=keys["all"]).status == 200
    assert predict(gateway, "mlp", keys["all"]).status == 200
    statistics = gateway.request("GET", "/v2/models/stats", Steelyard_Key=keys["tiny"]).json["model_stats"]
    assert {stat["name"] for stat in statistics} <= {"tiny"}
    assert gateway.request("GET", "/v2/models/mlp/stats", Steelyard_Key=keys["tiny"]).status == 403
    assert gateway.request("GET", "/v2/models/mlp/config", Steelyard_Key=keys["tiny"]).status == 403


def test_a_strangers_body_is_not_inflated(gateway: Gateway, keys: dict[str, str]) -> None:
    bomb = gzip.compress(bytes(100 << 20))
    assert len(bomb) > 4096  # long enough for a thread
    path = "/v2/models/mlp/infer"
    assert gateway.request("POST", path, bomb, Content_Encoding="gzip").status == 401
    assert gateway.request("POST", path, bomb, Content_Encoding="gzip", Steelyard_Key=keys["tiny"]).status == 403
    assert gateway.request("POST", path, bomb, Content_Encoding="gzip", Steelyard_Key=keys["all"]).status == 413
    long = {"inputs": [MLP["inputs"][0] | {"shape": [2000, 32], "data": [round(at * 0.37, 3) for at in range(64_000)]}]}
    packed = gzip.compress(json.dumps(long).encode())
    assert len(packed) > 4096
    assert gateway.request("POST", path, packed, Content_Encoding="gzip", Steelyard_Key=keys["all"]).status == 200
    statuses = (  # limits hold for what takes the long way too
        gateway.request("POST", path, packed, Content_Encoding="gzip", Steelyard_Key=keys["slow"]).status
        for _ in range(50)  # of which two have to come within one second
    )
    assert 429 in statuses
