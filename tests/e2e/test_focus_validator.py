"""The FinOps foundation's own validator accepts the FOCUS 1.2 export. It does not check money: `test_costs_focus` does.

It needs an environment of its own on Python 3.12 (on 3.11 pip finds a version of 2024 that cannot be imported), 640 MB, and has no
rules for 1.4. `make focus` makes the environment and runs this; everything here is offline.
"""

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import focusledgers

BIN = os.environ.get("STEELYARD_FOCUS_VALIDATOR", "")
CRITERIA = (
    "UNIT_PRICING_SUPPORTED,PUBLIC_PRICE_LIST_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED,"
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED,RESOURCE_TYPE_ASSIGNMENT_SUPPORTED,REGION_SUPPORTED,TAGGING_SUPPORTED,"
    "SUB_ACCOUNT_SUPPORTED,ACCOUNT_NAMING_SUPPORTED,MULTIPLE_PRICING_CATEGORIES_SUPPORTED,NEGOTIATED_PRICING_SUPPORTED"
)
"""Without any, 441 of its rules are skipped."""
EITHER, BOTH = "InvoiceId-C-004-C", "InvoiceId-C-003-C"
"""One branch of an OR, which fails for every bill whose invoice has an id; and the OR itself."""


EXPORTS = ("focus.parquet", "focus.csv")


@pytest.mark.e2e
@pytest.mark.skipif(not BIN, reason="`make focus` makes the environment that this needs")
@pytest.mark.parametrize("name", EXPORTS)
def test_official_validator_accepts_the_export(tmp_path: Path, name: str):
    export = focusledgers.export(tmp_path, "1.2", name)
    cases = _judged(export, tmp_path / "verdict.xml")
    failed = {name for name, outcome in cases.items() if outcome == "failure"}
    assert failed == {EITHER}
    assert cases[BOTH] == "passed"
    assert sum(outcome != "skipped" for outcome in cases.values()) > 250


@pytest.mark.e2e
@pytest.mark.skipif(not BIN, reason="`make focus` makes the environment that this needs")
def test_official_validator_would_notice(tmp_path: Path):
    """A validator that runs without its rules passes everything: this one must not."""
    export = focusledgers.export(tmp_path, "1.2", "focus.csv")
    export.write_text(export.read_text().replace('"Usage-Based"', '"Sometimes"'))
    cases = _judged(export, tmp_path / "verdict.xml")
    assert any(name.startswith("ChargeFrequency") for name, outcome in cases.items() if outcome == "failure")


def _judged(export: Path, verdict: Path) -> dict[str, str]:
    """By rule: passed, failure or skipped. The exit code is 0 whatever fails, so the XML is read."""
    _validate(export, verdict)
    return {
        (case.get("name") or "").split(" ")[0]: next((child.tag for child in case), "passed")
        for case in ElementTree.parse(verdict).iter("testcase")
    }


def _validate(export: Path, verdict: Path) -> None:
    """It opens a file of its own by a path relative to site-packages, so that is where it must run."""
    python = Path(BIN).absolute() / "python"
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    arguments = [
        "--data-file",
        export,
        "--validate-version",
        "1.2",
        "--block-download",
        "--focus-dataset",
        "CostAndUsage",
    ]
    arguments += ["--applicability-criteria", CRITERIA, "--output-type", "unittest", "--output-destination", verdict]
    subprocess.run(
        [Path(BIN).absolute() / "focus-validator", *arguments], cwd=packages, capture_output=True, check=True
    )
