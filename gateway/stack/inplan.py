"""What is wrong with a plan by itself, without asking anybody: it destroys data, has no subnets, or starts jobs in the past."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from gateway.stack import dates
from gateway.stack.changes import Change
from gateway.stack.finding import Finding
from gateway.stack.plan import Resource

HOLDS = {
    "aws_s3_bucket": "bucket",
    "aws_dynamodb_table": "name",
    "aws_s3tables_table_bucket": "name",
    "aws_ecr_repository": "name",
    "aws_kms_key": "description",
}
"""Types that hold what no apply makes again, and what each is called by. Athena's tables only define."""

NEEDS_SUBNETS = frozenset({"aws_ecs_service", "aws_lb", "aws_batch_compute_environment"})

SCHEDULES = {
    "aws_scheduler_schedule": ("schedule_expression", "schedule_expression_timezone"),
    "aws_appautoscaling_scheduled_action": ("schedule", "timezone"),
    "aws_cloudwatch_event_rule": ("schedule_expression", ""),
}


def losses(found: Sequence[Change]) -> Iterator[Finding]:
    """A line for each thing with data in it that would be destroyed, be it to be made anew."""
    losing = [change for change in found if change.destroys and change.type in HOLDS]
    for change in losing:
        name = change.before.get(HOLDS[change.type]) or change.address
        how = f"REPLACES, for {', '.join(change.because) or 'a change'}," if change.creates else "DESTROYS"
        yield Finding(
            "stop",
            "data",
            f"this plan {how} {name} ({change.address}) with all that is in it; if it is the store, that is every model, run, key "
            "and the ledger",
            "take the change back; or if it is meant, copy the data away first and apply without this check",
        )
    if not losing:
        yield Finding("ok", "data", "no bucket, table, repository or key is destroyed or replaced")


def subnets(planned: Sequence[Resource]) -> Iterator[Finding]:
    """Whether what needs a network has one: subnets in the plan, or such as are there already."""
    needing = [found for found in planned if found.type in NEEDS_SUBNETS]
    made = sum(found.type == "aws_subnet" for found in planned)
    if made:
        yield Finding("ok", "subnets", f"the stack has {made}")
    elif needing and not any(_named_subnets(found.values) for found in needing):
        yield Finding(
            "stop",
            "subnets",
            f"the stack has no subnets, and {needing[0].address} needs some",
            "give the network its zones (zones, at least two)",
        )
    elif needing:
        yield Finding("ok", "subnets", "they are there already, outside this stack")


def _named_subnets(values: dict[str, Any]) -> bool:
    inside = [*(values.get("network_configuration") or ()), *(values.get("compute_resources") or ())]
    return any(each.get("subnets") for each in (values, *inside))


def schedules(planned: Sequence[Resource], now: datetime) -> Iterator[Finding]:
    """A line for each schedule that will never start anything; one for all others together."""
    found = [(resource, *SCHEDULES[resource.type]) for resource in planned if resource.type in SCHEDULES]
    good = 0
    for resource, expression, zone in found:
        said = resource.values.get(expression)
        if not said or resource.values.get("state") == "DISABLED":
            continue
        problem = _problem(said, resource.values.get(zone) or "UTC", now)
        good += not problem
        if problem:
            yield Finding(
                "stop", "schedule", f"{resource.address}: {problem}", "give it a time to come, or take it out"
            )
    if good:
        yield Finding("ok", "schedule", f"{good} with times to come")


def _problem(expression: str, zone: str, now: datetime) -> str:
    try:
        last = dates.latest(expression, zone)
    except ValueError as error:
        return str(error)
    return f"{expression} ({zone}) is over: it would never start" if last is not None and last < now else ""
