"""Energy and carbon of time on machines: dated coefficients with their ranges, and whole nanojoules and nanograms of what was used.

Every result has a low, a value and a high end and says its tier: `measured` (a counter), `modelled` (a published curve times our
measurements), `assumed`. It is rounded once, here; `gateway.accounting.footprint` splits it like money. Location-based; offsets and
certificates are left out, as ISO/IEC 21031:2024 (SCI) wants it.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from importlib import resources
from math import lcm
from operator import mul
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from gateway.contract import codec
from gateway.contract.prices import BYTES_PER_GB, NS_PER_HOUR, Decimal
from gateway.contract.words import Count
from gateway.errors import SettingsError

DEFAULT_FILE = "aws-us-east-1.toml"
NJ_PER_KWH = 3_600_000 * 10**9
NG_PER_G = 10**9

Tier = Literal["measured", "modelled", "assumed"]
_TIERS: tuple[Tier, ...] = ("measured", "modelled", "assumed")
End = Literal["low", "value", "high"]
ENDS: tuple[End, ...] = ("low", "value", "high")
ProcessorName = Literal["x86", "arm"]


def weakest(tiers: Sequence[Tier]) -> Tier:
    """Of a result: that of its weakest part. `modelled` when there is none."""
    return max(tiers, key=_TIERS.index, default="modelled")


class Figure(msgspec.Struct, frozen=True):
    """A coefficient between its ends, as decimal strings."""

    value: Decimal
    low: Decimal
    high: Decimal
    tier: Tier
    source: str

    def __post_init__(self) -> None:
        if not Fraction(self.low) <= Fraction(self.value) <= Fraction(self.high):
            raise ValueError(f"'value' {self.value} is not between 'low' {self.low} and 'high' {self.high}")

    def at(self, end: End) -> Fraction:
        return _fraction(getattr(self, end))


class Processor(msgspec.Struct, frozen=True):
    """Of one vCPU: watts when idle and when busy, and its share of making the machine."""

    name: ProcessorName
    what: str
    idle_watts: Figure
    busy_watts: Figure
    embodied_g_per_vcpu_hour: Figure

    def __post_init__(self) -> None:
        _check_work(self.name, self.idle_watts, self.busy_watts)


class Gpu(msgspec.Struct, frozen=True):
    """Of one GPU."""

    name: str
    idle_watts: Figure
    busy_watts: Figure
    embodied_g_per_hour: Figure

    def __post_init__(self) -> None:
        _check_work(self.name, self.idle_watts, self.busy_watts)


class Grid(msgspec.Struct, frozen=True):
    """Of another region than the file's own."""

    region: str
    g_per_kwh: Figure


class Coefficients(msgspec.Struct, frozen=True):
    """The TOML file as written. `grid_g_per_kwh` is of `region`, `grid` of others; all else is taken for the same everywhere."""

    region: str
    memory_watts_per_gb: Figure
    pue: Figure
    grid_g_per_kwh: Figure
    processor: tuple[Processor, ...]
    gpu: tuple[Gpu, ...] = ()
    grid: tuple[Grid, ...] = ()
    schema_version: int = 1

    def in_region(self, region: str) -> "Coefficients | None":
        """With that region's grid, and no other; None where the file does not have it."""
        grids = {grid.region: grid.g_per_kwh for grid in self.grid} | {self.region: self.grid_g_per_kwh}
        if region not in grids:
            return None
        return msgspec.structs.replace(self, region=region, grid_g_per_kwh=grids[region], grid=())

    def of_processor(self, name: str) -> Processor:
        """Raises `SettingsError` naming those there are."""
        return _named(self.processor, name)

    def of_gpu(self, name: str) -> Gpu:
        """Raises `SettingsError` naming those there are."""
        return _named(self.gpu, name)


class Span(msgspec.Struct, frozen=True):
    """A whole number between its ends."""

    low: Count
    value: Count
    high: Count

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.value + other.value, self.high + other.high)


ZERO = Span(0, 0, 0)


