"""What could serve a model and at which price: the file that `steelyard advise` compares by (`infra/prices/advice-*.toml`).

Not what anybody is billed by: that is `gateway.contract.prices`. Dated and sourced like it, and read as strictly.
"""

import math
import tomllib
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from gateway.contract import codec
from gateway.contract.prices import Date, Decimal
from gateway.contract.words import Count, Positive
from gateway.errors import SettingsError

DEFAULT_FILE = "advice-aws-us-east-1.toml"


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One kind of machine, task or function. `usd` is per hour, of a `function` per GB-second; `request_usd` per call.

    `spot_usd` and `plan_usd` (a year's commitment) are None where no source states one; `spot_assumed`: it is an estimate.
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

    def __post_init__(self) -> None:
        if Fraction(self.usd) == 0:
            raise ValueError(f"offer '{self.name}' costs nothing; leave an offer without a price out")
        if (self.kind == "gpu") != bool(self.gpu and self.gpus):
            raise ValueError(f"offer '{self.name}': 'gpu' and 'gpus' are for kind gpu, and needed there")


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


class OfferFile(msgspec.Struct, frozen=True):
    """The TOML file as written."""

    region: str
    offer: tuple[Offer, ...]
    assumption: tuple[Assumption, ...] = ()
    schema_version: int = 1

    def __post_init__(self) -> None:
        for names in ([offer.name for offer in self.offer], [assumption.gpu for assumption in self.assumption]):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"'{name}' appears twice")

    def assumed(self, gpu: str) -> Assumption | None:
        return next((assumption for assumption in self.assumption if assumption.gpu == gpu), None)


def load(path: Path | None = None) -> OfferFile:
    """The file at `path`, or the one shipped with this release. Raises `SettingsError` naming the file and the key."""
    name = DEFAULT_FILE if path is None else str(path)
    try:
        data = _bundled() if path is None else path.read_bytes()
        return codec.convert_strict(tomllib.loads(data.decode()), OfferFile)
    except OSError as error:
        raise SettingsError(f"offers {name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"offers {name}: {error}") from error


def _bundled() -> bytes:
    """A wheel carries infra/prices inside this package; a checkout has it beside the packages."""
    packaged = resources.files("gateway.contract").joinpath("bundled_prices", DEFAULT_FILE)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "infra" / "prices" / DEFAULT_FILE).read_bytes()
