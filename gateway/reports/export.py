"""A cost report for programs: JSON with everything, CSV and Parquet with its rows. Money stays exact: integer pico-dollars.

The last row of a grouped CSV or Parquet file may be what filters left out, so that the column `cost_picousd` is always the bill.
Where training is told in portions, each has a row after that, in columns of its own.
"""

import csv
import io

import msgspec

from gateway.contract.energy import NOTHING, ZERO, Footprint, Span
from gateway.reports import parquet
from gateway.reports.amortizing import Amortized
from gateway.reports.breakdown import Breakdown, Row
from gateway.reports.costs import CostReport, ModelCost
from gateway.reports.query import DIMENSIONS

Flat = dict[str, str | int | None]
_NESTED = ("footprint", "sci_per_1000_rows_ng")
_PORTIONS = ("earlier", "expensed", "remaining")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins so (OWASP, "CSV Injection"); a leading apostrophe makes it text."""


def as_json(report: msgspec.Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def as_csv(report: CostReport) -> str:
    """A row per model version, then `other models` and `no model yet` if they cost anything: `full_picousd` adds up to the bill."""
    text = io.StringIO()
    columns = ModelCost.__struct_fields__
    # Python quotes a carriage return only when the line end has one: hence all texts are quoted.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    for row in report.models:
        writer.writerow([cell(getattr(row, column)) for column in columns])
    for name, cost in (("other models", report.other_models_picousd), ("no model yet", report.unallocated_picousd)):
        if cost:
            writer.writerow([{"model": name, "full_picousd": cost}.get(column, "") for column in columns])
    return text.getvalue()


def rows_as_csv(report: Breakdown) -> str:
    """The grouping's columns and all numbers, quoted like `as_csv`. An empty period is a header alone."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    columns = _columns(report)
    writer.writerow(columns)
    writer.writerows([cell(row.get(column)) for column in columns] for row in _rows(report))
    return text.getvalue()


def rows_as_parquet(report: Breakdown) -> bytes:
    """The same rows; numbers are DECIMAL(38, 0)."""
    texts = {*DIMENSIONS, "energy_tier", *_TRAINING_TEXTS} - {"version"}
    kinds = {column: "VARCHAR" if column in texts else "DECIMAL(38,0)" for column in _columns(report)}
    return parquet.encoded(kinds, _rows(report))


def encoded(report: Breakdown, form: str) -> bytes:
    """As `json`, `csv` or `parquet`."""
    if form == "json":
        return f"{as_json(report)}\n".encode()
    return rows_as_csv(report).encode() if form == "csv" else rows_as_parquet(report)


def _columns(report: Breakdown) -> list[str]:
    money = [name for name in Row.__struct_fields__ if name not in {*DIMENSIONS, *_NESTED}]
    training = _portion(Amortized("", 0, None), "earlier") if report.query.amortize else {}
    return [*report.query.by, *money, *_energy(NOTHING, ZERO), *training]


def _rows(report: Breakdown) -> list[Flat]:
    rows = [
        msgspec.structs.asdict(row) | (_energy(row.footprint, row.sci_per_1000_rows_ng) if row.footprint else {})
        for row in report.rows
    ]
    energy = report.energy
    if report.others_picousd or (energy and not energy.others.is_nothing):
        first = report.query.by[0]
        others: Flat = {first: None if first == "version" else "(others)", "cost_picousd": report.others_picousd}
        rows.append(others | (_energy(energy.others, None) if energy else {}))
    asked = energy is not None
    return rows + [_portion(row, portion, asked=asked) for row in report.training for portion in _PORTIONS]


def _portion(row: Amortized, portion: str, *, asked: bool = False) -> Flat:
    """A row of its own for each portion of a version's training: they add up to all of it, and are in no other column's sum."""
    took = getattr(row.energy, portion) if row.energy else NOTHING
    sci_ng = row.energy.training_sci_per_1000_rows_ng if row.energy and portion == "expensed" else None
    flat = _energy(took, sci_ng)
    if row.energy is None:
        flat = dict.fromkeys(flat) | {"energy_tier": "unknown" if asked else None}
    named: Flat = {"model": row.model, "version": row.version, "portion": portion}
    money: Flat = {"cost_picousd": getattr(row, f"{portion}_picousd")}
    return {f"training_{name}": value for name, value in (named | money | flat).items()}


_TRAINING_TEXTS = {f"training_{name}" for name in ("model", "portion", "energy_tier")}


def _energy(footprint: Footprint, sci_ng: Span | None) -> Flat:
    """Flat columns: nanojoules, nanograms of CO2e (`embodied` is part of `carbon`), each between its ends."""
    spans = {
        "energy{}_nj": footprint.energy_nj,
        "carbon{}_ng": footprint.carbon_ng,
        "embodied{}_ng": footprint.embodied_ng,
        "sci{}_per_1000_rows_ng": sci_ng,
    }
    columns: Flat = {
        name.format(infix): None if span is None else getattr(span, end)
        for name, span in spans.items()
        for infix, end in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
    return columns | {"energy_tier": None if footprint.is_nothing else footprint.tier}


def cell(value: str | int | None) -> str | int:
    """For a CSV: nothing is an empty text, and a text that would run as a formula begins with an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value
