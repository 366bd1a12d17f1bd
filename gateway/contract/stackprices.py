"""What the parts of a cloud stack cost besides its containers: what `steelyard infra cost` reads (`infra/prices/stack-*.toml`).

Containers, functions and machines are `gateway.contract.prices`. Dated and sourced like it, and read as strictly.
"""

import tomllib
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from gateway.contract import codec
from gateway.contract.prices import Date, Decimal
from gateway.errors import SettingsError

DEFAULT_FILE = "stack-aws-us-east-1.toml"


class PartPrice(msgspec.Struct, frozen=True):
    """List price of one part per unit."""

    name: str
    unit: Literal["hour", "month", "gb-hour", "gb", "gb-month", "thousand"]
    usd: Decimal
    as_of: Date
    source: str

    def __post_init__(self) -> None:
        if Fraction(self.usd) == 0:
            raise ValueError(f"price of '{self.name}' is zero; leave it out, it is then reported as unpriced")


class StackPrices(msgspec.Struct, frozen=True):
    """The TOML file as written."""

    region: str
    price: tuple[PartPrice, ...]
    schema_version: int = 1

    def __post_init__(self) -> None:
        names = [price.name for price in self.price]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is priced twice")

    def of(self, name: str) -> PartPrice | None:
        """None where the file has no such price: whoever asks must say so, never take it for zero."""
        return next((price for price in self.price if price.name == name), None)


def load(path: Path | None = None) -> StackPrices:
    """The file at `path`, or the one shipped with this release. Raises `SettingsError` naming the file and the key."""
    name = DEFAULT_FILE if path is None else str(path)
    try:
        data = _bundled() if path is None else path.read_bytes()
        return codec.convert_strict(tomllib.loads(data.decode()), StackPrices)
    except OSError as error:
        raise SettingsError(f"prices {name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"prices {name}: {error}") from error


def _bundled() -> bytes:
    """A wheel carries infra/prices inside this package; a checkout has it beside the packages."""
    packaged = resources.files("gateway.contract").joinpath("bundled_prices", DEFAULT_FILE)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "infra" / "prices" / DEFAULT_FILE).read_bytes()
