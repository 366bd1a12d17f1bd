"""Budgets for people: a table on a terminal, aligned plain text in a pipe, and a line for each alert."""

from collections.abc import Sequence
from fractions import Fraction

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.budgets.alerting import Outcome
from gateway.budgets.evaluating import Standing
from gateway.reports import figures, render


def show(standings: Sequence[Standing], console: Console) -> None:
    """Nothing in it can be taken for markup; a number is never cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("budget", "of", "period"):
        table.add_column(name, overflow="fold", min_width=8)
    for name in ("spent", "limit", "%", "forecast", "crossed"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in standings:
        table.add_row(*map(Text, _row(one)), style="bold" if one.crossed else "")
    render.show_table(console, "Budgets", table)
    for one in standings:
        if not one.segments:
            render.say(console, f"note: the ledger has nothing in the period of '{one.budget.id}'", "yellow")


def told(outcomes: Sequence[Outcome], console: Console) -> None:
    """One line each."""
    words = {
        "sent": "alert sent",
        "told": "alert was sent before",
        "failed": "ALERT NOT DELIVERED, the next run tries again",
    }
    for one in outcomes:
        reason = f": {figures.printable(one.reason)}" if one.reason else ""
        line = f"{words[one.state]}: {one.budget}, {one.threshold}{reason}"
        render.say(console, line, "red" if one.state == "failed" else "")


def _row(one: Standing) -> tuple[str, ...]:
    budget = one.budget
    names = [f"{name} {value}" for name, value in (("model", budget.model), ("tenant", budget.tenant)) if value != "*"]
    share = Fraction(100 * one.spent_picousd, budget.limit_picousd)
    return (
        budget.id,
        figures.printable(", ".join(names)) or "the whole bill",
        budget.period if budget.hours else one.period.key,
        figures.dollars(one.spent_picousd),
        figures.dollars(budget.limit_picousd),
        f"{float(share):,.1f}",
        figures.dollars(one.forecast_picousd),
        ", ".join(_words(threshold.kind, threshold.factor) for threshold in one.crossed) or "-",
    )


def _words(kind: str, factor: str) -> str:
    percent = f"{float(Fraction(factor) * 100):g} %"
    return f"{percent} forecast" if kind == "forecast" else percent
