"""What a planned stack costs a month while nobody calls it, by use, and per million requests. Exact fractions of list prices.

Containers, functions, machines: the price book. Everything else: `gateway.contract.stackprices`. What has no price is listed as
such, never as zero; what is free is known by name; a type that nobody here knows is said to be unknown.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import msgspec

from gateway.contract.prices import PriceBook
from gateway.contract.stackprices import StackPrices
from gateway.stack import usage as used
from gateway.stack.line import Line
from gateway.stack.plan import Resource
from gateway.stack.usage import Size, Usage

MONTH_HOURS = 730
"""365 days in twelve months: what AWS's own calculator takes."""
FARGATE_STORAGE_GB = 20  # comes with the task; AWS Fargate pricing
SEGMENTS_PER_HOUR = 360  # `ledger.flush_interval_s` is 10 by default
LAMBDA_VCPU_MB = 1769  # one vCPU: AWS Lambda's documentation on memory

FREE = frozenset({
    "aws_appautoscaling_policy", "aws_appautoscaling_scheduled_action", "aws_appautoscaling_target",
    "aws_athena_workgroup", "aws_batch_compute_environment", "aws_batch_job_definition", "aws_batch_job_queue",
    "aws_budgets_budget", "aws_cloudwatch_event_rule", "aws_cloudwatch_event_target", "aws_cloudwatch_log_group",
    "aws_cloudwatch_log_resource_policy", "aws_default_security_group", "aws_ecr_lifecycle_policy", "aws_ecr_repository",
    "aws_ecs_cluster", "aws_ecs_cluster_capacity_providers", "aws_ecs_task_definition", "aws_flow_log",
    "aws_glue_catalog_database", "aws_glue_catalog_table", "aws_iam_instance_profile", "aws_iam_policy", "aws_iam_role",
    "aws_iam_role_policy", "aws_iam_role_policy_attachment", "aws_internet_gateway", "aws_lambda_function",
    "aws_lambda_function_url", "aws_lambda_permission", "aws_launch_template", "aws_lb_listener", "aws_lb_target_group",
    "aws_route", "aws_route_table", "aws_route_table_association", "aws_s3_bucket", "aws_s3_bucket_lifecycle_configuration",
    "aws_s3_bucket_logging", "aws_s3_bucket_ownership_controls", "aws_s3_bucket_policy", "aws_s3_bucket_public_access_block",
    "aws_s3_bucket_server_side_encryption_configuration", "aws_s3_bucket_versioning", "aws_scheduler_schedule",
    "aws_scheduler_schedule_group", "aws_security_group", "aws_sns_topic", "aws_sns_topic_policy",
    "aws_sns_topic_subscription", "aws_sqs_queue", "aws_sqs_queue_policy", "aws_subnet", "aws_vpc",
    "aws_vpc_security_group_egress_rule", "aws_vpc_security_group_ingress_rule",
})  # fmt: skip
"""Cost nothing by being there. What some cost by use says `gateway.stack.usage`."""


class Traffic(msgspec.Struct, frozen=True):
    """One prediction call as it costs: CPU seconds, bytes both ways together, and how full containers are kept."""

    cpu_s: Fraction
    request_bytes: int
    utilization: Fraction


class Estimate(msgspec.Struct, frozen=True):
    """`idle` and `used` are per month, `million` per million requests beyond what the idle fleet answers.

    That is `included_rps` requests a second.
    """

    idle: tuple[Line, ...]
    used: tuple[Line, ...]
    million: tuple[Line, ...]
    included_rps: Fraction
    unknown: tuple[str, ...]

    @property
    def idle_usd(self) -> Fraction:
        """The sum of what has a price."""
        return _sum(self.idle)

    @property
    def used_usd(self) -> Fraction:
        """The sum of what has a price."""
        return _sum(self.used)

    @property
    def missing(self) -> tuple[str, ...]:
        """Prices that no file has, each once."""
        return tuple(dict.fromkeys(line.missing for line in (*self.idle, *self.used, *self.million) if line.missing))


def _sum(lines: Sequence[Line]) -> Fraction:
    return sum((line.usd for line in lines if line.usd is not None), Fraction(0))


def estimate(
    planned: Sequence[Resource], book: PriceBook, prices: StackPrices, traffic: Traffic, usage: Usage
) -> Estimate:
    """What the plan costs at list prices."""
    stack = _Stack(planned, book, prices)
    runs = used.runs(planned, usage, _size, stack.size_usd_per_hour)
    return Estimate(
        idle=(*(line for kind in _IDLE for line in _IDLE[kind](stack, stack.all(kind))), *runs),
        used=tuple(used.lines(planned, book, prices, usage)),
        million=tuple(_million(stack, traffic)),
        included_rps=sum((task.tasks * task.vcpus for task in stack.tasks), Fraction(0))
        * traffic.utilization
        / traffic.cpu_s,
        unknown=tuple(sorted({found.type for found in planned} - FREE - set(_IDLE))),
    )


