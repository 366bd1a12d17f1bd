"""The ledger against a bill: both kinds of file, exact differences, and refusals that name the file."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.costs import costs as command
from gateway.contract.ledger import Charge
from gateway.errors import InvalidInput
from tests.support import ledgers

FOCUS = "ChargePeriodStart,ServiceName,EffectiveCost\n"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    ledgers.write(tmp_path / "store", ledgers.random_ledger(11))
    return ["--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache")]


def ran(options: list[str], bill: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["reconcile", str(bill), *options, *arguments])


def charged() -> int:
    return sum(line.cost_picousd for line in ledgers.all_lines(ledgers.random_ledger(11)) if isinstance(line, Charge))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bill.csv"
    path.write_text(text)
    return path


def test_our_own_export_agrees_to_the_picodollar(options: list[str], tmp_path: Path):
    bill = tmp_path / "bill.parquet"
    assert CliRunner().invoke(command, [*options, "--focus", "1.2", str(bill)]).exit_code == 0
    result = ran(options, bill, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ledger_picousd"] == found["bill_picousd"] == charged()
    assert {row["difference_picousd"] for row in found["rows"]} == {0}
    assert {row["service"] for row in found["rows"]} == {"AWS Fargate"}


CUR = """lineItem/UsageStartDate,lineItem/ProductCode,lineItem/UnblendedCost
2026-11-05T13:00:00Z,AmazonECS,1.5025
2026-11-06T01:00:00Z,AWSLambda,1
"""
BILLS = [
    f"""{FOCUS}2026-11-05T13:00:00Z,AWS Fargate,1.5
2026-11-05 23:00:00+00,AWS Fargate,2.5E-3
2026-11-06T01:00:00Z,AWS Lambda,1
""",
    CUR,
    CUR.replace("lineItem/UsageStartDate", "line_item_usage_start_date")
    .replace("lineItem/ProductCode", "line_item_product_code")
    .replace("lineItem/UnblendedCost", "line_item_unblended_cost"),
]


@pytest.mark.parametrize("text", BILLS)
def test_differences_are_by_day_and_service(options: list[str], tmp_path: Path, text: str):
    found = json.loads(ran(options, written(tmp_path, text), "--json").stdout)
    assert [(row["day"], row["service"], row["ledger_picousd"], row["bill_picousd"]) for row in found["rows"]] == [
        ("2026-11-05", "AWS Fargate", charged(), 1_502_500_000_000),
        ("2026-11-06", "AWS Lambda", 0, 10**12),
    ]
    assert found["rows"][0]["difference_picousd"] == 1_502_500_000_000 - charged()


def test_days_that_the_bill_does_not_have_are_not_compared(options: list[str], tmp_path: Path):
    found = json.loads(ran(options, written(tmp_path, f"{FOCUS}2026-11-04T13:00:00Z,AWS Fargate,1\n"), "--json").stdout)
    assert (found["ledger_picousd"], found["bill_picousd"]) == (0, 10**12)


def test_table_says_units_and_signs(options: list[str], tmp_path: Path):
    result = ran(options, written(tmp_path, f"{FOCUS}2026-11-05T13:00:00Z,AWS\x1b[31m Fargate,0\n"))
    assert result.exit_code == 0, result.output
    assert "Ledger against bill (FOCUS) in $" in result.output
    assert "-100.0 %" in result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "neither FOCUS columns"),
        (FOCUS, "no rows"),
        (f"{FOCUS}yesterday,AWS Fargate,1\n", "cannot be read"),
        (f"{FOCUS}2026-11-05T13:00:00Z,AWS Fargate,much\n", "cannot be read"),
    ],
)
def test_bill_that_is_none_is_refused(options: list[str], tmp_path: Path, text: str, said: str):
    error = ran(options, written(tmp_path, text)).exception
    assert isinstance(error, InvalidInput)
    assert said in str(error)


def test_file_that_is_no_parquet_is_refused(options: list[str], tmp_path: Path):
    bill = tmp_path / "bill.parquet"
    bill.write_bytes(b"not parquet")
    assert isinstance(ran(options, bill).exception, InvalidInput)
    assert ran(options, tmp_path / "nowhere.csv").exit_code == 2
