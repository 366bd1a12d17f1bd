"""The `train` command: reads options, shows progress and the result, and turns errors into one line and an exit code.

Runs nothing itself: `trainers.run` does. torch is imported when a run starts, so that `steelyard --help` does not pay for it.
"""

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console

from gateway.contract.prices import PICO_PER_USD
from gateway.objectstore.opening import open_store
from gateway.whoami import user_name
from trainers import exits
from trainers.cli import processes
from trainers.cli.bars import Bars
from trainers.cli.doors import errors_as_lines
from trainers.errors import SpecError

if TYPE_CHECKING:
    from trainers.job import TrainJob
    from trainers.run import Result, Run
    from trainers.safety import Safety
    from trainers.signing import Signer

RUNS = Path(".steelyard/runs")


class Asked(msgspec.Struct, frozen=True):
    """The command line."""

    recipe: str
    store: str
    promote: str
    seed: int | None
    epochs: int | None
    priced_as: str | None
    run_id: str
    device: str | None
    max_cost_usd: str | None
    strict_resume: bool
    checkpoint_every_s: float | None
    grace_s: float | None
    sign_key: Path | None
    quiet: bool

    @property
    def again(self) -> tuple[str, ...]:
        """The options that ask for the same run again, whoever does and from wherever."""
        given = {
            "--promote": self.promote,
            "--seed": self.seed,
            "--epochs": self.epochs,
            "--priced-as": self.priced_as,
            "--device": self.device,
            "--max-cost": self.max_cost_usd,
        }
        return tuple(word for name, value in given.items() if value is not None for word in (name, str(value)))


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
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Where to train.  [default: a GPU where there is one]"
)
@click.option(
    "--processes",
    "count",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train in so many processes of this machine, each with a GPU of its own.",
)
@click.option("--priced-as", metavar="SKU", help="Machine type in the price book.  [default on a CPU: c7i.large]")
@click.option(
    "--max-cost",
    "max_cost_usd",
    metavar="USD",
    help="End training when the run has cost so much; keep the best so far.",
)
@click.option("--run-id", envvar="STEELYARD_RUN_ID", help="Name of the run; the same name again goes on with that run.")
@click.option(
    "--strict-resume/--no-strict-resume",
    default=True,
    show_default=True,
    help="Refuse to go on on another kind of machine, where the weights would become others.",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time between checkpoints.  [default: by what a save takes, 30 s to 15 min]",
)
@click.option("--grace", "grace_s", type=click.FloatRange(min=0), metavar="SECONDS", help="From SIGTERM to the kill.")
@click.option(
    "--sign-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Sign the version with this EC P-256 key (PEM); passphrase in STEELYARD_SIGN_PASSPHRASE.",
)
@click.option("--quiet", is_flag=True, help="Print only the published version.")
@click.pass_context
def train(
    ctx: click.Context,
    recipe: str,
    store: str,
    promote: str,
    seed: int | None,
    epochs: int | None,
    device: str | None,
    count: int,
    priced_as: str | None,
    max_cost_usd: str | None,
    run_id: str | None,
    strict_resume: bool,
    checkpoint_every: float | None,
    grace_s: float | None,
    sign_key: Path | None,
    quiet: bool,
) -> None:
    """Train RECIPE, quantize it, keep what is measurably better, publish it.

    RECIPE is 'flights', or a function of your own as 'package.module:function'. Without a GPU it trains on the CPU. A run that was
    interrupted goes on where it stopped when it is asked for again by its run id.

    \b
    Exit codes: 0 done, 64 bad spec, 65 bad data, 66 bad model, 70 defect,
    73 budget reached, 75 try again, 143 stopped after a saved checkpoint.
    """
    is_debug = bool(ctx.obj and ctx.obj.get("debug"))
    asked = Asked(
        recipe=recipe,
        store=store,
        promote=promote,
        seed=seed,
        epochs=epochs,
        priced_as=priced_as,
        run_id=run_id or "",
        device=device,
        max_cost_usd=max_cost_usd,
        strict_resume=strict_resume,
        checkpoint_every_s=checkpoint_every,
        grace_s=grace_s,
        sign_key=sign_key,
        quiet=quiet,
    )
    if count > 1 and not processes.is_one_of_many():
        sys.exit(_in_processes(count, asked, is_debug=is_debug))
    with errors_as_lines(is_debug=is_debug):
        result = _train(asked)
    if result is None:
        return
    from trainers import summary

    summary.show(Console(), result, is_quiet=quiet)
    if result.is_cut_short:
        sys.exit(exits.BUDGET)


