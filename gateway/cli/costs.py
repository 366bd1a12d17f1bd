"""`steelyard costs`: what each model cost, down to the exact bill."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import options

if TYPE_CHECKING:
    from gateway.objectstore.protocol import ObjectStore


def moment(text: str) -> int:
    """An ISO date or time as nanoseconds since the epoch; UTC unless it says otherwise."""
    try:
        parsed = datetime.fromisoformat(text)
        utc = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        since_epoch = utc - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"'{text}' is not an ISO date or time, such as 2026-11-05T14:30:00Z") from error
    if not timedelta(0) <= since_epoch < timedelta(days=365 * 200):
        raise click.BadParameter(f"'{text}' is not between 1970 and 2169")
    return since_epoch // timedelta(microseconds=1) * 1000


@click.command
@options.store
@click.option("--model", metavar="NAME", help="Only this model; what others cost stays in the sum.")
@click.option("--since", type=moment, metavar="TIME", help="First moment, UTC: 2026-11-05 or 2026-11-05T14:30.")
@click.option("--until", type=moment, metavar="TIME", help="Moment after the last, UTC.")
@click.option("--json", "as_json", is_flag=True, help="Everything, in exact integers of pico-dollars.")
@click.option("--csv", "as_csv", is_flag=True, help="One row per model version, in exact integers of pico-dollars.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder for copies of the ledger.")
@click.pass_context
def costs(
    ctx: click.Context,
    store: str,
    model: str | None,
    since: int | None,
    until: int | None,
    as_json: bool,
    as_csv: bool,
    cache: Path | None,
) -> None:
    """What each model cost: direct, kept warm, its share of the rest, and per 1,000 predictions.

    The rows add up to the bill exactly; exit code 1 says that the ledger has a fault. A segment of the ledger (some seconds,
    never across an hour) counts to the period that it begins in.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until")

    from gateway.reports import export, render
    from gateway.reports.costs import CostReport, read
    from gateway.reports.sync import default_folder

    async def _read(opened: "ObjectStore") -> CostReport:
        folder = cache or default_folder(opened.url, os.environ)
        return await read(opened, folder, since_ns=since, until_ns=until, model=model)

    report = options.with_store(store, _read)
    if as_json:
        click.echo(export.as_json(report))
    elif as_csv:
        click.echo(export.as_csv(report), nl=False)
    else:
        render.render(report, options.console())
    if report.faults:
        click.echo(
            f"Error: the ledger has {len(report.faults):,} faults, the first: {report.faults[0].message}", err=True
        )
        ctx.exit(1)
