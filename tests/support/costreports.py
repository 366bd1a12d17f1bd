"""Cost reports for tests: a few postings, the ledger's segment that they make, the report of a ledger, and what it prints."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from rich.console import Console

from gateway.contract.ledger import Charge, Posting
from gateway.reports import tables
from gateway.reports.costs import CostReport, report
from gateway.reports.render import render
from tests.support import ledgers
from tests.support.ledgers import MEMORY, VCPU, Ledger

SERVED = Posting("infer", VCPU, 600, 2_000_000, "digits", 1, "", "ok", 2, 4)
FAILED = Posting("infer", VCPU, 100, 1_000_000, "digits", 1, "", "failed", 1, 4)
WARM = Posting("resident", MEMORY, 300, 1, "digits", 1)
IDLE = Posting("idle_cpu", VCPU, 500, 1)


@contextmanager
def opened(ledger: Ledger) -> Iterator[duckdb.DuckDBPyConnection]:
    with tempfile.TemporaryDirectory() as folder, tables.opened(ledgers.write(Path(folder), ledger)) as connection:
        yield connection


def reported(ledger: Ledger, **chosen: object) -> CostReport:
    with opened(ledger) as connection:
        return report(connection, **chosen)  # type: ignore[arg-type]


def printed(of: CostReport, width: int = 100, *, terminal: bool = False) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=terminal, color_system=None)
    render(of, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def segment(*postings: Posting) -> list[Charge | Posting]:
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*ledgers.charges(bill[VCPU], bill[MEMORY]), *postings]


def kinds(of: CostReport) -> list[str]:
    return [finding.kind for finding in of.findings]