class Task(msgspec.Struct, frozen=True):
    """A service's containers: how many stand while nobody calls, and the size of each. `spot` of them may be spot."""

    name: str
    platform: str
    tasks: int
    spot: bool
    vcpus: Fraction
    memory_gb: Fraction
    storage_gb: int


class _Stack:
    """The plan by type, with both price files."""

    def __init__(self, planned: Sequence[Resource], book: PriceBook, prices: StackPrices) -> None:
        self._planned = planned
        self._book = book
        self._prices = prices
        self.tasks = tuple(self._tasks())

    def all(self, kind: str) -> list[Resource]:
        return [found for found in self._planned if found.type == kind]

    def sku_usd(self, sku: str) -> Fraction | None:
        price = self._book.price(sku)
        return None if price is None else Fraction(price.usd)

    def part(self, what: str, count: int, name: str, note: str = "") -> Line:
        """`count` parts that stand all month."""
        price = self._prices.of(name)
        if price is None:
            return Line(what, f"{count}", None, note, missing=name)
        per_month = Fraction(price.usd) * (MONTH_HOURS if price.unit == "hour" else 1)
        return Line(what, f"{count}", count * per_month, note)

    def unit_usd(self, name: str) -> Fraction | None:
        price = self._prices.of(name)
        return None if price is None else Fraction(price.usd)

    def size_usd_per_hour(self, size: Size) -> Fraction | None:
        vcpu, memory = self.sku_usd(f"{size.platform}/vcpu"), self.sku_usd(f"{size.platform}/memory")
        if vcpu is None or memory is None:
            return None
        return size.vcpus * vcpu + size.memory_gb * memory

    def task_usd_per_hour(self, task: Task) -> Fraction | None:
        return self.size_usd_per_hour(Size(task.platform, task.vcpus, task.memory_gb))

    def _tasks(self) -> Iterator[Task]:
        for service in self.all("aws_ecs_service"):
            sizes = [found for found in self.all("aws_ecs_task_definition") if found.module == service.module]
            floors = [found for found in self.all("aws_appautoscaling_target") if found.module == service.module]
            for definition in sizes[:1]:
                size = _size(definition)
                storage = _first(definition.values, "ephemeral_storage").get("size_in_gib", FARGATE_STORAGE_GB)
                providers = service.values.get("capacity_provider_strategy") or ()
                yield Task(
                    name=service.values.get("name") or service.address,
                    platform=size.platform,
                    tasks=int(floors[0].values["min_capacity"] if floors else service.values.get("desired_count") or 1),
                    spot=any(provider.get("capacity_provider") == "FARGATE_SPOT" for provider in providers),
                    vcpus=size.vcpus,
                    memory_gb=size.memory_gb,
                    storage_gb=int(storage),
                )


def _size(definition: Resource) -> Size:
    values = definition.values
    arm = _first(values, "runtime_platform").get("cpu_architecture") == "ARM64"
    vcpus, memory_gb = Fraction(int(values["cpu"]), 1024), Fraction(int(values["memory"]), 1024)
    return Size("fargate-arm" if arm else "fargate-x86", vcpus, memory_gb)


def _first(values: dict[str, Any], block: str) -> dict[str, Any]:
    """Terraform's JSON has every block as a list."""
    found: list[dict[str, Any]] = values.get(block) or [{}]
    return found[0]


def _services(stack: _Stack, _: Sequence[Resource]) -> Iterator[Line]:
    for task in stack.tasks:
        hour = stack.task_usd_per_hour(task)
        size = f"{task.tasks} x {float(task.vcpus):g} vCPU, {float(task.memory_gb):g} GB"
        note = "all on demand; spot costs less and changes by the day" if task.spot else ""
        usd = None if hour is None else hour * task.tasks * MONTH_HOURS
        yield Line(
            f"service {task.name}, {task.platform}", size, usd, note, missing="" if hour is not None else task.platform
        )
        beyond_gb = task.storage_gb - FARGATE_STORAGE_GB
        if beyond_gb > 0 and task.tasks:
            usd = stack.unit_usd("fargate-ephemeral-storage")
            month = None if usd is None else usd * beyond_gb * MONTH_HOURS * task.tasks
            missing = "" if usd is not None else "fargate-ephemeral-storage"
            yield Line("storage of tasks beyond 20 GB", f"{task.tasks} x {beyond_gb} GB", month, missing=missing)
        put = stack.unit_usd("s3-put")
        segments = SEGMENTS_PER_HOUR * MONTH_HOURS * task.tasks
        usd = None if put is None else put * segments / 1000
        yield Line(
            "ledger segments", f"{segments:,}", usd, "one in ten seconds at most", "" if put is not None else "s3-put"
        )


