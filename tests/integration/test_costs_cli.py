"""`steelyard costs` over a real local store: ledger in, report out, exit codes, and copies that are made once."""

import asyncio
import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.accounting.clock import SystemClock
from gateway.accounting.container import Container
from gateway.accounting.ledger import LedgerWriter
from gateway.accounting.meter import Meter
from gateway.accounting.usage import Usage
from gateway.cli.costs import costs as command
from gateway.contract import prices
from gateway.contract.ledger import Charge
from gateway.errors import BucketNotFound, ModelNotFound
from gateway.objectstore.local import LocalStore
from gateway.reports import costs
from tests.support import ledgers, models, trainingruns
from tests.support.models import publish_mlp
from trainers.runs import settle


@pytest.fixture
def ledger() -> ledgers.Ledger:
    return ledgers.random_ledger(11)


@pytest.fixture
def root(tmp_path: Path, ledger: ledgers.Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ledgers.write(tmp_path / "store", ledger)
    return tmp_path / "store"


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def bill(ledger: ledgers.Ledger) -> int:
    return sum(line.cost_picousd for line in ledgers.all_lines(ledger) if isinstance(line, Charge))


def test_plain_report_has_no_control_codes(root: Path):
    result = ran("--store", str(root))
    assert result.exit_code == 0, result.output
    assert "sum of all rows, exact" in result.output
    assert "\x1b" not in result.output
    assert not set("│─┃━┏") & set(result.output)


def test_json_and_csv_carry_the_exact_bill(root: Path, ledger: ledgers.Ledger):
    report = json.loads(ran("--store", root.as_uri(), "--json").stdout)
    rows = list(csv.DictReader(io.StringIO(ran("--store", root.as_uri(), "--csv").stdout)))
    assert report["charged_picousd"] == bill(ledger)
    assert sum(int(row["full_picousd"]) for row in rows) == bill(ledger)


def test_store_is_taken_from_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEELYARD_STORE", str(root))
    assert "sum of all rows, exact" in ran().output


def test_one_model_leaves_the_others_in_the_sum(root: Path, ledger: ledgers.Ledger):
    report = json.loads(ran("--store", str(root), "--json", "--model", "digits").stdout)
    assert {row["model"] for row in report["models"]} == {"digits"}
    shown = sum(row["full_picousd"] for row in report["models"])
    assert report["other_models_picousd"] > 0
    assert shown + report["other_models_picousd"] == bill(ledger)


def test_empty_ledger_is_no_error(tmp_path: Path):
    (tmp_path / "store").mkdir()
    result = ran("--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"))
    assert result.exit_code == 0
    assert result.output.startswith("no costs yet")
    assert result.output.count("\n") == 1


def test_period_without_segments_is_no_error(root: Path):
    result = ran("--store", str(root), "--since", "2030-01-01")
    assert (result.exit_code, result.output.startswith("no costs yet")) == (0, True)


def test_missing_store_raises_what_the_root_command_prints(tmp_path: Path):
    result = ran("--store", str(tmp_path / "nowhere"), "--cache", str(tmp_path / "cache"))
    assert isinstance(result.exception, BucketNotFound)
    assert not (tmp_path / "cache").exists()


def test_unknown_model_raises(root: Path):
    assert isinstance(ran("--store", str(root), "--model", "nope").exception, ModelNotFound)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "yesterday"),
        ("--until", "2026-13-01"),
        ("--since", "1969-01-01"),
        ("--since", "2026-11-05", "--until", "2026-11-05"),
        ("--json", "--csv"),
    ],
)
def test_misuse_exits_with_2(root: Path, arguments: tuple[str, ...]):
    result = ran("--store", str(root), *arguments)
    assert result.exit_code == 2
    assert "Error" in result.output


def test_options_before_reconcile_are_refused(root: Path, tmp_path: Path):
    """They would be ignored: the store that is read would be another than the one that was named."""
    bill = tmp_path / "bill.csv"
    bill.write_text("ChargePeriodStart,ServiceName,EffectiveCost\n2026-11-05T12:00:00Z,AWS Fargate,1\n")
    for before in (("--store", str(root)), ("--by", "model"), ("--energy",)):
        result = ran(*before, "reconcile", str(bill))
        assert (result.exit_code, before[0] in result.output) == (2, True)
    assert ran("reconcile", "--store", str(root), str(bill)).exit_code == 0
    assert CliRunner(env={"STEELYARD_STORE": str(root)}).invoke(command, ["reconcile", str(bill)]).exit_code == 0


def test_times_are_utc_unless_they_say_otherwise(root: Path):
    times = ("2026-11-05T12:00", "2026-11-05T12:00:00Z", "2026-11-05T14:00:00+02:00")
    reports = [json.loads(ran("--store", str(root), "--json", "--since", time).stdout) for time in times]
    assert [report["since_ns"] for report in reports] == [ledgers.T0_NS] * 3


