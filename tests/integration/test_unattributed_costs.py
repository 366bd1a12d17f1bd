"""What killed containers leave is in the cost report as `unattributed`: the report is the whole bill."""

import asyncio
import io
import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from gateway.accounting import segment
from gateway.audit import ending, verifying
from gateway.audit.findings import Verdict
from gateway.cli.costs import costs
from gateway.cli.ledger import ledger
from gateway.contract import energy, layout
from gateway.objectstore.local import LocalStore
from gateway.reports import costs as reports
from gateway.reports import figures, hourproof, page, plotdata, render, tables
from gateway.reports.query import Query
from gateway.reports.sync import sync
from gateway.wording import usd
from tests.support import ledgersim, meters

MINUTE_NS = 60 * 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three lives of one container, the first two of them killed."""
    root = tmp_path / "store"
    for key, body in ledgersim.killed_twice().disk.objects.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return root


def reported(root: Path, *arguments: str) -> dict[str, object]:
    cache = root.parent / "cache"
    result = CliRunner().invoke(costs, ["--store", str(root), "--json", "--cache", str(cache), *arguments])
    assert result.stdout, (result.stderr, result.exception)
    found: dict[str, object] = json.loads(result.stdout)
    return found


def verified(root: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        CliRunner().invoke(ledger, ["verify", "--store", str(root), "--format", "json"]).stdout
    )
    return found


def unattributed(report: dict[str, object]) -> int:
    accounts = {row["account"]: row["cost_picousd"] for row in report["accounts"]}  # type: ignore[attr-defined]
    return int(accounts.get("unattributed", 0))


def test_the_report_is_the_whole_bill(root: Path) -> None:
    report, verdict = reported(root), verified(root)
    assert unattributed(report) == verdict["unattributed_picousd"] > 0
    assert report["charged_picousd"] == verdict["charged_picousd"] + verdict["unattributed_picousd"]
    assert report["balanced"]
    assert not any(finding["is_fault"] for finding in report["findings"])  # type: ignore[attr-defined]


def begun(root: Path, *seqs: int) -> int:
    """Leave of the ledger the first life's beginning; how long it lived by that."""
    first = str(ledgersim.START_NS)
    kept = {f"{first}-open.json", *(f"{first}-{seq:012d}.jsonl.gz" for seq in seqs)}
    for path in [path for path in root.glob("ledger/v1/**/*") if path.is_file()]:
        if path.name not in kept:
            path.unlink()
    last = max(root.glob("ledger/v1/dt=*/hr=*/*/*"), key=lambda path: path.name)
    return segment.decode(last.read_bytes()).header.to_ns - ledgersim.START_NS


def test_a_killed_life_that_nobody_followed_is_billed_to_its_platform_s_minimum(root: Path) -> None:
    """Report and audit agree, on the minute that a life of a few seconds costs."""
    lasted_ns = begun(root, 0)
    report, verdict = reported(root), verified(root)
    assert report["charged_picousd"] == sum(meters.life_picousd(lasted_ns).values())
    assert unattributed(report) == verdict["unattributed_picousd"] > 0
    assert report["balanced"]


def test_periods_add_up(root: Path) -> None:
    """A gap is cut at full hours, like segments."""
    whole = reported(root)
    cuts = [f"2026-11-05T{hour}:00" for hour in range(12, 24)] + ["2026-11-06"]
    parts = [reported(root, "--since", since, "--until", until) for since, until in itertools.pairwise(cuts)]
    assert sum(unattributed(part) for part in parts) == unattributed(whole)
    assert sum(int(part["charged_picousd"]) for part in parts) == whole["charged_picousd"]  # type: ignore[call-overload]
    assert sum(unattributed(part) > 0 for part in parts) > 1


def test_a_segment_that_comes_late_takes_its_part_away(root: Path) -> None:
    whole = reported(root)
    late = min(root.glob(f"{layout.segments()}*/*/*/*.jsonl.gz"))
    body = late.read_bytes()
    late.unlink()
    before = reported(root)
    late.write_bytes(body)
    after = reported(root)
    assert before["charged_picousd"] == whole["charged_picousd"]
    assert unattributed(before) > unattributed(whole)
    for report in (whole, after):
        del report["as_of"]  # two listings
    assert after == whole


def test_without_its_price_book_only_segments_are_reported(root: Path) -> None:
    [book] = root.glob("prices/sha256/*")
    book.write_bytes(b"edited")
    report = reported(root)
    assert (unattributed(report), report["charged_picousd"]) == (0, verified(root)["charged_picousd"])
    faults = [one for one in report["findings"] if one["is_fault"]]
    assert {one["kind"] for one in faults} == {"no_price_book"}
    assert all("what they cost is in no sum here" in one["message"] and book.name in one["message"] for one in faults)
    book.unlink()
    assert [one["kind"] for one in reported(root)["findings"]].count("no_price_book") == len(faults)


