"""What a served run leaves in the ledger: every finished request once, and postings that add up to the container's bill.

The bill is computed here from the container's life and the price book alone, in other words than the meter's.
"""

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gateway.accounting import segment
from gateway.contract import prices
from gateway.objectstore.local import LocalStore
from tests.support import gateways, models
from tests.support.gateways import Gateway, until

VCPUS, MEMORY_GB = 2, 4
ROW = dict(models.TINY_EXAMPLES.rows[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return models.tiny_store(tmp_path / "store")


def running(root: Path, folder: Path, **environment: str) -> Any:  # Any: the context manager of `gateways.running`
    return gateways.running(
        root,
        folder,
        STEELYARD_ACCOUNTING__VCPUS=str(VCPUS),
        STEELYARD_ACCOUNTING__MEMORY_GB=str(MEMORY_GB),
        **environment,
    )


def test_a_shadows_runs_are_on_the_bill_as_its_own_and_nobodys(root: Path, tmp_path: Path) -> None:
    asyncio.run(models.publish_tiny(LocalStore(root), seed=1, promote_to=None))
    command = [sys.executable, "-m", "gateway", "models", "shadow", "tiny", "2", "--store", str(root)]
    subprocess.run(command, capture_output=True, check=True)
    with running(root, tmp_path) as gateway:

        def release() -> dict[str, Any]:
            found: dict[str, Any] = gateway.get("/v1/releases").json[0]
            return found

        assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
        until(lambda: release()["shadow_version"] == 2)
        for _ in range(20):
            assert gateway.post("/v1/predict/tiny", {"rows": [ROW, ROW]}).status == 200
        until(lambda: release()["comparison"]["requests"] + release()["comparison"]["dropped"] == 20)
        seen = release()["comparison"]
        assert gateway.terminate() == 0
    found = lines(root)
    shadows = [line for line in found if line["type"] == "request" and line.get("door") == "shadow"]
    assert {(line["model"], line["version"], line["outcome"], line["rows"]) for line in shadows} == {
        ("tiny", 2, "ok", 2)
    }
    assert not any("tenant" in line for line in shadows)
    assert len({line["id"] for line in shadows}) == len(shadows) == seen["requests"]
    assert sum(line["cpu_ns"] for line in shadows) == seen["shadow_cpu_ns"]
    infer = [
        line for line in found if line["type"] == "posting" and line["account"] == "infer" and line["version"] == 2
    ]
    assert sum(line["cost_picousd"] for line in infer) == sum(line["cost_picousd"] for line in shadows) > 0
    for path in sorted(root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz")):
        assert segment.discrepancies(segment.decode(path.read_bytes())) == ()


def lines(root: Path) -> list[dict[str, Any]]:
    segments = sorted(root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz"))
    return [json.loads(line) for path in segments for line in gzip.decompress(path.read_bytes()).splitlines()]


def life(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The container's open and close records."""
    [opened] = root.glob("ledger/v1/containers/*/*-open.json")
    [closed] = root.glob("ledger/v1/containers/*/*-close.json")
    return json.loads(opened.read_bytes()), json.loads(closed.read_bytes())


def bill(elapsed_ns: int) -> dict[str, int]:
    """What Fargate charges for this container's life, by sku: whole seconds, a minute at least."""
    book = prices.load()
    hours = Fraction(max(60, -(-elapsed_ns // 10**9)), 3600)
    amounts = {"fargate-x86/vcpu": VCPUS, "fargate-x86/memory": MEMORY_GB}
    return {sku: round(Fraction(book.price(sku).usd) * 10**12 * amount * hours) for sku, amount in amounts.items()}  # type: ignore[union-attr]


def predict_for_ever(gateway: Gateway, stop: threading.Event, ids: list[tuple[str, int]]) -> None:
    """Requests until the gateway refuses connections; remembers the receipts that arrived."""
    while not stop.is_set():
        try:
            answer = gateway.post("/v1/predict/tiny", {"rows": [ROW] * 3})
        except OSError:
            return
        if answer.status == 200:
            ids.append((answer.headers["steelyard-request-id"], int(answer.headers["steelyard-cost-picousd"])))


def test_postings_add_up_to_the_bill_and_receipts_to_the_infer_postings(root: Path, tmp_path: Path) -> None:
    with running(root, tmp_path, STEELYARD_LEDGER__FLUSH_INTERVAL_S="0.3") as gateway:
        receipts = {}
        for number in range(200):
            answer = gateway.post("/v1/predict/tiny", {"rows": [ROW] * (1 + number % 5)})
            receipts[answer.headers["steelyard-request-id"]] = int(answer.headers["steelyard-cost-picousd"])
        for _ in range(3):
            assert gateway.post("/v1/predict/tiny", {"rows": [{}]}).status == 400
        assert gateway.terminate() == 0
    opened, closed = life(root)
    records = lines(root)
    expected = bill(closed["closed_ns"] - opened["boot_ns"])
    postings = [record for record in records if record["type"] == "posting"]
    for sku, cost in expected.items():
        assert sum(p["cost_picousd"] for p in postings if p["sku"] == sku) == cost
        assert sum(c["cost_picousd"] for c in records if c["type"] == "charge" and c["sku"] == sku) == cost
    assert closed["cost_picousd"] == sum(expected.values())
    requests = {record["id"]: record for record in records if record["type"] == "request"}
    assert {id_: requests[id_]["cost_picousd"] for id_ in receipts} == receipts
    assert Counter(record["outcome"] for record in requests.values()) == {"ok": 200, "invalid": 3}
    assert sum(r["cost_picousd"] for r in requests.values()) == sum(
        p["cost_picousd"] for p in postings if p["account"] == "infer"
    )
    assert {"infer", "boot", "overhead", "idle_cpu", "resident", "load", "idle_mem"} <= {p["account"] for p in postings}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_finished_requests_record(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with running(root, tmp_path) as gateway:
        receipts: list[tuple[str, int]] = []
        stop = threading.Event()
        clients = [threading.Thread(target=predict_for_ever, args=(gateway, stop, receipts)) for _ in range(6)]
        for client in clients:
            client.start()
        while len(receipts) < 100:
            stop.wait(0.01)
        gateway.process.send_signal(number)
        assert gateway.process.wait(timeout=40) == 0
        stop.set()
        for client in clients:
            client.join()
    recorded = Counter((record["id"], record["cost_picousd"]) for record in lines(root) if record["type"] == "request")
    assert set(receipts) <= set(recorded)
    assert set(recorded.values()) == {1}
    opened, closed = life(root)
    assert closed["cost_picousd"] == sum(bill(closed["closed_ns"] - opened["boot_ns"]).values())


def test_a_second_signal_does_not_tear_the_last_segment(root: Path, tmp_path: Path) -> None:
    with running(root, tmp_path) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.terminate() == 0
    assert answer.headers["steelyard-request-id"] in {r["id"] for r in lines(root) if r["type"] == "request"}
    opened, closed = life(root)
    assert closed["cost_picousd"] == sum(bill(closed["closed_ns"] - opened["boot_ns"]).values())


def test_a_signal_while_opening_still_exits_cleanly(tmp_path: Path) -> None:
    """A store that never answers keeps the gateway opening for ever."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        environment = {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_REGION": "us-east-1",
        }
        command = [sys.executable, "-m", "gateway", "serve", "--store", "s3://bucket", "--port", "0"]
        with subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True) as process:
            silent.settimeout(20)
            connection, _ = silent.accept()  # it is asking the store
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=30)
            connection.close()
    assert (process.returncode, "stopped before it was ready" in stderr) == (0, True), stderr
    assert "Traceback" not in stderr


def test_two_lives_of_a_container_are_two_bills(root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with running(root, tmp_path, STEELYARD_ACCOUNTING__CONTAINER_ID="box-1") as gateway:
            assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
            assert gateway.terminate() == 0
    assert len(list(root.glob("ledger/v1/containers/box-1/*-close.json"))) == 2
    ids = [record["id"] for record in lines(root) if record["type"] == "request"]
    assert len(ids) == len(set(ids)) == 2


def test_killing_it_leaves_segments_that_balance_each_by_itself(root: Path, tmp_path: Path) -> None:
    with running(root, tmp_path, STEELYARD_LEDGER__FLUSH_INTERVAL_S="0.1") as gateway:
        while len(list(root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz"))) < 5:
            assert gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status == 200
        gateway.kill()
    for path in root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz"):
        header, *records = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        charges = sum(record["cost_picousd"] for record in records if record["type"] == "charge")
        assert charges == header["cost_picousd"]
        assert charges == sum(record["cost_picousd"] for record in records if record["type"] == "posting")
    assert not list(root.glob("ledger/v1/containers/*/*-close.json"))
