"""`GET /costs` of a real gateway: who may see it, what it answers, and that predictions go on meanwhile."""

import asyncio
import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.objectstore.local import LocalStore
from tests.integration.test_costs_page import CHROMIUM, browsed_url
from tests.support import gateways, ledgers, models
from tests.support.gateways import Gateway

ROW = dict(models.TINY_EXAMPLES.rows[0])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(models.publish_tiny(LocalStore(root)))
    ledgers.write(root, ledgers.random_ledger(11))
    return root


@pytest.fixture(scope="module")
def gateway(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateways.running(root, folder, TMPDIR=str(folder), STEELYARD_ACCESS__POLL_S="0.1") as running:
        yield running


def test_page_has_filters_and_the_proof(gateway: Gateway):
    answer = gateway.get("/costs?by=model,activity&view=direct&since=2026-11-05T00:00&until=2026-11-06T00:00")
    assert answer.status == 200, answer.body
    page = answer.body.decode()
    assert "<form" in page
    assert "Exact:" in page
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_formats_carry_the_same_bill(gateway: Gateway):
    asked = "until=2026-11-06T00:00&by=tenant,outcome"
    report = gateway.get(f"/costs?{asked}&format=json").json
    rows = list(csv.DictReader(io.StringIO(gateway.get(f"/costs?{asked}&format=csv").body.decode())))
    bill = sum(
        line.cost_picousd for line in ledgers.all_lines(ledgers.random_ledger(11)) if isinstance(line, ledgers.Charge)
    )
    assert report["charged_picousd"] == sum(int(row["cost_picousd"]) for row in rows) == bill


def test_energy_is_told_to_who_asks(gateway: Gateway):
    asked = "until=2026-11-06T00:00&format=json"
    assert gateway.get(f"/costs?{asked}").json["energy"] is None
    report = gateway.get(f"/costs?{asked}&energy=yes").json
    took = sum(row["footprint"]["energy_nj"]["value"] for row in report["rows"])
    assert (
        took + report["energy"]["others"]["energy_nj"]["value"] == report["energy"]["whole"]["energy_nj"]["value"] > 0
    )
    assert '<option value="yes" selected>' in gateway.get("/costs?energy=yes").body.decode()


def test_energy_is_told_by_the_operators_own_coefficients(gateway: Gateway, root: Path, tmp_path: Path):
    """The grid of another region; a file that is none is refused before anything listens."""
    asked, book = "until=2026-11-06T00:00&format=json&energy=yes", tmp_path / "mine.toml"
    text = (Path(__file__).parents[2] / "infra/energy/aws-us-east-1.toml").read_text()
    book.write_text(
        text.replace('value = "415.8"\nlow = "370"', 'value = "52"\nlow = "52"').replace(
            'region = "us-east-1"', 'region = "eu-west-3"'
        )
    )
    environ = {"TMPDIR": str(tmp_path), "STEELYARD_ACCOUNTING__ENERGY_BOOK": str(book)}
    with gateways.running(root, tmp_path, **environ) as own:
        mine, shipped = (one.get(f"/costs?{asked}").json["energy"] for one in (own, gateway))
    assert (mine["region"], shipped["region"]) == ("eu-west-3", "us-east-1")
    assert 0 < mine["whole"]["operational_ng"]["value"] < shipped["whole"]["operational_ng"]["value"] // 7
    book.write_text("region = 1")
    command = [sys.executable, "-m", "gateway", "serve", "--store", str(root), "--port", "0"]
    refused = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, "mine.toml" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("by=colour", 400, "none of: model"),
        ("energy=maybe", 400, "no, yes"),
        ("format=xml", 400, "html, json, csv"),
        ("format=csv&format=json", 400, "html, json, csv"),
        ("colour=red", 400, "none of: by"),
        ("model=nope", 404, "models that have"),
        ("tenant=nope", 400, "tenants that have"),
        ("since=%ff", 400, "not an ISO date"),
    ],
)
def test_bad_question_is_refused_in_a_sentence(gateway: Gateway, query: str, status: int, said: str):
    answer = gateway.get(f"/costs?{query}")
    assert (answer.status, said in answer.error) == (status, True)


def test_predictions_are_answered_while_reports_are_made(gateway: Gateway):
    with ThreadPoolExecutor(4) as pool:
        reports = [pool.submit(gateway.get, f"/costs?by={by}") for by in ("day", "hour", "activity")]
        answers = [gateway.post("/v1/predict/tiny", {"rows": [ROW]}).status for _ in range(50)]
        assert answers == [200] * 50
        assert [report.result().status for report in reports] == [200] * 3


@pytest.mark.e2e if CHROMIUM is None else pytest.mark.filterwarnings("error")
def test_page_opens_in_chromium(gateway: Gateway, tmp_path: Path):
    dom = browsed_url(f"http://127.0.0.1:{gateway.port}/costs?by=model", tmp_path, "--dump-dom")
    assert dom.count("<svg") >= 3
    assert "<select" in dom


def test_only_keys_with_the_right_and_all_models_see_costs(root: Path, tmp_path: Path):
    def add(*arguments: str) -> str:
        command = [sys.executable, "-m", "gateway", "keys", "add", "--store", str(root), "--tenant", "t", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    allowed = add("--rights", "costs")
    refused = [add(), add("--rights", "predict,admin"), add("--rights", "costs", "--models", "tiny,f-*")]
    with gateways.running(root, tmp_path, TMPDIR=str(tmp_path)) as gateway:
        assert gateway.get("/costs").status == 401
        for key in refused:
            assert gateway.request("GET", "/costs", Authorization=f"Bearer {key}").status == 403
        assert gateway.request("GET", "/costs?format=json", Authorization=f"Bearer {allowed}").status == 200
