"""`steelyard costs reconcile`: the ledger against a provider's bill, and corrections. `gateway.cli.costs` adds it to its group."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import options
from gateway.whoami import user_name

if TYPE_CHECKING:
    from gateway.objectstore.protocol import ObjectStore
    from gateway.reports.reconcileresources import ByResource


@click.command
@options.store
@click.argument("bill", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--resource",
    metavar="GLOB",
    help="Compare by resource, those whose id fits: 'arn:aws:ecs:*/prod/*', or '*' also for what the ledger does not know.",
)
@click.option("--post", is_flag=True, help="Write what differs, by resource, into the ledger as corrections.")
@click.option("--accept-repeated", is_flag=True, help="For --post: rows that are there twice are charged twice.")
@click.option("--json", "as_json", is_flag=True, help="Exact integers of pico-dollars.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder for copies of the ledger.")
def reconcile(
    store: str,
    bill: Path,
    resource: str | None,
    post: bool,
    accept_repeated: bool,
    as_json: bool,
    cache: Path | None,
) -> None:
    """Compare the ledger with the provider's BILL: a FOCUS or CUR file, CSV or Parquet, by day and service.

    With --resource or --post by resource, sku and hours. Corrections are new rows, nothing is changed: afterwards reports are
    the bill's sum for these resources. Posting the same bill again changes nothing; another bill for the same hours adds the
    difference.
    """
    from gateway.reports import export, reconcileposting, reconcileview
    from gateway.reports import reconcile as by_service

    if accept_repeated and not post:
        raise click.UsageError("--accept-repeated goes with --post")
    now_ns = time.time_ns()

    async def _by_service(opened: "ObjectStore") -> by_service.Reconciliation:
        return await by_service.read(opened, options.ledger_folder(opened, cache), bill, now_ns=now_ns)

    async def _by_resource(opened: "ObjectStore") -> "ByResource":
        folder = options.ledger_folder(opened, cache)
        if not post:
            return await reconcileposting.read(opened, folder, bill, resource, now_ns=now_ns)
        author = reconcileposting.Author(user_name(), now_ns)
        return await reconcileposting.post(opened, folder, bill, resource, author, accept_repeated=accept_repeated)

    if resource is not None or post:
        compared = options.with_store(store, _by_resource)
        if as_json:
            click.echo(export.as_json(compared))
        else:
            reconcileview.show_resources(compared, options.console())
        return
    found = options.with_store(store, _by_service)
    if as_json:
        click.echo(export.as_json(found))
    else:
        reconcileview.show(found, options.console())
