"""`steelyard runs`: what training runs there are, how they go, what they cost; stop one, or let it go on."""

import os
import shlex
import time
from typing import TYPE_CHECKING, Any  # Any: a decision is whatever another part of the product stored

import click

from trainers.runs import options

if TYPE_CHECKING:
    from gateway.contract.runs import MetricLine
    from gateway.objectstore.protocol import ObjectStore
    from trainers.runs.reading import RunView
    from trainers.runs.runview import Details

FOLLOW_S = 2.0
"""Between two looks at a run that goes on; its segments come every 15 s."""

METRICS_SEGMENTS_MAX = 4  # the last minute or so has the newest value of everything that is still measured


@click.group
def runs() -> None:
    """List training runs, show what they did and cost, read their logs, cancel and resume them."""


@runs.command("list")
@options.store
@options.form
@click.pass_context
def listing(ctx: click.Context, store: str, form: str) -> None:
    """Every run, the newest first: its state, attempts, cost, and how much of that was in vain.

    Exit code 1 says that a run's records cannot be read; it is in no sum.
    """
    from trainers.runs import reading, runview

    (views, problems), now_ns = options.with_store(store, reading.every), time.time_ns()
    if form == "json":
        click.echo(runview.dumped([runview.as_json(view, now_ns) for view in views]))
    elif views:
        runview.listing(options.console(), views, now_ns)
    elif not problems:
        click.echo(f"no runs in {store}; try: steelyard train flights --store {store}")
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    ctx.exit(1 if problems else 0)


@runs.command
@click.argument("run")
@options.store
@options.form
def show(run: str, store: str, form: str) -> None:
    """One run: every attempt with its machine and price, stages done, newest metrics, the decision, the cost."""
    from trainers.runs import runview

    shown, now_ns = options.with_store(store, lambda opened: _details(opened, run)), time.time_ns()
    if form == "json":
        click.echo(runview.dumped(runview.as_json(shown.view, now_ns, shown)))
    else:
        runview.details(options.console(), shown, now_ns)


@runs.command
@click.argument("run")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt only.  [default: all]")
@click.option("--follow", is_flag=True, help="Go on until the run is over.")
@options.store
def logs(run: str, attempt: int | None, follow: bool, store: str) -> None:
    """What a run's attempts logged, the oldest line first."""
    options.with_store(store, lambda opened: _logs(opened, run, attempt, follow))


@runs.command
@click.argument("run")
@click.option("--reason", default="", help="Why, for whoever asks later.")
@options.store
def cancel(run: str, reason: str, store: str) -> None:
    """Ask a run to stop at the next heartbeat and not to be tried again. Its checkpoints stay; `resume` takes it back."""
    click.echo(options.with_store(store, lambda opened: _cancel(opened, run, reason)))


@runs.command
@click.argument("run")
@click.option("--take-over", is_flag=True, help="Also when it seems to be running; its attempt is then fenced.")
@click.option("--print", "is_printed", is_flag=True, help="Only print the command that goes on with it.")
@options.store
def resume(run: str, take_over: bool, is_printed: bool, store: str) -> None:
    """Go on with a run that was stopped, lost or cancelled: at the first stage that is missing, from its last checkpoint."""
    from trainers.runs import resuming

    found = options.with_store(store, lambda opened: resuming.resumable(opened, run, take_over=take_over))
    click.echo(shlex.join(["steelyard", *found.command, "--store", store]))
    if not is_printed:
        argv = found.argv(store)
        os.execv(argv[0], argv)  # noqa: S606 - no shell, and the first word is this Python


async def _details(store: "ObjectStore", run_id: str) -> "Details":
    import msgspec

    from gateway.contract import layout
    from gateway.errors import ObjectNotFound
    from trainers.runs import reading
    from trainers.runs.runview import Details

    view = await reading.one(store, run_id)
    decision: dict[str, Any] | None = None
    try:
        decision = msgspec.json.decode((await store.get(layout.decision(run_id))).body, type=dict[str, Any])
    except ObjectNotFound:
        pass
    except msgspec.DecodeError as error:
        decision = {"decision": f"unreadable ({error})"}
    stages = await reading.stages(store, run_id)
    return Details(view, tuple(stages), tuple(await _metrics(store, run_id)), decision)


