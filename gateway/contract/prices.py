"""The price book: dated list prices with their sources, exact as rationals, identified by the digest of the file's bytes.

A price is a decimal string per hour or per unit; it is multiplied once per origin charge, never per request, so nothing is lost
to rounding. A platform says which skus a container of a given size is billed by.
"""

import tomllib
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.contract import codec
from gateway.errors import SettingsError

DEFAULT_BOOK = "aws-us-east-1.toml"
PICO_PER_USD = 10**12
NS_PER_HOUR = 3600 * 10**9
BYTES_PER_GB = 2**30
"""Fargate sells memory in GB of 1024 MiB (task size 0.5 GB is 512 MiB)."""

Decimal = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")]
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class Price(msgspec.Struct, frozen=True):
    """List price of one sku. `as_of` is the day the source stated it."""

    sku: str
    unit: Literal["vcpu-hour", "gb-hour", "hour"]
    usd: Decimal
    as_of: Date
    source: str

    def __post_init__(self) -> None:
        if Fraction(self.usd) == 0:
            raise ValueError(
                f"price of '{self.sku}' is zero; leave a sku without a price out, it is then reported as unpriced"
            )

    @property
    def rate(self) -> Fraction:
        """Pico-dollars per milli-vCPU-nanosecond, per byte-nanosecond, or per nanosecond, by `unit`."""
        divisor = {"vcpu-hour": 1000, "gb-hour": BYTES_PER_GB, "hour": 1}[self.unit]
        return Fraction(self.usd) * PICO_PER_USD / (NS_PER_HOUR * divisor)


class Platform(msgspec.Struct, frozen=True):
    """How a container is billed: one sku for its vCPUs and one for its memory."""

    name: str
    vcpu_sku: str
    memory_sku: str


class PriceFile(msgspec.Struct, frozen=True):
    """The TOML file as written."""

    currency: Literal["USD"]
    region: str
    price: tuple[Price, ...]
    platform: tuple[Platform, ...]
    schema_version: int = 1


class PriceBook:
    """A parsed price file and its identity."""

    def __init__(self, data: bytes, *, name: str) -> None:
        """Raises `SettingsError` naming the file and the key."""
        try:
            file = codec.convert_strict(tomllib.loads(data.decode()), PriceFile)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise SettingsError(f"price book {name}: {error}") from error
        skus = [price.sku for price in file.price]
        for sku in skus:
            if skus.count(sku) > 1:
                raise SettingsError(f"price book {name}: sku '{sku}' is priced twice")
        self.name = name
        self.data = data
        self.sha256 = codec.sha256(data)
        self.region = file.region
        self._prices = {price.sku: price for price in file.price}
        self._platforms = {platform.name: platform for platform in file.platform}

    def price(self, sku: str) -> Price | None:
        """None when the book has no price for it: the caller must report that, never assume zero."""
        return self._prices.get(sku)

    def platform(self, name: str) -> Platform:
        """Raises `SettingsError` naming the platforms there are, or the sku that has no price."""
        if name not in self._platforms:
            raise SettingsError(
                f"price book {self.name} has no platform '{name}'; it has: {', '.join(self._platforms)}"
            )
        platform = self._platforms[name]
        for sku, unit in ((platform.vcpu_sku, "vcpu-hour"), (platform.memory_sku, "gb-hour")):
            price = self.price(sku)
            if price is None or price.unit != unit:
                raise SettingsError(f"price book {self.name}: platform '{name}' needs a price per {unit} for '{sku}'")
        return platform


def load(path: Path | None = None) -> PriceBook:
    """The price book at `path`, or the one shipped with this release. Raises `SettingsError` when it cannot be read."""
    if path is None:
        return PriceBook(_bundled(DEFAULT_BOOK), name=DEFAULT_BOOK)
    try:
        return PriceBook(path.read_bytes(), name=str(path))
    except OSError as error:
        raise SettingsError(f"price book {path}: {error.strerror}") from error


def _bundled(name: str) -> bytes:
    """A wheel carries infra/prices inside this package; a checkout has it beside the packages."""
    packaged = resources.files("gateway.contract").joinpath("bundled_prices", name)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "infra" / "prices" / name).read_bytes()
