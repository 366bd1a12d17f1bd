"""What a spec says that cannot all be true, found before anything is started and paid for. Pure; called by `trainers.spec.reading`.

Each finding is a path in the spec and a sentence. Costs are list prices of the price book, so they bound from above what a spot
machine would cost; a machine that the book does not price is not judged.
"""

import functools
import zoneinfo
from collections.abc import Iterator
from difflib import get_close_matches
from typing import NamedTuple

import msgspec

from gateway.contract.prices import NS_PER_HOUR, PICO_PER_USD, PriceBook
from trainers.spec import cron
from trainers.spec.jobspec import GRACE_S_MAX, JobSpec, Resources
from trainers.spec.lines import Path

AUTO_INTERVAL_S_MIN = 30
"""The shortest interval between checkpoints that `every = "auto"` chooses."""

ATTEMPT_S_MIN = 60
"""AWS Batch takes no shorter time-out (RegisterJobDefinition, `attemptDurationSeconds`)."""

SPEC_BYTES_MAX = 6_000
"""The spec travels in a job definition's environment, and AWS Batch takes definitions of 24 KiB (its service quotas). As JSON
within JSON a spec grows by its quotes, and a command line and roles come beside it."""


class Finding(NamedTuple):
    path: Path
    message: str


class Machine(msgspec.Struct, frozen=True):
    """What a machine type offers. Source: AWS EC2 instance type pages, accelerated computing and compute optimized."""

    sku: str
    cpu: int
    memory_gb: int
    gpu: int = 0
    gpu_memory_gb: int = 0


MACHINES = (
    Machine("c7i.large", 2, 4),
    Machine("g4dn.xlarge", 4, 16, 1, 16),
    Machine("g5.xlarge", 4, 16, 1, 24),
    Machine("p5en.48xlarge", 192, 2048, 8, 141),
)
"""Those that the shipped price book prices."""


def findings(spec: JobSpec, book: PriceBook) -> list[Finding]:
    """All of them; empty means that the spec can be run as far as one can tell without running it."""
    return [*_times(spec), *_resources(spec), *_data(spec), *_money(spec, book), *_schedule(spec)]


def hourly_picousd(resources: Resources, book: PriceBook) -> tuple[str, int] | None:
    """The cheapest priced machine that fits and its price per hour; None when the book prices none that fits."""
    fitting = []
    for machine in MACHINES:
        price = book.price(machine.sku)
        if price and price.unit == "hour" and _fits(resources, machine):
            fitting.append((round(price.rate * NS_PER_HOUR), machine.sku))
    return (min(fitting)[1], min(fitting)[0]) if fitting else None


def _fits(wanted: Resources, machine: Machine) -> bool:
    return (
        wanted.gpu <= machine.gpu
        and (wanted.gpu_memory_gb or 0) <= machine.gpu_memory_gb
        and wanted.cpu <= machine.cpu
        and wanted.memory_gb <= machine.memory_gb
    )


def _times(spec: JobSpec) -> Iterator[Finding]:
    limits, every, grace = spec.limits, spec.checkpoint.every.seconds, spec.checkpoint.grace.seconds
    if limits.attempt.seconds > limits.wall.seconds:
        yield Finding(
            ("limits", "attempt"),
            f"{limits.attempt} is longer than limits.wall, which is {limits.wall} for all attempts",
        )
    if limits.attempt.seconds < ATTEMPT_S_MIN:
        yield Finding(("limits", "attempt"), f"must be at least {ATTEMPT_S_MIN}s")
    if every is not None and every >= limits.attempt.seconds:
        yield Finding(
            ("checkpoint", "every"),
            f"{spec.checkpoint.every} would never save within limits.attempt = {limits.attempt}",
        )
    if grace > GRACE_S_MAX:
        yield Finding(
            ("checkpoint", "grace"),
            f"{spec.checkpoint.grace} is more than the {GRACE_S_MAX}s that every launcher gives",
        )
    fallback = spec.market.fallback_on_demand_after
    if fallback and spec.market.prefer == "on_demand":
        yield Finding(("market", "fallback_on_demand_after"), "needs market.prefer = 'spot'")
    elif fallback and fallback.seconds >= limits.wall.seconds:
        yield Finding(
            ("market", "fallback_on_demand_after"), f"{fallback} is not shorter than limits.wall = {limits.wall}"
        )


def _resources(spec: JobSpec) -> Iterator[Finding]:
    wanted = spec.resources
    if wanted.gpu_memory_gb is not None and not wanted.gpu:
        yield Finding(("resources", "gpu_memory_gb"), "needs resources.gpu of at least 1")
    if wanted.shm_gb >= wanted.memory_gb:
        yield Finding(
            ("resources", "shm_gb"),
            f"must be less than resources.memory_gb, of which it is part ({wanted.memory_gb:g})",
        )


def _data(spec: JobSpec) -> Iterator[Finding]:
    names = [pin.name for pin in spec.data]
    for index, pin in enumerate(spec.data):
        if names.index(pin.name) != index:
            yield Finding(("data", index, "name"), f"'{pin.name}' is used twice")
        if pin.sha256 and pin.version_id:
            yield Finding(("data", index, "version_id"), "give sha256 or version_id, not both")
        if pin.version_id and not (pin.uri or "").startswith("s3://"):
            yield Finding(("data", index, "version_id"), "only objects in S3 have versions; use sha256")
    if spec.promote.require_manual and spec.promote.to == "none":
        yield Finding(("promote", "require_manual"), "makes no sense with promote.to = 'none'")


def _money(spec: JobSpec, book: PriceBook) -> Iterator[Finding]:
    cheapest = hourly_picousd(spec.resources, book)
    if spec.limits.max_cost_usd is None or cheapest is None:
        return
    sku, hourly = cheapest
    every = spec.checkpoint.every.seconds or AUTO_INTERVAL_S_MIN
    needed = hourly * every / 3600 / PICO_PER_USD
    if spec.limits.max_cost_usd < needed:
        yield Finding(
            ("limits", "max_cost_usd"),
            f"{spec.limits.max_cost_usd:g} ends before the first checkpoint: {every}s on {sku} cost {needed:.6f} "
            f"(price book of {book.region}); raise it or shorten checkpoint.every",
        )


def _schedule(spec: JobSpec) -> Iterator[Finding]:
    if spec.schedule is None:
        return
    try:
        cron.parse(spec.schedule.cron)
    except ValueError as error:
        yield Finding(("schedule", "cron"), str(error))
    problem = timezone_problem(spec.schedule.timezone)
    if problem:
        yield Finding(("schedule", "timezone"), problem)


def timezone_problem(name: str) -> str:
    """ "" when there is such a time zone."""
    known = _timezones()
    if name in known:
        return ""
    if not known:
        return "this machine has no time zone database to check it with; pip install tzdata"
    near = get_close_matches(name, known, 1)
    return f"there is no time zone '{name}'" + (f"; did you mean '{near[0]}'?" if near else ", as in 'Europe/Paris'")


@functools.cache
def _timezones() -> frozenset[str]:
    """Looked up once: it walks through hundreds of files."""
    return frozenset(zoneinfo.available_timezones())
