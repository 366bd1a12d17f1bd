"""The FinOps foundation's own validator accepts the FOCUS 1.2 export. It does not check money: `test_costs_focus` does.

It needs an environment of its own, on Python 3.12 (on 3.11 pip finds a version of 2024 that cannot be imported), 640 MB:

    python3.12 -m venv focus && focus/bin/pip install 'focus-validator==2.2.1' 'pyarrow<22'
    STEELYARD_FOCUS_VALIDATOR=focus/bin python -m pytest tests/e2e/test_focus_validator.py
"""

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from gateway.cli.costs import costs as command
from tests.support import ledgers

BIN = os.environ.get("STEELYARD_FOCUS_VALIDATOR", "")
CRITERIA = (
    "UNIT_PRICING_SUPPORTED,PUBLIC_PRICE_LIST_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED,"
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED,RESOURCE_TYPE_ASSIGNMENT_SUPPORTED,REGION_SUPPORTED,TAGGING_SUPPORTED,"
    "SUB_ACCOUNT_SUPPORTED,ACCOUNT_NAMING_SUPPORTED,MULTIPLE_PRICING_CATEGORIES_SUPPORTED,NEGOTIATED_PRICING_SUPPORTED"
)
"""Without any, 441 of its rules are skipped."""
EITHER = "InvoiceId-C-004-C"
"""One branch of an OR: it fails for every bill whose invoice has an id. The exit code is 0 anyway, so the XML is read."""


@pytest.mark.e2e
@pytest.mark.skipif(
    not BIN, reason="set STEELYARD_FOCUS_VALIDATOR to the bin folder of an environment made as this file says"
)
def test_official_validator_accepts_the_export(tmp_path: Path):
    ledgers.write(tmp_path / "store", ledgers.random_ledger(11))
    export, verdict = tmp_path / "focus.parquet", tmp_path / "verdict.xml"
    options = ["--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"), "--focus", "1.2", str(export)]
    assert CliRunner().invoke(command, options).exit_code == 0
    _validate(export, verdict)
    cases = list(ElementTree.parse(verdict).iter("testcase"))
    failed = {(case.get("name") or "").split(" ")[0] for case in cases if case.find("failure") is not None}
    skipped = sum(case.find("skipped") is not None for case in cases)
    assert failed <= {EITHER}
    assert len(cases) - skipped > 250


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
