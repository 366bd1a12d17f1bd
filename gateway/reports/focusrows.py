"""What stands in a FOCUS row: an origin charge split over who used it, or a correction of one. All versions' columns at once.

Pure. Costs are integers of pico-dollars until they are text; quantities and ratios are split like the cost, by largest remainder:
so the parts of a charge add up to it and their ratios to exactly 1. All costs are the list price: we know of no discount but a
bill's, whose price corrections are in BilledCost and EffectiveCost only.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction

import msgspec

from gateway.accounting.split import apportion
from gateway.contract.corrections import ACCOUNT
from gateway.contract.prices import BYTES_PER_GB, NS_PER_HOUR, PriceBook
from gateway.reports import regions
from gateway.wording import moment

QUANTITY_DIGITS = 17
"""Of core-hours and GB-hours: as many as the columns hold, so that price times quantity is the cost for any price."""
RATIO_DIGITS = 18
PRICE_DIGITS = 16
SAME_USD = Fraction(1, 10**9)
"""Segments round each by itself: an hour of them is within so much of price times quantity, as validators want it."""

COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "PricingCurrencyEffectiveCost")
PRICES = ("ListUnitPrice", "ContractedUnitPrice", "PricingCurrencyListUnitPrice", "PricingCurrencyContractedUnitPrice")
METHOD = "x-steelyard-cpu-ns-lr-v1"
"""How origin charges are split: by CPU time and byte-nanoseconds, largest remainder."""
TAG = "steelyard/"
"""Before the keys of our own tags."""


class Account(msgspec.Struct, frozen=True):
    """Whose bill it is; digits alone are read as a number by tools that guess types, hence the prefix.

    `tags` are those that the provider's bill has on every container. A Fargate task cannot ask for its own: the metadata that it is
    given has no tags (Amazon ECS developer guide, task metadata endpoint version 4 for tasks on Fargate).
    """

    id: str = "steelyard:default"
    name: str = "default"
    tags: Mapping[str, str] = {}


class Part(msgspec.Struct, frozen=True):
    """Postings of one hour, container, sku and book, and whose. `quantity` is what they were weighed by.

    Energy and carbon (of use and of making the machine) are None where they were not asked for.
    """

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
    quantity: int = 0
    energy_nj: int | None = None
    carbon_ng: int | None = None


class Origin(msgspec.Struct, frozen=True):
    """What the provider charges for a container's sku in an hour; `quantity` in the unit's integers.

    `resource` is the bill's own name of the container, "" where it is not known.
    """

    unit: str
    quantity: int
    platform: str
    resource: str = ""


class Corrected(msgspec.Struct, frozen=True):
    """One entry of a correction. `platform` is "" where the ledger has no such resource; `named` is an origin's `resource`."""

    id: str
    hour_ns: int
    sku: str
    model: str
    version: int
    tenant: str
    outcome: str
    cost_picousd: int
    reason: str
    bill_sha256: str
    posted_ns: int
    service: str
    resource: str
    platform: str
    named: str = ""


class _Unit(msgspec.Struct, frozen=True):
    """How the ledger's integers become FOCUS's units: `whole` of them in an hour of one vCPU or GB."""

    whole: int
    pricing: str
    usage: str
    meter: str


_UNITS = {
    "milli-vcpu-ns": _Unit(1000 * NS_PER_HOUR, "Core-Hours", "Core-Seconds", "vCPU time"),
    "byte-ns": _Unit(BYTES_PER_GB * NS_PER_HOUR, "GB-Hours", "GB-Seconds", "memory"),
    "requests": _Unit(1, "Requests", "Requests", "requests"),
}
_METERS = {"vcpu": "vCPU time", "memory": "memory"}
"""By the end of the ledger's skus; the meter of another is its own name."""


def of_origin(parts: Sequence[Part], origin: Origin, account: Account, book: PriceBook) -> Iterator[dict[str, object]]:
    """A row for each part of one charge."""
    unit = _UNITS[origin.unit]
    weights = _weights([part.cost_picousd for part in parts])
    whole = round(Fraction(origin.quantity * 10**QUANTITY_DIGITS, unit.whole))
    shares, ratios = apportion(whole, weights), apportion(10**RATIO_DIGITS, weights)
    price = _unit_price(parts[0], sum(part.cost_picousd for part in parts), whole, book)
    common = _common(parts[0], origin.platform, service(origin.platform), account, book, origin.resource)
    for part, share, ratio in zip(parts, shares, ratios, strict=True):
        used = Fraction(part.quantity * 3600, unit.whole)
        yield {
            **common,
            **dict.fromkeys(COSTS, _decimal(part.cost_picousd, 12)),
            **dict.fromkeys(PRICES, price),
            **dict.fromkeys(("PricingQuantity", "ConsumedQuantity"), _decimal(share, QUANTITY_DIGITS)),
            **dict.fromkeys(("PricingUnit", "ConsumedUnit"), unit.pricing),
            "SkuMeter": unit.meter,
            **_whose(part),
            "AllocatedMethodDetails": _details(ratio, unit.usage, used),
        }


