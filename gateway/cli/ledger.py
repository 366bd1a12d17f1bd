"""`steelyard ledger`: is it whole, how did a killed container end, Parquet for other engines, and an end to what Parquet holds."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gateway.cli import options, progress
from gateway.cli.costs import moment
from gateway.contract import words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.audit.findings import Verdict
    from gateway.audit.hours import Contents
    from gateway.contract.compacted import Table
    from gateway.objectstore.protocol import ObjectStore

FINDINGS_MAX = 50  # more than a screen; the JSON has all


@click.group
def ledger() -> None:
    """Check the ledger, settle what killed containers left, compact it, and delete what is compacted."""


@ledger.command
@options.store
@click.option("--since", type=moment, metavar="TIME", help="First moment, UTC; whole hours are read.")
@click.option("--until", type=moment, metavar="TIME", help="Moment after the last, UTC.")
@click.option("--container", default="", metavar="ID", help="Only this container's lives.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def verify(ctx: click.Context, store: str, since: int | None, until: int | None, container: str, form: str) -> None:
    """Name everything that is wrong with the ledger; exit code 1 when something is.

    Reads every object from the store, compacted files too: digests and chain, sums, prices, gaps, duplicates, clocks. What no
    segment claims of a container's bill is shown as unattributed, which is a note; it needs the whole ledger, without --since and
    --until.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until")
    from gateway.audit.verifying import Scope
    from gateway.audit.verifying import verify as audit
    from gateway.contract.words import END_NS

    def read(paths: "Mapping[Table, Path]") -> "Contents":
        from gateway.reports import hourproof  # needs DuckDB, and only a compacted ledger does

        return hourproof.read(paths)

    scope = Scope(0 if since is None else since, END_NS if until is None else until, container)
    verdict = options.with_store(store, lambda opened: audit(opened, scope, now_ns=time.time_ns(), reader=read))
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode())
    else:
        _show(verdict)
    if verdict.faults:
        ctx.exit(1)


@ledger.command
@options.store
@click.argument("container")
@click.option("--ended", type=moment, required=True, metavar="TIME", help="When its bill ended, UTC.")
@click.option("--evidence", required=True, help="Where that is known from, such as 'ECS task stopped'.")
@click.option("--boot", type=int, metavar="NS", help="Which life, by its boot.  [default: the newest]")
def end(store: str, container: str, ended: int, evidence: str, boot: int | None) -> None:
    """Record when a killed container's bill ended.

    What lies between its last segment and this moment is unattributed. Not needed for a container that closed by itself, nor
    for one that started again under the same id.
    """
    from gateway.audit.ending import end as record
    from gateway.errors import SettingsError
    from gateway.wording import moment as written

    try:
        told = options.with_store(
            store,
            lambda opened: record(
                opened, container, ended_ns=ended, evidence=evidence, boot_ns=boot, now_ns=time.time_ns()
            ),
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"container {container} ended at {written(told.ended_ns)}: {_printable(told.evidence)}")


@ledger.command
@options.store
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder for copies of the ledger.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def compact(ctx: click.Context, store: str, cache: Path | None, form: str) -> None:
    """Write closed hours as Parquet, below compacted/v1/ in the store, for DuckDB, Athena, Trino and Spark.

    An hour is closed 15 minutes after its end; segments that come later are its next generation. Running it again, twice at once or
    after a kill makes the same files. Exit code 1 says that segments of an hour must be put right first.
    """
    from gateway.reports import compaction
    from gateway.wording import usd

    async def run(opened: "ObjectStore") -> compaction.Compacted:
        folder = options.ledger_folder(opened, cache)
        with progress.shown("compacting", "hours") as note:
            return await compaction.compact(opened, folder, now_ns=time.time_ns(), note=note)

    done = options.with_store(store, run)
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(done), indent=2).decode())
    elif not done.committed and not done.refused:
        click.echo("nothing to compact: an hour is closed 15 minutes after its end")
    else:
        for one in done.committed:
            what = f"{len(one.inputs):,} segments, {one.requests:,} requests, ${usd(one.cost_picousd)}"
            click.echo(f"{one.dt}T{one.hr}:00Z generation {one.generation}: {what}")
        for finding in done.refused:
            click.echo(f"REFUSED ({finding.kind}): {_printable(finding.message)}")
    if done.refused:
        ctx.exit(1)


