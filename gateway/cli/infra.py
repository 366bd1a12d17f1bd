"""`steelyard infra`: whether a planned stack can be applied, and what it will cost, before it is."""

import json
import os
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import click

from gateway.cli import options
from gateway.stack.usage import IMAGE_GB, LOG_GB, RUN_MINUTES, TRAINING_HOURS, Usage

existing = click.Path(exists=True, path_type=Path)


@click.group
def infra() -> None:
    """The cloud stack around the gateway (infra/terraform)."""


@infra.command
@click.argument("plan", metavar="DIR|PLAN", type=existing)
@click.option(
    "--cpu-ms",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="CPU time of one request; `steelyard costs` has yours.",
)
@click.option(
    "--request-kb", type=click.FloatRange(0), default=4.0, show_default=True, help="Bytes of one request, both ways."
)
@click.option(
    "--utilization",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.6,
    show_default=True,
    help="How full tasks are kept.",
)
@click.option(
    "--image-gb",
    type=click.FloatRange(0),
    default=IMAGE_GB,
    show_default=True,
    help="Images stored, compressed: a trainer's is some 7, the gateway's 0.1.",
)
@click.option(
    "--log-gb",
    type=click.FloatRange(0),
    default=LOG_GB,
    show_default=True,
    help="Logs written a month; `log.requests = all` adds 0.3 a million requests.",
)
@click.option(
    "--training-hours",
    type=click.FloatRange(0),
    default=TRAINING_HOURS,
    show_default=True,
    help="Hours of a training machine a month.",
)
@click.option(
    "--run-minutes",
    type=click.FloatRange(0, min_open=True),
    default=RUN_MINUTES,
    show_default=True,
    help="How long a scheduled run of the keeper takes; a minute is billed at least.",
)
@click.option(
    "--book", type=existing, help="Price book for containers and functions.  [default: the one of this release]"
)
@click.option("--stack-prices", type=existing, help="Prices of everything else.  [default: the file of this release]")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def cost(
    plan: Path,
    cpu_ms: float,
    request_kb: float,
    utilization: float,
    image_gb: float,
    log_gb: float,
    training_hours: float,
    run_minutes: float,
    book: Path | None,
    stack_prices: Path | None,
    form: str,
) -> None:
    """What a planned stack costs a month while nobody calls it, by use that you state, and what a million requests add.

    DIR is planned with terraform, and nothing is applied; or name a saved plan, or its JSON.
    """
    from gateway.contract import prices, stackprices
    from gateway.stack import estimate, view
    from gateway.stack.plan import read

    traffic = estimate.Traffic(
        cpu_s=Fraction(str(cpu_ms)) / 1000,
        request_bytes=round(request_kb * 1000),
        utilization=Fraction(str(utilization)),
    )
    usage = Usage(
        image_gb=Fraction(str(image_gb)),
        log_gb=Fraction(str(log_gb)),
        training_hours=Fraction(str(training_hours)),
        run_minutes=Fraction(str(run_minutes)),
    )
    found = estimate.estimate(read(plan), prices.load(book), stackprices.load(stack_prices), traffic, usage)
    if form == "json":
        click.echo(json.dumps(view.as_json(found), indent=2))
    else:
        assumed = f"One request is taken to be {cpu_ms:g} ms of CPU and {request_kb:g} kB."
        view.show(found, options.console(), assumed=assumed)


@infra.command
@click.argument("plan", metavar="DIR|PLAN", type=existing)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def check(ctx: click.Context, plan: Path, form: str) -> None:
    """Why a planned stack must not be applied: asked of the plan, and of the account with your credentials, by reading only.

    Whether the plan destroys data, has subnets and schedules that are to come; who you are, the region and its zones; whether its
    buckets are free and its images there. DIR is planned with terraform, and nothing is applied; or name a saved plan, or its JSON:
    what is checked is then what is applied. Exits with 1 when something stops.
    """
    from gateway.stack import finding, preflight

    found = list(preflight.check(preflight.planned(plan), os.environ, datetime.now(UTC)))
    if form == "json":
        click.echo(json.dumps(finding.as_json(found), indent=2))
    else:
        finding.show(found, click.echo)
    ctx.exit(1 if finding.stops(found) else 0)
