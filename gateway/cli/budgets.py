"""`steelyard budgets`: what was spent of what may be spent, and an alert when a threshold is crossed. For a scheduler to run."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import options
from gateway.cli.costs import moment
from gateway.errors import SettingsError

if TYPE_CHECKING:
    from gateway.budgets.alerting import Outcome
    from gateway.budgets.budgetfile import BudgetFile
    from gateway.budgets.evaluating import Standing
    from gateway.objectstore.protocol import ObjectStore

CROSSED = 3
UNDELIVERED = 75
"""As training's "retry me": the next run tries again."""

TEXT = "STEELYARD_BUDGETS"
"""The variable that holds the file's text where there is no place for a file, as in a task definition."""

budget_file = click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
at = click.option("--at", type=moment, metavar="TIME", help="As of this moment, UTC.  [default: now]")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Exact integers of pico-dollars.")
cache_option = click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder for copies of the ledger."
)


@click.group
def budgets() -> None:
    """Budgets per model and tenant, evaluated over the ledger, with alerts by webhook.

    FILE is TOML; without one, the variable STEELYARD_BUDGETS holds its text. A pattern that is left out is `*`; without both it is
    the whole bill. A period is day, month or hours:N.

    \b
    [[budget]]
    id = "search-month"
    tenant = "search-*"            # or model = "flights", or both
    period = "month"
    usd = "250.00"
    view = "full"                  # as in cost reports
    thresholds = [0.5, 0.8, 1.0]   # of what was spent; [0.8, 1] without it
    forecast = [1.0]               # of where the current rate leads to; none without it
    [webhook]                      # for `check`
    url = "https://hooks.example.com/steelyard"
    secret_env = "STEELYARD_WEBHOOK_SECRET"
    """


@budgets.command
@budget_file
@options.store
@at
@as_json_option
@cache_option
def show(file: Path | None, store: str, at: int | None, as_json: bool, cache: Path | None) -> None:
    """What was spent of each budget in FILE and where the current rate leads to. Sends nothing, and ends with 0."""
    known = _known(file)
    standings, _ = options.with_store(store, lambda opened: _evaluated(opened, cache, known, _now_ns(at), None))
    _print(standings, (), as_json)


@budgets.command
@budget_file
@options.store
@at
@as_json_option
@cache_option
@click.pass_context
def check(ctx: click.Context, file: Path | None, store: str, at: int | None, as_json: bool, cache: Path | None) -> None:
    """The same, and an alert to the file's webhook for each threshold that is crossed: once per period.

    Exit code 0: none is crossed. 3: one is. 75: one is, and an alert was not delivered; the next run tries it again.
    """
    known = _known(file)
    secret = _secret(known)
    now_ns = _now_ns(at)
    standings, outcomes = options.with_store(store, lambda opened: _evaluated(opened, cache, known, now_ns, (secret,)))
    _print(standings, outcomes, as_json)
    if any(outcome.state == "failed" for outcome in outcomes):
        ctx.exit(UNDELIVERED)
    if any(standing.crossed for standing in standings):
        ctx.exit(CROSSED)


def _known(file: Path | None) -> "BudgetFile":
    """Raises `SettingsError` for a file that is wrong, `click.UsageError` without any."""
    from gateway.budgets import budgetfile

    if file is not None:
        return budgetfile.load(file)
    text = os.environ.get(TEXT, "")
    if not text:
        raise click.UsageError(f"name a FILE of budgets, or put its text into {TEXT}")
    return budgetfile.parse(text, source=f"in {TEXT}")


async def _evaluated(
    opened: "ObjectStore", cache: Path | None, known: "BudgetFile", now_ns: int, secret: tuple[bytes | None] | None
) -> "tuple[tuple[Standing, ...], tuple[Outcome, ...]]":
    """`secret` None: nobody is told."""
    from gateway.budgets import alerting, evaluating

    folder = options.ledger_folder(opened, cache)
    standings = await evaluating.read(opened, folder, known.budget, now_ns)
    if secret is None or known.webhook is None:
        return standings, ()
    return standings, await alerting.alert(opened, known.webhook, secret[0], standings, now_ns)


def _print(standings: "tuple[Standing, ...]", outcomes: "tuple[Outcome, ...]", as_json: bool) -> None:
    from gateway.budgets import view

    if as_json:
        import msgspec

        found = {"budgets": standings, "alerts": outcomes, "schema_version": 1}
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    console = options.console()
    view.show(standings, console)
    view.told(outcomes, console)
    if not sys.stdout.isatty():
        sys.stdout.flush()


def _secret(known: "BudgetFile") -> bytes | None:
    """Raises `SettingsError` when the variable that the file names is not there."""
    if known.webhook is None or not known.webhook.secret_env:
        return None
    value = os.environ.get(known.webhook.secret_env, "")
    if not value:
        raise SettingsError(f"the environment has no {known.webhook.secret_env}, which signs the webhook's bodies")
    return value.encode()


def _now_ns(at: int | None) -> int:
    return time.time_ns() if at is None else at