async def _metrics(store: "ObjectStore", run_id: str) -> "list[MetricLine]":
    """The newest lines. A line that cannot be read is passed over: nobody's money is in it."""
    import msgspec

    from gateway.contract import layout
    from gateway.contract.runs import MetricLine

    decoder = msgspec.json.Decoder(MetricLine)
    keys = [info.key async for info in store.list(layout.metrics(run_id))]
    lines = []
    for key in keys[-METRICS_SEGMENTS_MAX:]:
        for text in (await store.get(key)).body.splitlines():
            try:
                lines.append(decoder.decode(text))
            except msgspec.DecodeError:
                continue
    return lines


async def _logs(store: "ObjectStore", run_id: str, attempt: int | None, is_followed: bool) -> None:
    import asyncio

    from gateway.contract import layout
    from trainers.errors import SpecError
    from trainers.runs import reading

    view = await reading.one(store, run_id)
    numbers = [tried.attempt.attempt for tried in view.tried]
    if attempt is not None and attempt not in numbers:
        raise SpecError(f"run '{run_id}' has no attempt {attempt}; there are: {', '.join(map(str, numbers)) or 'none'}")
    prefix, last = layout.logs(run_id, attempt), ""
    while True:
        is_over = not is_followed or _is_over(view, attempt)  # before the lines: what is written later is not missed
        async for info in store.list(prefix, start_after=last):
            last = info.key
            _echo((await store.get(last)).body, last if attempt is None else "")
        if is_over:
            break
        await asyncio.sleep(FOLLOW_S)
        view = await reading.one(store, run_id)
    if not last and not is_followed:
        click.echo(
            f"run '{run_id}' has logged nothing{'' if attempt is None else f' in attempt {attempt}'} yet", err=True
        )


def _is_over(view: "RunView", attempt: int | None) -> bool:
    """Whether nothing more will be logged: the run is not running, or this attempt is not the one that does."""
    from trainers.runs import reading

    if attempt is not None and view.tried[-1].attempt.attempt != attempt:
        return True
    return reading.state(view, time.time_ns()) not in {*reading.RUNNING, "waiting"}


def _echo(body: bytes, key: str) -> None:
    """A segment's lines, each with its attempt's number where they are mixed."""
    from trainers.runs.runview import printable

    number = int(key.rpartition("/")[2].partition("-")[0]) if key else 0
    for line in body.decode(errors="replace").splitlines():
        click.echo(f"{number}  {printable(line)}" if number else printable(line))


async def _cancel(store: "ObjectStore", run_id: str, reason: str) -> str:
    from gateway.contract.runs import Cancellation
    from gateway.whoami import user_name
    from gateway.wording import moment
    from trainers.runs import reading, records

    view = await reading.one(store, run_id)
    now_ns = time.time_ns()
    state = reading.state(view, now_ns)
    if state in {"done", "cancelled"}:
        return f"run '{run_id}' is over already: {state} since {moment(reading.seen_ns(view))}"
    asked = Cancellation(run_id=run_id, actor=user_name(), reason=reason, requested_ns=now_ns)
    stored = await records.cancel(store, asked)
    if stored != asked:
        return f"run '{run_id}' was cancelled already, by {stored.actor} at {moment(stored.requested_ns)}"
    if state in reading.RUNNING:
        wait_s = reading.interval_ns(view) // 10**9
        return f"run '{run_id}' is cancelled: attempt {view.tried[-1].attempt.attempt} hears of it within {wait_s} s"
    if state == "lost":
        await records.settle_attempts(store, view.run)
    return f"run '{run_id}' is cancelled: it is {state}, and no attempt will go on with it"
