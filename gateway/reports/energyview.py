"""Energy and carbon of a grouped report for people: a table, the same rows for the page, and what the figures rest on.

Every figure has its low and its high end beside it and the tier of its weakest part: what is modelled is a range.
"""

from collections.abc import Sequence
from decimal import Decimal

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.contract.energy import Footprint, Span
from gateway.reports import figures, render
from gateway.reports.breakdown import Breakdown, Row

Unit = tuple[str, int]
"""Its name, and how many nanojoules or nanograms it is."""
_WH = (("kWh", 3_600 * 10**12), ("Wh", 3_600 * 10**9), ("mWh", 3_600 * 10**6), ("µWh", 3_600 * 10**3))
_GRAMS = (("kg", 10**12), ("g", 10**9), ("mg", 10**6), ("µg", 10**3), ("ng", 1))


class Amounts(msgspec.Struct, frozen=True):
    """The units of the columns, chosen by the largest figure of each: a column is compared by eye."""

    energy: Unit
    carbon: Unit
    sci: Unit

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the numbers after the names; as `numbers` gives them."""
        carbon = f"{self.carbon[0]} CO2e"
        return (self.energy[0], "low-high", carbon, "low-high", "making %", f"{self.sci[0]}/1,000", "low-high", "tier")

    def numbers(self, footprint: Footprint, sci_ng: Span | None) -> tuple[str, ...]:
        """Carbon is of use and of making the machines; `making %` is the latter's part."""
        carbon = footprint.carbon_ng
        making = f"{100 * footprint.embodied_ng.value / carbon.value:.0f}" if carbon.value else "-"
        tier = "-" if footprint.is_nothing else footprint.tier
        energy, grams = (
            pair(span, unit[1]) for span, unit in ((footprint.energy_nj, self.energy), (carbon, self.carbon))
        )
        return (*energy, *grams, making, *(("-", "-") if sci_ng is None else pair(sci_ng, self.sci[1])), tier)


def amounts(report: Breakdown) -> Amounts:
    """For this report; nothing but zeros is told in the smallest units."""
    assert report.energy is not None
    whole, scis = (
        report.energy.whole,
        [row.sci_per_1000_rows_ng.high for row in report.rows if row.sci_per_1000_rows_ng],
    )
    return Amounts(
        _unit(_WH, whole.energy_nj.value), _unit(_GRAMS, whole.carbon_ng.value), _unit(_GRAMS, max(scis, default=0))
    )


def show(report: Breakdown, console: Console, names: Sequence[str], labels: Sequence[Sequence[str]]) -> None:
    """Print it: `labels` are the printable names of each row of the report."""
    energy = report.energy
    if energy is None:
        return
    units = amounts(report)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", min_width=min(12, len(name) + 4))
    for head in units.heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row, label in zip(report.rows, labels, strict=True):
        if is_worth_a_line(row) and row.footprint:
            table.add_row(*map(Text, label), *units.numbers(row.footprint, row.sci_per_1000_rows_ng))
    blank = [""] * (len(names) - 1)
    if not energy.others.is_nothing:
        table.add_row("others", *blank, *units.numbers(energy.others, None))
    table.add_row("all", *blank, *units.numbers(energy.whole, None), style="bold")
    render.show_table(console, f"Energy and carbon by {', '.join(names)}", table)
    for line in basis(report):
        render.say(console, line, "yellow" if "assumed:" in line else "")


def is_worth_a_line(row: Row) -> bool:
    """Whether it took anything."""
    return row.footprint is not None and not row.footprint.is_nothing


def basis(report: Breakdown) -> tuple[str, ...]:
    """Sentences on where the figures come from and what was assumed."""
    energy = report.energy
    if energy is None:
        return ()
    said = (
        f"energy: published power curves times measured CPU and memory; carbon: of use, location-based ("
        f"{figures.printable(energy.region)}), and of making the machines (SCI, ISO/IEC 21031)"
    )
    return (said, *energy.notes)


def told(report: Breakdown) -> tuple[str, str, str] | None:
    """For a tile: all energy, all carbon, and carbon per thousand predictions of what is shown, each with its unit."""
    if report.energy is None:
        return None
    whole = report.energy.whole
    spans = (whole.energy_nj, _WH), (whole.carbon_ng, _GRAMS)
    first = tuple(
        f"{short(span.value, unit[1])} {unit[0]}" for span, units in spans for unit in (_unit(units, span.value),)
    )
    shown = [row for row in report.rows if row.footprint]
    total = sum((row.footprint.carbon_ng.value for row in shown if row.footprint), 0)
    rows = sum(row.rows for row in shown)
    unit = _unit(_GRAMS, total * 1000 // rows if rows else 0)
    return first[0], first[1], f"{short(total * 1000 // rows, unit[1])} {unit[0]}" if rows else "-"


def grams(largest_ng: int) -> Unit:
    """What to tell this and less in, and its nanograms."""
    return _unit(_GRAMS, largest_ng)


def watt_hours(largest_nj: int) -> Unit:
    """What to tell this and less in, and its nanojoules."""
    return _unit(_WH, largest_nj)


def pair(span: Span, one: int) -> tuple[str, str]:
    """The value, and `low-high` where they differ."""
    ends = "" if span.low == span.high else f"{short(span.low, one)}-{short(span.high, one)}"
    return short(span.value, one), ends


def short(amount: int, one: int) -> str:
    """At least three significant digits, no exponent."""
    value = Decimal(amount) / one
    if not value:
        return "0"
    decimals = max(0, 2 - value.adjusted())
    return f"{value:,.{decimals}f}" if decimals <= 4 else "<0.0001"


def _unit(units: Sequence[Unit], largest: int) -> Unit:
    return next((unit for unit in units if largest >= unit[1]), units[-1])