class Footprint(msgspec.Struct, frozen=True):
    """Energy of use, the carbon of that energy, and the share of making the machines."""

    energy_nj: Span
    operational_ng: Span
    embodied_ng: Span
    tier: Tier

    @property
    def carbon_ng(self) -> Span:
        return self.operational_ng + self.embodied_ng

    @property
    def is_nothing(self) -> bool:
        return not (self.energy_nj.high or self.operational_ng.high or self.embodied_ng.high)

    def __add__(self, other: "Footprint") -> "Footprint":
        return Footprint(
            self.energy_nj + other.energy_nj,
            self.operational_ng + other.operational_ng,
            self.embodied_ng + other.embodied_ng,
            weakest((self.tier, other.tier)),
        )


NOTHING = Footprint(ZERO, ZERO, ZERO, "measured")
"""Weakens no tier that it is added to."""


class Use(msgspec.Struct, frozen=True):
    """What was held and what of it worked: `held_ns` of the clock with so many thousandths of a vCPU and bytes; `cpu_ns` busy.

    `gpu_busy_ns` is of all `gpus` together.
    """

    processor: ProcessorName
    vcpu_milli: Count
    memory_bytes: Count
    held_ns: Count
    cpu_ns: Count
    gpu: str = ""
    gpus: Count = 0
    gpu_busy_ns: Count = 0


def idle(use: Use, coefficients: Coefficients) -> Footprint:
    """What holding it took, busy or not: idle power, memory, and all of the embodied carbon."""
    held = (use.vcpu_milli * use.held_ns, use.memory_bytes * use.held_ns, use.gpus * use.held_ns)
    return _footprint(_holding(coefficients, use.processor, use.gpu if use.gpus else ""), held)


def working(use: Use, coefficients: Coefficients) -> Footprint:
    """What its work took beyond holding it."""
    return _footprint(_work(coefficients, use.processor, use.gpu if use.gpus else ""), (use.cpu_ns, use.gpu_busy_ns, 0))


def sci_per_thousand_ng(footprint: Footprint, predictions: int) -> Span | None:
    """ISO/IEC 21031:2024: (operational + embodied) per thousand predictions, in nanograms of CO2e; None when there was none."""
    if predictions <= 0:
        return None
    carbon = footprint.carbon_ng
    return Span(*(round(Fraction(ng * 1000, predictions)) for ng in (carbon.low, carbon.value, carbon.high)))


def processor_of(platform: str) -> ProcessorName | None:
    """What a platform of the price book says of its processor: `fargate-arm`, `ec2-c7g.large`; None where it says nothing."""
    words = platform.split("-")
    if "arm" in words:
        return "arm"
    machine = re.search(r"(?:^|-)[a-z]+[0-9]+([a-z]*)\.[a-z0-9]+$", platform)
    if machine:  # the letter after a generation: g for Graviton
        return "arm" if "g" in machine[1] else "x86"
    return "x86" if "x86" in words else None


