"""The bill as FOCUS 1.2 rows (FinOps Open Cost and Usage Specification, ratified 2025-05-29), for tools that read bills.

One row per clock hour, container, sku, account, model, version, tenant and outcome: each is a part of a provider's charge.
The sum of EffectiveCost is the bill, exactly. All four costs are the list price: we know of no discount. https://focus.finops.org
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import duckdb
import msgspec

from gateway.accounting.split import apportion
from gateway.contract.prices import BYTES_PER_GB, NS_PER_HOUR, PriceBook
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import parquet, tables
from gateway.reports.sync import LocalLedger, sync
from gateway.wording import moment

COST = "DECIMAL(38,17)"  # of the community's 1.4 model; pico-dollars need 12
TIME = "TIMESTAMPTZ"
GRAIN = 10**12
"""Quantities are split in steps of 1e-12 core-hours or GB-hours: half a nanosecond of a hundredth of a core."""

COLUMNS: dict[str, str] = {
    "AvailabilityZone": "VARCHAR",
    "BilledCost": COST,
    "BillingAccountId": "VARCHAR",
    "BillingAccountName": "VARCHAR",
    "BillingAccountType": "VARCHAR",
    "BillingCurrency": "VARCHAR",
    "BillingPeriodEnd": TIME,
    "BillingPeriodStart": TIME,
    "CapacityReservationId": "VARCHAR",
    "CapacityReservationStatus": "VARCHAR",
    "ChargeCategory": "VARCHAR",
    "ChargeClass": "VARCHAR",
    "ChargeDescription": "VARCHAR",
    "ChargeFrequency": "VARCHAR",
    "ChargePeriodEnd": TIME,
    "ChargePeriodStart": TIME,
    "CommitmentDiscountCategory": "VARCHAR",
    "CommitmentDiscountId": "VARCHAR",
    "CommitmentDiscountName": "VARCHAR",
    "CommitmentDiscountQuantity": COST,
    "CommitmentDiscountStatus": "VARCHAR",
    "CommitmentDiscountType": "VARCHAR",
    "CommitmentDiscountUnit": "VARCHAR",
    "ConsumedQuantity": COST,
    "ConsumedUnit": "VARCHAR",
    "ContractedCost": COST,
    "ContractedUnitPrice": COST,
    "EffectiveCost": COST,
    "InvoiceId": "VARCHAR",
    "InvoiceIssuerName": "VARCHAR",
    "ListCost": COST,
    "ListUnitPrice": COST,
    "PricingCategory": "VARCHAR",
    "PricingCurrency": "VARCHAR",
    "PricingCurrencyContractedUnitPrice": COST,
    "PricingCurrencyEffectiveCost": COST,
    "PricingCurrencyListUnitPrice": COST,
    "PricingQuantity": COST,
    "PricingUnit": "VARCHAR",
    "ProviderName": "VARCHAR",
    "PublisherName": "VARCHAR",
    "RegionId": "VARCHAR",
    "RegionName": "VARCHAR",
    "ResourceId": "VARCHAR",
    "ResourceName": "VARCHAR",
    "ResourceType": "VARCHAR",
    "ServiceCategory": "VARCHAR",
    "ServiceName": "VARCHAR",
    "ServiceSubcategory": "VARCHAR",
    "SkuId": "VARCHAR",
    "SkuMeter": "VARCHAR",
    "SkuPriceDetails": "VARCHAR",
    "SkuPriceId": "VARCHAR",
    "SubAccountId": "VARCHAR",
    "SubAccountName": "VARCHAR",
    "SubAccountType": "VARCHAR",
    "Tags": "VARCHAR",
    "x_AllocatedMethodId": "VARCHAR",
    "x_Activity": "VARCHAR",
    "x_CostPicoUsd": "DECIMAL(38,0)",
    "x_ModelName": "VARCHAR",
    "x_ModelVersion": "BIGINT",
    "x_OriginChargeId": "VARCHAR",
    "x_Outcome": "VARCHAR",
    "x_PriceBookSha256": "VARCHAR",
    "x_Requests": "DECIMAL(38,0)",
    "x_TenantName": "VARCHAR",
}
COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "PricingCurrencyEffectiveCost")
"""All the same: list price, in dollars."""
PRICES = ("ListUnitPrice", "ContractedUnitPrice", "PricingCurrencyListUnitPrice", "PricingCurrencyContractedUnitPrice")
METHOD = "x-steelyard-cpu-ns-lr-v1"
"""How origin charges are split: by CPU time and byte-nanoseconds, largest remainder."""


class Account(msgspec.Struct, frozen=True):
    """Whose bill it is; digits alone are read as a number by tools that guess types, hence the prefix."""

    id: str = "steelyard:default"
    name: str = "default"


class Part(msgspec.Struct, frozen=True):
    """Postings of one hour, container, sku and book, and whose."""

    hour_ns: int
    container: str
    sku: str
    book_sha256: str
    activity: str
    model: str
    version: int
    tenant: str
    outcome: str
    cost_picousd: int
    requests: int


class Origin(msgspec.Struct, frozen=True):
    """What the provider charges for a container's sku in an hour; `quantity` in the unit's integers."""

    unit: str
    quantity: int
    platform: str


Key = tuple[int, str, str, str]
"""Hour, container, sku, price book."""

_PARTS = """
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, container, sku, s.price_book_sha256, account, model, version, tenant,
       outcome, sum(p.cost_picousd), sum(p.requests)
