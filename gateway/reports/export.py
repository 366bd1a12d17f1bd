"""A cost report for programs: JSON with everything, CSV with one row per model version. Money stays exact: integer pico-dollars."""

import csv
import io

import msgspec

from gateway.reports.costs import CostReport, ModelCost

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins so (OWASP, "CSV Injection"); a leading apostrophe makes it text."""


def as_json(report: CostReport) -> str:
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def as_csv(report: CostReport) -> str:
    """A row per model version, then `other models` and `no model yet` if they cost anything: `full_picousd` adds up to the bill."""
    text = io.StringIO()
    columns = ModelCost.__struct_fields__
    # Python quotes a carriage return only when the line end has one: hence all texts are quoted.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    for row in report.models:
        writer.writerow([_cell(getattr(row, column)) for column in columns])
    for name, cost in (("other models", report.other_models_picousd), ("no model yet", report.unallocated_picousd)):
        if cost:
            writer.writerow([{"model": name, "full_picousd": cost}.get(column, "") for column in columns])
    return text.getvalue()


def _cell(value: str | int | None) -> str | int:
    if value is None:
        return ""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value
