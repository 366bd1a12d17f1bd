"""The `train` command: reads options, shows progress and the result, and turns errors into one line and an exit code.

Runs nothing itself: `trainers.run` does. torch is imported when a run starts, so that `steelyard --help` does not pay for it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gateway.objectstore.opening import open_store
from gateway.whoami import user_name
from trainers.errors import SpecError, TrainerError

if TYPE_CHECKING:
    from trainers.run import Result

RUNS = Path(".steelyard/runs")


@click.command
@click.argument("recipe")
@click.option(
    "--store",
    envvar="STEELYARD_STORE",
    default="./.steelyard/store",
    show_default=True,
    metavar="URL",
    help="Object store: a folder, file:///path, or s3://bucket/prefix.  [env: STEELYARD_STORE]",
)
@click.option(
    "--promote", default="champion", show_default=True, metavar="ALIAS|none", help="Alias to answer with the result."
)
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many, instead of the recipe's.")
@click.option("--priced-as", metavar="SKU", help="Machine type in the price book.  [default on a CPU: c7i.large]")
@click.option("--run-id", help="Name of the run; the same name again publishes what that run made.")
@click.option("--quiet", is_flag=True, help="Print only the published version.")
@click.pass_context
def train(
    ctx: click.Context,
    recipe: str,
    store: str,
    promote: str,
    seed: int | None,
    epochs: int | None,
    priced_as: str | None,
    run_id: str | None,
    quiet: bool,
) -> None:
    """Train RECIPE, quantize it, keep what is measurably better, publish it.

    RECIPE is 'flights', or a function of your own as 'package.module:function'. Without a GPU it trains on the CPU.
    """
    with _errors_as_lines(is_debug=bool(ctx.obj and ctx.obj.get("debug"))):
        result = _train(recipe, store, promote, seed, epochs, priced_as, run_id, quiet)
    from trainers import summary

    summary.show(Console(), result, is_quiet=quiet)


def _train(
    recipe: str,
    store_url: str,
    promote: str,
    seed: int | None,
    epochs: int | None,
    priced_as: str | None,
    run_id: str | None,
    quiet: bool,
) -> "Result":
    from trainers.recipes import registry

    job = registry.job(recipe).fitted_with(seed=seed, epochs=epochs)
    from trainers.run import Run, run  # a second more of imports, which a misspelt recipe need not wait for

    run_id = run_id or f"{job.model}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    spec = Run(
        recipe=recipe,
        run_id=run_id,
        folder=RUNS / run_id,
        actor=user_name(),
        promote_to=None if promote == "none" else promote,
        priced_as=priced_as,
    )

    async def opened() -> "Result":
        async with contextlib.aclosing(open_store(store_url, create=True)) as store:
            with Bars(is_shown=not quiet) as bars:
                return await run(job, spec, store, bars)

    return asyncio.run(opened())


class Bars:
    """A `Report` that shows one bar per step, on stderr."""

    def __init__(self, *, is_shown: bool) -> None:
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not is_shown)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=total, note=note)
        self._progress.update(self._tasks[step], completed=done, total=total, note=note)


@contextlib.contextmanager
def _errors_as_lines(*, is_debug: bool) -> Iterator[None]:
    """A wrong job or command line exits 2, any other failure of training 1; the store's errors are the root command's."""
    try:
        yield
    except TrainerError as error:
        if is_debug:
            raise
        if isinstance(error, SpecError):
            raise click.UsageError(str(error)) from error
        raise click.ClickException(str(error)) from error
