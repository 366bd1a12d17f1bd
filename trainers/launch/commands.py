"""`steelyard schedule` and what `steelyard train --on` calls. Reads options and prints; the launchers and `schedule` do the work.

boto3 is imported when a command needs AWS, so that a local run and `--help` do without it.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.objectstore.opening import open_store
from trainers import exits
from trainers.doors import errors_as_lines
from trainers.errors import SpecError
from trainers.launch import environment, manifests, preflight, site, yamltext
from trainers.launch.environment import LAUNCHERS, Launcher
from trainers.launch.launcher import Launcher as AnyLauncher
from trainers.launch.launcher import Order, Started
from trainers.runs.reading import StepsReached
from trainers.spec import reading
from trainers.spec.jobspec import JobSpec

REMOTE = tuple(name for name in LAUNCHERS if name != "local")

on_option = click.option(
    "--on",
    type=click.Choice(LAUNCHERS),
    default="local",
    show_default=True,
    help="Where it runs. kubernetes prints the manifest for kubectl apply -f -.",
)
"""For `steelyard train`."""

store_option = click.option(
    "--store",
    envvar="STEELYARD_STORE",
    required=True,
    metavar="URL",
    help="Object store that the runs write to: s3://bucket/prefix.  [env: STEELYARD_STORE]",
)


def spec_of(recipe: str, options: dict[str, Any]) -> JobSpec:
    """From a file when RECIPE ends in `.toml`, else of the recipe of this name; `options` win. Raises `SpecError`."""
    if recipe.endswith(".toml"):
        return reading.read(Path(recipe), options)
    return reading.from_options({"recipe": recipe, **options})


def launch(spec: JobSpec, *, on: Launcher, store: str, run_id: str | None = None) -> Started:
    """Start a run of the spec and say what became of it: locally when it has ended, elsewhere when it is submitted.

    Raises `SpecError` before anything is started, `LauncherUnavailable` when it may work later.
    """
    order = Order(spec=spec, run_id=run_id or environment.new_run_id(spec.name, datetime.now(UTC)), store=store)
    return launcher(on).start(order)


def launcher(on: Launcher) -> AnyLauncher:
    """Raises `SpecError` when the site's settings are wrong."""
    if on == "aws-batch":
        from trainers.launch.aws_batch import AwsBatch

        return AwsBatch(site.batch())
    if on == "kubernetes":
        from trainers.launch.kubernetes import Kubernetes

        return Kubernetes(site.kubernetes())
    from trainers.launch.local import Local

    return Local()


def show(started: Started, *, on: Launcher) -> int:
    """A manifest to stdout and the rest to stderr, so that the former can be piped; returns the exit code."""
    for note in started.notes:
        click.echo(note, err=True)
    if started.manifest:
        click.echo(started.manifest, nl=False)
    elif started.exit_code is None:
        click.echo(f"run {started.run_id} is submitted to {on} as job {started.job}", err=True)
    elif started.exit_code:
        click.echo(f"run {started.run_id} ended with {started.exit_code}: {exits.meaning(started.exit_code)}", err=True)
    return started.exit_code or 0


@click.group
def schedule() -> None:
    """Train regularly: add, list and remove schedules."""


@schedule.command
@click.argument("recipe")
@click.option("--cron", metavar="LINE", help="Five fields, as in '0 3 * * 1'.  [default: the file's]")
@click.option("--timezone", metavar="ZONE", help="Such as Europe/Paris.  [default: the file's, else UTC]")
@click.option("--on", type=click.Choice(REMOTE), required=True, help="kubernetes prints the CronJob.")
@click.option("--name", metavar="NAME", help="Of the schedule.  [default: the job's]")
@click.option("--image", metavar="IMAGE", help="With its digest: registry/train@sha256:...  [default: the file's]")
@click.option("--replace", is_flag=True, help="A schedule of this name that differs.")
@store_option
@click.pass_context
def add(
    ctx: click.Context,
    recipe: str,
    cron: str | None,
    timezone: str | None,
    on: Launcher,
    name: str | None,
    image: str | None,
    replace: bool,
    store: str,
) -> None:
    """Train RECIPE at these times: the name of a recipe, 'package.module:function', or a job.toml."""
    with errors_as_lines(is_debug=_is_debug(ctx)):
        options = {"schedule.cron": cron, "schedule.timezone": timezone, "image": image}
        spec = spec_of(recipe, options)
        if spec.schedule is None:
            raise SpecError("when? pass --cron '0 3 * * 1', or give the file a [schedule]")
        if on == "kubernetes":
            _print_cron_job(spec, name or spec.name, store)
            return
        for line in _scheduler().add(spec, name=name or spec.name, store=store, replace=replace):
            click.echo(line)


def _print_cron_job(spec: JobSpec, name: str, store: str) -> None:
    assert spec.schedule is not None
    environment.check_schedule_name(name)
    preflight.check_remote(spec, store=store, on="kubernetes")
    manifest = manifests.cron_job(spec, site.kubernetes(), schedule=name, when=spec.schedule, store=store)
    for note in ("nothing was scheduled; pipe this into: kubectl apply -f -", *manifests.notes(spec)):
        click.echo(note, err=True)
    click.echo(yamltext.document(manifest), nl=False)


@schedule.command("list")
@click.pass_context
def listing(ctx: click.Context) -> None:
    """Every schedule on AWS. Those on Kubernetes: kubectl get cronjobs -l app.kubernetes.io/name=steelyard-train."""
    with errors_as_lines(is_debug=_is_debug(ctx)):
        entries = _scheduler().entries()
    for entry in entries:
        state = "" if entry.state == "ENABLED" else f"  {entry.state.lower()}"
        click.echo(f"{entry.name}  {entry.description}  {entry.expression}  {entry.store}{state}")
    if not entries:
        click.echo("no schedules here; try: steelyard schedule add RECIPE --cron '0 3 * * 1' --on aws-batch", err=True)


@schedule.command
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Remove a schedule from AWS. One on Kubernetes: kubectl delete cronjob steelyard-NAME."""
    with errors_as_lines(is_debug=_is_debug(ctx)):
        for line in _scheduler().remove(name):
            click.echo(line)


@schedule.command
@store_option
@click.pass_context
def supervise(ctx: click.Context, store: str) -> None:
    """Look after the runs on AWS Batch once: resubmit those that used up ten attempts while they got on.

    Call it regularly. Exit code 70 says that a run was given up.
    """
    with errors_as_lines(is_debug=_is_debug(ctx)):
        given_up = asyncio.run(_supervised(store))
    ctx.exit(exits.BUG if given_up else exits.DONE)


async def _supervised(store_url: str) -> bool:
    from trainers.launch.aws_batch import AwsBatch
    from trainers.launch.supervisor import Supervisor

    here = site.batch()
    async with contextlib.aclosing(open_store(store_url)) as store:
        supervisor = Supervisor(AwsBatch(here), here, store, StepsReached(store), store_url=store_url)
        made = await supervisor.round()
    said = {"resubmit": "resubmitted", "move": "moved to on-demand", "give-up": "GIVEN UP"}
    for decision in made:
        click.echo(f"run {decision.run_id} {said[decision.kind]}: {decision.reason}", err=decision.kind == "give-up")
    return any(decision.kind == "give-up" for decision in made)


def _scheduler() -> Any:  # Any: naming it would import boto3 here
    from trainers.launch.aws_batch import AwsBatch
    from trainers.launch.schedule import Scheduler

    here = site.batch()
    return Scheduler(here, AwsBatch(here))


def _is_debug(ctx: click.Context) -> bool:
    return bool(ctx.obj and ctx.obj.get("debug"))