# A life that may still run


def seen_at(root: Path, now_ns: int) -> tuple[reports.CostReport, str, str]:
    """The report at this moment, as a table and as a page."""
    local = asyncio.run(sync(LocalStore(root), root.parent / "copies", now_ns=lambda: now_ns))
    with tables.opened(local) as connection:
        report = reports.report(connection, now_ns=local.listed_ns)
    data, _, _ = plotdata.gather(local, Query(), energy.load())
    console = Console(file=io.StringIO(), width=200)
    render.render(report, console)
    assert isinstance(console.file, io.StringIO)
    return report, console.file.getvalue(), page.html(data)


def verdict_at(root: Path, now_ns: int) -> Verdict:
    return asyncio.run(verifying.verify(LocalStore(root), verifying.Scope(), now_ns=now_ns, reader=hourproof.read))


def test_what_a_running_container_is_billed_ahead_alarms_nobody(root: Path) -> None:
    """The money is the same; only when no segment came for minutes it is what a kill left."""
    last_ns = ledgersim.START_NS + begun(root, 0)
    runs, table, shown = seen_at(root, last_ns + MINUTE_NS)
    [ahead] = [one.cost_picousd for one in runs.accounts if one.account == "unattributed"]
    assert [(one.kind, one.is_fault, one.ahead_picousd) for one in runs.findings] == [("running", False, ahead)]
    assert "billed ahead for containers that still run" in table
    assert "not explained" not in table
    assert "billed ahead for containers that still run" in shown
    silent, table, shown = seen_at(root, last_ns + 4 * MINUTE_NS)
    assert [(one.kind, one.ahead_picousd) for one in silent.findings] == [("not_closed", 0)]
    assert "billed and not explained by any measurement\n" in table
    assert "billed ahead" not in table + shown
    assert (silent.accounts, silent.charged_picousd, silent.balanced) == (runs.accounts, runs.charged_picousd, True)


def test_a_lost_segment_of_a_running_container_is_told_apart(root: Path) -> None:
    last_ns = ledgersim.START_NS + begun(root, 0, 2)
    report, table, _ = seen_at(root, last_ns + MINUTE_NS)
    [posted] = [one.cost_picousd for one in report.accounts if one.account == "unattributed"]
    [ahead] = [one.ahead_picousd for one in report.findings if one.kind == "running"]
    assert 0 < ahead < posted
    assert f"not explained by any measurement, but for {figures.dollars(ahead)} billed ahead" in table
    verdict = verdict_at(root, last_ns + MINUTE_NS)
    told = [one.message for one in verdict.findings if one.kind == "unattributed"]
    assert [("billed ahead" in one, usd(ahead) in one) for one in told] == [(False, False), (True, True)]
    assert verdict.unattributed_picousd == posted
    later = verdict_at(root, last_ns + 4 * MINUTE_NS)
    [told_later] = [one.message for one in later.findings if one.kind == "unattributed"]
    assert "billed ahead" not in told_later
    assert (later.unattributed_picousd, len(later.faults)) == (posted, len(verdict.faults))


def test_reports_count_segments_and_not_what_is_in_none(root: Path) -> None:
    report, _, _ = seen_at(root, ledgersim.START_NS + 24 * 60 * MINUTE_NS)
    assert report.segments == verified(root)["segments"] == len(list(root.glob("ledger/v1/dt=*/hr=*/*/*")))


def test_killed_lives_that_are_known_to_be_over_are_not_said_to_run(root: Path) -> None:
    """One that started again, however lately; and one whose platform said when it ended."""
    lives = sorted(root.glob("ledger/v1/containers/*/*-open.json"), key=lambda path: path.name)
    assert len(lives) == 3
    boots = [int(path.name.partition("-")[0]) for path in lives]
    report, _, _ = seen_at(root, boots[1])
    # Looked at from the second life's boot, the third is yet to come.
    assert [one.kind for one in report.findings] == ["not_closed", "not_closed", "clock_jump"]
    assert all("was killed" in one.message and "started again" in one.message for one in report.findings[:2])
    last_ns = ledgersim.START_NS + begun(root, 0)
    store = LocalStore(root)
    asyncio.run(ending.end(store, "c0", ended_ns=last_ns + 1, evidence="task stopped", now_ns=last_ns + MINUTE_NS))
    report, table, _ = seen_at(root, last_ns + MINUTE_NS)
    [found] = report.findings
    assert (found.kind, found.ahead_picousd) == ("not_closed", 0)
    assert "(task stopped)" in found.message
    assert "billed ahead" not in table
