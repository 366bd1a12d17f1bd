"""What killed containers leave is in the cost report as `unattributed`: the report is the whole bill."""

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.accounting import segment
from gateway.cli.costs import costs
from gateway.cli.ledger import ledger
from gateway.contract import layout
from tests.support import ledgersim, meters


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


def test_a_killed_life_that_nobody_followed_is_billed_to_its_platform_s_minimum(root: Path) -> None:
    """Report and audit agree, on the minute that a life of a few seconds costs."""
    first = str(ledgersim.START_NS)
    paths = [path for path in root.glob("ledger/v1/**/*") if path.is_file()]
    for path in paths:
        if path.name not in {f"{first}-open.json", f"{first}-{0:012d}.jsonl.gz"}:
            path.unlink()
    [only] = root.glob("ledger/v1/dt=*/hr=*/*/*")
    lasted_ns = segment.decode(only.read_bytes()).header.to_ns - ledgersim.START_NS
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
    assert after == whole


def test_without_its_price_book_only_segments_are_reported(root: Path) -> None:
    [book] = root.glob("prices/sha256/*")
    book.write_bytes(b"edited")
    report = reported(root)
    assert (unattributed(report), report["charged_picousd"]) == (0, verified(root)["charged_picousd"])
