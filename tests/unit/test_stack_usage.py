"""What `steelyard infra cost` adds by use: images, logs, training, scheduled runs; and what it says where a price is missing."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.infra import infra
from gateway.contract import prices, stackprices
from gateway.errors import SettingsError
from gateway.stack import frequency, plan, usage
from gateway.stack.estimate import Traffic, estimate
from gateway.stack.line import Line
from gateway.stack.usage import Usage

PLAN = Path(__file__).parent / "plans" / "local.json"
BOOK = prices.load()
PARTS = stackprices.load()
TRAFFIC = Traffic(cpu_s=Fraction(5, 1000), request_bytes=4000, utilization=Fraction(6, 10))
NOTHING = Usage(image_gb=Fraction(0), log_gb=Fraction(0), training_hours=Fraction(0), run_minutes=Fraction(1))


def lines(used: Usage = NOTHING, change: Any = None, parts: stackprices.StackPrices = PARTS) -> tuple[Line, ...]:
    """All of a month's, after `change` was made to each resource's values."""
    found = plan.resources(PLAN.read_bytes())
    for resource in found:
        if change:
            change(resource)
    there = estimate(found, BOOK, parts, TRAFFIC, used)
    return (*there.idle, *there.used)


def line(found: tuple[Line, ...], start: str) -> Line:
    return next(each for each in found if each.what.startswith(start))


def used(**options: int) -> Usage:
    return Usage(**{name: Fraction(options.get(name, 1)) for name in Usage.__struct_fields__})


def test_images_and_logs_cost_by_the_gigabyte_and_logs_for_as_long_as_they_are_kept() -> None:
    found = lines(used(image_gb=30, log_gb=7))
    assert line(found, "stored images").usd == 30 * Fraction("0.10")
    assert line(found, "log lines taken in").usd == 7 * Fraction("0.50")
    kept = line(found, "log lines kept")
    assert kept.usd == 7 * 30 / Fraction(365, 12) * Fraction("0.03")
    assert "30 days" in kept.note


def test_a_log_that_never_expires_is_a_years() -> None:
    def forever(resource: plan.Resource) -> None:
        if resource.address.endswith("log_group.keeper"):
            resource.values["retention_in_days"] = 0

    assert "365 days" in line(lines(used(), forever), "log lines kept").note


def test_training_costs_what_the_first_priced_machine_of_the_spot_environment_does() -> None:
    found = line(lines(used(training_hours=100)), "training")
    assert found.what == "training on g4dn.xlarge, spot"
    price = BOOK.price("g4dn.xlarge/spot")
    assert price is not None
    assert found.usd == 100 * Fraction(price.usd)
    assert found.note == "an assumption; on demand $52.60"


def test_without_spot_training_is_on_demand() -> None:
    def ordinary(resource: plan.Resource) -> None:
        if resource.type == "aws_batch_compute_environment":
            resource.values["compute_resources"] = [{"type": "EC2", "instance_type": ["g5.xlarge"]}]

    found = line(lines(used(training_hours=2), ordinary), "training")
    assert (found.what, found.usd, found.note) == ("training on g5.xlarge, on demand", 2 * Fraction("1.006"), "")


def test_a_machine_without_a_price_is_said() -> None:
    def strange(resource: plan.Resource) -> None:
        if resource.type == "aws_batch_compute_environment":
            resource.values["compute_resources"] = [{"type": "SPOT", "instance_type": ["x9.huge"]}]

    found = line(lines(used(), strange), "training")
    assert (found.usd, found.missing) == (None, "x9.huge/spot")


def test_a_part_without_a_price_is_said() -> None:
    without = stackprices.StackPrices("r", tuple(each for each in PARTS.price if each.name != "log-ingestion"))
    found = line(lines(used(), parts=without), "log lines taken in")
    assert (found.usd, found.missing) == (None, "log-ingestion")


def test_scheduled_runs_cost_their_minutes_as_often_as_they_start() -> None:
    found = line(lines(), "scheduled runs of steelyard-local-keeper")
    starts = 730 + Fraction(365, 12) + 2920
    hour = Fraction("0.04048") / 2 + 2 * Fraction("0.004445")
    assert found.usd == starts * hour / 60
    assert found.quantity == "3,680 x 0.5 vCPU, 2 GB"
    longer = line(lines(used(run_minutes=3)), "scheduled runs")
    assert longer.usd == 3 * starts * hour / 60


def test_less_than_a_minute_is_billed_as_one() -> None:
    short = Usage(image_gb=Fraction(0), log_gb=Fraction(0), training_hours=Fraction(0), run_minutes=Fraction(1, 4))
    assert line(lines(short), "scheduled runs").usd == line(lines(), "scheduled runs").usd


def test_a_schedule_that_is_off_costs_nothing_and_trainings_are_no_tasks() -> None:
    def off(resource: plan.Resource) -> None:
        if resource.type == "aws_scheduler_schedule" and "budgets" in resource.address:
            resource.values["state"] = "DISABLED"

    assert line(lines(change=off), "scheduled runs").quantity.startswith("760 x")
    assert len([each for each in lines() if each.what.startswith("scheduled runs")]) == 1


@given(st.fixed_dictionaries({name: st.integers(0, 10**6) for name in ("image_gb", "log_gb", "training_hours")}))
def test_twice_the_use_costs_twice_as_much(options: dict[str, int]) -> None:
    def usd(factor: int) -> Fraction:
        stated = Usage(**{name: Fraction(factor * value) for name, value in options.items()}, run_minutes=Fraction(1))
        return sum((each.usd or Fraction(0) for each in usage.lines(RESOURCES, BOOK, PARTS, stated)), Fraction(0))

    assert usd(2) == 2 * usd(1)


RESOURCES = plan.resources(PLAN.read_bytes())


@pytest.mark.parametrize(
    ("expression", "starts"),
    [
        ("rate(15 minutes)", 2920),
        ("rate(1 hour)", 730),
        ("rate(7 days)", Fraction(365, 84)),
        ("cron(20 * * * ? *)", 730),
        ("cron(40 3 * * ? *)", Fraction(365, 12)),
        ("cron(0/15 8-17 ? * MON-FRI *)", 4 * 10 * 5 * Fraction(365, 84)),
        ("cron(0 3 ? * 2#1 *)", 1),
        ("cron(0 3 L * ? *)", 1),
        ("cron(0 3 1,15 JAN-JUN ? *)", 1),
        ("cron(0,30 3 1 * ? 2027)", 2),
        ("at(2027-01-31T03:00:00)", 0),
    ],
)
def test_how_often_a_schedule_starts_something(expression: str, starts: Fraction | int) -> None:
    assert frequency.per_month(expression) == starts


@pytest.mark.parametrize("expression", ["", "hourly", "cron(* * * * *)", "rate(0 days)", "cron(x 3 * * ? *)"])
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    with pytest.raises(SettingsError, match="schedule"):
        frequency.per_month(expression)


def test_the_command_takes_what_is_stated_and_else_its_defaults() -> None:
    def said(*options: str) -> dict[str, Any]:
        done = CliRunner().invoke(infra, ["cost", str(PLAN), "--format", "json", *options])
        assert done.exit_code == 0, done.output
        rows = json.loads(done.stdout)
        return {row["what"].partition(" on ")[0]: row["quantity"] for row in rows["used"]}

    assert said() == {
        "stored images": f"{usage.IMAGE_GB:,.2f} GB", "log lines taken in": f"{usage.LOG_GB:,.2f} GB",
        "log lines kept": said()["log lines kept"], "training": f"{usage.TRAINING_HOURS:,.1f} h",
    }  # fmt: skip
    stated = said("--image-gb", "2.5", "--log-gb", "40", "--training-hours", "0")
    assert (stated["stored images"], stated["log lines taken in"], stated["training"]) == (
        "2.50 GB",
        "40.00 GB",
        "0.0 h",
    )
    wrong = CliRunner().invoke(infra, ["cost", str(PLAN), "--log-gb", "-1"])
    assert (wrong.exit_code, "--log-gb" in wrong.output) == (2, True)
