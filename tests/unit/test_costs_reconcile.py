"""The ledger against a bill: both kinds of file, exact differences, and refusals that name the file."""

import csv
import json
import re
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.costs import costs as command
from gateway.contract import layout
from gateway.contract.ledger import Charge, Posting
from gateway.errors import InvalidInput
from tests.support import ledgers, providerbills
from tests.support.providerbills import BillRow

FOCUS = "ChargePeriodStart,ServiceName,EffectiveCost\n"
CUR = """lineItem/UsageStartDate,lineItem/ProductCode,lineItem/UnblendedCost
2026-11-05T13:00:00Z,AmazonECS,1.5025
2026-11-06T01:00:00Z,AWSLambda,1
"""


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


def test_the_gap_comes_with_the_age_of_the_bill(options: list[str], tmp_path: Path):
    """A container of an hour later is on no row of the bill: it is the period that nobody reconciled."""
    served = [*ledgers.charges(7 * 10**12, 0), Posting("idle_cpu", ledgers.VCPU, 7 * 10**12, 1)]
    later = ledgers.container("later", [served], boot_ns=ledgers.T0_NS + 6 * 3600 * 10**9)
    ledgers.write(tmp_path / "store", later)
    cost = (charged() + 7 * 10**12) * 2
    columns = "ChargePeriodStart,ChargePeriodEnd,ServiceName,ResourceId,EffectiveCost\n"
    row = f"2026-11-05T12:00:00Z,2026-11-05T13:00:00Z,AWS Fargate,nobody,{Decimal(cost).scaleb(-12):f}\n"
    fee = "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,Support,,0\n"
    bill = written(tmp_path, columns + row + fee)
    gap = json.loads(ran(options, bill, "--json").stdout)["gap"]
    assert (gap["percent"], gap["newest_ns"]) == (100.0, ledgers.T0_NS + 3600 * 10**9)
    assert gap["age_ns"] == pytest.approx(time.time_ns() - gap["newest_ns"], abs=600 * 10**9)
    assert (gap["since_picousd"], gap["since_to_ns"]) == (7 * 10**12, ledgers.T0_NS + 7 * 3600 * 10**9)
    text = ran(options, bill).stdout
    assert re.search(
        r"gap: \+100 % of the ledger; the bill's newest row ends 2026-11-05T13:00:00Z, [\d,.]+ days ago; ", text
    )
    assert "not reconciled: $7.00 that the ledger has from then until 2026-11-05T19:00:00Z" in text
    by_resource = ran(options, bill, "--resource", "*").stdout
    assert "gap: the ledger has nothing; the bill's newest row ends 2026-11-05T13:00:00Z" in by_resource
    assert "not reconciled: $7.00" in by_resource


def test_a_bill_with_the_last_hour_leaves_nothing_to_reconcile(options: list[str], tmp_path: Path):
    bill = tmp_path / "bill.csv"
    assert CliRunner().invoke(command, [*options, "--focus", "1.2", str(bill)]).exit_code == 0
    for more in ([], ["--resource", "*"]):
        gap = json.loads(ran(options, bill, "--json", *more).stdout)["gap"]
        assert (gap["percent"], gap["since_picousd"], gap["since_to_ns"]) == (0.0, 0, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "neither FOCUS columns"),
        (
            "ChargePeriodStart,ServiceName,Cost\n2026-11-05T13:00:00Z,x,1\n",
            "looks like FOCUS but has no column EffectiveCost",
        ),
        ("", "is empty"),
        (FOCUS, "no rows"),
        (f"{FOCUS}2026-11-05T13:00:00Z,AWS Fargate,\n", "without a cost"),
        (f"{FOCUS},AWS Fargate,1\n", "without a time"),
        (f"{FOCUS}2026-11-05T13:00:00Z,AWS Fargate\n", "cannot be read"),
        (f"{FOCUS}1926-11-05T13:00:00Z,AWS Fargate,1\n", "not between 1970"),
        (f"{FOCUS[:-1]},BillingCurrency\n2026-11-05T13:00:00Z,AWS Fargate,1,EUR\n", "is in EUR; the ledger is in USD"),
        (
            CUR.replace("\n", ",lineItem/CurrencyCode\n", 1)
            .replace("1.5025", "1.5025,CNY")
            .replace("Lambda,1", "Lambda,1,USD"),
            "in CNY",
        ),
        (f"{FOCUS}yesterday,AWS Fargate,1\n", "cannot be read"),
        (f"{FOCUS}2026-11-05T13:00:00Z,AWS Fargate,much\n", "cannot be read"),
    ],
)
def test_bill_that_is_none_is_refused(options: list[str], tmp_path: Path, text: str, said: str):
    error = ran(options, written(tmp_path, text)).exception
    assert isinstance(error, InvalidInput)
    assert said in str(error)


def test_bom_and_other_line_ends_change_nothing(options: list[str], tmp_path: Path):
    bill = tmp_path / "bill.csv"
    text = f'{FOCUS}2026-11-05T13:00:00Z,"AWS, ""quoted""\nFargate",1.5\n'
    bill.write_text(text)
    plain = ran(options, bill, "--json").stdout
    [row] = [row for row in json.loads(plain)["rows"] if row["bill_picousd"]]
    assert (row["service"], row["bill_picousd"]) == ('AWS, "quoted"\nFargate', 1_500_000_000_000)
    bill.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    [row] = [row for row in json.loads(ran(options, bill, "--json").stdout)["rows"] if row["bill_picousd"]]
    assert row["bill_picousd"] == 1_500_000_000_000