def of_correction(entries: Sequence[Corrected], account: Account, book: PriceBook) -> Iterator[dict[str, object]]:
    """A row for each entry of one correction in one hour. It stands in the billing period in which it was posted."""
    ratios = apportion(10**RATIO_DIGITS, _weights([abs(entry.cost_picousd) for entry in entries]))
    for entry, ratio in zip(entries, ratios, strict=True):
        part = Part(
            *(entry.hour_ns, entry.resource, entry.sku, "", ACCOUNT, entry.model, entry.version, entry.tenant),
            *(entry.outcome, entry.cost_picousd, 0),
        )
        known = service(entry.platform) if entry.platform else _billed_service(entry.service)
        at_list = 0 if entry.reason == "price" else entry.cost_picousd
        yield {
            **_common(part, entry.platform, known, account, book, entry.named),
            **_whose(part),
            **_billing_period(max(entry.hour_ns, entry.posted_ns), f"-{entry.bill_sha256[:12]}"),
            **dict.fromkeys(COSTS, _decimal(entry.cost_picousd, 12)),
            **dict.fromkeys(("ListCost", "ContractedCost"), _decimal(at_list, 12)),
            "ChargeClass": "Correction",
            "ChargeDescription": f"{_description(part)}, {entry.reason}",
            "PricingCategory": None,
            "SkuMeter": _METERS.get(entry.sku.rpartition("/")[2], entry.sku),
            "SkuPriceId": None,
            "SkuPriceDetails": None,
            "AllocatedMethodDetails": _details(ratio),
            "x_OriginChargeId": f"correction/{entry.id}/{entry.sku}/{moment(entry.hour_ns)}",
            "x_PriceBookSha256": None,
            "x_CorrectionReason": entry.reason,
            "x_BillSha256": entry.bill_sha256,
        }


def powered(parts: Sequence[Part], energy_nj: int, carbon_ng: int) -> Iterator[Part]:
    """The parts of one activity and user in an hour, with what it took in that hour: split as it cost them."""
    weights = _weights([part.cost_picousd for part in parts])
    for part, energy, carbon in zip(parts, apportion(energy_nj, weights), apportion(carbon_ng, weights), strict=True):
        yield msgspec.structs.replace(part, energy_nj=energy, carbon_ng=carbon)


def _weights(costs: Sequence[int]) -> list[int]:
    """What cost nothing is split evenly."""
    return list(costs) if any(costs) else [1] * len(costs)


def _unit_price(part: Part, cost_picousd: int, whole: int, book: PriceBook) -> str:
    """The price book's where it is what was charged by, else what was charged per unit (another book's, a machine's part)."""
    if not whole:
        return _decimal(0, PRICE_DIGITS)
    quantity, cost = Fraction(whole, 10**QUANTITY_DIGITS), Fraction(cost_picousd, 10**12)
    price = book.price(part.sku, moment(part.hour_ns)[:10])
    is_the_books = part.book_sha256 == book.sha256 and price is not None and price.unit in {"vcpu-hour", "gb-hour"}
    exact = Fraction(price.usd) if is_the_books and price is not None else cost / quantity
    if abs(exact * quantity - cost) > SAME_USD:
        exact = cost / quantity
    return _decimal(round(exact * 10**PRICE_DIGITS), PRICE_DIGITS)


def _details(ratio: int, unit: str = "", used: Fraction | None = None) -> str:
    """Numbers as exact decimals, which no float in between may round."""
    element = f'"AllocatedRatio":{_decimal(ratio, RATIO_DIGITS)}'
    if used is not None:
        element += f',"UsageUnit":"{unit}","UsageQuantity":{_decimal(round(used * 10**12), 12)}'
    return f'{{"Elements":[{{{element}}}]}}'