FROM postings AS p JOIN segments AS s USING (filename)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
GROUP BY ALL ORDER BY ALL
"""

_ORIGINS = """
SELECT s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, container, sku, s.price_book_sha256,
       min(unit), sum(c.quantity + c.beyond),
       coalesce(min(platform), min(split_part(sku, '/', 1)))
FROM charges AS c JOIN segments AS s USING (filename) LEFT JOIN opens AS o USING (container, boot_ns)
WHERE s.from_ns >= $since_ns AND s.from_ns < $until_ns
GROUP BY ALL ORDER BY ALL
"""


async def read(
    store: ObjectStore, folder: Path, account: Account, book: PriceBook, since_ns: int | None, until_ns: int | None
) -> bytes:
    """A Parquet file with all rows of the period. Raises as `breakdown.read` does."""
    local = await sync(store, folder)
    return await asyncio.to_thread(
        _encoded, local, account, book, (since_ns or 0, 2**63 - 1 if until_ns is None else until_ns)
    )


def rows(
    connection: duckdb.DuckDBPyConnection, account: Account, book: PriceBook, since_ns: int, until_ns: int
) -> Iterator[dict[str, object]]:
    """By column; money and quantities as decimal text. Every charge's quantity is split over its parts like its cost."""
    period = {"since_ns": since_ns, "until_ns": until_ns}
    origins = {
        (row[0], row[1], row[2], row[3]): Origin(*row[4:]) for row in connection.execute(_ORIGINS, period).fetchall()
    }
    parts: dict[Key, list[Part]] = defaultdict(list)
    for row in connection.execute(_PARTS, period).fetchall():
        part = Part(*row)
        parts[part.hour_ns, part.container, part.sku, part.book_sha256].append(part)
    for key, found in parts.items():
        yield from _of_origin(found, origins[key], account, book)


def _encoded(local: LocalLedger, account: Account, book: PriceBook, period: tuple[int, int]) -> bytes:
    with tables.opened(local) as connection:
        return parquet.encoded(COLUMNS, rows(connection, account, book, *period))


def _of_origin(parts: list[Part], origin: Origin, account: Account, book: PriceBook) -> Iterator[dict[str, object]]:
    costs = [part.cost_picousd for part in parts]
    per_unit, unit, meter = _UNITS[origin.unit]
    whole = round(Fraction(origin.quantity * GRAIN, per_unit * NS_PER_HOUR))
    shares = apportion(whole, costs if any(costs) else [1] * len(parts))
    price = _unit_price(parts[0], sum(costs), whole, book)
    common = _common(parts[0], origin, account, book)
    for part, share in zip(parts, shares, strict=True):
        yield common | _numbers(part, share, price, unit, meter) | _names(part)


_UNITS = {"milli-vcpu-ns": (1000, "Core-Hours", "vCPU time"), "byte-ns": (BYTES_PER_GB, "GB-Hours", "memory")}


