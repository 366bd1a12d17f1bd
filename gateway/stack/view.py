"""An estimate on a terminal and as JSON. Money leaves here as decimals of dollars; nothing is rounded before."""

from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.stack.estimate import Estimate
from gateway.stack.line import Line


def show(estimate: Estimate, console: Console, *, assumed: str) -> None:
    """The tables, what they leave out, and what could not be priced. `assumed` says what a request was taken to be."""
    console.print(_table("While nobody calls, per month", estimate.idle, total=estimate.idle_usd))
    if estimate.used:
        console.print()
        console.print(_table("By use that you state, per month", estimate.used, total=estimate.used_usd))
        console.print(f"\nTogether ${float(estimate.idle_usd + estimate.used_usd):,.2f} a month.")
    rate = float(estimate.included_rps)
    console.print(
        f"\nThat answers up to {rate:,.0f} requests a second ({rate * 2.628:,.1f} million a month). {assumed}\n"
    )
    console.print(_table("A million requests beyond that", estimate.million))
    console.print(
        "\nList prices of us-east-1 without free tiers. Left out: stored models and the ledger, disks of training machines, "
        "events of schedules, traffic to the internet. `steelyard runs list` says what each training cost."
    )
    for name in estimate.missing:
        console.print(f"UNPRICED: {name} is in no price file; what it costs is missing above, not zero")
    if estimate.unknown:
        console.print(f"UNKNOWN: nobody here knows what these cost: {', '.join(estimate.unknown)}")


def as_json(estimate: Estimate) -> dict[str, Any]:
    """For programs: dollars as decimal strings, None where a price is missing."""
    return {
        "idle_usd_per_month": _decimal(estimate.idle_usd),
        "idle": [_row(line) for line in estimate.idle],
        "used_usd_per_month": _decimal(estimate.used_usd),
        "used": [_row(line) for line in estimate.used],
        "million_requests": [_row(line) for line in estimate.million],
        "included_requests_per_s": float(estimate.included_rps),
        "unpriced": list(estimate.missing),
        "unknown": list(estimate.unknown),
    }


def _row(line: Line) -> dict[str, Any]:
    usd = None if line.usd is None else _decimal(line.usd)
    return {"what": line.what, "quantity": line.quantity, "usd": usd, "note": line.note}


def _decimal(usd: Fraction) -> str:
    return f"{float(usd):.6f}"


def _table(title: str, lines: tuple[Line, ...], *, total: Fraction | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("quantity", justify="right")
    table.add_column("cost", justify="right")
    table.add_column("note")
    for line in lines:
        table.add_row(
            line.what, line.quantity, "UNPRICED" if line.usd is None else f"${float(line.usd):,.2f}", line.note
        )
    if total is not None:
        table.add_row("sum", "", f"${float(total):,.2f}", "")
    return table