@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
def test_missing_segment_exits_with_1_and_is_named(root: Path, form: tuple[str, ...]):
    chain = ledgers.container("broken", [ledgers.charges(0, 0)] * 3)
    ledgers.write(root, chain)
    (root / ledgers.segment_keys(chain)[1]).unlink()
    result = ran("--store", str(root), *form)
    assert result.exit_code == 1
    assert "the first: container broken at 2026-11-05T12:02:00Z: segment 1 is missing" in result.stderr


async def test_training_cost_comes_from_the_manifest(tmp_path: Path):
    store = LocalStore(tmp_path)
    await publish_mlp(store, name="digits")
    posting = ledgers.Posting("infer", ledgers.VCPU, 5, 1, "digits", 1, "", "ok", 1, 1)
    ledgers.write(tmp_path, ledgers.container("c", [[*ledgers.charges(5, 0), posting]]))
    result = await asyncio.to_thread(ran, "--store", str(tmp_path), "--json", "--cache", str(tmp_path / "cache"))
    report = json.loads(result.stdout)
    assert report["models"][0]["training_picousd"] is not None
    assert report["findings"] == []


async def test_what_interruptions_wasted_stands_beside_training(tmp_path: Path):
    """From the manifest for a version; from the ledger for all training, also of runs that published nothing."""
    store = LocalStore(tmp_path)
    attempts = [(tried.attempt, tried.end) for tried in await trainingruns.interrupted(store)]
    paid = settle.training_cost([(attempt, end) for attempt, end in attempts if end])
    manifest, contents = models.manifest_of("digits", models.TINY_SIGNATURE, {"fp32": models.tiny_graph()})
    await models.publish_files(store, msgspec.structs.replace(manifest, training_cost=paid), contents)
    posting = ledgers.Posting("infer", ledgers.VCPU, 5, 1, "digits", 1, "", "ok", 1, 1)
    ledgers.write(tmp_path, ledgers.container("c", [[*ledgers.charges(5, 0), posting]]))
    options = ("--store", str(tmp_path), "--cache", str(tmp_path / "cache"))
    text = (await asyncio.to_thread(ran, *options)).stdout
    report = json.loads((await asyncio.to_thread(ran, *options, "--json")).stdout)
    [row] = report["models"]
    assert (row["training_picousd"], row["training_wasted_picousd"]) == (paid.cost_picousd, paid.wasted_picousd)
    assert report["findings"] == []
    assert row["with_training_per_1000_rows_picousd"] == 1000 * (row["full_picousd"] + (paid.cost_picousd or 0))
    assert re.search(r"^digits@1 .* \$0\.01286 +\$0\.001899$", text, re.MULTILINE)
    spent = report["training_spent"]
    assert (spent["runs"], spent["attempts"], spent["unpriced"]) == (1, 2, 0)
    assert (spent["cost_picousd"], spent["wasted_picousd"]) == (paid.cost_picousd, paid.wasted_picousd)
    assert "training: 1 run, 2 attempts, 2.2 min = $0.01286, of which interruptions wasted $0.001899" in text


async def test_training_that_published_nothing_is_in_the_period_it_began_in(tmp_path: Path):
    store = LocalStore(tmp_path)
    attempt = await trainingruns.opened(store, sku="nosuch", placement=trainingruns.Placement())
    await trainingruns.closed(store, attempt, "failed")
    await trainingruns.closed(
        store, await trainingruns.opened(store, trainingruns.run("other", model="other")), "failed"
    )
    options = ("--store", str(tmp_path), "--cache", str(tmp_path / "cache"))

    async def said(*arguments: str) -> str:
        return (await asyncio.to_thread(ran, *options, *arguments)).stdout

    text = await said()
    assert "no costs yet" in text
    assert "training: 2 runs, 2 attempts, 2.0 min = $0.002630; unpriced: 1 of the attempts" in text
    assert "training:" not in await said("--until", "2026-09-21T14:13:20Z")
    assert "training: 2 runs" in await said("--since", "2026-09-21T14:13:20Z")
    assert json.loads(await said("--json", "--model", "other"))["training_spent"]["attempts"] == 1


def test_version_that_is_not_published_is_noted(root: Path):
    result = ran("--store", str(root))
    assert result.exit_code == 0
    assert "note (training_unknown): training cost of digits@1: no model is named 'digits'" in result.output
    assert re.search(r"^digits@1 .* unknown +-$", result.output, re.MULTILINE)
    assert "unpriced" not in result.output
    amortized = ran("--store", str(root), "--amortize", "days:90").output
    assert re.search(r"^digits@1 +unknown +unknown ", amortized, re.MULTILINE)
    assert ["digits", 1] in json.loads(ran("--store", str(root), "--json").stdout)["training_unknown"]


