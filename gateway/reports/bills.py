"""A provider's bill as rows that can be compared: FOCUS or AWS CUR, CSV or Parquet. Values of a CSV are text until asked for.

Money is rounded once per row, to pico-dollars. What cannot be a bill of ours is refused by name: other columns, another currency,
no rows, a broken file. What may be right and may be not is flagged: rows that are there twice, amounts below zero.
"""

import glob
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Literal

import duckdb
import msgspec

from gateway.contract import codec
from gateway.errors import InvalidInput
from gateway.reports.figures import dollars

CURRENCY = "USD"
LAST_NS = 200 * 365 * 86_400 * 10**9  # as for `--since`


class Shape(msgspec.Struct, frozen=True):
    """The names of a kind of bill's columns; all after `cost` may be missing, then "" or None is read."""

    name: str
    at: str
    service: str
    cost: str
    until: str
    currency: str
    resource: str
    sku: str
    meter: str
    quantity: str
    unit: str
    category: str


SHAPES = (
    Shape(
        *("FOCUS", "ChargePeriodStart", "ServiceName", "EffectiveCost", "ChargePeriodEnd", "BillingCurrency"),
        *("ResourceId", "SkuId", "SkuMeter", "PricingQuantity", "PricingUnit", "ChargeCategory"),
    ),
    Shape(
        *("CUR 2.0", "line_item_usage_start_date", "line_item_product_code", "line_item_unblended_cost"),
        *("line_item_usage_end_date", "line_item_currency_code", "line_item_resource_id", "line_item_usage_type"),
        *("line_item_line_item_description", "line_item_usage_amount", "pricing_unit", "line_item_line_item_type"),
    ),
    Shape(
        *("CUR", "lineItem/UsageStartDate", "lineItem/ProductCode", "lineItem/UnblendedCost"),
        *("lineItem/UsageEndDate", "lineItem/CurrencyCode", "lineItem/ResourceId", "lineItem/UsageType"),
        *("lineItem/LineItemDescription", "lineItem/UsageAmount", "pricing/unit", "lineItem/LineItemType"),
    ),
)

_PRODUCTS: Mapping[str, str] = {
    "AmazonECS": "AWS Fargate",
    "AWSLambda": "AWS Lambda",
    "AmazonEC2": "Amazon Elastic Compute Cloud",
}
"""Product codes of the CUR under FOCUS's names."""


class Flag(msgspec.Struct, frozen=True):
    """Something about a bill, or about how it compares, that a person should look at."""

    kind: Literal[
        "repeated_rows",
        "credits",
        "no_resource",
        "not_in_ledger",
        "not_on_bill",
        "not_over",
        "superseded",
    ]
    message: str


class Row(msgspec.Struct, frozen=True):
    """Rows of the bill that differ in money alone, added up. `to_ns` is 0 where the bill has no end of the charge."""

    from_ns: int
    to_ns: int
    service: str
    resource: str
    sku: str
    meter: str
    unit: str
    category: str
    cost_picousd: int
    quantity: Fraction | None


class Bill(msgspec.Struct, frozen=True):
    """`sha256` is the file's. `has_resources`: it says what each row is for, and until when."""

    name: str
    sha256: str
    shape: str
    rows: tuple[Row, ...]
    has_resources: bool
    repeated: int
    flags: tuple[Flag, ...]


