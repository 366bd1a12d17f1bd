"""The cost page: complete in itself, exact in its table, and nothing that a name says can become markup."""

import itertools
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import energy
from gateway.contract.ledger import Charge, Posting, Request
from gateway.reports import charts, figures, lanes, plotdata
from gateway.reports.charts import Axis, Column, Part, Point
from gateway.reports.lanes import Lane
from gateway.reports.page import html
from gateway.reports.pagestyle import ACCOUNTS, STYLE
from gateway.reports.plotdata import PageData
from gateway.reports.query import DIMENSIONS, VIEWS, Query
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger

SERVED = Posting("infer", VCPU, 600, 2_000_000, "digits", 1, "acme", "ok", 2, 4)
IDLE = Posting("idle_cpu", VCPU, 400, 1)
VOID = {"meta", "input", "br"}


def gathered(ledger: Ledger, **asked: object) -> PageData:
    with tempfile.TemporaryDirectory() as folder:
        data, _, _ = plotdata.gather(ledgers.write(Path(folder), ledger), Query(**asked), energy.load())  # type: ignore[arg-type]
        return data


def segment(*lines: Posting | Request) -> list[Charge | Posting | Request]:
    postings = [line for line in lines if isinstance(line, Posting)]
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*ledgers.charges(bill[VCPU], bill[MEMORY]), *lines]