def _balancers(stack: _Stack, found: Sequence[Resource]) -> Iterator[Line]:
    if found:
        yield stack.part("load balancers", len(found), "load-balancer")
    outside = [each for each in found if not each.values.get("internal")]
    if outside:
        zones = _zones(stack)
        yield stack.part(
            "public addresses of load balancers", len(outside) * zones, "public-ipv4", f"one in each of {zones} zones"
        )


def _endpoints(stack: _Stack, found: Sequence[Resource]) -> Iterator[Line]:
    interfaces = [each for each in found if each.values.get("vpc_endpoint_type") == "Interface"]
    if not interfaces:
        return
    said = [(each.values.get("tags") or {}).get("Zones") for each in interfaces]
    if all(said):
        yield stack.part(
            "interface endpoints, by zone", sum(int(zones) for zones in said if zones), "interface-endpoint"
        )
    else:
        zones = _zones(stack)
        note = f"at most: in how many of {zones} zones is known after apply"
        yield stack.part("interface endpoints, by zone", len(interfaces) * zones, "interface-endpoint", note)


def _zones(stack: _Stack) -> int:
    return len({subnet.values.get("availability_zone") for subnet in stack.all("aws_subnet")}) or 1


def _counted(what: str, price: str) -> Callable[[_Stack, Sequence[Resource]], Iterator[Line]]:
    def lines(stack: _Stack, found: Sequence[Resource]) -> Iterator[Line]:
        if found:
            yield stack.part(what, len(found), price)

    return lines


_IDLE: dict[str, Callable[[_Stack, Sequence[Resource]], Iterator[Line]]] = {
    "aws_ecs_service": _services,
    "aws_lb": _balancers,
    "aws_vpc_endpoint": _endpoints,
    "aws_nat_gateway": _counted("NAT gateways", "nat-gateway"),
    "aws_eip": _counted("public addresses", "public-ipv4"),
    "aws_cloudwatch_metric_alarm": _counted("alarms", "alarm"),
    "aws_cloudwatch_log_metric_filter": _counted("metrics from logs", "custom-metric"),
    "aws_cloudwatch_dashboard": _counted("dashboards", "dashboard"),
}


def _million(stack: _Stack, traffic: Traffic) -> Iterator[Line]:
    calls = 1_000_000
    for task in stack.tasks:
        hour = stack.task_usd_per_hour(task)
        hours = calls * traffic.cpu_s / 3600 / traffic.utilization / task.vcpus
        yield Line(
            f"more tasks of {task.name}",
            f"{float(hours):,.2f} h",
            None if hour is None else hour * hours,
            f"{float(traffic.cpu_s * 1000):g} ms of CPU a request, tasks {float(traffic.utilization):.0%} full",
            missing="" if hour is not None else task.platform,
        )
    if stack.all("aws_lb"):
        gigabytes = Fraction(calls * traffic.request_bytes, 10**9)
        usd = stack.unit_usd("load-balancer-capacity")
        cost, missing = (None, "load-balancer-capacity") if usd is None else (usd * gigabytes, "")
        yield Line(
            "load balancer's traffic", f"{float(gigabytes):,.2f} GB", cost, "by bytes, on kept connections", missing
        )
    for function in stack.all("aws_lambda_function"):
        yield _function(stack, function, traffic, calls)


def _function(stack: _Stack, function: Resource, traffic: Traffic, calls: int) -> Line:
    arm = "arm64" in (function.values.get("architectures") or ())
    memory_mb = int(function.values.get("memory_size") or 128)
    vcpus = min(Fraction(1), Fraction(memory_mb, LAMBDA_VCPU_MB))  # one request keeps one thread busy
    gb_s = calls * traffic.cpu_s / vcpus * Fraction(memory_mb, 1024)
    sku = "lambda-arm/duration" if arm else "lambda-x86/duration"
    second, request = stack.sku_usd(sku), stack.sku_usd("lambda/requests")
    usd = None if second is None or request is None else gb_s * second + request * calls / 1_000_000
    name = function.values.get("function_name") or function.address
    missing = "" if usd is not None else f"{sku} or lambda/requests"
    return Line(f"or function {name} instead", f"{float(gb_s):,.0f} GB-s", usd, "cold starts left out", missing)
