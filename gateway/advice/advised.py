"""What `steelyard advise` says, as data: the JSON is exactly this. `judging` fills it, `view` and `chart` read it."""

import msgspec

from gateway.advice.accuracy import Judged
from gateway.advice.capacity import Capacity
from gateway.advice.measured import Measured
from gateway.advice.scenarios import Scenario
from gateway.advice.traffic import Traffic
from gateway.contract.energy import Span, Tier


class Wish(msgspec.Struct, frozen=True):
    """What the operator asked for. `provision_ns`: from asking for a container until our process begins, assumed."""

    objective_ns: int
    floor: int
    target: float = 0.6
    provision_ns: int = 30 * 10**9
    seed: int = 0


class Option(msgspec.Struct, frozen=True):
    """One offer under this traffic. Costs in pico-dollars per million requests, carbon (SCI) in nanograms per thousand.

    `low` and `high` are those at the ends of an assumed throughput, equal where none is assumed. None: it cannot serve this, as
    `note` says.
    `break_even_rps`: of a GPU, the rate from which it is cheaper than the cheapest CPU replicas if it answers so many (`is_sure`:
    at the lower end of its range too); None where no rate is.
    """

    name: str
    kind: str
    tier: Tier
    note: str
    replica_rps: float
    million_picousd: int | None = None
    million_low_picousd: int | None = None
    million_high_picousd: int | None = None
    busy_million_picousd: int | None = None
    month_picousd: int | None = None
    replicas_min: int = 0
    replicas_peak: int = 0
    energy_million_nj: Span | None = None
    sci_thousand_ng: Span | None = None
    carbon_tier: Tier | None = None
    break_even_rps: float | None = None
    is_sure: bool = False


class Zero(msgspec.Struct, frozen=True):
    """Scaling the cheapest CPU replicas to zero while nothing comes, against keeping one."""

    offer: str
    kept_month_picousd: int
    zero_month_picousd: int
    wakes_per_month: float
    cold_start_ns: int
    wake_picousd: int
    silent_share: float

    @property
    def saves(self) -> float:
        return 1 - self.zero_month_picousd / self.kept_month_picousd


class KeepAlive(msgspec.Struct, frozen=True):
    """How long a function's idle sandbox is taken to stay, and what callers see at both ends: low where it stays longest."""

    assumed_ns: int
    low_ns: int
    high_ns: int
    cold_share_low: float
    cold_share_high: float
    p99_low_ns: int
    p99_high_ns: int


class Promise(msgspec.Struct, frozen=True):
    """What callers of an offer would see around its traffic's busiest time, simulated; nanoseconds.

    `floor`: replicas kept always. `cold_start_ns`: the measured start and what is assumed of the platform. `cold_share`: cold
    starts over requests. `utilisation` of the replicas, None of a function, whose `replicas_peak` are sandboxes and which alone
    has a `keep_alive`. `holds`: the 99th percentile is within the objective.
    """

    offer: str
    floor: int
    month_picousd: int
    cold_start_ns: int
    requests: int = 0
    p50_ns: int = 0
    p95_ns: int = 0
    p99_ns: int = 0
    replicas_peak: int = 0
    cold_starts: int = 0
    cold_share: float = 0.0
    utilisation: float | None = None
    holds: bool = False
    keep_alive: KeepAlive | None = None


class Load(msgspec.Struct, frozen=True):
    """So many workers at `share` of what they could answer at most, under Poisson arrivals, simulated."""

    workers: int
    share: float
    rps: float
    p50_ns: int
    p95_ns: int
    p99_ns: int


class Advice(msgspec.Struct, frozen=True):
    """`tier` is that of the weakest figure that the verdict rests on, and `tier_reason` which one that is.

    `promise` is of the offer that the verdict recommends, None where it is a GPU whose latency nobody measured. Where that misses
    the objective, `keeper` is the cheapest that was found to keep it.
    """

    measured: Measured
    disagreements: tuple[str, ...]
    capacity: Capacity
    traffic: Traffic
    wish: Wish
    region: str
    options: tuple[Option, ...]
    scenarios: tuple[Scenario, ...]
    zero: Zero | None
    promise: Promise | None
    keeper: Promise | None
    loads: tuple[Load, ...]
    judged: tuple[Judged, ...]
    tier: Tier
    tier_reason: str
    verdict: str
    schema_version: int = 3