def load(path: Path | None = None) -> Coefficients:
    """The file at `path`, or the one shipped with this release. Raises `SettingsError` naming the file and the key."""
    name = DEFAULT_FILE if path is None else str(path)
    try:
        data = _bundled() if path is None else path.read_bytes()
        return codec.convert_strict(tomllib.loads(data.decode()), Coefficients)
    except OSError as error:
        raise SettingsError(f"energy coefficients {name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"energy coefficients {name}: {error}") from error


Inputs = tuple[int, int, int]
"""Of holding: thousandths of a vCPU, bytes and GPUs, each times nanoseconds. Of work: CPU and GPU nanoseconds."""
PerInput = tuple[Fraction, Fraction, Fraction]
NONE = Fraction(0)


class _Rates(msgspec.Struct, frozen=True):
    """What one of each input takes: nine figures, as `Footprint` has them, of numerators per input over one denominator.

    Made once: a report asks for every hour of every container, and fractions are slow to multiply.
    """

    figures: tuple[tuple[Inputs, int], ...]
    tier: Tier


@lru_cache(maxsize=64)  # some processors and GPUs of a file or two
def _holding(coefficients: Coefficients, processor_name: str, gpu_name: str) -> _Rates:
    processor = coefficients.of_processor(processor_name)
    gpu = coefficients.of_gpu(gpu_name) if gpu_name else None

    def watts(end: End) -> PerInput:
        memory = coefficients.memory_watts_per_gb.at(end) / BYTES_PER_GB
        return processor.idle_watts.at(end) / 1000, memory, gpu.idle_watts.at(end) if gpu else NONE

    def embodied_g_per_hour(end: End) -> PerInput:
        vcpu = processor.embodied_g_per_vcpu_hour.at(end) / 1000
        return vcpu, NONE, gpu.embodied_g_per_hour.at(end) if gpu else NONE

    parts = [coefficients.memory_watts_per_gb, processor.idle_watts, processor.embodied_g_per_vcpu_hour]
    parts += [gpu.idle_watts, gpu.embodied_g_per_hour] if gpu else []
    return _rates(coefficients, watts, embodied_g_per_hour, [part.tier for part in parts])


@lru_cache(maxsize=64)
def _work(coefficients: Coefficients, processor_name: str, gpu_name: str) -> _Rates:
    processor = coefficients.of_processor(processor_name)
    gpu = coefficients.of_gpu(gpu_name) if gpu_name else None

    def watts(end: End) -> PerInput:
        cpu = processor.busy_watts.at(end) - processor.idle_watts.at(end)
        return cpu, gpu.busy_watts.at(end) - gpu.idle_watts.at(end) if gpu else NONE, NONE

    tiers = [processor.busy_watts.tier] + ([gpu.busy_watts.tier] if gpu else [])
    return _rates(coefficients, watts, lambda _: (NONE, NONE, NONE), tiers)


def _rates(
    coefficients: Coefficients,
    watts: Callable[[End], PerInput],
    embodied_g_per_hour: Callable[[End], PerInput],
    tiers: Sequence[Tier],
) -> _Rates:
    """`watts` are of the machine, and a watt is a nanojoule per nanosecond; the building's come on top."""
    pue, grid = coefficients.pue, coefficients.grid_g_per_kwh
    energy = [_scaled(watts(end), pue.at(end)) for end in ENDS]
    use = [_scaled(watts(end), pue.at(end) * grid.at(end) * NG_PER_G / NJ_PER_KWH) for end in ENDS]
    making = [_scaled(embodied_g_per_hour(end), Fraction(NG_PER_G, NS_PER_HOUR)) for end in ENDS]
    return _Rates((*energy, *use, *making), weakest((*tiers, pue.tier, grid.tier)))


def _scaled(per_input: PerInput, by: Fraction) -> tuple[Inputs, int]:
    rates = [one * by for one in per_input]
    denominator = lcm(*(rate.denominator for rate in rates))
    first, second, third = (rate.numerator * (denominator // rate.denominator) for rate in rates)
    return (first, second, third), denominator


def _footprint(rates: _Rates, inputs: Inputs) -> Footprint:
    """Rounded half to even, here and nowhere else."""
    found = []
    for numerators, denominator in rates.figures:
        figure, rest = divmod(sum(map(mul, numerators, inputs)), denominator)
        found.append(figure + (2 * rest > denominator or (2 * rest == denominator and figure % 2)))
    return Footprint(Span(*found[:3]), Span(*found[3:6]), Span(*found[6:]), rates.tier)


def _check_work(name: str, idle_watts: Figure, busy_watts: Figure) -> None:
    """Requests are told what work takes beyond idling: that must have its ends in order too."""
    low, value, high = (busy_watts.at(end) - idle_watts.at(end) for end in ("low", "value", "high"))
    if not 0 <= low <= value <= high:
        raise ValueError(f"'{name}': 'busy_watts' less 'idle_watts' must be ordered: low, value, high")


@lru_cache(maxsize=512)  # a file has some fifty figures, and a report uses them for every hour of every container
def _fraction(text: str) -> Fraction:
    return Fraction(text)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def _named(items: Sequence[N], name: str) -> N:
    for item in items:
        if item.name == name:
            return item
    raise SettingsError(f"no energy coefficients for '{name}'; there are: {', '.join(item.name for item in items)}")


def _bundled() -> bytes:
    """A wheel carries infra/energy inside this package; a checkout has it beside the packages."""
    packaged = resources.files("gateway.contract").joinpath("bundled_energy", DEFAULT_FILE)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "infra" / "energy" / DEFAULT_FILE).read_bytes()