def test_repeated_rows_and_credits_are_counted_and_flagged(options: list[str], tmp_path: Path):
    line = "2026-11-05T13:00:00Z,AWS Fargate,1\n"
    bill = written(tmp_path, f"{FOCUS}{line}{line}2026-11-05T13:00:00Z,AWS Fargate,-0.25\n")
    found = json.loads(ran(options, bill, "--json").stdout)
    assert found["bill_picousd"] == 1_750_000_000_000
    assert {flag["kind"] for flag in found["flags"]} == {"repeated_rows", "credits"}
    assert "note (repeated_rows): 1 row repeats" in ran(options, bill).output


def test_posting_refuses_repeated_rows_unless_told(options: list[str], tmp_path: Path):
    bill = providerbills.write(tmp_path / "bill.csv", [BillRow("c0", ledgers.VCPU, 5)] * 2)
    refused = ran(options, bill, "--post").exception
    assert isinstance(refused, InvalidInput)
    assert "--accept-repeated" in str(refused)
    assert not (tmp_path / "store" / layout.corrections(1)).exists()
    assert ran(options, bill, "--post", "--accept-repeated").exit_code == 0
    assert ran(options, bill, "--accept-repeated").exit_code == 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-1], lambda data: data[:4] + data[9:]]
)
def test_truncated_parquet_is_refused(options: list[str], tmp_path: Path, damage: Callable[[bytes], bytes]):
    bill = tmp_path / "bill.parquet"
    assert CliRunner().invoke(command, [*options, "--focus", "1.4", str(bill)]).exit_code == 0
    bill.write_bytes(damage(bill.read_bytes()))
    error = ran(options, bill, "--post").exception
    assert isinstance(error, InvalidInput)
    assert str(bill) in str(error)


@pytest.mark.parametrize("version", ["1.2", "1.4"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_our_own_exports_leave_nothing_to_correct(options: list[str], tmp_path: Path, version: str, form: str):
    bill = tmp_path / f"bill.{form}"
    assert CliRunner().invoke(command, [*options, "--focus", version, str(bill)]).exit_code == 0
    found = json.loads(ran(options, bill, "--resource", "*", "--json").stdout)
    assert found["ledger_picousd"] == found["bill_picousd"] == charged()
    assert {line["difference_picousd"] for line in found["lines"]} == {0}
    assert found["generation"] is None
    assert not (tmp_path / "store" / layout.CORRECTIONS).exists()


def test_bill_without_resources_cannot_be_compared_by_them(options: list[str], tmp_path: Path):
    bill = written(tmp_path, f"{FOCUS}2026-11-05T13:00:00Z,AWS Fargate,1\n")
    for wanted in (["--post"], ["--resource", "*"]):
        error = ran(options, bill, *wanted).exception
        assert isinstance(error, InvalidInput)
        assert "does not say which resource" in str(error)


CUR_2 = (
    "line_item_usage_start_date,line_item_usage_end_date,line_item_product_code,line_item_usage_type,line_item_resource_id,"
    "line_item_usage_amount,pricing_unit,line_item_currency_code,line_item_line_item_type,line_item_unblended_cost\n"
    "2026-11-05T12:00:00Z,2026-11-05T13:00:00Z,AmazonECS,USE1-Fargate-vCPU-Hours:perCPU,"
    "arn:aws:ecs:us-east-1:1:task/prod/c0,0.0333333333,hours,USD,Usage,0.5\n"
)


def test_post_is_shown_and_then_in_every_report(options: list[str], tmp_path: Path):
    bill = written(tmp_path, CUR_2)
    shown = ran(options, bill, "--resource", "*c0")
    assert "nothing was posted: --post writes" in shown.output
    posted = ran(options, bill, "--post")
    assert posted.exit_code == 0, posted.output
    assert "posted as 1:" in posted.output
    again = ran(options, bill, "--post")
    assert "nothing to post: this bill is posted already, and nothing differs" in again.output
    costs = CliRunner().invoke(command, options)
    assert "corrections by the provider's bills" in costs.output
    assert "note (corrected)" in costs.output
    assert "sum of all rows, exact" in costs.output
    by_service = json.loads(ran(options, bill, "--json").stdout)
    everything = json.loads(CliRunner().invoke(command, [*options, "--json"]).stdout)
    assert by_service["ledger_picousd"] == everything["charged_picousd"]


def test_names_that_are_formulas_or_move_the_cursor_are_text(options: list[str], tmp_path: Path):
    rows = [BillRow("=cmd|' /C calc'!A0", "@SUM(1+1)", 5), BillRow("task/\x1b[31m\x1b[2J", "-1+1", 7)]
    bill = providerbills.write(tmp_path / "bill.csv", rows)
    result = ran(options, bill, "--resource", "*", "--post")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    out = tmp_path / "focus.csv"
    assert CliRunner().invoke(command, [*options, "--focus", "1.4", str(out)]).exit_code == 0
    with out.open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["ChargeClass"] == "Correction"]
    assert {row["ResourceId"] for row in found} == {"'=cmd|' /C calc'!A0", "task/\x1b[31m\x1b[2J"}
    assert {row["SkuId"] for row in found} == {"'@SUM(1+1)", "'-1+1"}
    assert sum(Decimal(row["BilledCost"]) for row in found) == Decimal("12E-12")


def test_file_that_is_no_parquet_is_refused(options: list[str], tmp_path: Path):
    bill = tmp_path / "bill.parquet"
    bill.write_bytes(b"not parquet")
    assert isinstance(ran(options, bill).exception, InvalidInput)
    assert ran(options, tmp_path / "nowhere.csv").exit_code == 2
