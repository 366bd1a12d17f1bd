"""What `steelyard infra check` finds in a plan by itself. The plans are Terraform's own of envs/dev (tests/support/plans.py)."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stack import changes, dates, inplan, plan
from gateway.stack.changes import Image, Provider
from gateway.stack.finding import Finding
from tests.support import plans

PLANS = Path(__file__).parent / "plans"
NOW = datetime(2026, 11, 25, 21, tzinfo=UTC)


def planned(name: str) -> dict[str, Any]:
    return plan.load(PLANS / f"{name}.json")


def resources(change: Callable[[str, dict[str, Any]], None], name: str = "dev") -> list[plan.Resource]:
    """The planned resources, after `change` was made to each one's values."""
    found = plan.resources_of(planned(name))
    for resource in found:
        change(resource.type, resource.values)
    return found


def without(*kinds: str) -> list[plan.Resource]:
    return [found for found in plan.resources_of(planned("dev")) if found.type not in kinds]


# --- data


def test_a_first_plan_destroys_nothing() -> None:
    [only] = inplan.losses(changes.changes(planned("dev")))
    assert (only.verdict, only.about) == ("ok", "data")


def test_a_bucket_that_would_be_replaced_stops_and_says_for_what() -> None:
    [only] = inplan.losses(changes.changes(planned("dev-moved")))
    assert only.verdict == "stop"
    assert (
        "REPLACES, for bucket, acme-steelyard-dev (module.steelyard.module.artifacts.aws_s3_bucket.store)" in only.what
    )
    assert "every model, run, key and the ledger" in only.what


@pytest.mark.parametrize("kind", sorted(inplan.HOLDS))
def test_what_holds_data_and_would_be_destroyed_stops(kind: str) -> None:
    rows = [
        {
            "address": f"{kind}.it",
            "mode": "managed",
            "type": kind,
            "change": {"actions": ["delete"], "before": {}, "after": None},
        }
    ]
    [only] = inplan.losses(changes.changes({"resource_changes": rows}))
    assert only.verdict == "stop"
    assert f"DESTROYS {kind}.it" in only.what


def test_what_holds_nothing_may_be_replaced() -> None:
    rows = [
        {"address": "aws_lb.this", "mode": "managed", "type": "aws_lb", "change": {"actions": ["delete", "create"]}},
        {"address": "data.aws_s3_bucket.x", "mode": "data", "type": "aws_s3_bucket", "change": {"actions": ["delete"]}},
    ]
    assert [each.verdict for each in inplan.losses(changes.changes({"resource_changes": rows}))] == ["ok"]


# --- subnets


def test_a_plan_without_subnets_stops() -> None:
    [only] = inplan.subnets(without("aws_subnet"))
    assert only.verdict == "stop"
    assert "the stack has no subnets" in only.what
    assert "zones" in only.do


def test_subnets_that_are_there_already_will_do() -> None:
    def named(kind: str, values: dict[str, Any]) -> None:
        if kind == "aws_ecs_service":
            values["network_configuration"] = [{"subnets": ["subnet-1", "subnet-2"]}]

    kept = [found for found in resources(named) if found.type != "aws_subnet"]
    assert [each.verdict for each in inplan.subnets(kept)] == ["ok"]


def test_where_nothing_needs_a_subnet_none_is_missed() -> None:
    assert list(inplan.subnets(plan.resources_of(planned("dev-first")))) == []
    assert [each.what for each in inplan.subnets(without())] == ["the stack has 4"]


# --- schedules


def scheduled(expression: str, zone: str | None = "UTC", state: str = "ENABLED") -> list[Finding]:
    """What is found of the one-time job, given this schedule; the weekly one is as it was planned."""

    def changed(kind: str, values: dict[str, Any]) -> None:
        if str(values.get("schedule_expression")).startswith("at("):
            values |= {"schedule_expression": expression, "schedule_expression_timezone": zone, "state": state}

    return list(inplan.schedules(resources(changed), NOW))


