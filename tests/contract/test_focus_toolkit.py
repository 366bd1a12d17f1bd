"""focus-data-toolkit, an independent reading of FOCUS 1.4, accepts our export: its model of all columns, and of split charges.

It is a lint and says so; the foundation's own validator has no rules for 1.4. That the money adds up is in `test_costs_focus`.
"""

import csv
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from focus_data_toolkit.model.validator import load_model
from focus_data_toolkit.validate.allocation import validate_split_allocation

from gateway.reports.focuscolumns import COLUMNS
from tests.support import focusledgers

SUPPORTS = ("SupportsUnitPricing", "SupportsMultiplePricingCategories")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return focusledgers.export(tmp_path_factory.mktemp("focus"), "1.4", "focus.csv")


def linted(path: Path) -> subprocess.CompletedProcess[str]:
    conditions = [word for name in SUPPORTS for word in ("--supports", name)]
    command = [
        sys.executable,
        "-m",
        "focus_data_toolkit",
        "validate",
        "--dataset",
        "cost-and-usage",
        *conditions,
        str(path),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_toolkit_accepts_the_export(export: Path):
    result = linted(export)
    assert result.returncode == 0, result.stdout
    assert "STRUCTURAL_VALID, SEMANTIC_VALID" in result.stdout


@pytest.mark.parametrize(
    ("column", "value"),
    [("BillingCurrency", "Dollar"), ("ChargeClass", "Fix"), ("AllocatedMethodDetails", "{}"), ("ListCost", "9e9")],
)
def test_toolkit_refuses_what_is_wrong(export: Path, tmp_path: Path, column: str, value: str):
    rows = read(export)
    rows[0][column] = value
    path = tmp_path / "wrong.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    result = linted(path)
    assert result.returncode == 1
    assert column in result.stdout


def test_columns_are_those_of_the_model():
    model = set(load_model()["datasets"]["Cost and Usage"]["columns"])
    assert {name for name in COLUMNS["1.4"] if not name.startswith("x_")} == model
    assert len(model) == 65


def test_ratios_and_costs_of_each_split_charge_agree(export: Path):
    """The toolkit ties a split together by columns of its own, and takes what it is allocated to for one row's alone."""
    rows = read(export)
    origins: dict[str, Decimal] = {}
    for row in rows:
        origin = row["x_OriginChargeId"]
        origins[origin] = origins.get(origin, Decimal(0)) + Decimal(row["BilledCost"])
    for row in rows:
        row["x_SplitOriginId"] = row["x_OriginChargeId"]
        row["x_SplitOriginCost"] = str(origins[row["x_OriginChargeId"]])
        row["AllocatedResourceId"] += row["AllocatedTags"]
    assert len(origins) > 5
    assert validate_split_allocation(rows, ratio_tolerance=Decimal(0), cost_tolerance=Decimal(0)) == []


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
