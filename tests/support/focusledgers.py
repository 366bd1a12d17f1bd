"""A ledger whose FOCUS export has every kind of row: models, tenants, shared accounts, shed requests, gaps, and corrections."""

import asyncio
import random
from pathlib import Path

from click.testing import CliRunner

from gateway.cli.costs import costs as command
from gateway.objectstore.local import LocalStore
from gateway.reports import reconcileposting
from gateway.reports.focuscolumns import Version
from tests.support import ledgers, providerbills
from tests.support.ledgers import HOUR_NS, T0_NS
from tests.support.providerbills import UNKNOWN, BillRow

POSTED = reconcileposting.Author("tester", T0_NS + 30 * 24 * HOUR_NS)


def export(folder: Path, version: Version, name: str) -> Path:
    """The file, made by the command. Corrections of all three reasons, above and below zero, stand in the month after."""
    ledger = ledgers.random_ledger(11) | providerbills.ledger(random.Random(3))
    ledgers.write(folder / "store", ledger)
    rows = [
        BillRow("c0", ledgers.VCPU, 10**12, quantity="0.5", unit="Core-Hours", hours=(12, 15)),
        BillRow("c0", "USE1-Fargate-EphemeralStorage-GB-Hours", 10**9, hours=(12, 15)),
        BillRow(UNKNOWN, "USE1-Fargate-vCPU-Hours", 10**10),
        BillRow("c1", ledgers.MEMORY, -5),
    ]
    bill = providerbills.write(folder / "bill.csv", rows)
    store = LocalStore(folder / "store")
    told = asyncio.run(reconcileposting.post(store, folder / "posting", bill, "*", POSTED))
    assert {reason for reason, _ in told.posted} == {"quantity", "price", "unobserved"}
    out = folder / name
    options = ["--store", str(folder / "store"), "--cache", str(folder / "cache"), "--focus", version, str(out)]
    result = CliRunner().invoke(command, options)
    assert result.exit_code == 0, result.output
    return out