def age(text: str) -> int:
    """Nanoseconds of whole days: `7d`."""
    if not re.fullmatch(r"[0-9]{1,5}d", text):
        raise click.BadParameter(f"'{text}' is no number of days such as 7d")
    return int(text[:-1]) * words.DAY_NS


@ledger.command
@options.store
@click.option(
    "--older-than", type=age, default="7d", show_default=True, metavar="DAYS", help="Of hour and manifest; 7d or more."
)
@click.option("--dry-run", is_flag=True, help="Prove everything and delete nothing.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def expire(ctx: click.Context, store: str, older_than: int, dry_run: bool, form: str) -> None:
    """Delete segments of compacted hours, once it is proven that the hours' files hold them.

    The files are fetched and held against their manifest, and every segment against the files. Records of containers stay, and so
    does what is not compacted. Reports say the same afterwards. From then on the files below compacted/v1/ are the only copy: keep
    them. Running it again, twice at once or after a kill is safe. Exit code 1 says that something was refused; `steelyard ledger
    verify` tells more.
    """
    from gateway.errors import SettingsError
    from gateway.reports import expiring

    try:
        done = options.with_store(
            store,
            lambda opened: expiring.expire(opened, older_ns=older_than, now_ns=time.time_ns(), is_dry_run=dry_run),
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(done), indent=2).decode())
    else:
        word = "would be deleted" if dry_run else "deleted"
        for one in done.expired:
            what = f"{one.segments:,} segments, {one.size_bytes:,} bytes {word}"
            click.echo(f"{one.dt}T{one.hr}:00Z generation {one.generation}: {what}")
        if not done.expired and not done.refused:
            click.echo("nothing to expire: no compacted hour that is old enough has segments")
        for finding in done.refused:
            click.echo(f"REFUSED ({finding.kind}): {_printable(finding.message)}")
    if done.refused:
        ctx.exit(1)


def _show(verdict: "Verdict") -> None:
    from rich.table import Table
    from rich.text import Text

    from gateway.wording import usd

    console = options.console()
    if verdict.findings:
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        table.add_column("", no_wrap=True)
        table.add_column("kind", no_wrap=True)
        table.add_column("what", overflow="fold")
        for finding in verdict.findings[:FINDINGS_MAX]:
            word, style = ("FAULT", "red") if finding.is_fault else ("note", "yellow")
            table.add_row(Text(word, style=style), Text(finding.kind), Text(_printable(finding.message)))
        console.print(table)
        if len(verdict.findings) > FINDINGS_MAX:
            click.echo(f"... and {len(verdict.findings) - FINDINGS_MAX:,} more; --format json lists them all")
    click.echo(
        f"{verdict.segments:,} segments of {verdict.lives:,} container lives, {verdict.requests:,} requests: "
        f"${usd(verdict.charged_picousd)} posted + ${usd(verdict.unattributed_picousd)} unattributed"
    )
    if verdict.expired:
        click.echo(
            f"{verdict.expired:,} of the segments have expired: their hours' compacted files, which hold them, were read"
        )
    if verdict.corrected_picousd:
        sign = "-" if verdict.corrected_picousd < 0 else "+"
        click.echo(f"{sign} ${usd(abs(verdict.corrected_picousd))} corrected by the provider's bills")
    click.echo(f"{len(verdict.faults):,} faults" if verdict.faults else "the ledger is whole")


def _printable(text: str) -> str:
    """Keys and names come from a bucket that others may write to: no control characters reach the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
