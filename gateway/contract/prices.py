"""The price book: dated list prices with their sources, exact as rationals, identified by the digest of the file's bytes.

A price is a decimal string per unit; it is multiplied once per origin charge, never per request, so nothing is lost to rounding.
A platform is data too: which skus a container is billed by, for which time, in steps of what, and for how long at least. What
that comes to is `gateway.accounting.billedtime` while it runs.
"""

import itertools
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.contract import codec
from gateway.contract.words import HOUR_NS, Count, Sha256
from gateway.errors import SettingsError

DEFAULT_BOOK = "aws-us-east-1.toml"
BOOKS = (DEFAULT_BOOK, "gcp-tier1.toml")
PICO_PER_USD = 10**12
NS_PER_HOUR = HOUR_NS
BYTES_PER_GB = 2**30
"""Fargate sells memory in GB of 1024 MiB (task size 0.5 GB is 512 MiB)."""

MACHINE = "machine"
"""The platform, and its sku, of a machine whose price per hour is a setting."""
_MACHINE_PLATFORM = f"""
[[platform]]
name = "{MACHINE}"
machine_sku = "{MACHINE}"
"""

_DECIMAL = r"^[0-9]+(\.[0-9]+)?$"
Decimal = Annotated[str, Meta(pattern=_DECIMAL)]
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


Unit = Literal["vcpu-hour", "gb-hour", "hour", "vcpu-second", "gb-second", "million-requests"]
_PER_UNIT = {
    "vcpu-hour": 1000 * NS_PER_HOUR,
    "gb-hour": BYTES_PER_GB * NS_PER_HOUR,
    "hour": NS_PER_HOUR,
    "vcpu-second": 1000 * 10**9,
    "gb-second": BYTES_PER_GB * 10**9,
    "million-requests": 10**6,
}
VCPU_UNITS: tuple[Unit, ...] = ("vcpu-hour", "vcpu-second")
MEMORY_UNITS: tuple[Unit, ...] = ("gb-hour", "gb-second")


class Price(msgspec.Struct, frozen=True):
    """List price of one sku. `as_of` is the day the source stated it; from `until` on (a day, "" for open) it holds no more.

    `assumed` says why it is no list price but an assumption, "" when it is one. It is charged by, and said aloud.
    """

    sku: str
    unit: Unit
    usd: str
    as_of: Date
    source: str
    until: Date | Literal[""] = ""
    assumed: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(_DECIMAL, self.usd):  # here, so that the sku is named
            raise ValueError(
                f"price of '{self.sku}' is '{self.usd[:32]}'; usd is a decimal above zero, such as \"0.04048\""
            )
        if Fraction(self.usd) == 0:
            raise ValueError(
                f"price of '{self.sku}' is zero; leave a sku without a price out, it is then reported as unpriced"
            )
        for day in filter(None, (self.as_of, self.until)):
            try:
                date.fromisoformat(day)
            except ValueError as error:
                raise ValueError(f"price of '{self.sku}': {day} is no day") from error
        if self.until and self.until <= self.as_of:
            raise ValueError(f"price of '{self.sku}' ends on {self.until}, not after {self.as_of}, the day it is from")

    @property
    def rate(self) -> Fraction:
        """Pico-dollars per milli-vCPU-nanosecond, byte-nanosecond, nanosecond, or request, by `unit`."""
        return Fraction(self.usd) * PICO_PER_USD / _PER_UNIT[self.unit]

    @property
    def validity(self) -> str:
        return f"from {self.as_of}" + (f" until {self.until}" if self.until else " on")


