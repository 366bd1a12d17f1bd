"""`steelyard drift`: what callers send now against what the model was trained on, and whether it is time to train again.

Reads counts that gateways left in the store; no gateway has to run. numpy and scipy are imported when it runs.
"""

import asyncio
import contextlib
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from gateway.objectstore.opening import open_store
from trainers import exits
from trainers.errors import DataError
from trainers.runs.options import store as store_option

if TYPE_CHECKING:
    from trainers.drift.estimate import Estimate
    from trainers.drift.trigger import Rule, Verdict

DRIFTED = 3
"""Of `--exit-code`; every failure has another code, so that a cron job never trains because the store was away."""

_UNITS_S = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"([1-9]\d{0,3})([hdw])")
WINDOWS_MAX = 1000


def span(text: str) -> int:
    """`12h`, `1d`, `2w` as nanoseconds; an hour is what gateways keep apart for certain."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"'{text}' is not a length of time such as 6h, 1d or 2w")
    return int(found[1]) * _UNITS_S[found[2]] * 10**9


def moment(text: str) -> int:
    """An ISO date or time as nanoseconds since the epoch; UTC unless it says otherwise."""
    try:
        parsed = datetime.fromisoformat(text)
        seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"'{text}' is not an ISO date or time, such as 2026-11-05T14:30:00Z") from error
    if not 0 <= seconds < 200 * 365 * 86_400:
        raise click.BadParameter(f"'{text}' is not between 1970 and 2169")
    return round(seconds) * 10**9


@click.command
@click.argument("model")
@store_option
@click.option("--version", default="champion", show_default=True, help="A version's number, or an alias.")
@click.option("--since", type=moment, metavar="TIME", help="Not before this moment, UTC.  [default: n windows]")
@click.option("--until", type=moment, metavar="TIME", help="Moment after the last, UTC.  [default: now]")
@click.option(
    "--window",
    type=span,
    default="1w",
    show_default=True,
    metavar="SPAN",
    help="Rows judged together, in whole weeks best.",
)
@click.option("-k", type=click.IntRange(1, WINDOWS_MAX), default=2, show_default=True, help="Windows that must agree,")
@click.option("-n", type=click.IntRange(1, WINDOWS_MAX), default=3, show_default=True, help="of the last so many.")
@click.option("--rows-min", type=click.IntRange(1), default=500, show_default=True, help="Fewer rows are not judged.")
@click.option(
    "--alpha", type=click.FloatRange(0, 1, True, True), default=0.01, show_default=True,
    help="Share of false discoveries among the columns called different.",
)  # fmt: skip
@click.option(
    "--psi-min", type=click.FloatRange(0), default=0.2, show_default=True, help="A smaller difference is none."
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--exit-code", is_flag=True, help="Exit 3 when there is drift.")
@click.pass_context
def drift(
    ctx: click.Context,
    model: str,
    store: str,
    version: str,
    since: int | None,
    until: int | None,
    window: int,
    k: int,
    n: int,
    rows_min: int,
    alpha: float,
    psi_min: float,
    form: str,
    exit_code: bool,
) -> None:
    """Whether the rows that MODEL is asked about still look like those it was trained on.

    A column counts when chance does not explain its difference, when it is large, and when k of the last n windows say so. Too few
    rows are never drift. In a cron job (`||` would train after every error too):

    \b
        steelyard drift flights --exit-code; [ $? -eq 3 ] && steelyard train flights
    """
    from trainers.drift.trigger import Rule

    if k > n:
        raise click.UsageError(f"-k is {k}, and only -n {n} windows are looked at")
    until_ns = time.time_ns() if until is None else until
    count = n if since is None else min(WINDOWS_MAX, (until_ns - since) // window)
    if count < 1:
        raise click.UsageError("no whole --window fits between --since and --until")
    rule = Rule(rows_min=rows_min, alpha=alpha, psi_min=psi_min, k=k, n=n)
    try:
        whose, verdict, estimate = asyncio.run(_judge(store, model, version, until_ns, window, count, rule))
    except DataError as error:
        line = click.ClickException(str(error))
        setattr(line, "exit_code", exits.code_of(error))  # noqa: B010  # click declares it for the class
        raise line from error
    if form == "json":
        click.echo(_json(whose, verdict, estimate))
    else:
        from rich.console import Console

        from trainers.drift import view

        width = None if sys.stdout.isatty() else 1000  # in a pipe nothing needs to fit
        view.show(Console(highlight=False, width=width), whose, verdict, estimate)
    if exit_code and verdict.is_drifted:
        ctx.exit(DRIFTED)


async def _judge(
    url: str, model: str, version: str, until_ns: int, window_ns: int, count: int, rule: "Rule"
) -> "tuple[str, Verdict, Estimate | None]":
    """Whose rows they are, what is to be thought of them, and how well the model is expected to do on the last that were judged."""
    from trainers.drift import estimate, trigger, windows

    async with contextlib.aclosing(open_store(url)) as store:
        of = await windows.profiled(store, model, version)
        found = await windows.read(store, of, until_ns=until_ns, window_ns=window_ns, count=count)
    verdict = trigger.decide(of.profile, found, rule)
    enough = [window for window in found if window.rows >= rule.rows_min]
    expected = estimate.estimate(of.profile, enough[-1]) if enough else None
    return f"{of.model}@{of.version}", verdict, expected


def _json(whose: str, verdict: "Verdict", estimate: "Estimate | None") -> str:
    whole = {"model": whose, "verdict": verdict, "estimate": estimate}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()
