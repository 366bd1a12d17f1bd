"""A comparison with a bill for people: `steelyard costs reconcile`. Nothing in it can be taken for markup or terminal control."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.reports import figures, reconcilegap, render
from gateway.reports.bills import Flag
from gateway.reports.reconcile import Difference, Reconciliation
from gateway.reports.reconcilegap import Gap
from gateway.reports.reconcilelines import Line
from gateway.reports.reconcileresources import ByResource
from gateway.wording import moment

ROWS_MAX = 200  # some screens; the JSON has all


def show(found: Reconciliation, console: Console) -> None:
    """By day and service."""
    scale = figures.scale(max(abs(found.ledger_picousd), abs(found.bill_picousd)))
    table = _table(("day", "service"), ("ledger", "bill", "bill - ledger", "%"))
    whole = Difference("all", "", found.ledger_picousd, found.bill_picousd, found.bill_picousd - found.ledger_picousd)
    for row in (*found.rows, whole):
        table.add_row(
            row.day,
            Text(figures.printable(row.service)),
            scale.amount(row.ledger_picousd),
            scale.amount(row.bill_picousd),
            scale.amount(row.difference_picousd),
            figures.percent(row.bill_picousd, row.ledger_picousd),
        )
    render.show_table(
        console, f"Ledger against bill ({found.shape}) in {scale.unit}, {found.first_day} to {found.last_day}", table
    )
    _gap(found.gap, console)
    _flags(found.flags, console)


def show_resources(found: ByResource, console: Console) -> None:
    """By resource, sku and time, where something differs; then what was posted, or would be."""
    differing = [line for line in found.lines if line.difference_picousd]
    if differing:
        amounts = [abs(amount) for line in differing for amount in (line.ledger_picousd, line.bill_picousd)]
        _differing(differing, figures.scale(max(amounts)), found.shape, console)
    total = sum(line.difference_picousd for line in found.lines)
    render.say(
        console,
        f"{found.resources:,} resource{'s' * (found.resources != 1)} on the bill and in question: "
        f"{figures.dollars(found.bill_picousd)} billed, {figures.dollars(found.ledger_picousd)} in the ledger, "
        f"{figures.dollars(found.corrected_picousd)} corrected before, {figures.dollars(total)} apart",
    )
    _gap(found.gap, console)
    _flags(found.flags, console)
    if found.generation is None:
        if total or differing:
            render.say(console, "nothing was posted: --post writes what differs as corrections")
        return
    by_reason = ", ".join(f"{reason} {figures.dollars(cost)}" for reason, cost in found.posted) or "nothing differs"
    if found.generation:
        render.say(console, f"posted as {found.generation}: {by_reason}")
    elif differing:
        render.say(console, "nothing was posted: the notes say why")
    else:
        render.say(console, "nothing to post: this bill is posted already, and nothing differs")


def _differing(lines: Sequence[Line], scale: figures.Scale, shape: str, console: Console) -> None:
    table = _table(("resource", "sku", "from", "to"), ("ledger", "corrected", "bill", "difference"))
    table.add_column("why", overflow="fold")
    for line in lines[:ROWS_MAX]:
        table.add_row(
            Text(figures.printable(line.resource)),
            Text(figures.printable(line.sku)),
            moment(line.from_ns)[:16],
            moment(line.to_ns)[:16],
            scale.amount(line.ledger_picousd),
            scale.amount(line.corrected_picousd),
            scale.amount(line.bill_picousd),
            scale.amount(line.difference_picousd),
            ", ".join(f"{part.reason} {scale.amount(part.cost_picousd)}" for part in line.parts),
        )
    render.show_table(console, f"Ledger against bill ({shape}) in {scale.unit}, by resource", table)
    if len(lines) > ROWS_MAX:
        render.say(console, f"... and {len(lines) - ROWS_MAX:,} more; --json lists them all")


def _table(texts: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in texts:
        table.add_column(heading, overflow="fold", min_width=10)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _gap(found: Gap | None, console: Console) -> None:
    if found is not None:
        render.say(console, reconcilegap.sentence(found))


def _flags(flags: Iterable[Flag], console: Console) -> None:
    for flag in flags:
        render.say(console, f"note ({flag.kind}): {figures.printable(flag.message)}", "yellow")
