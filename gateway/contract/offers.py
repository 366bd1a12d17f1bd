"""What could serve a model and at which price: the file that `steelyard advise` compares by (`infra/prices/advice-*.toml`).

An offer names a platform or skus of a price book (`gateway.contract.prices`), so that each price stands in one place; one that no
book has states its own, dated and sourced like those.
"""

import math
import tomllib
from decimal import Decimal as Number
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from gateway.contract import codec, prices
from gateway.contract.prices import Date, Decimal, PriceBook, Unit
from gateway.contract.words import Count, Positive
from gateway.errors import SettingsError

DEFAULT_FILE = "advice-aws-us-east-1.toml"


class Listed(msgspec.Struct, frozen=True):
    """An offer as written: priced by `platform` (a task, a function), by `sku` (a machine, per hour), or by `usd` of its own, which
    then needs `as_of` and `source`. `spot` and `plan` (a year's commitment) name a platform or sku like it, left out where there is
    none.
    """

    name: str
    kind: Literal["task", "machine", "function", "gpu"]
    architecture: Literal["x86", "arm"]
    vcpus: Positive
    memory_gb: Decimal
    platform: str = ""
    sku: str = ""
    spot: str = ""
    plan: str = ""
    usd: Decimal | None = None
    request_usd: Decimal | None = None
    spot_usd: Decimal | None = None
    plan_usd: Decimal | None = None
    as_of: Date | Literal[""] = ""
    source: str = ""
    gpu: str = ""
    gpus: Count = 0

    def __post_init__(self) -> None:
        if sum((bool(self.platform), bool(self.sku), self.usd is not None)) != 1:
            raise ValueError(f"offer '{self.name}' needs one of 'platform', 'sku' and 'usd'")
        if self.usd is not None and (not Fraction(self.usd) or not self.as_of or not self.source):
            raise ValueError(f"offer '{self.name}' with a 'usd' of its own needs it above zero, 'as_of' and 'source'")
        if self.usd is None and any((self.as_of, self.source, self.request_usd, self.spot_usd, self.plan_usd)):
            raise ValueError(f"offer '{self.name}' has the price book's prices: leave 'usd', dates and sources to it")
        if ((self.kind in {"task", "function"}) and self.sku) or ((self.kind in {"machine", "gpu"}) and self.platform):
            raise ValueError(f"offer '{self.name}': tasks and functions have a 'platform', machines a 'sku'")
        if (self.kind == "gpu") != bool(self.gpu and self.gpus):
            raise ValueError(f"offer '{self.name}': 'gpu' and 'gpus' are for kind gpu, and needed there")


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One kind of machine, task or function. `usd` is per hour, of a `function` per GB-second; `request_usd` per call.

    `spot_usd` and `plan_usd` (a year's commitment) are None where no source states one; `spot_assumed`: it is an assumption.
    """

    name: str
    kind: Literal["task", "machine", "function", "gpu"]
    architecture: Literal["x86", "arm"]
    vcpus: Positive
    memory_gb: Decimal
    usd: Decimal
    as_of: Date
    source: str
    request_usd: Decimal = "0"
    spot_usd: Decimal | None = None
    spot_assumed: bool = False
    plan_usd: Decimal | None = None
    gpu: str = ""
    gpus: Count = 0


class Assumption(msgspec.Struct, frozen=True):
    """One GPU's throughput as a multiple of one vCPU's, when nobody measured it."""

    gpu: str
    low_vcpus: Decimal
    high_vcpus: Decimal
    source: str

    def __post_init__(self) -> None:
        if not 0 < Fraction(self.low_vcpus) <= Fraction(self.high_vcpus):
            raise ValueError(f"assumption of '{self.gpu}': 'low_vcpus' must be above 0 and not above 'high_vcpus'")

    @property
    def middle_vcpus(self) -> float:
        """The geometric mean: the range spans orders of magnitude."""
        return math.sqrt(Fraction(self.low_vcpus) * Fraction(self.high_vcpus))


class Written(msgspec.Struct, frozen=True):
    """The TOML file as written."""

    region: str
    offer: tuple[Listed, ...]
    assumption: tuple[Assumption, ...] = ()
    schema_version: int = 1

    def __post_init__(self) -> None:
        for names in ([offer.name for offer in self.offer], [assumption.gpu for assumption in self.assumption]):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"'{name}' appears twice")


class OfferFile(msgspec.Struct, frozen=True):
    """All offers with their prices."""

    region: str
    offer: tuple[Offer, ...]
    assumption: tuple[Assumption, ...] = ()

    def assumed(self, gpu: str) -> Assumption | None:
        return next((assumption for assumption in self.assumption if assumption.gpu == gpu), None)


def break_even_rps(cpu: Offer, cpu_rps: float, gpu: Offer, gpu_rps: float, *, replicas: int = 1) -> float | None:
    """The rate from which `replicas` of a GPU offer cost less than as many CPU replicas as answer it, each with its usable rate.

    That is where as many CPU replicas as these GPUs cost are full; list prices. None when it is no less than what the GPUs answer:
    then no rate is high enough, since both grow in proportion.
    """
    rate = float(replicas * Fraction(gpu.usd) / Fraction(cpu.usd)) * cpu_rps
    return rate if rate < replicas * gpu_rps else None


def load(path: Path | None = None, book: PriceBook | None = None) -> OfferFile:
    """The file at `path` with the prices of the book, or those of this release.

    Raises `SettingsError` naming the file and the key, or the sku that has no price.
    """
    name = DEFAULT_FILE if path is None else str(path)
    book = book or prices.load()
    try:
        data = _bundled() if path is None else path.read_bytes()
        raw = tomllib.loads(data.decode())
        prices.refuse_newer(raw, Written, what=f"offers {name}")
        written = codec.convert_strict(raw, Written)
        return OfferFile(written.region, tuple(_priced(each, book) for each in written.offer), written.assumption)
    except OSError as error:
        raise SettingsError(f"offers {name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, LookupError) as error:
        raise SettingsError(f"offers {name}: {error.args[0] if error.args else error}") from error


class _Found(msgspec.Struct, frozen=True):
    usd: Fraction
    prices: tuple[prices.Price, ...]
    request_usd: Fraction = Fraction(0)


def _priced(listed: Listed, book: PriceBook) -> Offer:
    kept = {
        name: getattr(listed, name) for name in ("name", "kind", "architecture", "vcpus", "memory_gb", "gpu", "gpus")
    }
    if listed.usd is not None:
        return Offer(
            **kept,
            usd=listed.usd,
            as_of=listed.as_of,
            source=listed.source,
            request_usd=listed.request_usd or "0",
            spot_usd=listed.spot_usd,
            plan_usd=listed.plan_usd,
        )
    found, spot, plan = (
        _find(listed, named, book) for named in (listed.platform or listed.sku, listed.spot, listed.plan)
    )
    assert found is not None
    return Offer(
        **kept,
        usd=_decimal(found.usd),
        as_of=min(price.as_of for price in found.prices),
        source="; ".join(dict.fromkeys(price.source for price in found.prices)),
        request_usd=_decimal(found.request_usd),
        spot_usd=None if spot is None else _decimal(spot.usd),
        spot_assumed=spot is not None and any(price.assumed for price in spot.prices),
        plan_usd=None if plan is None else _decimal(plan.usd),
    )


def _find(listed: Listed, named: str, book: PriceBook) -> _Found | None:
    """The price of this offer's size by a platform's or a sku's name."""
    if not named:
        return None
    if not listed.platform:
        price = _price(listed, named, ("hour",), book)
        return _Found(Fraction(price.usd), (price,))
    platform = book.platform(named)
    memory = _price(listed, platform.memory_sku, prices.MEMORY_UNITS, book)
    if listed.kind == "function":
        per_call = _price(listed, platform.request_sku, ("million-requests",), book)
        return _Found(_by_second(memory), (memory, per_call), Fraction(per_call.usd) / 1_000_000)
    vcpu = _price(listed, platform.vcpu_sku, prices.VCPU_UNITS, book)
    by_second = _by_second(vcpu) * listed.vcpus + _by_second(memory) * Fraction(listed.memory_gb)
    return _Found(by_second * 3600, (vcpu, memory))


def _price(listed: Listed, sku: str, units: tuple[Unit, ...], book: PriceBook) -> prices.Price:
    price = book.price(sku)
    if price is None:
        raise LookupError(f"offer '{listed.name}': price book {book.name} has no price for '{sku}'")
    if price.unit not in units:
        raise LookupError(f"offer '{listed.name}': '{sku}' is sold per {price.unit}, not per {' or '.join(units)}")
    return price


def _by_second(price: prices.Price) -> Fraction:
    return Fraction(price.usd) / (3600 if price.unit.endswith("-hour") else 1)


def _decimal(usd: Fraction) -> str:
    """Prices are decimals, and so are their sums by whole vCPUs and decimal GB."""
    return f"{(Number(usd.numerator) / Number(usd.denominator)).normalize():f}"


def _bundled() -> bytes:
    """A wheel carries infra/prices inside this package; a checkout has it beside the packages."""
    packaged = resources.files("gateway.contract").joinpath("bundled_prices", DEFAULT_FILE)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "infra" / "prices" / DEFAULT_FILE).read_bytes()