class Nesting(HTMLParser):
    """Notes every element, and fails on one that is closed wrongly."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from(DIMENSIONS), min_size=1, unique=True).map(tuple),
    st.sampled_from(VIEWS),
    st.booleans(),
)
def test_any_report_is_a_well_formed_page_that_asks_for_nothing(seed: int, by: object, view: object, is_live: bool):
    page = html(gathered(ledgers.random_ledger(seed), by=by, view=view), is_live=is_live)
    seen = Nesting(page).seen
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in seen}
    assert not {"src", "href", "onload", "onclick"} & {name for _, attributes in seen for name in attributes}
    assert "url(" not in page
    assert "@import" not in page
    assert ("form" in {tag for tag, _ in seen}) == is_live
    assert not re.search(r"\b(nan|inf)\b", page)


def test_table_ends_with_the_bill_and_the_proof():
    data = gathered(ledgers.container("c", [segment(SERVED, IDLE)] * 2))
    texts = Nesting(html(data)).texts
    assert figures.MICRO.amount(2000) in texts[texts.index("bill") :] or "<0.01" in texts
    assert "Exact:" in texts
    assert sum(row.cost_picousd for row in data.report.rows) == data.report.charged_picousd == 2000


def test_damaged_ledger_is_said_in_red():
    ledger = ledgers.container("c", [segment(SERVED, IDLE)])
    [key] = ledgers.segment_keys(ledger)
    lines = ledgers.lines(ledger[key])
    lines[-1] = msgspec.structs.replace(lines[-1], cost_picousd=1)
    page = html(gathered(ledger | {key: ledgers.pack(lines)}))
    assert "NOT BALANCED" in page
    assert "Exact:" not in page


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'; } body{display:none",
        "&lt;b&gt;",
        "a\x1b[31m\x00b",
    ],
)
def test_names_are_text(name: str):
    row = Request("r", T0_NS, name, 1, "ok", 4, 1000, 300, run_ns=5, tenant=name)
    posting = msgspec.structs.replace(SERVED, model=name, tenant=name)
    data = gathered(ledgers.container("c", [segment(posting, row)]), by=("model", "tenant"), model=name)
    plain = Nesting(html(gathered(ledgers.container("c", [segment(SERVED)]), by=("model", "tenant")), is_live=True))
    parsed = Nesting(html(data, is_live=True))
    assert {tag for tag, _ in parsed.seen} <= {tag for tag, _ in plain.seen} | {"circle"}
    assert figures.printable(name) in parsed.texts
    assert "\x1b" not in "".join(parsed.texts)
    offered = [attributes["value"] for tag, attributes in parsed.seen if tag == "option" and attributes["value"]]
    assert name in offered


def test_empty_period_says_so():
    page = html(gathered({}, since_ns=T0_NS), is_live=True)
    assert "no costs yet" in page
    assert "<svg" not in page
    assert "from 2026-11-05T12:00:00Z" in page


def test_plots_tell_time_use_and_latency():
    rows = [
        Request(f"r{ms}", T0_NS, "digits", 1, "ok", 2, 1000, 300, run_ns=ms * 10**6, queue_ns=10**6)
        for ms in range(1, 101)
    ]
    many = msgspec.structs.replace(SERVED, requests=100)
    late = [*ledgers.charges(600, 0), many, *rows]
    data = gathered(ledgers.container("a", [late]) | ledgers.container("b", [segment(IDLE)], boot_ns=T0_NS + HOUR_NS))
    [latency] = data.latency
    assert (latency.requests, latency.p50_ns, latency.p95_ns, latency.cost_picousd) == (
        100,
        51 * 10**6,
        96 * 10**6,
        300,
    )
    assert [(hour.hour[11:16], hour.idle) for hour in data.idle] == [("12:00", 0.0), ("13:00", 1.0)]
    assert data.idle[0].used == 2_000_000 / (2000 * 60 * 10**9)
    assert data.step == "hour"
    assert {row.hour for row in data.over_time} == {"2026-11-05T12:00:00Z", "2026-11-05T13:00:00Z"}


def test_long_periods_are_plotted_by_day():
    last = ledgers.container("b", [segment(IDLE)], boot_ns=T0_NS + 9 * 24 * HOUR_NS)
    assert gathered(ledgers.container("a", [segment(SERVED)]) | last).step == "day"


def test_every_account_has_its_colour():
    for account in ACCOUNTS:
        assert STYLE.count(f".k-{account}{{") == 2  # light and dark


@given(st.lists(st.floats(0, 1e12), max_size=100), st.none() | st.floats(1, 1e3))
def test_no_column_leaves_its_plot(values: list[float], until: float | None):
    inside = [value if until is None else min(value, until) for value in values]
    drawn = charts.columns([Column("m", (Part("infer", value, "t"),)) for value in inside], Axis("$", until), title="t")
    for x, y, width, height in re.findall(
        r'<rect [^>]*x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"', drawn
    ):
        assert charts.LEFT - 0.1 <= float(x) <= float(x) + float(width) <= charts.WIDTH + 0.1
        assert charts.TOP - 0.1 <= float(y) <= float(y) + float(height) <= charts.HEIGHT - charts.BOTTOM + 0.1


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), max_size=30))
def test_no_point_leaves_its_plot(values: list[tuple[float, float]]):
    drawn = charts.points([Point(x, y, "t") for x, y in values], Axis("ms"), Axis("$"), title="t")
    centres = re.findall(r'cx="([^"]+)" cy="([^"]+)"', drawn)
    assert len(centres) == len(values)
    assert all(
        charts.LEFT - 0.1 <= float(x) <= charts.WIDTH and charts.TOP - 0.1 <= float(y) <= charts.HEIGHT
        for x, y in centres
    )


@given(st.lists(st.tuples(st.floats(0.9, 1), st.floats(0.9, 1)), min_size=2, max_size=7), st.floats(0, 1))
def test_names_of_points_near_each_other_can_all_be_read(values: list[tuple[float, float]], level: float):
    points = [Point(x, y * level, "t", f"model@{number}") for number, (x, y) in enumerate(values)]
    drawn = charts.points(points, Axis("ms", 1.0), Axis("$", 1.0), title="t")
    heights = sorted(float(y) for y in re.findall(r'class="name" x="[^"]+" y="([^"]+)"', drawn))
    assert len(heights) == len(values)
    assert all(below - above >= charts.NAME_PX - 0.2 for above, below in itertools.pairwise(heights))
    assert charts.TOP <= heights[0] <= heights[-1] <= charts.HEIGHT - charts.BOTTOM + 4


@given(st.floats(1e-6, 1e6), st.floats(1, 3))
def test_an_axis_of_rates_has_numbers_however_short_it_is(mean: float, peak: float):
    drawn = lanes.draw([Lane("digits@1", "w", mean, mean * peak, None, None, ("a", "b", "c"))], "a second", title="t")
    assert 2 <= drawn.count('class="grid"') <= 6


def test_more_bars_than_fit_are_cut():
    rows = [Column(f"model-{number}", (Part("direct", 1.0, "t"),)) for number in range(30)]
    assert charts.bars(rows, Axis("$"), title="t").count("<rect") == charts.BARS_MAX