def _unit_price(part: Part, cost_picousd: int, whole: int, book: PriceBook) -> str:
    """The price book's when it is the one that was charged by and sells by the hour, else what was charged per unit."""
    price = book.price(part.sku, moment(part.hour_ns)[:10])
    if part.book_sha256 == book.sha256 and price is not None and price.unit in {"vcpu-hour", "gb-hour"}:
        return price.usd
    return f"{Decimal(cost_picousd) / whole:.12f}" if whole else "0"


def _numbers(part: Part, share: int, price: str, unit: str, meter: str) -> dict[str, object]:
    cost, quantity = f"{Decimal(part.cost_picousd).scaleb(-12):f}", f"{Decimal(share).scaleb(-12):f}"
    return {
        **dict.fromkeys(COSTS, cost),
        **dict.fromkeys(PRICES, price),
        **dict.fromkeys(("PricingQuantity", "ConsumedQuantity"), quantity),
        **dict.fromkeys(("PricingUnit", "ConsumedUnit"), unit),
        "SkuMeter": meter,
        "x_CostPicoUsd": part.cost_picousd,
        "x_Requests": part.requests,
    }


def _names(part: Part) -> dict[str, object]:
    whose = f" for model {part.model} version {part.version}" if part.model else ""
    return {
        "ChargeDescription": f"{part.activity}{whose}",
        "x_Activity": part.activity,
        "x_ModelName": part.model or None,
        "x_ModelVersion": part.version or None,
        "x_TenantName": part.tenant or None,
        "x_Outcome": part.outcome or None,
    }


def _common(part: Part, origin: Origin, account: Account, book: PriceBook) -> dict[str, object]:
    """What all parts of an origin charge have from it."""
    start = datetime.fromtimestamp(part.hour_ns // 10**9, UTC)
    month = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    provider, name, category, subcategory = service(origin.platform)
    return {
        "BillingAccountId": account.id,
        "BillingAccountName": account.name,
        "BillingAccountType": "Account",
        "BillingCurrency": "USD",
        "BillingPeriodStart": month.isoformat(),
        "BillingPeriodEnd": following.isoformat(),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": moment(part.hour_ns),
        "ChargePeriodEnd": moment(part.hour_ns + NS_PER_HOUR),
        "InvoiceId": f"{month:%Y-%m}",
        "InvoiceIssuerName": provider,
        "PricingCategory": "Dynamic" if "spot" in origin.platform else "Standard",
        "PricingCurrency": "USD",
        "ProviderName": provider,
        "PublisherName": provider,
        "RegionId": book.region,
        "RegionName": book.region,
        "ResourceId": part.container,
        "ResourceName": part.container,
        "ResourceType": "Container Task",
        "ServiceCategory": category,
        "ServiceName": name,
        "ServiceSubcategory": subcategory,
        "SkuId": part.sku,
        "SkuPriceId": f"{part.sku}/on-demand",
        "SkuPriceDetails": "{}",
        "SubAccountId": account.id,
        "SubAccountName": account.name,
        "SubAccountType": "Account",
        "Tags": "{}",
        "x_AllocatedMethodId": METHOD,
        "x_OriginChargeId": f"{part.container}/{part.sku}/{moment(part.hour_ns)}",
        "x_PriceBookSha256": part.book_sha256,
    }


_SERVICES: Mapping[str, tuple[str, str, str, str]] = {
    "fargate": ("AWS", "AWS Fargate", "Compute", "Containers"),
    "lambda": ("AWS", "AWS Lambda", "Compute", "Serverless Compute"),
    "ec2": ("AWS", "Amazon Elastic Compute Cloud", "Compute", "Virtual Machines"),
    "cloud-run": ("Google Cloud", "Cloud Run", "Compute", "Containers"),
}


def service(platform: str) -> tuple[str, str, str, str]:
    """Provider, service, category and subcategory: split rows keep those of the charge they are a part of."""
    for beginning, known in _SERVICES.items():
        if platform.startswith(beginning):
            return known
    return ("Self-hosted", platform, "Compute", "Containers")