def read(path: Path) -> Bill:
    """Blocking. Raises `InvalidInput` naming the file and what is wrong with it."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            relation = _opened(connection, path)
            shape = _shape(relation.columns, path)
            _refuse_currency(relation, shape, path)
            rows = tuple(_row(*row) for row in _summed(relation, shape).fetchall())
            repeated = _count(relation) - _count(relation.distinct())
            has_resources = {shape.resource, shape.until} <= set(relation.columns)
        except (duckdb.Error, UnicodeDecodeError) as error:
            raise InvalidInput(f"bill {path} cannot be read: {str(error).splitlines()[0]}") from error
    if not rows:
        raise InvalidInput(f"bill {path} has no rows")
    _refuse_times(rows, path)
    digest = codec.sha256(path.read_bytes())
    return Bill(path.name, digest, shape.name, rows, has_resources, repeated, _flags(rows, repeated))


def _opened(connection: duckdb.DuckDBPyConnection, path: Path) -> duckdb.DuckDBPyRelation:
    """The dialect is told, not guessed: a guess from a few rows may be wrong about a name with a comma."""
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise InvalidInput(f"bill {path} is empty")
    name = glob.escape(str(path))
    if path.suffix == ".parquet" or magic == b"PAR1":
        return connection.read_parquet(name)
    return connection.read_csv(name, all_varchar=True, header=True, sep=",", quotechar='"', escapechar='"')


def _shape(columns: Sequence[str], path: Path) -> Shape:
    for shape in SHAPES:
        if {shape.at, shape.service, shape.cost} <= set(columns):
            return shape
    for shape in SHAPES:
        needed = (shape.at, shape.service, shape.cost)
        missing = [name for name in needed if name not in columns]
        if len(missing) < len(needed):
            raise InvalidInput(f"bill {path} looks like {shape.name} but has no column {' and no '.join(missing)}")
    raise InvalidInput(
        f"bill {path} has neither FOCUS columns (ChargePeriodStart, ServiceName, EffectiveCost) nor those of a CUR"
    )


def _refuse_currency(relation: duckdb.DuckDBPyRelation, shape: Shape, path: Path) -> None:
    if shape.currency not in relation.columns:
        return
    found = {name for (name,) in relation.project(f'"{shape.currency}"::VARCHAR').distinct().fetchall() if name}
    if foreign := sorted(found - {CURRENCY}):
        raise InvalidInput(
            f"bill {path} is in {', '.join(foreign)[:80]}; the ledger is in {CURRENCY}: export it in that"
        )


def _summed(relation: duckdb.DuckDBPyRelation, shape: Shape) -> duckdb.DuckDBPyRelation:
    """By everything that tells rows apart, in a fixed order."""
    columns = set(relation.columns)

    def text(name: str) -> str:
        return f"coalesce(\"{name}\"::VARCHAR, '')" if name in columns else "''"

    def moment(name: str) -> str:
        return f'epoch_us(CAST("{name}" AS TIMESTAMPTZ)) * 1000' if name in columns else "0"

    quantity = f'CAST("{shape.quantity}" AS DECIMAL(38, 17))' if shape.quantity in columns else "NULL::DECIMAL(38, 17)"
    names = ("service", "resource", "sku", "meter", "unit", "category")
    keys = ", ".join(f"{text(getattr(shape, name))} AS k_{name}" for name in names)
    cost = f'CAST(round(CAST("{shape.cost}" AS DECIMAL(38, 17)) * 1000000000000) AS HUGEINT)'
    # A credit stays a row of its own: it has a quantity too, which is not used twice.
    plain = relation.project(
        f"{moment(shape.at)} AS k_from, {moment(shape.until)} AS k_to, {keys}, {quantity} AS quantity, {cost} AS cost, "
        f"{cost} < 0 AS is_credit"
    )
    by = ", ".join(["k_from", "k_to", *(f"k_{name}" for name in names)])
    return plain.aggregate(f"{by}, sum(cost), sum(quantity), count(*) - count(cost)", f"{by}, is_credit").order(by)


def _row(
    from_ns: int | None,
    to_ns: int | None,
    service: str,
    resource: str,
    sku: str,
    meter: str,
    unit: str,
    category: str,
    cost: int | None,
    quantity: Decimal | None,
    without_cost: int,
) -> Row:
    """From the columns of `_summed`."""
    if from_ns is None or without_cost:
        raise duckdb.InvalidInputException(f"rows without a {'time' if from_ns is None else 'cost'}")
    return Row(
        from_ns,
        to_ns or 0,
        _PRODUCTS.get(service, service),
        resource,
        sku,
        meter,
        unit,
        category,
        cost or 0,
        None if quantity is None else Fraction(quantity),
    )


def _refuse_times(rows: Sequence[Row], path: Path) -> None:
    for row in rows:
        if not 0 <= row.from_ns < LAST_NS or (row.to_ns and not row.from_ns < row.to_ns < LAST_NS):
            raise InvalidInput(f"bill {path} has a charge that ends before it begins, or is not between 1970 and 2169")


def _count(relation: duckdb.DuckDBPyRelation) -> int:
    [(count,)] = relation.aggregate("count(*)").fetchall()
    return int(count)


def rows_that_repeat(count: int) -> str:
    """The beginning of a sentence."""
    return "1 row repeats" if count == 1 else f"{count:,} rows repeat"


def _flags(rows: Sequence[Row], repeated: int) -> tuple[Flag, ...]:
    flags = []
    if repeated:
        text = f"{rows_that_repeat(repeated)} another one in every column: counted, as the bill has it"
        flags.append(Flag("repeated_rows", text))
    if below := [row.cost_picousd for row in rows if row.cost_picousd < 0]:
        flags.append(Flag("credits", f"{len(below):,} amounts are below zero, {dollars(sum(below))} together"))
    return tuple(flags)