def test_without_duckdb_the_missing_module_is_named(root: Path):
    """`gateway.cli.main` turns it into: pip install 'steelyard[reports]'."""
    code = (
        "import sys; sys.modules['duckdb'] = None\n"
        "from gateway.cli.costs import costs\n"
        "from gateway.cli.main import _hint\n"
        "try: costs.main(['--store', sys.argv[1]], standalone_mode=False)\n"
        "except ModuleNotFoundError as error: print(_hint(error.name))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout == "pip install 'steelyard[reports]'\n"


def test_help_needs_neither_duckdb_nor_rich():
    code = (
        "import sys; sys.modules['duckdb'] = sys.modules['rich'] = None\n"
        "from gateway.cli.costs import costs\n"
        "costs.main(['--help'], standalone_mode=False)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


async def test_receipts_of_a_real_meter_add_up_to_the_reported_model(tmp_path: Path):
    """The whole way: meter, writer, store, report. The ledger's other tests write their segments themselves."""
    store, clock, book = LocalStore(tmp_path), SystemClock(), prices.load()
    box = Container("local", clock.now_ns(), "fargate-x86", vcpu_milli=2000, memory_bytes=4 << 30)
    meter = Meter(box, book, clock)
    async with LedgerWriter(store, box, meter, book, clock):
        meter.mark_ready()
        meter.note_resident("digits", 1, 1 << 20)
        charges = [
            meter.charge(request_id=f"r{n}", model="digits", version=1, outcome="ok", usage=Usage(1000 + n, rows=3))
            for n in range(50)
        ]

    report = await costs.read(store, tmp_path / "copy")

    assert report.balanced
    assert [finding.kind for finding in report.findings] == ["training_unknown"]
    [row] = report.models
    assert (row.requests, row.rows, row.cpu_ns) == (50, 150, sum(range(1000, 1050)))
    assert row.infer_picousd == sum(charges)
    assert row.full_picousd == report.charged_picousd
    [billed] = report.billed
    assert (billed.platform, billed.vcpu_milli, billed.memory_bytes) == ("fargate-x86", 2000, 4 << 30)


# Grouped


def test_grouping_is_printed_with_units_and_the_proof(root: Path):
    result = ran("--store", str(root), "--by", "model,activity", "--view", "direct")
    assert result.exit_code == 0, result.output
    assert "by model, activity, view: direct" in result.output
    assert "sum of all rows, exact" in result.output
    assert {"vCPU", "GB", "µ$/1,000"} <= set(result.output.split())
    assert "\x1b" not in result.output


def test_grouped_files_carry_the_bill(root: Path, ledger: ledgers.Ledger, tmp_path: Path):
    out = tmp_path / "out.parquet"
    assert ran("--store", str(root), "--by", "hour,tenant", "--format", "parquet", "--out", str(out)).exit_code == 0
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT sum(cost_picousd) FROM '{out}'").fetchone() == (bill(ledger),)
    report = json.loads(ran("--store", str(root), "--by", "day", "--format", "json").stdout)
    assert [row["day"] for row in report["rows"]] == ["2026-11-05"]
    assert sum(row["cost_picousd"] for row in report["rows"]) == bill(ledger)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "model,colour"),
        ("--by", "model,model"),
        ("--by", ""),
        ("--view", "kind"),
        ("--format", "xml"),
        ("--format", "csv", "--json"),
        ("--amortize", "rows:none"),
    ],
)
def test_misuse_of_groups_exits_with_2(root: Path, arguments: tuple[str, ...]):
    result = ran("--store", str(root), *arguments)
    assert result.exit_code == 2, result.output


def test_file_that_cannot_be_written_is_named(root: Path, tmp_path: Path):
    for form in ("table", "csv", "parquet"):
        result = ran("--store", str(root), "--format", form, "--out", str(tmp_path / "nowhere" / "x"))
        assert (result.exit_code, "nowhere" in result.output) == (1, True)


def test_empty_period_in_a_file_is_told_beside_it(root: Path):
    result = ran("--store", str(root), "--by", "model", "--csv", "--since", "2030-01-01")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert "no costs yet" in result.stderr


@pytest.mark.parametrize(
    "form", [("--csv",), ("--json",), ("--html", "x"), ("--focus", "1.2", "x"), ("--focus", "1.4", "x.csv")]
)
def test_no_form_of_an_empty_period_looks_like_a_bill_of_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    empty = ran("--store", str(root), *form, "--since", "2030-01-01")
    assert (empty.exit_code, empty.stderr.count("no costs yet")) == (0, 1)
    whole = ran("--store", str(root), *form)
    assert "no costs yet" not in whole.stderr


async def test_training_is_borne_in_portions_beside_the_bill(tmp_path: Path):
    store = LocalStore(tmp_path)
    await publish_mlp(store, name="digits")
    posting = ledgers.Posting("infer", ledgers.VCPU, 5, 1, "digits", 1, "", "ok", 1, 250)
    ledgers.write(tmp_path, ledgers.container("c", [[*ledgers.charges(5, 0), posting]]))
    options = ("--store", str(tmp_path), "--cache", str(tmp_path / "cache"), "--amortize", "rows:1000")
    report = json.loads((await asyncio.to_thread(ran, *options, "--json")).stdout)
    [row] = report["training"]
    assert row["expensed_picousd"] == row["cost_picousd"] // 4 > 0
    assert row["earlier_picousd"] + row["expensed_picousd"] + row["remaining_picousd"] == row["cost_picousd"]
    assert report["charged_picousd"] == 5
    assert "Training over 1,000 predictions, beside the bill" in (await asyncio.to_thread(ran, *options)).stdout
