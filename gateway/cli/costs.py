"""`steelyard costs`: what each model cost, down to the exact bill, in whatever shape it is wanted."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import options
from gateway.cli.reconcile import reconcile
from gateway.errors import InvalidInput
from gateway.reports import query as words

if TYPE_CHECKING:
    from gateway.objectstore.protocol import ObjectStore
    from gateway.reports.breakdown import Breakdown
    from gateway.reports.finding import Finding
    from gateway.reports.focusrows import Account
    from gateway.reports.plotdata import PageData

FORMATS = ("table", "json", "csv", "parquet", "html")


def moment(text: str) -> int:
    """As `reports.query.instant`, for click."""
    try:
        return words.instant(text)
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from error


def dimensions(text: str) -> tuple[words.Dimension, ...]:
    """As `reports.query.dimensions`, for click."""
    try:
        return words.dimensions(text)
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from error


def tag(text: str) -> tuple[str, str]:
    """A key and a value; the key has no equals sign, as far as we can tell."""
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise click.BadParameter(f"'{text}' is no KEY=VALUE")
    return key, value


def _distinct(tags: tuple[tuple[str, str], ...]) -> dict[str, str]:
    found = dict(tags)
    if len(found) < len(tags):
        raise click.UsageError("--tag names a key twice")
    return found


@click.group(invoke_without_command=True)
@options.store
@click.option("--by", type=dimensions, metavar="NAMES", help="Group by model,version,tenant,outcome,activity,day,hour.")
@click.option("--model", metavar="NAME", help="Only this model; what others cost stays in the sum.")
@click.option("--tenant", metavar="NAME", help="Only this tenant; what others cost stays in the sum.")
@click.option("--since", type=moment, metavar="TIME", help="First moment, UTC: 2026-11-05 or 2026-11-05T14:30.")
@click.option("--until", type=moment, metavar="TIME", help="Moment after the last, UTC.")
@click.option(
    "--view",
    type=click.Choice(words.VIEWS),
    help="Whether idle, boot and overhead stay by themselves, follow each model's own cost, or its memory.",
)
@click.option("--amortize", metavar="PLAN", help="Tell training in portions: rows:1000000 or days:90.")
@click.option("--energy", "with_energy", is_flag=True, help="Energy, carbon and SCI too, low to high.")
@click.option(
    "--energy-book",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Coefficients of energy and carbon.  [default: those shipped, of us-east-1]",
)
@click.option("--format", "form", type=click.Choice(FORMATS), help="How to write it.  [default: table]")
@click.option("--json", "as_json", is_flag=True, help="Short for --format json: exact integers of pico-dollars.")
@click.option("--csv", "as_csv", is_flag=True, help="Short for --format csv: one row per group, exact integers.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of standard output."
)
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots.")
@click.option(
    "--focus",
    type=(click.Choice(["1.2", "1.4"]), click.Path(dir_okay=False, path_type=Path)),
    metavar="VERSION FILE",
    help="Write the bill as FOCUS 1.2 or 1.4 rows: CSV into a file named .csv, else Parquet.",
)
@click.option(
    "--billing-account", default="steelyard:default", show_default=True, help="For --focus: such as aws:1234."
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    type=tag,
    metavar="KEY=VALUE",
    help="For --focus: a tag that the provider's bill has on every container; may be repeated.",
)
@click.option(
    "--price-book",
    type=click.Path(dir_okay=False, path_type=Path),
    help="For --focus: of what the store has no book for.  [default: the one shipped]",
)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder for copies of the ledger.")
@click.pass_context
def costs(
    ctx: click.Context,
    store: str,
    by: tuple[words.Dimension, ...] | None,
    model: str | None,
    tenant: str | None,
    since: int | None,
    until: int | None,
    view: words.View | None,
    amortize: str | None,
    with_energy: bool,
    energy_book: Path | None,
    form: str | None,
    as_json: bool,
    as_csv: bool,
    page: Path | None,
    focus: tuple[str, Path] | None,
    billing_account: str,
    tags: tuple[tuple[str, str], ...],
    price_book: Path | None,
    out: Path | None,
    cache: Path | None,
) -> None:
    """What each model cost: direct, kept warm, its share of the rest, and per 1,000 predictions.

    The rows add up to the bill exactly; exit code 1 says that the ledger has a fault. A segment of the ledger (some seconds,
    never across an hour) counts to the period that it begins in. In files and JSON of a grouping cpu_ns is all vCPU time that was
    provided, idle too, and cpu_used_ns what of it was used.
    """
    if ctx.invoked_subcommand:
        _refuse_before(ctx, ctx.invoked_subcommand)
        return
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until")
    if focus is not None:
        if any((by, model, tenant, view, amortize, with_energy, form, as_json, as_csv, page, out)):
            raise click.UsageError(
                "--focus writes the whole bill: of what chooses, only --since and --until go with it"
            )
        from gateway.reports import focusrows

        account = focusrows.Account(billing_account, billing_account, _distinct(tags))
        _focus(ctx, store, cache, (since, until), focus, (account, price_book, energy_book))
        return
    if tags:
        raise click.UsageError("--tag goes with --focus")
    asked = [form] if form else []
    if page:
        asked, out = [*asked, "html"], page
    asked += [name for name, is_asked in (("json", as_json), ("csv", as_csv)) if is_asked]
    if len(asked) > 1:
        raise click.UsageError("--format, --json, --csv and --html exclude each other")
    chosen_form = asked[0] if asked else "table"
    if chosen_form == "parquet" and out is None and sys.stdout.isatty():
        raise click.UsageError("--format parquet needs --out FILE, or a pipe")
    grouped = any((by, tenant, view, amortize, with_energy, energy_book)) or chosen_form in {"parquet", "html"}
    if not grouped:
        _summary(ctx, store, cache, (since, until, model), chosen_form, out)
        return

    try:
        plan = words.plan(amortize) if amortize else None
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    is_powered = with_energy or energy_book is not None
    chosen = words.Query(by or ("model", "version"), since, until, model, tenant, view or "full", plan, is_powered)
    _grouped(ctx, store, cache, chosen, chosen_form, out, energy_book)


def _refuse_before(ctx: click.Context, subcommand: str) -> None:
    """Options before a subcommand are not its own: a store named there would silently be another than the one that is read."""
    from click.core import ParameterSource

    for option in ctx.command.params:
        if option.name and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{option.opts[0]} is an option of `costs` alone; write what is meant after {subcommand}"
            )


def _summary(
    ctx: click.Context,
    store: str,
    cache: Path | None,
    asked: tuple[int | None, int | None, str | None],
    form: str,
    out: Path | None,
) -> None:
    """What there is to know about each model version."""
    from gateway.reports import export, render
    from gateway.reports.costs import CostReport, read

    since, until, model = asked

    async def _read(opened: "ObjectStore") -> CostReport:
        return await read(opened, options.ledger_folder(opened, cache), since_ns=since, until_ns=until, model=model)

    report = options.with_store(store, _read)
    if form == "json":
        _write(out, f"{export.as_json(report)}\n".encode())
    elif form == "csv":
        _write(out, export.as_csv(report).encode())
    else:
        with options.console_to(out) as console:
            render.render(report, console)
    if form != "table":
        _say_nothing(report.segments)
    _exit(ctx, report.faults)


def _grouped(
    ctx: click.Context,
    store: str,
    cache: Path | None,
    query: words.Query,
    form: str,
    out: Path | None,
    energy_book: Path | None,
) -> None:
    from gateway.contract import energy
    from gateway.reports import breakdownview, export, plotdata
    from gateway.reports.breakdown import read
    from gateway.reports.page import html

    coefficients = energy.load(energy_book) if query.with_energy else None

    async def _read(opened: "ObjectStore") -> "Breakdown":
        return await read(opened, options.ledger_folder(opened, cache), query, coefficients)

    async def _page(opened: "ObjectStore") -> "PageData":
        return await plotdata.read(opened, options.ledger_folder(opened, cache), query, coefficients)

    if form == "html":
        data = options.with_store(store, _page)
        _write(out, html(data).encode())
        _say_nothing(data.report.segments)
        _exit(ctx, data.report.faults)
        return
    report = options.with_store(store, _read)
    if form == "table":
        with options.console_to(out) as console:
            breakdownview.show(report, console)
    else:
        _write(out, export.encoded(report, form))
        _say_nothing(report.segments)
    _exit(ctx, report.faults)


def _focus(
    ctx: click.Context,
    store: str,
    cache: Path | None,
    period: tuple[int | None, int | None],
    wanted: tuple[str, Path],
    given: "tuple[Account, Path | None, Path | None]",
) -> None:
    from gateway.contract import energy, prices
    from gateway.reports import focus, focuscolumns

    account, book, coefficients = given[0], prices.load(given[1]), energy.load(given[2])
    version: focuscolumns.Version = "1.4" if wanted[0] == "1.4" else "1.2"
    form: focus.Form = "csv" if wanted[1].suffix == ".csv" else "parquet"

    async def _read(opened: "ObjectStore") -> focus.Export:
        folder = options.ledger_folder(opened, cache)
        return await focus.read(
            opened, folder, account, book, *period, version=version, form=form, coefficients=coefficients
        )

    made = options.with_store(store, _read)
    _write(wanted[1], made.data)
    _say_nothing(made.segments)
    _exit(ctx, made.faults)


def _say_nothing(found: int) -> None:
    """A file without a row is no error, and must not look like a bill of nothing."""
    from gateway.reports import breakdownview

    if not found:
        click.echo(f"note: {breakdownview.NOTHING}", err=True)


def _write(out: Path | None, data: bytes) -> None:
    if out is None:
        click.echo(data, nl=False)
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error


def _exit(ctx: click.Context, faults: "tuple[Finding, ...]") -> None:
    if faults:
        click.echo(f"Error: the ledger has {len(faults):,} faults, the first: {faults[0].message}", err=True)
        ctx.exit(1)


costs.add_command(reconcile)
