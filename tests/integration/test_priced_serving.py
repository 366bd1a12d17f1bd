"""What a served gateway says of its prices: where it runs, what it costs in full, and loudly what it cannot know."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.accounting import books
from gateway.cli.costs import costs
from gateway.contract import prices
from gateway.objectstore.local import LocalStore
from tests.support import gateways, models
from tests.support.ecsmetadata import metadata

ROW = dict(models.TINY_EXAMPLES.rows[0])
ARN = "arn:aws:ecs:eu-west-1:111122223333:task/prod/158d1c80"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return models.tiny_store(tmp_path / "store")


def opened(root: Path) -> dict[str, Any]:
    [path] = root.glob("ledger/v1/containers/*/*-open.json")
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def test_on_ecs_the_task_says_size_platform_and_the_begin_of_the_bill(root: Path, tmp_path: Path) -> None:
    book = prices.PriceBook(prices.load().data + b"\n# ours\n", name="ours.toml")
    asyncio.run(books.make_current(LocalStore(root), book, now_ns=1, actor="ann"))
    pulled_s = int(time.time()) - 5
    iso = datetime.fromtimestamp(pulled_s, UTC).isoformat()
    task = {"LaunchType": "FARGATE", "TaskARN": ARN, "Limits": {"CPU": 0.25, "Memory": 512}, "PullStartedAt": iso}
    with (
        metadata({"/v4/abc/task": task, "/v4/abc": {"StartedAt": iso}}) as uri,
        gateways.running(root, tmp_path, ECS_CONTAINER_METADATA_URI_V4=uri) as gateway,
    ):
        gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        assert gateway.terminate() == 0
    record = opened(root)
    assert record["boot_ns"] == pulled_s * 10**9
    assert record["platform"].startswith("fargate-")
    assert [held["amount"] for held in record["provisioned"]] == [250, 512 << 20]
    assert record["basis"] == {"platform_from": "ECS task metadata", "size_from": "ECS task metadata", "unpriced": []}
    assert record["price_book_sha256"] == book.sha256
    assert (record["container"], record["resource"]) == ("158d1c80", ARN)
    assert "0.250 vCPU and 0.500 GB (ECS task metadata) on fargate-" in gateway.log.read_text()


def test_a_missing_price_is_served_and_shouted_about(root: Path, tmp_path: Path) -> None:
    text = prices.load().data.decode().replace('\nsku = "fargate-spot-x86/', '\nsku = "away/')
    (tmp_path / "own.toml").write_text(text)
    own = {
        "STEELYARD_ACCOUNTING__PLATFORM": "fargate-spot-x86",
        "STEELYARD_ACCOUNTING__PRICE_BOOK": str(tmp_path / "own.toml"),
    }
    with gateways.running(root, tmp_path, **own) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        metrics = gateway.get("/metrics").body.decode()
        assert gateway.terminate() == 0
    assert answer.status == 200
    assert answer.headers["steelyard-cost-picousd"] == "unpriced"
    assert "steelyard-cost-full-picousd-estimated" not in answer.headers
    assert answer.json["receipt"]["cost_picousd"] is None
    assert "steelyard_ledger_unpriced_skus 2" in metrics
    assert "no price for fargate-spot-x86/vcpu and fargate-spot-x86/memory" in gateway.log.read_text()
    assert opened(root)["basis"]["unpriced"] == ["fargate-spot-x86/vcpu", "fargate-spot-x86/memory"]

    report = CliRunner().invoke(costs, ["--store", str(root), "--cache", str(tmp_path / "copy")])
    assert report.exit_code == 1
    assert "UNPRICED: no price was known for fargate-spot-x86/memory" in report.output


def test_an_assumed_price_is_charged_and_said(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, STEELYARD_ACCOUNTING__PLATFORM="fargate-spot-arm") as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        assert gateway.terminate() == 0
    assert int(answer.headers["steelyard-cost-picousd"]) > 0
    assert "fargate-spot-arm/vcpu is billed at $0.012952 per vcpu-hour, which is ASSUMED" in gateway.log.read_text()


def test_once_an_interval_is_closed_the_full_cost_is_estimated(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, STEELYARD_LEDGER__FLUSH_INTERVAL_S="0.1") as gateway:
        deadline = time.monotonic() + gateways.ANSWER_S
        while (
            "steelyard-cost-full-picousd-estimated"
            not in (answer := gateway.post("/v1/predict/tiny", {"rows": [ROW]})).headers
        ):
            assert time.monotonic() < deadline
        assert gateway.terminate() == 0
    direct, full = (int(answer.headers[f"steelyard-cost-{name}"]) for name in ("picousd", "full-picousd-estimated"))
    assert 0 < direct < full
    receipt = answer.json["receipt"]
    assert (receipt["cost_picousd"], receipt["cost_full_picousd_estimated"]) == (direct, full)


def test_a_machine_of_ones_own_is_billed_by_the_setting(root: Path, tmp_path: Path) -> None:
    with gateways.running(root, tmp_path, STEELYARD_ACCOUNTING__USD_PER_HOUR="0.36") as gateway:
        gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        assert gateway.terminate() == 0
    record = opened(root)
    [path] = root.glob("ledger/v1/containers/*/*-close.json")
    closed = json.loads(path.read_bytes())
    assert record["platform"] == "machine"
    book = (root / "prices/sha256" / record["price_book_sha256"]).read_bytes()
    assert b'usd = "0.36"' in book
    assert closed["cost_picousd"] == round(
        (closed["closed_ns"] - record["boot_ns"]) / 10
    )  # $0.36 an hour is 0.1 p$ a ns
