"""`steelyard infra cost` over what Terraform printed for this repository's own stack (values that cost nothing are cut from it)."""

import json
import os
import stat
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.infra import infra
from gateway.contract import prices, stackprices
from gateway.errors import SettingsError
from gateway.stack import plan
from gateway.stack.estimate import MONTH_HOURS, Estimate, Traffic, estimate
from gateway.stack.line import Line
from gateway.stack.usage import Usage

PLAN = Path(__file__).parent / "plans" / "local.json"
BOOK = prices.load()
PARTS = stackprices.load()
USAGE = Usage(image_gb=Fraction(8), log_gb=Fraction(1), training_hours=Fraction(10), run_minutes=Fraction(1))
TRAFFIC = Traffic(cpu_s=Fraction(5, 1000), request_bytes=4000, utilization=Fraction(6, 10))


def planned(change: Any = None) -> list[plan.Resource]:
    """The plan's resources, after `change` was made to each one's values."""
    found = plan.resources(PLAN.read_bytes())
    for resource in found:
        if change:
            change(resource.type, resource.values)
    return found


def estimated(resources: list[plan.Resource], book: prices.PriceBook = BOOK, traffic: Traffic = TRAFFIC) -> Estimate:
    return estimate(resources, book, PARTS, traffic, USAGE)


def line(lines: tuple[Line, ...], start: str) -> Line:
    return next(found for found in lines if found.what.startswith(start))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(infra, ["cost", *arguments])


def test_a_task_costs_its_vcpus_and_memory_for_a_month() -> None:
    service = line(estimated(planned()).idle, "service gateway, fargate-x86")
    assert service.quantity == "1 x 1 vCPU, 2 GB"
    assert service.usd == (Fraction("0.04048") + 2 * Fraction("0.004445")) * MONTH_HOURS
    assert "spot" in service.note


def test_the_floor_of_the_autoscaler_is_what_stands_idle() -> None:
    def three(kind: str, values: dict[str, Any]) -> None:
        if kind == "aws_appautoscaling_target":
            values["min_capacity"] = 3

    one, more = estimated(planned()), estimated(planned(three))
    task = line(one.idle, "service").usd
    assert task is not None
    assert line(more.idle, "service").usd == 3 * task
    assert more.included_rps == 3 * one.included_rps == 3 * Fraction(120)


def test_arm_is_billed_as_arm() -> None:
    def arm(kind: str, values: dict[str, Any]) -> None:
        if kind == "aws_ecs_task_definition" and "gateway" in values.get("family", "gateway"):
            values["runtime_platform"] = [{"cpu_architecture": "ARM64"}]
        if kind == "aws_lambda_function":
            values["architectures"] = ["arm64"]

    there = estimated(planned(arm))
    assert (
        line(there.idle, "service gateway, fargate-arm").usd
        == (Fraction("0.03238") + 2 * Fraction("0.00356")) * MONTH_HOURS
    )
    x86, onarm = line(estimated(planned()).million, "or function").usd, line(there.million, "or function").usd
    assert x86 is not None
    assert onarm is not None
    assert onarm < x86


def test_endpoints_count_in_every_zone_and_the_gateway_endpoint_is_free() -> None:
    unsaid = line(estimated(planned()).idle, "interface endpoints")
    assert unsaid.quantity == "14"
    assert "at most" in unsaid.note

    def said(kind: str, values: dict[str, Any]) -> None:
        if kind == "aws_vpc_endpoint":
            values["tags"] = {"Zones": "1"}

    there = line(estimated(planned(said)).idle, "interface endpoints")
    assert (there.quantity, there.usd, there.note) == ("7", Fraction("0.01") * 7 * MONTH_HOURS, "")


def test_a_public_balancer_has_an_address_in_each_zone() -> None:
    def public(kind: str, values: dict[str, Any]) -> None:
        if kind == "aws_lb":
            values["internal"] = False

    assert not any(found.what.startswith("public") for found in estimated(planned()).idle)
    there = line(estimated(planned(public)).idle, "public addresses")
    assert there.usd == 2 * Fraction("0.005") * MONTH_HOURS


def test_a_million_requests_cost_cpu_bytes_and_the_function_its_calls() -> None:
    there = estimated(planned()).million
    hours = Fraction(1_000_000 * 5, 1000) / 3600 / Fraction(6, 10)
    assert line(there, "more tasks").usd == hours * (Fraction("0.04048") + 2 * Fraction("0.004445"))
    assert line(there, "load balancer").usd == 4 * Fraction("0.008")
    gb_s = 5000 * Fraction(1769, 1024)
    assert line(there, "or function").usd == gb_s * Fraction("0.0000166667") + Fraction("0.2")


