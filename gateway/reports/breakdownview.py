"""A grouped cost report for people: one table whose columns carry their units, the bill as proof, training beside it."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.reports import asof, energyview, figures, render, trainingview, trends
from gateway.reports.amortizing import NO_PRICE, Amortized
from gateway.reports.breakdown import Breakdown, Row
from gateway.reports.query import Dimension
from gateway.wording import moment

NOTHING = "no costs yet: the ledger has no segment in this period"

_NAMELESS = {"model": "(shared)", "tenant": "(no tenant)", "outcome": "(none)"}


def show(report: Breakdown, console: Console) -> None:
    """Print it, with a second table of energy where it has that. Nothing in it can be taken for markup or terminal control."""
    if not report.segments:
        render.say(console, "; ".join(filter(None, (f"{NOTHING} {period(report)}".rstrip(), when(report)))))
        trainingview.show(report, console)
        render.show_findings(report.findings, console)
        return
    scale = figures.scale(report.charged_picousd)
    render.show_table(
        console,
        f"Costs in {scale.unit} by {', '.join(report.query.by)}, view: {report.query.view}, without training",
        _table(report),
    )
    if report.energy is not None:
        by = report.query.by
        energyview.show(report, console, by, [[label(row, dimension) for dimension in by] for row in report.rows])
        render.say(console, trainingview.scope(report))
        console.print()
    _training(report, console)
    trainingview.show(report, console)
    proof = " = sum of all rows, exact" if report.balanced else ""
    render.say(console, f"bill: {figures.dollars(report.charged_picousd)}{proof}{trends.sentence(report.trend)}")
    render.say(console, f"      {moment(report.from_ns)} to {moment(report.to_ns)}, {report.segments:,} segments")
    if told := when(report):
        render.say(console, f"      {told}")
    if not report.balanced:
        render.say(console, "NOT BALANCED: rows do not add up to the bill; do not trust these numbers", "bold red")
    render.show_findings(report.findings, console)


def period(report: Breakdown) -> str:
    """`from 2026-11-05T00:00:00Z until ...` as it was asked; empty without bounds."""
    since, until = report.query.since_ns, report.query.until_ns
    parts = [
        f"from {moment(since)}" if since is not None else "",
        f"until {moment(until)}" if until is not None else "",
    ]
    return " ".join(part for part in parts if part)


def when(report: Breakdown) -> str:
    """As of when it is, and how far the ledger was whole then."""
    return asof.sentence(report.as_of, report.query.until_ns)


def label(row: Row, dimension: Dimension) -> str:
    """A cell of text, printable; what the ledger does not name says so."""
    value = getattr(row, dimension)
    if dimension == "version":
        return str(value) if value else "-"
    return figures.printable(str(value)) or _NAMELESS.get(dimension, "-")


def is_worth_a_line(row: Row) -> bool:
    """Whether a person wants to see it: a view that moves shared costs leaves rows that only count CPU."""
    return bool(row.cost_picousd or row.requests or row.boots or row.loads or row.previous_picousd)


def trend(row: Row) -> str:
    """`+12.5 %` against the period before; `new` where that had nothing; `-` where nothing can be compared."""
    return "-" if row.compared_picousd is None else figures.percent(row.compared_picousd, row.previous_picousd)


def _table(report: Breakdown) -> Table:
    by, scale = report.query.by, figures.scale(report.charged_picousd)
    has_trend = any(row.previous_picousd is not None for row in report.rows)
    numbers = [
        "requests",
        "not ok",
        "rows",
        "vCPU s",
        "GB h",
        "starts",
        "loads",
        "direct",
        "shared",
        "cost",
        "idle %",
        "µ$/1,000",
    ]
    table = _columns(by, [*numbers, *(["trend"] * has_trend)])
    for row in filter(is_worth_a_line, report.rows):
        cells = [
            *(f"{count:,}" for count in (row.requests, row.not_ok, row.rows)),
            f"{row.cpu_ns / 10**9:,.3f}",
            f"{row.memory_byte_ns / (2**30 * 3600 * 10**9):,.4f}",
            *(f"{count:,}" for count in (row.boots, row.loads)),
            *(scale.amount(cost) for cost in (row.direct_picousd, row.shared_picousd, row.cost_picousd)),
            f"{100 * row.idle_picousd / row.cost_picousd + 0:.1f}" if row.cost_picousd else "-",
            figures.MICRO.amount(row.per_1000_rows_picousd),
            *([trend(row)] * has_trend),
        ]
        table.add_row(*(Text(label(row, dimension)) for dimension in by), *cells)
    for name, cost in (("others", report.others_picousd), ("bill", _posted(report))):
        if cost or name == "bill":
            table.add_row(name, *[""] * (len(by) - 1 + 9), scale.amount(cost), style="bold" if name == "bill" else "")
    return table


def _posted(report: Breakdown) -> int:
    return sum(row.cost_picousd for row in report.rows) + report.others_picousd


def _columns(names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", min_width=min(12, len(name) + 4))
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


AMORTIZED = ("training", "earlier", "this period", "of it written off", "remaining")


def amortized(row: Amortized) -> list[str]:
    """The cells under these headings."""
    amounts = (
        *(row.cost_picousd, row.earlier_picousd, row.expensed_picousd),
        *(row.written_off_picousd, row.remaining_picousd),
    )
    none = "unpriced" if row.reason == NO_PRICE else "unknown"
    return [none if amount is None else figures.dollars(amount) for amount in amounts]


def _training(report: Breakdown, console: Console) -> None:
    plan = report.query.amortize
    if plan is None or not report.training:
        return
    over = f"{plan.amount:,} predictions" if plan.over == "rows" else f"{plan.amount:,} days"
    table = _columns(["model"], AMORTIZED)
    for row in report.training:
        table.add_row(Text(trainingview.label(row)), *amortized(row))
    render.show_table(console, f"Training over {over}, beside the bill", table)
