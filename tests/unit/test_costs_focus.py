"""The FOCUS exports: every column, typed, and money and quantities that are exactly the bill's, however it is split."""

import csv
import json
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.cli.costs import costs as command
from gateway.contract import energy, layout, prices
from gateway.contract.ledger import Charge, Posting, Segment
from gateway.reports import focus, powered, tables
from gateway.reports.focus import Books
from gateway.reports.focuscolumns import COLUMNS, VERSIONS, Version
from gateway.reports.focusrows import Account
from tests.support import ledgers
from tests.support.ledgers import MEMORY, T0_NS, VCPU, Ledger

BOOK = prices.load()
versions = st.sampled_from(VERSIONS)
MANDATORY = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
]


def exported(ledger: Ledger, version: Version = "1.2") -> list[dict[str, Any]]:
    """The file's rows, read back."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as reader:
        with tables.opened(ledgers.write(Path(folder), ledger)) as connection:
            data = focus.encoded(version, "parquet", focus.rows(connection, Account(), Books(BOOK), 0, 2**63 - 1))
        path = Path(folder) / "focus.parquet"
        path.write_bytes(data)
        reader.execute("SET TimeZone = 'UTC'")
        described = reader.execute(f"DESCRIBE FROM '{path}'").fetchall()
        times = [name for name, kind, *_ in described if kind == "TIMESTAMP WITH TIME ZONE"]
        assert times == sorted(name for name in COLUMNS[version] if name.endswith(("PeriodStart", "PeriodEnd")))
        texts = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in times)
        found = reader.execute(f"SELECT * REPLACE ({texts}) FROM '{path}'")
        names = [name for name, *_ in found.description]
        assert names == list(COLUMNS[version])
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def bill(ledger: Ledger) -> int:
    return sum(line.cost_picousd for line in ledgers.all_lines(ledger) if isinstance(line, Charge))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), versions)
def test_costs_add_up_to_the_bill_and_to_each_charge_exactly(seed: int, version: Version):
    ledger = ledgers.random_ledger(seed)
    rows = exported(ledger, version)
    for column in ("EffectiveCost", "BilledCost", "ListCost", "ContractedCost"):
        assert sum((row[column] for row in rows), Decimal(0)) * 10**12 == bill(ledger)
    assert sum(row["x_CostPicoUsd"] for row in rows) == bill(ledger)
    charged: dict[tuple[str, str], int] = defaultdict(int)
    for key in ledgers.segment_keys(ledger):
        header, *rest = ledgers.lines(ledger[key])
        assert isinstance(header, Segment)
        for line in rest:
            if isinstance(line, Charge):
                charged[header.container, line.sku] += line.cost_picousd
    billed: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in rows:
        billed[row["ResourceId"], row["SkuId"]] += row["BilledCost"] * 10**12
    assert {key: cost for key, cost in billed.items() if cost} == {key: cost for key, cost in charged.items() if cost}


@settings(max_examples=15, deadline=None)
@example(19582, "1.2")  # a charge of nothing, to which nothing was posted
@given(st.integers(0, 2**32), versions)
def test_parts_of_a_charge_have_its_quantity_and_its_dimensions(seed: int, version: Version):
    ledger = ledgers.random_ledger(seed)
    parts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in exported(ledger, version):
        parts[row["x_OriginChargeId"]].append(row)
    origins: dict[str, list[Charge | Posting]] = defaultdict(list)  # of one container and hour
    for key in ledgers.segment_keys(ledger):
        found = (line for line in ledgers.lines(ledger[key]) if isinstance(line, Charge | Posting))
        origins[key.rpartition("/")[0]] += [line for line in found if line.sku == ledgers.VCPU]
    segments = 0
    for lines in origins.values():
        charges = [line for line in lines if isinstance(line, Charge)]
        if len(charges) < len(lines):
            segments += len(charges)
        else:  # nothing was posted: then nothing may have been charged, and there is nothing to export
            assert sum(charge.cost_picousd for charge in charges) == 0
    quantities: dict[str, Decimal] = defaultdict(Decimal)
    for rows in parts.values():
        quantities[rows[0]["PricingUnit"]] += sum(row["PricingQuantity"] for row in rows)
        for name in ("ResourceId", "SkuId", "ServiceName", "RegionId", "ChargePeriodStart", "ListUnitPrice", "Tags"):
            assert len({str(row[name]) for row in rows}) == 1
        for row in rows:
            assert row["ListCost"] == pytest.approx(row["ListUnitPrice"] * row["PricingQuantity"], abs=Decimal("1e-9"))
        if version == "1.4":
            assert sum(ratio(row) for row in rows) == 1
    assert abs(quantities["Core-Hours"] - segments * Decimal(2) / 60) < Decimal("1e-9")
    assert quantities["Core-Hours"] or not segments


def ratio(row: dict[str, Any]) -> Decimal:
    """As it stands in the text: no float in between."""
    [element] = json.loads(row["AllocatedMethodDetails"], parse_float=Decimal)["Elements"]
    found = element["AllocatedRatio"]
    assert isinstance(found, Decimal)
    return found


def test_split_is_told_in_the_columns_of_1_4():
    served = Posting("infer", VCPU, 750, 6 * 10**13, "digits", 3, "acme", "ok", 2, 4)
    idle = Posting("idle_cpu", VCPU, 250, 6 * 10**13)
    rows = exported(ledgers.container("box", [[*ledgers.charges(1000, 0), served, idle]]), "1.4")
    cpu = {row["AllocatedResourceId"]: row for row in rows if row["SkuId"] == VCPU}
    assert set(cpu) == {"model:digits@3", "platform:idle_cpu"}
    model = cpu["model:digits@3"]
    assert (ratio(model), model["AllocatedResourceName"]) == (Decimal("0.75"), "digits@3")
    assert json.loads(model["AllocatedMethodDetails"])["Elements"][0]["UsageUnit"] == "Core-Seconds"
    assert json.loads(model["AllocatedMethodDetails"])["Elements"][0]["UsageQuantity"] == 60
    assert json.loads(model["AllocatedTags"]) == {
        "steelyard/activity": "infer",
        "steelyard/outcome": "ok",
        "steelyard/tenant": "acme",
    }
    assert (model["ServiceProviderName"], model["HostProviderName"]) == ("AWS", "AWS")
    assert not {"ProviderName", "PublisherName", "x_AllocatedMethodId"} & set(model)
    assert list(COLUMNS["1.4"])[:65] == [name for name in COLUMNS["1.4"] if not name.startswith("x_")]


def test_row_says_what_it_is():
    served = Posting("infer", VCPU, 600, 1, "=cmd", 3, "a,b", "ok", 2, 4)
    idle = Posting("idle_mem", MEMORY, 400, 1)
    ledger = ledgers.container("box", [[*ledgers.charges(600, 400), served, idle]])
    memory, cpu = sorted(exported(ledger), key=lambda row: row["SkuId"])
    assert (cpu["x_ModelName"], cpu["x_ModelVersion"], cpu["x_TenantName"], cpu["x_Outcome"]) == (
        "=cmd",
        3,
        "a,b",
        "ok",
    )
    assert (cpu["x_Requests"], cpu["PricingUnit"], cpu["ServiceName"]) == (2, "Core-Hours", "AWS Fargate")
    assert (memory["x_ModelName"], memory["PricingUnit"], memory["x_Activity"]) == (None, "GB-Hours", "idle_mem")
    assert cpu["ChargeDescription"] == "infer for model =cmd version 3"
    assert cpu["ChargePeriodStart"] == "2026-11-05 12:00:00+00"
    assert cpu["ChargePeriodEnd"] == "2026-11-05 13:00:00+00"
    assert (cpu["BillingPeriodStart"][:10], cpu["BillingPeriodEnd"][:10]) == ("2026-11-01", "2026-12-01")
    for name in MANDATORY:
        assert cpu[name] is not None
        assert memory[name] is not None


ARN = "arn:aws:ecs:eu-central-1:111122223333:task/prod/0f1e"


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (ARN, (ARN, "eu-central-1", "Europe (Frankfurt)")),
        ("arn:aws:ecs:xx-new-9:1:task/a/b", ("arn:aws:ecs:xx-new-9:1:task/a/b", "xx-new-9", "xx-new-9")),
        ("no:arn", ("no:arn", "us-east-1", "US East (N. Virginia)")),
        ("", ("0f1e", "us-east-1", "US East (N. Virginia)")),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_resource_and_region_are_the_bills(resource: str, expected: tuple[str, str, str], version: Version):
    served = Posting("infer", VCPU, 600, 1, "digits", 3, "", "ok", 2, 4)
    segment = [*ledgers.charges(600, 400), served, Posting("idle_mem", MEMORY, 400, 1)]
    lives = ledgers.container("0f1e", [segment], resource=resource)
    lives |= ledgers.container("0f1e", [segment], boot_ns=T0_NS + 600 * 10**9)  # written before there was such a field
    rows = exported(lives, version)
    assert len(rows) == 2
    assert {(row["ResourceId"], row["RegionId"], row["RegionName"]) for row in rows} == {expected}
    assert {row["ResourceName"] for row in rows} == {"0f1e"}


def test_tags_are_those_of_the_bill_on_every_row(tmp_path: Path):
    ledgers.write(tmp_path / "store", ledgers.container("box", [[*ledgers.charges(5, 0), Posting("boot", VCPU, 5, 1)]]))
    options = ["--store", str(tmp_path / "store"), "--cache", str(tmp_path / "c")]
    out = tmp_path / "focus.csv"
    focus_ = ["--focus", "1.2", str(out), "--tag", "team=search", "--tag", 'note=a=b, "c"']
    assert CliRunner().invoke(command, [*options, *focus_]).exit_code == 0
    with out.open(newline="") as file:
        assert {row["Tags"] for row in csv.DictReader(file)} == {r'{"note":"a=b, \"c\"","team":"search"}'}
    for wrong, why in (("team", "is no KEY=VALUE"), ("=x", "is no KEY=VALUE"), ("team=other", "names a key twice")):
        refused = CliRunner().invoke(command, [*options, *focus_, "--tag", wrong])
        assert (refused.exit_code, why in refused.output) == (2, True)
    assert "--tag goes with --focus" in CliRunner().invoke(command, [*options, "--tag", "team=search"]).output


def test_price_is_the_books_only_when_the_book_is_the_one_charged_by():
    served = Posting("infer", VCPU, 1_349_333_333, 1, "digits", 3, "", "ok", 2, 4)
    [row] = exported(ledgers.container("box", [[*ledgers.charges(1_349_333_333, 0), served]]))
    assert row["ListUnitPrice"] == pytest.approx(Decimal("0.04048"), rel=Decimal("1e-6"))
    assert row["x_PriceBookSha256"] == ledgers.BOOK


def test_what_a_platforms_minimum_adds_is_in_the_quantity():
    charge = Charge(VCPU, "milli-vcpu-ns", 2000 * 30 * 10**9, 5, beyond=2000 * 30 * 10**9)
    [row] = exported(ledgers.container("box", [[charge, Posting("boot", VCPU, 5, 1)]], length_ns=30 * 10**9))
    assert row["PricingQuantity"] == pytest.approx(Decimal(2) / 60, abs=Decimal("1e-12"))


def test_december_ends_in_january():
    rows = exported(
        ledgers.container("box", [[*ledgers.charges(5, 0), Posting("boot", VCPU, 5, 1)]], boot_ns=1_798_675_200 * 10**9)
    )
    assert [(row["BillingPeriodStart"][:10], row["BillingPeriodEnd"][:10]) for row in rows] == [
        ("2026-12-01", "2027-01-01")
    ]


def test_command_writes_the_file(tmp_path: Path):
    ledger = ledgers.random_ledger(11)
    ledgers.write(tmp_path / "store", ledger)
    options = ["--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache")]
    out = tmp_path / "out.parquet"
    result = CliRunner().invoke(command, [*options, "--focus", "1.2", str(out), "--billing-account", "aws:123"])
    assert (result.exit_code, result.output) == (0, "")
    with duckdb.connect() as reader:
        [(cost, account)] = reader.execute(f"SELECT sum(EffectiveCost), min(BillingAccountId) FROM '{out}'").fetchall()
    assert (cost * 10**12, account) == (bill(ledger), "aws:123")
    for version in VERSIONS:
        table = tmp_path / f"{version}.csv"
        assert CliRunner().invoke(command, [*options, "--focus", version, str(table)]).exit_code == 0
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == list(COLUMNS[version])
        assert sum(Decimal(row["BilledCost"]) for row in rows) * 10**12 == bill(ledger)
        assert all("." in row["BilledCost"] for row in rows)  # else tools take the column for integers
        assert {row["x_ModelName"][:1] for row in rows} & set("=+-@") == set()
    for wrong in (["--focus", "9.9", "x"], ["--focus", "1.2", "x", "--by", "model"], ["--focus", "1.2", "x", "--json"]):
        assert CliRunner().invoke(command, [*options, *wrong]).exit_code == 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_energy_and_carbon_add_up_to_the_containers_to_the_nanojoule(seed: int):
    source = powered.Source(energy.load(), {ledgers.BOOK: "us-east-1"})
    period = (0, 2**63 - 1)
    with tempfile.TemporaryDirectory() as folder:
        local = ledgers.write(Path(folder), ledgers.random_ledger(seed))
        with tables.opened(local) as connection:
            taken = powered.taken(connection, *period, source)
            rows = list(focus.rows(connection, Account(), Books(BOOK), *period, taken.footprints))
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        for name in ("x_EnergyNanoJoule", "x_CarbonNanoGram"):
            assert isinstance(row[name], int)
            found[name].append(row[name])
    whole = taken.whole
    assert (sum(found["x_EnergyNanoJoule"]), sum(found["x_CarbonNanoGram"])) == (
        whole.energy_nj.value,
        whole.carbon_ng.value,
    )
    assert bool(rows) == (whole.energy_nj.value > 0)
    assert sum(int(row["x_CostPicoUsd"]) for row in rows) == bill(ledgers.random_ledger(seed))  # type: ignore[call-overload]


def test_a_charge_is_told_by_the_book_that_the_store_has_for_it(tmp_path: Path):
    book = prices.PriceBook(BOOK.data.replace(b"us-east-1", b"eu-west-1"), name="eu.toml")
    served = Posting("infer", VCPU, 600, 1, "digits", 3, "", "ok", 2, 4)
    ledger = ledgers.container("box", [[*ledgers.charges(600, 0), served]], book=book.sha256)
    ledgers.write(tmp_path / "store", ledger | {layout.price_book(book.sha256): book.data})
    out = tmp_path / "out.csv"
    options = ["--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"), "--focus", "1.2", str(out)]
    assert CliRunner().invoke(command, options).exit_code == 0
    with out.open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["RegionId"], row["x_PriceBookSha256"]) == ("eu-west-1", book.sha256)
    assert int(row["x_EnergyNanoJoule"]) > 0


def test_command_says_when_the_sum_is_not_to_be_trusted(tmp_path: Path):
    """The file is written all the same: what is in it is in the ledger."""
    ledger = ledgers.container("box", [[*ledgers.charges(5, 0), Posting("boot", VCPU, 5, 1)]] * 3)
    del ledger[ledgers.segment_keys(ledger)[1]]
    ledgers.write(tmp_path / "store", ledger)
    out = tmp_path / "out.parquet"
    options = ["--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"), "--focus", "1.2", str(out)]
    result = CliRunner().invoke(command, options)
    assert (result.exit_code, "segment 1 is missing" in result.stderr) == (1, True)
    assert out.stat().st_size > 1000


def test_empty_ledger_is_a_file_without_rows():
    assert exported({}) == []
