"""What a planned stack costs by use that no plan tells: images stored, logs written, hours trained, minutes of scheduled runs.

The figures are the user's to state; each has a default with its reason. `gateway.stack.estimate` asks for these lines.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from gateway.contract.prices import PriceBook
from gateway.contract.stackprices import StackPrices
from gateway.stack import frequency
from gateway.stack.line import Line
from gateway.stack.plan import Resource

MONTH_DAYS = Fraction(365, 12)
NEVER_EXPIRES_DAYS = 365
"""A log group without a limit is taken for one that has kept a year; it grows for ever."""

IMAGE_GB = 8.0
"""A trainer's image with CUDA (11 GB unpacked, here taken for 7), some of the gateway (93 MB) and of the keeper (54 MB)."""
LOG_GB = 1.0
"""A gateway's figures every 15 s are 0.04 GB a month; the rest is for starts, jobs, refused connections, failed requests."""
TRAINING_HOURS = 10.0
"""Half an hour on five nights a week: an assumption, as every other figure would be."""
RUN_MINUTES = 1.0
"""What Fargate bills at least. To verify a hundred million requests takes a minute of a CPU, which half a vCPU has in two."""


class Usage(msgspec.Struct, frozen=True):
    """Per month, but `run_minutes`, which one scheduled run takes."""

    image_gb: Fraction
    log_gb: Fraction
    training_hours: Fraction
    run_minutes: Fraction


class Size(NamedTuple):
    """Of a task definition."""

    platform: str
    vcpus: Fraction
    memory_gb: Fraction


def lines(planned: Sequence[Resource], book: PriceBook, prices: StackPrices, usage: Usage) -> Iterator[Line]:
    """What has no part in the plan has no line."""
    kinds = {found.type for found in planned}
    if "aws_ecr_repository" in kinds:
        yield _by_gb("stored images", usage.image_gb, prices, "image-storage", "compressed")
    if "aws_cloudwatch_log_group" in kinds:
        yield _by_gb("log lines taken in", usage.log_gb, prices, "log-ingestion", "")
        yield _kept_logs(planned, prices, usage)
    yield from _training(planned, book, usage)


def runs(
    planned: Sequence[Resource],
    usage: Usage,
    size_of: Callable[[Resource], Size],
    hour_usd: Callable[[Size], Fraction | None],
) -> Iterator[Line]:
    """Tasks that schedules start: a line for each module that has a task definition and schedules of it."""
    for definition in (found for found in planned if found.type == "aws_ecs_task_definition"):
        started = [
            found
            for found in planned
            if found.type == "aws_scheduler_schedule" and found.module == definition.module and _starts_a_task(found)
        ]
        if not started:
            continue
        count = sum((frequency.per_month(str(found.values["schedule_expression"])) for found in started), Fraction(0))
        size = size_of(definition)
        hour = hour_usd(size)
        minutes = max(usage.run_minutes, Fraction(1))
        yield Line(
            f"scheduled runs of {definition.values.get('family') or definition.address}, {size.platform}",
            f"{float(count):,.0f} x {float(size.vcpus):g} vCPU, {float(size.memory_gb):g} GB",
            None if hour is None else hour * count * minutes / 60,
            f"{float(minutes):g} min each",
            missing="" if hour is not None else size.platform,
        )


def _starts_a_task(schedule: Resource) -> bool:
    targets: list[dict[str, Any]] = schedule.values.get("target") or [{}]
    return bool(targets[0].get("ecs_parameters")) and schedule.values.get("state") != "DISABLED"


def _by_gb(what: str, gigabytes: Fraction, prices: StackPrices, name: str, note: str) -> Line:
    price = prices.of(name)
    usd = None if price is None else Fraction(price.usd) * gigabytes
    return Line(what, f"{float(gigabytes):,.2f} GB", usd, note, missing="" if price is not None else name)


def _kept_logs(planned: Sequence[Resource], prices: StackPrices, usage: Usage) -> Line:
    """The longest of all groups counts for everything: which group gets how much, no plan says."""
    groups = [found for found in planned if found.type == "aws_cloudwatch_log_group"]
    days = max(int(found.values.get("retention_in_days") or NEVER_EXPIRES_DAYS) for found in groups)
    kept = usage.log_gb * days / MONTH_DAYS
    return _by_gb("log lines kept", kept, prices, "log-storage", f"{days} days, as if not compressed: at most")


def _training(planned: Sequence[Resource], book: PriceBook, usage: Usage) -> Iterator[Line]:
    """On the first machine of the first environment that the book has a price for; on spot where there is such an environment."""
    environments = [found for found in planned if found.type == "aws_batch_compute_environment"]
    asked = [compute for found in environments if (compute := (found.values.get("compute_resources") or [{}])[0])]
    asked.sort(key=lambda compute: compute.get("type") != "SPOT")
    if not asked:
        return
    first = asked[0]
    suffix = "/spot" if first.get("type") == "SPOT" else ""
    types = [str(each) for each in first.get("instance_type") or ()]
    machine = next((each for each in types if book.price(f"{each}{suffix}") is not None), "")
    market = "spot" if suffix else "on demand"
    hours = f"{float(usage.training_hours):,.1f} h"
    if not machine:
        missing = f"{types[0] if types else 'a machine of Batch'}{suffix}"
        yield Line(f"training, {market}", hours, None, missing=missing)
        return
    price = book.price(f"{machine}{suffix}")
    assert price is not None
    said = ["an assumption" if price.assumed else ""]
    on_demand = book.price(machine)
    if suffix and on_demand is not None:
        said.append(f"on demand ${float(Fraction(on_demand.usd) * usage.training_hours):,.2f}")
    note = "; ".join(word for word in said if word)
    yield Line(f"training on {machine}, {market}", hours, Fraction(price.usd) * usage.training_hours, note)