@given(cpu_us=st.integers(1, 10_000_000), percent=st.integers(1, 100))
def test_more_cpu_and_emptier_tasks_never_cost_less(cpu_us: int, percent: int) -> None:
    def usd(cpu_s: Fraction, utilization: Fraction) -> Fraction:
        traffic = Traffic(cpu_s=cpu_s, request_bytes=0, utilization=utilization)
        found = line(estimated(planned(), traffic=traffic).million, "more tasks").usd
        assert found is not None
        return found

    cpu_s, utilization = Fraction(cpu_us, 1_000_000), Fraction(percent, 100)
    assert usd(2 * cpu_s, utilization) == 2 * usd(cpu_s, utilization)
    assert usd(cpu_s, utilization) >= usd(cpu_s, Fraction(1))


def test_what_has_no_price_is_said_and_not_zero(tmp_path: Path) -> None:
    text = BOOK.data.decode().replace('sku = "fargate-x86/memory"', 'sku = "something-else"')
    book = tmp_path / "book.toml"
    book.write_text(text)
    there = estimated(planned(), prices.load(book))
    assert line(there.idle, "service").usd is None
    assert "fargate-x86" in there.missing
    said = invoke(str(PLAN), "--book", str(book)).output
    assert "UNPRICED: fargate-x86 is in no price file" in said


def test_an_unknown_type_is_named() -> None:
    extra = plan.Resource("aws_elasticache_cluster.cache", "aws_elasticache_cluster", {})
    assert estimated([*planned(), extra]).unknown == ("aws_elasticache_cluster",)
    assert estimated(planned()).unknown == ()


def test_the_sum_is_the_sum_of_what_is_shown() -> None:
    said = json.loads(invoke(str(PLAN), "--format", "json").output)
    assert float(said["idle_usd_per_month"]) == pytest.approx(sum(float(row["usd"]) for row in said["idle"]), abs=1e-5)
    table = invoke(str(PLAN)).output
    assert f"${float(said['idle_usd_per_month']):,.2f}" in table
    assert float(said["used_usd_per_month"]) == pytest.approx(sum(float(row["usd"]) for row in said["used"]), abs=1e-5)
    together = float(said["idle_usd_per_month"]) + float(said["used_usd_per_month"])
    assert f"Together ${together:,.2f} a month" in table
    assert "5 ms of CPU" in table


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resource {}", "no JSON"),
        ("[]", "no Terraform plan"),
        ('{"values": {}}', "no Terraform plan"),
        ('{"planned_values": {}, "format_version": "2.0"}', "format 2.0"),
        ('{"planned_values": {}}', "format unknown"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        plan.resources(text.encode())


def test_a_directory_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no \*\.tf files"):
        plan.read(tmp_path)


def test_terraform_that_is_missing_or_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.tf").write_text("")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="terraform is not installed"):
        plan.read(tmp_path)
    program = tmp_path / "bin" / "terraform"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'Error: No valid credential sources found' >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")
    with pytest.raises(SettingsError, match=r"plan failed in .*\n.*No valid credential"):
        plan.read(tmp_path)


def test_an_empty_plan_costs_nothing() -> None:
    there = estimated(plan.resources(b'{"planned_values": {"root_module": {}}, "format_version": "1.2"}'))
    assert (there.idle_usd, there.idle, there.used, there.million, there.included_rps) == (0, (), (), (), 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('usd = "0"', "zero"),
        ('usd = "-1"', "usd"),
        ('unit = "year"', "unit"),
        ('as_of = "soon"', "as_of"),
        ('name = "alarm"\nextra = 1', "extra"),
    ],
)
def test_a_price_file_that_is_wrong_is_refused(tmp_path: Path, change: str, said: str) -> None:
    keys = {"name": '"alarm"', "unit": '"month"', "usd": '"0.10"', "as_of": '"2026-02-01"', "source": '"somebody"'}
    lines = [f"{key} = {value}" for key, value in keys.items() if not change.startswith(f"{key} ")]
    path = tmp_path / "prices.toml"
    path.write_text("\n".join(['region = "us-east-1"', "[[price]]", *lines, change]))
    with pytest.raises(SettingsError, match=said):
        stackprices.load(path)


def test_a_part_priced_twice_is_refused(tmp_path: Path) -> None:
    one = '[[price]]\nname = "alarm"\nunit = "month"\nusd = "0.10"\nas_of = "2026-02-01"\nsource = "somebody"\n'
    path = tmp_path / "prices.toml"
    path.write_text('region = "us-east-1"\n' + one + one)
    with pytest.raises(SettingsError, match="priced twice"):
        stackprices.load(path)