def _whose(part: Part) -> dict[str, object]:
    """Who used it, in the words of 1.2 and of 1.4."""
    version = f"{part.model}@{part.version}"
    tags = {"activity": part.activity, "tenant": part.tenant, "outcome": part.outcome}
    return {
        "ChargeDescription": _description(part),
        "AllocatedMethodId": METHOD,
        "AllocatedResourceId": f"model:{version}" if part.model else f"platform:{part.activity}",
        "AllocatedResourceName": version if part.model else part.activity,
        "AllocatedTags": _json({f"{TAG}{name}": value for name, value in tags.items() if value}),
        "x_AllocatedMethodId": METHOD,
        "x_Activity": part.activity,
        "x_CarbonNanoGram": part.carbon_ng,
        "x_CostPicoUsd": part.cost_picousd,
        "x_EnergyNanoJoule": part.energy_nj,
        "x_ModelName": part.model or None,
        "x_ModelVersion": part.version or None,
        "x_Outcome": part.outcome or None,
        "x_Requests": part.requests,
        "x_TenantName": part.tenant or None,
    }


def _description(part: Part) -> str:
    return part.activity + (f" for model {part.model} version {part.version}" if part.model else "")


def _common(
    part: Part, platform: str, known: "Service", account: Account, book: PriceBook, resource: str
) -> dict[str, object]:
    """What all parts of a charge have from it."""
    provider, name, category, subcategory = known
    region = regions.of_arn(resource) or book.region
    return {
        "BillingAccountId": account.id,
        "BillingAccountName": account.name,
        "BillingAccountType": "Account",
        "BillingCurrency": "USD",
        **_billing_period(part.hour_ns),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": moment(part.hour_ns),
        "ChargePeriodEnd": moment(part.hour_ns + NS_PER_HOUR),
        "HostProviderName": provider,
        "InvoiceIssuerName": provider,
        "PricingCategory": "Dynamic" if "spot" in platform else "Standard",
        "PricingCurrency": "USD",
        "ProviderName": provider,
        "PublisherName": provider,
        "RegionId": region,
        "RegionName": regions.name(region),
        "ResourceId": resource or part.container,
        "ResourceName": part.container,
        "ResourceType": "Container Task",
        "ServiceCategory": category,
        "ServiceName": name,
        "ServiceProviderName": provider,
        "ServiceSubcategory": subcategory,
        "SkuId": part.sku,
        "SkuPriceId": f"{part.sku}/on-demand",
        "SkuPriceDetails": "{}",
        "SubAccountId": account.id,
        "SubAccountName": account.name,
        "SubAccountType": "Account",
        "Tags": _json(account.tags),
        "x_OriginChargeId": f"{part.container}/{part.sku}/{moment(part.hour_ns)}/{part.book_sha256[:12]}",
        "x_PriceBookSha256": part.book_sha256,
    }


def _billing_period(at_ns: int, invoice: str = "") -> dict[str, object]:
    """The calendar month (UTC); a correction is on another invoice than what it corrects."""
    month = datetime.fromtimestamp(at_ns // 10**9, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    return {
        "BillingPeriodStart": f"{month:%Y-%m-%dT%H:%M:%SZ}",
        "BillingPeriodEnd": f"{following:%Y-%m-%dT%H:%M:%SZ}",
        "InvoiceId": f"{month:%Y-%m}{invoice}",
    }


Service = tuple[str, str, str, str]
"""Provider, service, category and subcategory."""

_SERVICES: Mapping[str, Service] = {
    "fargate": ("AWS", "AWS Fargate", "Compute", "Containers"),
    "lambda": ("AWS", "AWS Lambda", "Compute", "Serverless Compute"),
    "ec2": ("AWS", "Amazon Elastic Compute Cloud", "Compute", "Virtual Machines"),
    "cloud-run": ("Google Cloud", "Cloud Run", "Compute", "Containers"),
}


def service(platform: str) -> Service:
    """Split rows keep the words of the charge they are a part of."""
    for beginning, known in _SERVICES.items():
        if platform.startswith(beginning):
            return known
    return ("Self-hosted", platform, "Compute", "Containers")


def _billed_service(name: str) -> Service:
    """Of a resource that only the bill knows, by the service's name there."""
    for known in _SERVICES.values():
        if known[1] == name:
            return known
    provider = "AWS" if name.startswith(("AWS", "Amazon")) else name or "unknown"
    return (provider, name or "unknown", "Compute", "Other (Compute)")


def _decimal(units: int, digits: int) -> str:
    """Exact, and always with a point: a column of whole numbers is taken for integers by tools that guess types."""
    whole, rest = divmod(abs(units), 10**digits)
    return f"{'-' * (units < 0)}{whole}.{rest:0{digits}d}"


def _json(value: Mapping[str, str]) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
