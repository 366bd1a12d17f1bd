"""`steelyard keys`: who may call the gateways of a store, and how much."""

import time
from decimal import Decimal, InvalidOperation, Overflow

import click

from gateway import wording
from gateway.access import issuing, tokens
from gateway.cli import keyview, options
from gateway.cli.costs import moment
from gateway.contract.access import NOTE_LENGTH_MAX, RIGHTS, ModelPattern
from gateway.contract.prices import PICO_PER_USD
from gateway.contract.words import NAME_RULE, fits, is_name
from gateway.whoami import user_name

COUNT = click.IntRange(1, 1_000_000_000)
"""Of requests: more than any gateway answers, and few enough to be stored as a number."""


def picousd(text: str) -> int:
    """Dollars as whole pico-dollars, exact."""
    try:
        amount = Decimal(text) * PICO_PER_USD
        is_in_range = 1 <= amount <= 10**9 * PICO_PER_USD
    except (InvalidOperation, Overflow) as error:
        raise click.BadParameter(f"'{text}' is not an amount of dollars, such as 2.50") from error
    if not is_in_range or amount != int(amount):
        raise click.BadParameter(
            f"'{text}' is not between 0.000000000001 and 1000000000 dollars, in steps of the first"
        )
    return int(amount)


def tenant_name(text: str) -> str:
    """Cost reports and metrics show it, so it is as plain as a model's."""
    if not is_name(text):
        raise click.BadParameter(f"{text!r} must be {NAME_RULE}")
    return text


def model_globs(text: str) -> tuple[str, ...]:
    """`a,b*` as two names, in which `*` stands for any characters."""
    globs = _words(text)
    if not globs:
        raise click.BadParameter("name one or more; '*' allows all of them")
    for glob in globs:
        if not fits(glob, ModelPattern):
            raise click.BadParameter(f"{glob!r} must be {NAME_RULE}; '*' stands for any characters")
    return globs


def rights_of(text: str) -> tuple[str, ...]:
    """`a,b` as two rights."""
    rights = _words(text)
    if not rights:
        raise click.BadParameter(f"name one or more of {', '.join(RIGHTS)}")
    for right in rights:
        if right not in RIGHTS:
            raise click.BadParameter(f"{right!r} is none of {', '.join(RIGHTS)}")
        if rights.count(right) > 1:
            raise click.BadParameter(f"{right!r} is named twice")
    return rights


def short_note(text: str) -> str:
    if len(text) > NOTE_LENGTH_MAX:
        raise click.BadParameter(f"it has {len(text):,} characters; at most {NOTE_LENGTH_MAX}")
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def id_inside(text: str) -> str:
    """The id, or that of a whole key. What is neither may be a mangled key, and is not repeated."""
    key_id = tokens.key_id(text) or text
    if not tokens.is_id(key_id):
        raise click.BadParameter("this is neither an id as `steelyard keys list` shows them nor a whole key")
    return key_id


@click.group
def keys() -> None:
    """Create, list and revoke the keys that callers of a gateway need."""


@keys.command
@options.store
@click.option(
    "--tenant", type=tenant_name, required=True, metavar="NAME", help="Whose key: the name that cost reports show."
)
@click.option(
    "--models",
    type=model_globs,
    default="*",
    show_default=True,
    metavar="A,B",
    help="Models it may call; * in a name is a glob.",
)
@click.option(
    "--rights",
    type=rights_of,
    default="predict",
    show_default=True,
    metavar="A,B",
    help=f"Of {', '.join(RIGHTS)}.",
)
@click.option("--budget-usd-per-day", type=picousd, metavar="USD", help="Direct costs per UTC day, over all gateways.")
@click.option("--rps", type=COUNT, metavar="N", help="Requests per second, in each gateway.")
@click.option("--burst", type=COUNT, metavar="N", help="Requests at once after a pause.  [default: --rps]")
@click.option("--concurrency", type=COUNT, metavar="N", help="Requests in flight, in each gateway.")
@click.option("--expires", type=moment, metavar="TIME", help="First moment it is refused, UTC: 2027-01-01.")
@click.option("--note", type=short_note, default="", metavar="TEXT", help="For whoever reads the list.")
@click.option("--json", "as_json", is_flag=True, help="Print the key and its record as JSON.")
def add(
    store: str,
    tenant: str,
    models: tuple[str, ...],
    rights: tuple[str, ...],
    budget_usd_per_day: int | None,
    rps: int | None,
    burst: int | None,
    concurrency: int | None,
    expires: int | None,
    note: str,
    as_json: bool,
) -> None:
    """Create a key and print it, this once.

    The key alone goes to stdout: KEY=$(steelyard keys add --tenant search --rps 50). Running gateways know it within seconds.
    """
    if burst and not rps:
        raise click.UsageError("--burst needs --rps")
    now_ns = time.time_ns()
    if expires is not None and expires <= now_ns:
        raise click.UsageError("--expires is in the past")
    wanted = {
        "tenant": tenant,
        "rights": rights,
        "models": models,
        "created_ns": now_ns,
        "created_by": user_name(),
        "budget_picousd_per_day": budget_usd_per_day,
        "rps": rps,
        "burst": burst,
        "concurrency": concurrency,
        "expires_ns": expires,
        "note": note,
    }
    token, record = issuing.new(wanted)
    options.with_store(store, lambda opened: issuing.add(opened, record), create=True)
    if as_json:
        click.echo(keyview.as_json(record, now_ns, key=token))
    else:
        click.echo(token)
        click.echo(
            f"key {record.id} for {tenant} ({keyview.summary(record)}); it is not stored and cannot be shown again",
            err=True,
        )


@keys.command("list")
@options.store
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects.")
@click.pass_context
def listing(ctx: click.Context, store: str, as_json: bool) -> None:
    """Every key: tenant, rights, models, limits, and whether it counts. Never a secret.

    Exit code 1 says that a record cannot be read; gateways do not use such a key.
    """
    found = options.with_store(store, issuing.listing)
    records, now_ns = [row.record for row in found if row.record], time.time_ns()
    if as_json:
        click.echo("[" + ",\n ".join(keyview.as_json(record, now_ns) for record in records) + "]")
    elif records:
        for line in keyview.table(records, now_ns):
            click.echo(line)
    elif not found:
        click.echo(f"no keys in {store}; try: steelyard keys add --tenant NAME --store {store}")
    problems = [row.problem for row in found if row.record is None]
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    ctx.exit(1 if problems else 0)


@keys.command
@click.argument("key_id", metavar="ID", type=id_inside)
@options.store
def revoke(key_id: str, store: str) -> None:
    """Refuse a key from now on, in running gateways within seconds. Its record stays for whoever asks later.

    ID is what `keys list` shows; a whole key that was found somewhere will do as well.
    """
    at_ns, by = time.time_ns(), user_name()
    record, is_new = options.with_store(store, lambda opened: issuing.revoke(opened, key_id, at_ns=at_ns, by=by))
    assert record.revoked_ns is not None
    when = "" if is_new else f" already, at {wording.moment(record.revoked_ns)} by {record.revoked_by}"
    click.echo(f"key {record.id} of {record.tenant} is revoked{when}")