class Platform(msgspec.Struct, frozen=True):
    """How a container is billed: by its vCPUs and its memory, by its memory alone, or as one machine (`machine_sku`).

    `billed` says which time: the container's `lifetime`, each of its `invocations`, or the stretches in which it has `requests` to
    answer. Each such time counts in steps of `granularity_ms` (0: to the nanosecond), and `minimum_ms` at least. `request_sku` is
    beside that, per request. `freezes`: between invocations the process stands still and may never go on, so what is in its memory
    then may be lost.
    """

    name: str
    vcpu_sku: str = ""
    memory_sku: str = ""
    machine_sku: str = ""
    request_sku: str = ""
    billed: Literal["lifetime", "invocations", "requests"] = "lifetime"
    granularity_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    minimum_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    freezes: bool = False

    def __post_init__(self) -> None:
        if self.freezes and self.billed != "invocations":
            raise ValueError(f"platform '{self.name}' freezes between invocations, so it is billed by them")
        if bool(self.machine_sku) == bool(self.memory_sku) or (self.machine_sku and self.vcpu_sku):
            raise ValueError(
                f"platform '{self.name}' needs either machine_sku or memory_sku (and vcpu_sku where vCPUs have a price)"
            )
        if self.billed == "lifetime" and not (self.machine_sku or self.vcpu_sku):
            raise ValueError(
                f"platform '{self.name}' bills a lifetime: it needs machine_sku, or vcpu_sku and memory_sku"
            )
        if self.billed == "lifetime" and self.request_sku:
            raise ValueError(f"platform '{self.name}' bills a lifetime, so it has no request_sku")

    @property
    def skus(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each sku it bills by, and the units its price may have."""
        wanted = (
            (self.vcpu_sku, VCPU_UNITS),
            (self.memory_sku, MEMORY_UNITS),
            (self.machine_sku, ("hour",)),
            (self.request_sku, ("million-requests",)),
        )
        return tuple((sku, units) for sku, units in wanted if sku)


class PriceFile(msgspec.Struct, frozen=True):
    """The TOML file as written."""

    currency: Literal["USD"]
    region: str
    price: tuple[Price, ...]
    platform: tuple[Platform, ...]
    schema_version: int = 1


class CurrentBook(msgspec.Struct, frozen=True):
    """Which stored book new containers are billed by, since when and by whose decision. Running ones keep theirs."""

    sha256: Sha256
    name: str
    since_ns: Count
    actor: str
    previous_sha256: str = ""
    schema_version: int = 1


class PriceBook:
    """A parsed price file and its identity."""

    def __init__(self, data: bytes, *, name: str) -> None:
        """Raises `SettingsError` naming the file and the key."""
        try:
            raw = tomllib.loads(data.decode())
            refuse_newer(raw, PriceFile, what=f"price book {name}")
            file = codec.convert_strict(raw, PriceFile)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise SettingsError(f"price book {name}: {error}") from error
        _refuse_overlaps(file.price, name)
        names = [platform.name for platform in file.platform]
        for platform in names:
            if names.count(platform) > 1:
                raise SettingsError(f"price book {name}: platform '{platform}' is there twice")
        self.name = name
        self.data = data
        self.sha256 = codec.sha256(data)
        self.region = file.region
        self.prices = file.price
        self.platforms = file.platform

    def price(self, sku: str, on: str = "") -> Price | None:
        """The price that holds `on` a day (2026-11-25), or without one the newest.

        A day before the first price of a sku has that first price: a source states what holds already. None when the book has none:
        the caller must report that, never assume zero.
        """
        known = sorted((price for price in self.prices if price.sku == sku), key=lambda price: price.as_of)
        if not known or not on:
            return known[-1] if known else None
        begun = [price for price in known if price.as_of <= on] or known[:1]
        return begun[-1] if not begun[-1].until or on < begun[-1].until else None

    def platform(self, name: str) -> Platform:
        """Raises `SettingsError` naming the platforms there are, or the sku whose price is in another unit.

        A sku without any price is no error here: its charges are `unpriced`.
        """
        platform = next((known for known in self.platforms if known.name == name), None)
        if platform is None:
            names = ", ".join(known.name for known in self.platforms)
            raise SettingsError(f"price book {self.name} has no platform '{name}'; it has: {names}")
        for sku, units in platform.skus:
            for price in self.prices:
                if price.sku == sku and price.unit not in units:
                    needed = " or ".join(units)
                    raise SettingsError(
                        f"price book {self.name}: platform '{name}' needs a price per {needed} for '{sku}', not per {price.unit}"
                    )
        return platform

    def assumed(self, name: str, on: str = "") -> tuple[Price, ...]:
        """The prices of a platform that are assumptions."""
        prices = [self.price(sku, on) for sku, _ in self.platform(name).skus]
        return tuple(price for price in prices if price is not None and price.assumed)

    def unpriced(self, name: str, on: str = "") -> tuple[str, ...]:
        """The skus of a platform that have no price on that day."""
        return tuple(sku for sku, _ in self.platform(name).skus if self.price(sku, on) is None)


def refuse_newer(raw: Mapping[str, object], kind: type[msgspec.Struct], *, what: str) -> None:
    """Raises `SettingsError` for a file that a newer Steelyard's reader is needed for."""
    written, known = raw.get("schema_version", 1), codec.schema_version(kind)
    if isinstance(written, int) and written > known:
        raise SettingsError(
            f"{what} has schema_version {written}; this Steelyard reads up to {known}: upgrade it first"
        )


def refuse_future(book: PriceBook, today: str) -> None:
    """Raises `SettingsError` for a sku whose first price is yet to come: no source can have stated what holds then. A later price
    may follow one that holds now.
    """
    for price in book.prices:
        first = min(other.as_of for other in book.prices if other.sku == price.sku)
        if first > today:
            raise SettingsError(
                f"price book {book.name}: the first price of '{price.sku}' is dated {first}, and today is {today}: "
                "date it by the day its source stated it"
            )


def _refuse_overlaps(all_prices: tuple[Price, ...], name: str) -> None:
    """Two prices of one sku may follow each other; a day with two prices would make the bill a matter of taste."""
    by_day = sorted(all_prices, key=lambda price: (price.sku, price.as_of))
    for one, other in itertools.pairwise(by_day):
        if one.sku == other.sku and (not one.until or other.as_of < one.until):
            raise SettingsError(
                f"price book {name}: sku '{one.sku}' is priced twice: ${one.usd} {one.validity} and ${other.usd} {other.validity}; "
                f"end the first with `until`"
            )


def load(path: Path | None = None) -> PriceBook:
    """The price book at `path`, or the one shipped with this release. Raises `SettingsError` when it cannot be read."""
    if path is None:
        return PriceBook(_bundled(DEFAULT_BOOK), name=DEFAULT_BOOK)
    try:
        return PriceBook(path.read_bytes(), name=str(path))
    except OSError as error:
        raise SettingsError(f"price book {path}: {error.strerror}") from error


def shipped() -> tuple[PriceBook, ...]:
    """Every book of this release."""
    return tuple(PriceBook(_bundled(name), name=name) for name in BOOKS)


def shipped_for(platform: str) -> PriceBook:
    """The shipped book that knows this platform. Raises `SettingsError` naming the platforms there are."""
    books = shipped()
    for book in books:
        if any(known.name == platform for known in book.platforms):
            return book
    names = ", ".join(known.name for book in books for known in book.platforms)
    raise SettingsError(f"no price book of this release has a platform '{platform}'; they have: {names}")


def with_machine(book: PriceBook, usd_per_hour: str, *, on: str) -> PriceBook:
    """The book with the platform `machine` at this price: a book of its own, so that the ledger names what it was billed by.

    Raises `SettingsError` when the price is no decimal above zero.
    """
    if any(price.sku == MACHINE for price in book.prices):
        raise SettingsError(f"price book {book.name} prices '{MACHINE}' already; leave accounting.usd_per_hour out")
    added = "" if any(known.name == MACHINE for known in book.platforms) else _MACHINE_PLATFORM
    added += f"""
[[price]]
sku = "{MACHINE}"
unit = "hour"
usd = {msgspec.json.encode(usd_per_hour).decode()}
as_of = "{on}"
source = "setting accounting.usd_per_hour"
"""
    return PriceBook(book.data + added.encode(), name=f"{book.name} with accounting.usd_per_hour")


def _bundled(name: str) -> bytes:
    """A wheel carries infra/prices inside this package; a checkout has it beside the packages."""
    packaged = resources.files("gateway.contract").joinpath("bundled_prices", name)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "infra" / "prices" / name).read_bytes()
