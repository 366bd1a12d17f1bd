"""As of when a report is, and how far the ledger was whole then: told by every form of it, whatever is compacted."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.costs import costs as command
from gateway.contract import codec, layout
from gateway.contract.ledger import Ended, Posting
from gateway.reports import asof, breakdown, compaction, costs, plotdata
from gateway.reports.asof import AsOf, Growing
from gateway.reports.page import html
from gateway.reports.query import Query
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, T0_NS
from tests.support.memorystore import MemoryStore

MINUTE_NS = 60 * 10**9
DAY_NS = 24 * HOUR_NS
LINES = [*ledgers.charges(600, 0), Posting("idle_cpu", ledgers.VCPU, 600, 1)]


def stored(*lives: ledgers.Ledger) -> MemoryStore:
    store = MemoryStore()
    for life in lives:
        store.objects |= life
    return store


async def of(store: MemoryStore, folder: Path, now_ns: int) -> AsOf:
    """As both kinds of reports say it."""
    report = await costs.read(store, folder, now_ns=lambda: now_ns)
    grouped = await breakdown.read(store, folder, Query(), now_ns=lambda: now_ns)
    page = await plotdata.read(store, folder, Query(), now_ns=lambda: now_ns)
    assert report.as_of is not None
    assert report.as_of == grouped.as_of == page.report.as_of
    assert asof.sentence(report.as_of, None) in html(page)  # a name of a container needs no escape
    return report.as_of


async def test_all_that_closed_is_complete(tmp_path: Path) -> None:
    now_ns = T0_NS + HOUR_NS
    told = await of(stored(ledgers.container("c", [LINES] * 3)), tmp_path, now_ns)
    assert told == AsOf(now_ns, now_ns, ())
    assert asof.sentence(told, None) == "as of 2026-11-05T13:00:00Z, complete"


async def test_the_furthest_behind_of_those_that_may_write_says_how_far(tmp_path: Path) -> None:
    lives = [
        ledgers.container("fast", [LINES] * 4, is_closed=False),
        ledgers.container("slow", [LINES] * 2, is_closed=False),
        ledgers.container("new", [], boot_ns=T0_NS + 3 * MINUTE_NS, is_closed=False),
        ledgers.container("closed", [LINES]),
    ]
    told = await of(stored(*lives), tmp_path, T0_NS + 5 * MINUTE_NS)
    assert [(one.container, one.newest_ns - T0_NS) for one in told.growing] == [
        ("slow", 2 * MINUTE_NS),
        ("new", 3 * MINUTE_NS),
        ("fast", 4 * MINUTE_NS),
    ]
    assert told.complete_ns == T0_NS + 2 * MINUTE_NS
    who = "3 containers may write more, the furthest behind is slow"
    assert asof.sentence(told, None) == f"as of 2026-11-05T12:05:00Z, complete until 2026-11-05T12:02:00Z: {who}"
    assert asof.sentence(told, told.complete_ns) == "as of 2026-11-05T12:05:00Z, complete"


async def test_what_ended_restarted_or_was_silent_for_days_writes_no_more(tmp_path: Path) -> None:
    ended = Ended("ended", T0_NS, T0_NS + HOUR_NS, "the platform stopped it")
    lives = [
        ledgers.container("ended", [LINES], is_closed=False)
        | {layout.container_ended("ended", T0_NS): codec.encode(ended)},
        ledgers.container("again", [LINES], is_closed=False),
        ledgers.container("again", [LINES], boot_ns=T0_NS + DAY_NS),
        ledgers.container("killed", [LINES], is_closed=False),
    ]
    told = await of(stored(*lives), tmp_path / "a", T0_NS + 2 * DAY_NS)
    assert told.growing == (Growing("killed", T0_NS, T0_NS + MINUTE_NS),)
    assert (await of(stored(*lives), tmp_path / "b", T0_NS + 3 * DAY_NS)).growing == ()


async def test_a_clock_ahead_completes_nothing(tmp_path: Path) -> None:
    told = await of(stored(ledgers.container("ahead", [LINES] * 9, is_closed=False)), tmp_path, T0_NS + MINUTE_NS)
    assert told.complete_ns == told.listed_ns == T0_NS + MINUTE_NS


async def test_compaction_changes_nothing_of_it(tmp_path: Path) -> None:
    now_ns = T0_NS + 2 * HOUR_NS
    store = stored(ledgers.container("c", [LINES] * 5, is_closed=False))
    before = await of(store, tmp_path / "before", now_ns)
    done = await compaction.compact(store, tmp_path / "w", now_ns=now_ns)
    for given in done.committed[0].inputs:
        del store.objects[given.key]
    assert await of(store, tmp_path / "after", now_ns) == before
    assert before.complete_ns == T0_NS + 5 * MINUTE_NS


@pytest.mark.parametrize(
    "form", [(), ("--by", "model"), ("--since", "2030-01-01"), ("--by", "day", "--since", "2030-01-01")]
)
def test_the_command_says_it_in_every_form(tmp_path: Path, form: tuple[str, ...]) -> None:
    ledgers.write(tmp_path / "store", ledgers.container("c", [LINES]))
    options = ("--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"), *form)

    def ran(*more: str) -> str:
        result = CliRunner().invoke(command, [*options, *more])
        assert result.exit_code == 0, result.output
        return result.stdout

    said = re.compile(r"as of 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, complete\b")
    assert len(said.findall(ran())) == len(said.findall(ran("--format", "html"))) == 1
    told = json.loads(ran("--json"))["as_of"]
    assert told["listed_ns"] == told["complete_ns"] > T0_NS
    assert told["growing"] == []
