"""Gateways told by the environment of Lambda and Cloud Run: billed by what they answer, and on Lambda written before they freeze.

No cloud is here: the process, HTTP, the store and SIGTERM are real, the freezing is not.
"""

import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.costs import costs
from gateway.cli.ledger import ledger
from tests.support import gateways, models

ROW = dict(models.TINY_EXAMPLES.rows[0])
MB = 1769
LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "flights", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MB)}
CLOUD_RUN = {"K_SERVICE": "flights", "K_REVISION": "flights-1"}
LONG = {"STEELYARD_LEDGER__FLUSH_INTERVAL_S": "60"}
PATIENT = {
    "STEELYARD_LEDGER__ANSWER_WAIT_S": "30"
}  # on a busy machine a write has taken longer than the second that is the default


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return models.tiny_store(tmp_path / "store")


def lines(root: Path, kind: str) -> list[dict[str, Any]]:
    """Of all segments in the store."""
    segments = sorted(root.glob("ledger/v1/**/*.jsonl.gz"))
    found = [json.loads(line) for path in segments for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [line for line in found if line["type"] == kind]


def predict(gateway: gateways.Gateway) -> int:
    """The receipt."""
    answer = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
    assert answer.status == 200
    return int(answer.headers["steelyard-cost-picousd"])


def verify(root: Path) -> None:
    verified = CliRunner().invoke(ledger, ["verify", "--store", str(root)])
    assert verified.exit_code == 0, verified.output


def test_a_function_is_billed_for_its_start_and_its_calls_and_nothing_between(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, **LAMBDA) as gateway:
        receipts = [predict(gateway) for _ in range(3)]
        gateway.get("/v2/health/ready")
        time.sleep(1)  # in which nobody calls, and which must cost nothing
        assert gateway.terminate() == 0
    charges = lines(root, "charge")
    fee = "lambda/requests"
    assert {each["sku"].split("-")[0] for each in charges if each["sku"] != fee} == {"lambda"}
    assert sum(each["quantity"] for each in charges if each["sku"] == fee) == 4
    assert sum(each["cost_picousd"] for each in charges if each["sku"] == fee) == 4 * 200_000
    [opened] = [json.loads(path.read_bytes()) for path in root.glob("ledger/v1/containers/*/*-open.json")]
    [closed] = [json.loads(path.read_bytes()) for path in root.glob("ledger/v1/containers/*/*-close.json")]
    billed_ns = sum(each["quantity"] for each in charges if each["sku"].endswith("/memory")) / (MB << 20)
    assert 0 < billed_ns <= closed["closed_ns"] - opened["boot_ns"] - 10**9
    assert min(receipts) > 200_000  # the call, and its CPU
    infer = [each for each in lines(root, "posting") if each["account"] == "infer"]
    assert sum(each["cost_picousd"] for each in infer) == sum(receipts)
    assert sum(each.get("requests", 0) for each in infer) == 3
    assert opened["basis"] == {
        "platform_from": "Lambda's environment",
        "size_from": "Lambda's environment",
        "unpriced": [],
    }
    verify(root)

    report = CliRunner().invoke(costs, ["--store", str(root), "--cache", str(tmp_path / "copy"), "--format", "json"])
    assert report.exit_code == 0, report.output
    [billed] = json.loads(report.stdout)["billed"]  # one size for all of the life, and the time that was billed of it
    assert (billed["platform"].split("-")[0], billed["vcpu_milli"], billed["memory_bytes"]) == (
        "lambda",
        1000,
        MB << 20,
    )
    assert billed["container_ns"] == billed_ns
    out = tmp_path / "out.parquet"
    focus = CliRunner().invoke(
        costs, ["--store", str(root), "--cache", str(tmp_path / "copy"), "--focus", "1.2", str(out)]
    )
    assert focus.exit_code == 0, focus.output


def test_an_edited_request_count_is_named(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, **LAMBDA) as gateway:
        predict(gateway)
        assert gateway.terminate() == 0
    for path in root.glob("ledger/v1/**/*.jsonl.gz"):
        body = gzip.decompress(path.read_bytes()).replace(
            b'"sku":"lambda/requests","unit":"requests","quantity":1,',
            b'"sku":"lambda/requests","unit":"requests","quantity":2,',
        )
        path.write_bytes(gzip.compress(body, 1, mtime=0))
    verified = CliRunner().invoke(ledger, ["verify", "--store", str(root)])
    assert verified.exit_code == 1
    assert "its price book and its container's size make that" in verified.output


def test_many_at_once_on_cloud_run_are_one_stretch(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, **CLOUD_RUN) as gateway, ThreadPoolExecutor(8) as callers:
        receipts = list(callers.map(lambda _: predict(gateway), range(80)))
        assert gateway.terminate() == 0
    charges = lines(root, "charge")
    [opened] = [json.loads(path.read_bytes()) for path in root.glob("ledger/v1/containers/*/*-open.json")]
    [closed] = [json.loads(path.read_bytes()) for path in root.glob("ledger/v1/containers/*/*-close.json")]
    held = {each["sku"]: each["amount"] for each in opened["provisioned"]}
    for sku in ("cloud-run-requests/vcpu", "cloud-run-requests/memory"):
        billed_ns = sum(each["quantity"] for each in charges if each["sku"] == sku) / held[sku]
        # Start, calls and shutting down are at most three stretches, each rounded up to 100 ms.
        assert 0 < billed_ns <= closed["closed_ns"] - opened["boot_ns"] + 3 * 10**8
    assert sum(each["quantity"] for each in charges if each["sku"] == "cloud-run-requests/requests") == 80
    infer = [each for each in lines(root, "posting") if each["account"] == "infer"]
    assert sum(each["cost_picousd"] for each in infer) == sum(receipts)
    verify(root)


def test_with_each_answer_the_ledger_is_written_first(root: Path, tmp_path: Path) -> None:
    each = {"STEELYARD_LEDGER__BEFORE_ANSWERS": "each"}
    with gateways.running(root, tmp_path, **LAMBDA, **LONG, **PATIENT, **each) as gateway:
        for count in range(1, 4):
            predict(gateway)
            assert len(lines(root, "request")) == count  # not a moment later: then the process stands still
        gateway.kill()
    verify(root)


def test_on_lambda_an_answer_waits_for_what_is_due(root: Path, tmp_path: Path) -> None:
    short = {"STEELYARD_LEDGER__FLUSH_INTERVAL_S": "0.001"}
    with gateways.running(root, tmp_path, **LAMBDA, **PATIENT, **short) as gateway:
        predict(gateway)
        assert len(lines(root, "request")) == 1
        gateway.kill()
    verify(root)


def test_elsewhere_no_answer_waits(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, **CLOUD_RUN, **LONG) as gateway:
        predict(gateway)
        assert lines(root, "request") == []
        assert gateway.terminate() == 0
    assert len(lines(root, "request")) == 1


def test_a_store_that_is_away_delays_no_answer_for_ever(root: Path, tmp_path: Path) -> None:
    each = {"STEELYARD_LEDGER__BEFORE_ANSWERS": "each", "STEELYARD_LEDGER__ANSWER_WAIT_S": "0.2"}
    with gateways.running(root, tmp_path, **LAMBDA, **LONG, **each) as gateway:
        predict(gateway)
        (root / "ledger").rename(root / "elsewhere")
        (root / "ledger").write_text("in the way")
        for _ in range(5):
            predict(gateway)
        (root / "ledger").unlink()
        (root / "elsewhere").rename(root / "ledger")
        assert gateway.terminate() == 0
    assert len(lines(root, "request")) == 6
    verify(root)
