"""Energy and carbon of training for people: a table beside the money's, its cells for the page, and sentences on what is in it.

What is not known says `unknown`: that is never nothing. `breakdownview` and `page` call it where energy was asked for.
"""

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.contract.energy import Footprint, Span
from gateway.reports import energyview, figures, render
from gateway.reports.amortizing import Amortized
from gateway.reports.breakdown import Breakdown
from gateway.reports.trainingpower import Begun

UNKNOWN = "unknown"


class Units(msgspec.Struct, frozen=True):
    """Of the columns, chosen by the largest figure of each."""

    energy: energyview.Unit
    carbon: energyview.Unit
    sci: energyview.Unit

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the numbers after the model; as `cells` gives them."""
        carbon = f"{self.carbon[0]} CO2e"
        scores = (f"{self.sci[0]}/1,000", "with serving", "low-high")
        return (self.energy[0], "low-high", carbon, "low-high", "this period", "remaining", *scores, "tier")

    def cells(self, row: Amortized) -> tuple[str, ...]:
        """All of training's energy and carbon; of carbon what the period bears, also per thousand of its predictions."""
        told = row.energy
        if told is None:
            return (UNKNOWN, *[""] * 8, UNKNOWN)
        whole, sci = told.whole, told.sci_per_1000_rows_ng
        parts = (energyview.short(_carbon(part).value, self.carbon[1]) for part in (told.expensed, told.remaining))
        return (
            *energyview.pair(whole.energy_nj, self.energy[1]),
            *energyview.pair(_carbon(whole), self.carbon[1]),
            *parts,
            _score(told.training_sci_per_1000_rows_ng, self.sci[1]),
            *(("-", "-") if sci is None else energyview.pair(sci, self.sci[1])),
            whole.tier,
        )


def units(rows: Sequence[Amortized]) -> Units:
    """For these rows; nothing but unknown ones is told in the smallest units."""
    told = [row.energy for row in rows if row.energy]
    scores = [one.sci_per_1000_rows_ng.value for one in told if one.sci_per_1000_rows_ng]
    return Units(
        energyview.watt_hours(max((one.whole.energy_nj.value for one in told), default=0)),
        energyview.grams(max((one.whole.carbon_ng.value for one in told), default=0)),
        energyview.grams(max(scores, default=0)),
    )


def show(report: Breakdown, console: Console) -> None:
    """Print it; nothing where no energy was asked for."""
    if report.energy is None:
        return
    if report.training:
        chosen = units(report.training)
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        table.add_column("model", overflow="fold", min_width=9)
        for head in chosen.heads:
            table.add_column(head, justify="right", no_wrap=True)
        for row in report.training:
            table.add_row(Text(label(row)), *chosen.cells(row))
        render.show_table(console, "Energy and carbon of training, beside the rows", table)
    lines = notes(report)
    for line in lines:
        render.say(console, line, "yellow" if "assumed:" in line or UNKNOWN in line else "")
    if lines:
        console.print()


def label(row: Amortized) -> str:
    """`digits@3`, printable."""
    return figures.printable(f"{row.model}@{row.version}")


def notes(report: Breakdown) -> tuple[str, ...]:
    """Why something is unknown, what NVML counted, and what began in the period."""
    if report.energy is None:
        return ()
    unknown = [
        f"energy of training {label(row)} is {UNKNOWN}, which is not zero: {figures.printable(row.energy_reason)}"
        for row in report.training
        if row.energy is None
    ]
    counted = [
        f"of training {label(row)} NVML counted {figures.watt_hours(row.energy.counted_nj)} at the GPUs; the rest is modelled"
        for row in report.training
        if row.energy and row.energy.counted_nj
    ]
    begun = report.energy.training
    assumed = [note for row in report.training if row.energy for note in row.energy.notes]
    assumed += () if begun is None else begun.notes
    return (*unknown, *counted, *([] if begun is None else [_begun(begun)]), *dict.fromkeys(assumed))


def scope(report: Breakdown) -> str:
    """Whether figures per thousand predictions have training in them."""
    where = "in the table of training, alone and with serving's" if report.query.amortize else "told with --amortize"
    return f"per 1,000 predictions: serving alone, training is not in; that is {where}"


def _begun(begun: Begun) -> str:
    """`training begun in this period, in no row: 2 runs, 3 attempts = 1.2 Wh (1.0-1.4), 0.5 g CO2e (0.4-0.6), modelled`."""
    runs, attempts = (f"{count:,} {what}{'s' * (count > 1)}" for count, what in _counted(begun))
    said = f"training begun in this period, in no row: {runs}, {attempts}"
    if begun.unknown < begun.attempts:
        energy, carbon = begun.footprint.energy_nj, _carbon(begun.footprint)
        amounts = (
            _ends(energy, energyview.watt_hours(energy.value), ""),
            _ends(carbon, energyview.grams(carbon.value), " CO2e"),
        )
        said += f" = {', '.join(amounts)}, {begun.footprint.tier}"
    if begun.counted_nj:
        said += f"; NVML counted {figures.watt_hours(begun.counted_nj)} of it at the GPUs"
    if begun.unknown:
        said += f"; {UNKNOWN}, which is not zero, for {begun.unknown:,} of the attempts"
    return said


def _counted(begun: Begun) -> tuple[tuple[int, str], tuple[int, str]]:
    return (begun.runs, "run"), (begun.attempts, "attempt")


def _ends(span: Span, unit: energyview.Unit, what: str) -> str:
    value, ends = energyview.pair(span, unit[1])
    return f"{value} {unit[0]}{what}{f' ({ends})' if ends else ''}"


def _carbon(footprint: Footprint) -> Span:
    return footprint.carbon_ng


def _score(sci_ng: Span | None, one: int) -> str:
    return "-" if sci_ng is None else energyview.short(sci_ng.value, one)