def _train(asked: Asked) -> "Result | None":
    """None in every process but the first."""
    from trainers.recipes import registry

    job = registry.job(asked.recipe).fitted_with(seed=asked.seed, epochs=asked.epochs)
    # A second more of imports, which a misspelt recipe need not wait for.
    from trainers.fit import device as places
    from trainers.fit.world import World, joined
    from trainers.run import follow, run

    spec = _spec(asked, job)

    async def opened(world: World) -> "Result":
        async with contextlib.aclosing(open_store(asked.store, create=True)) as store:
            with Bars(is_shown=not asked.quiet) as bars, _told_on_stderr():
                return await run(job, spec, store, bars, world)

    with joined(places.choose(asked.device)) as world:
        if world.is_first:
            return asyncio.run(opened(world))
        follow(job, asked.device, world)
        return None


def _spec(asked: Asked, job: "TrainJob") -> "Run":
    from trainers.run import Run

    run_id = asked.run_id or _new_run_id(job.model)
    return Run(
        recipe=asked.recipe,
        run_id=run_id,
        folder=RUNS / run_id,
        actor=user_name(),
        promote_to=None if asked.promote == "none" else asked.promote,
        priced_as=asked.priced_as,
        device=asked.device,
        safety=_safety(asked),
        max_cost_picousd=_picousd(asked.max_cost_usd),
        signer=_signer(asked.sign_key),
        arguments=asked.again,
    )


def _safety(asked: Asked) -> "Safety":
    from trainers.checkpoint.interval import DEFAULT, Interval
    from trainers.safety import Safety

    every_s = asked.checkpoint_every_s
    interval = DEFAULT if every_s is None else Interval(min_s=every_s, max_s=every_s)
    return Safety(interval=interval, strict_resume=asked.strict_resume, grace_s=asked.grace_s)


def _signer(key: Path | None) -> "Signer | None":
    """Read now: a key that cannot sign should not be found out after hours of training."""
    if key is None:
        return None
    from trainers import signing

    return signing.signer(key)


def _new_run_id(model: str) -> str:
    return f"{model}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _picousd(usd: str | None) -> int | None:
    if usd is None:
        return None
    try:
        picousd = round(Fraction(usd) * PICO_PER_USD)
    except (ValueError, ZeroDivisionError):
        picousd = 0
    if picousd <= 0:
        raise SpecError(f"--max-cost '{usd}' must be an amount in USD above 0, such as 2.50")
    return picousd


def _in_processes(count: int, asked: Asked, *, is_debug: bool) -> int:
    """The same command in so many processes, under one run id."""
    with errors_as_lines(is_debug=is_debug):
        from trainers.recipes import registry

        model = registry.job(asked.recipe).model
    arguments = [asked.recipe, "--store", asked.store, "--run-id", asked.run_id or _new_run_id(model), *asked.again]
    arguments += [] if asked.strict_resume else ["--no-strict-resume"]
    arguments += [] if asked.checkpoint_every_s is None else ["--checkpoint-every", str(asked.checkpoint_every_s)]
    arguments += [] if asked.sign_key is None else ["--sign-key", str(asked.sign_key)]
    arguments += [] if asked.grace_s is None else ["--grace", str(asked.grace_s)]
    return processes.run(count, arguments + (["--quiet"] if asked.quiet else []))


@contextlib.contextmanager
def _told_on_stderr() -> Iterator[None]:
    """What a run wants people to know: where it goes on, which save failed."""
    logger = logging.getLogger("trainers")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