@pytest.mark.parametrize(
    ("expression", "zone", "why"),
    [
        ("at(2026-11-25T20:59:59)", "UTC", "is over"),
        ("at(2026-11-25T21:59:59)", "Europe/Paris", "is over"),
        ("at(2026-02-30T00:00:00)", "UTC", "no schedule"),
        ("cron(0 3 ? * MON 2025)", "UTC", "is over"),
        ("cron(0 3 1 1-6 ? 2024-2026)", "UTC", "is over"),
        ("cron(0 3 24 NOV ? 2026)", "UTC", "is over"),
        ("cron(0 3 ? 13 MON 2026)", "UTC", "no schedule"),
        ("cron(0 3 * * *)", "UTC", "six fields"),
        ("hourly", "UTC", "none of at"),
        ("rate(1 day)", "Europe/Atlantis", "no time zone"),
        ("rate(1 day)", "../etc/passwd", "no time zone"),
    ],
)
def test_a_schedule_that_would_never_start_stops(expression: str, zone: str, why: str) -> None:
    stop, rest = scheduled(expression, zone)
    assert (stop.verdict, stop.about, rest.what) == ("stop", "schedule", "1 with times to come")
    assert 'aws_scheduler_schedule.job["once"]' in stop.what
    assert why in stop.what


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("at(2026-11-25T22:00:01)", "Europe/Paris"),
        ("at(2026-11-25T11:00:01)", "Pacific/Honolulu"),
        ("cron(0 3 ? * MON *)", "UTC"),
        ("cron(0 3 L * ? 2026)", "UTC"),
        ("cron(0 3 ? * 2#1 2026/2)", "UTC"),
        ("cron(30 3 ? NOV-DEC MON-FRI 2026)", None),
        ("rate(1 day)", "UTC"),
    ],
)
def test_a_schedule_that_is_to_come_does_not(expression: str, zone: str | None) -> None:
    assert [(each.verdict, each.what) for each in scheduled(expression, zone)] == [("ok", "2 with times to come")]


def test_a_schedule_that_is_switched_off_may_be_over() -> None:
    assert [each.what for each in scheduled("at(2020-01-01T00:00:00)", state="DISABLED")] == ["1 with times to come"]


@given(
    at=st.datetimes(datetime(2001, 1, 1), datetime(2098, 12, 31)),  # noqa: DTZ001 - in the schedule's zone
    zone=st.sampled_from(["UTC", "Europe/Paris", "Pacific/Honolulu", "Pacific/Kiritimati"]),
    wide=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_no_time_of_a_cron_comes_after_what_is_called_its_latest(at: datetime, zone: str, wide: list[bool]) -> None:
    """A field is the moment's own, or a range that holds it: so the moment is one of the schedule's."""
    tops = (59, 23, 31, 12)
    values = (at.minute, at.hour, at.day, at.month)
    fields = [f"{value}-{top}" if w else str(value) for value, top, w in zip(values, tops, wide, strict=True)]
    minute, hour, day, month = fields
    last = dates.latest(f"cron({minute} {hour} {day} {month} ? {at.year})", zone)
    exact = dates.latest(f"at({at:%Y-%m-%dT%H:%M:%S})", zone)
    assert last is not None
    assert exact is not None
    assert last > exact - timedelta(minutes=1)
    if not any(wide):
        assert last <= exact


# --- the provider, and images


def test_the_providers_arguments_are_read_from_constants_and_variables() -> None:
    assert changes.provider(planned("dev")) == Provider(region="eu-central-1", account_ids=("123456789012",))
    said = {
        "region": {"constant_value": "us-east-1"},
        "allowed_account_ids": {"constant_value": ["1", "2"]},
        "profile": {"references": ["local.computed"]},
        "access_key": {"constant_value": "key"},
        "secret_key": {"references": ["var.secret"]},
        "endpoints": [{"s3": {"references": ["var.url"]}, "sts": {"references": ["var.none"]}, "ec2": {}}],
        "assume_role": [{"role_arn": {"constant_value": "arn:aws:iam::1:role/r"}}],
    }
    there = {
        "variables": {"secret": {"value": "s"}, "url": {"value": "http://127.0.0.1:1"}},
        "configuration": {"provider_config": {"aws": {"expressions": said}, "aws.other": {}}},
    }
    assert changes.provider(there) == Provider(
        region="us-east-1",
        account_ids=("1", "2"),
        keys=("key", "s"),
        endpoints={"s3": "http://127.0.0.1:1"},
        assumes_role=True,
    )
    assert changes.provider({}) == Provider()


def test_a_region_that_is_computed_is_not_known() -> None:
    """Terraform names what an expression refers to, not how: the value of its one variable may be half a name."""
    there = planned("dev")
    there["variables"]["region"]["value"] = "central"
    assert changes.provider(there).region == ""


def test_before_a_first_apply_images_are_known_by_the_variables() -> None:
    assert changes.images(planned("dev")) == [
        Image("variable gateway_image", plans.GATEWAY),
        Image("variable jobs.weekly.image", plans.TRAINER),
    ]
    assert changes.images(planned("dev-first")) == [], "nothing in it starts an image"


def test_a_definition_that_is_known_names_its_image_itself() -> None:
    there = planned("dev")
    for row in there["planned_values"]["root_module"]["resources"]:
        if row["type"] == "aws_ecs_task_definition":
            row["values"]["container_definitions"] = json.dumps([{"name": "gateway", "image": plans.GATEWAY}])
        if row["type"] == "aws_batch_job_definition":
            row["values"]["container_properties"] = json.dumps({"image": "trainer:latest"})
    assert [image.name for image in changes.images(there)] == [plans.GATEWAY, plans.TRAINER, "trainer:latest"]
    assert "aws_ecs_task_definition.gateway" in changes.images(there)[0].where
