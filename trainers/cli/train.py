"""The `train` command: from options, a job's file or a launcher's environment to one job spec, and to where it shall run.

Runs nothing itself: `trainers.cli.inprocess` does here, `trainers.launch` elsewhere. torch is imported when a run starts, so that
`steelyard --help` does not pay for it.
"""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from trainers import exits
from trainers.cli import processes
from trainers.cli.here import Here
from trainers.doors import errors_as_lines
from trainers.errors import Preempted, SpecError
from trainers.launch import commands, environment
from trainers.launch.environment import Assignment, Launcher
from trainers.runs.options import DEFAULT_STORE
from trainers.runs.options import store as store_option
from trainers.spec.jobspec import JobSpec


@click.command
@click.argument("recipe", required=False)
@store_option
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="A parameter of the recipe; may be repeated.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many, instead of the recipe's.")
@click.option(
    "--promote",
    type=click.Choice(["champion", "challenger", "none"]),
    help="Alias that answers with the result if it passes.  [default: champion]",
)
@commands.on_option
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Where to train.  [default: a GPU where there is one]"
)
@click.option(
    "--processes",
    "count",
    type=click.IntRange(min=1),
    help="Train in so many processes of this machine, each with a GPU of its own.  [default: one]",
)
@click.option("--priced-as", metavar="SKU", help="Machine type in the price book.  [default on a CPU: c7i.large]")
@click.option(
    "--max-cost",
    "max_cost_usd",
    type=click.FloatRange(min=0, min_open=True),
    metavar="USD",
    help="End training when the run has cost so much; keep the best so far.",
)
@click.option("--run-id", help="Name of the run; the same name again goes on with that run.")
@click.option(
    "--strict-resume/--no-strict-resume",
    default=None,
    help="Refuse to go on on another kind of machine, where the weights would become others.  [default: strict]",
)
@click.option(
    "--checkpoint-every", metavar="TIME", help="Such as 5m.  [default: auto, by what a save takes: 30s to 15m]"
)
@click.option("--grace", metavar="TIME", help="From SIGTERM to the kill: a save must fit in.  [default: 110s]")
@click.option(
    "--sign-key",
    envvar="STEELYARD_SIGN_KEY",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Sign the version with this EC P-256 key (PEM); passphrase in STEELYARD_SIGN_PASSPHRASE.  [env: STEELYARD_SIGN_KEY]",
)
@click.option("--quiet", is_flag=True, help="Print only the published version.")
@click.pass_context
def train(
    ctx: click.Context,
    recipe: str | None,
    store: str,
    given: tuple[str, ...],
    seed: int | None,
    epochs: int | None,
    promote: str | None,
    on: Launcher,
    device: str | None,
    count: int | None,
    priced_as: str | None,
    max_cost_usd: float | None,
    run_id: str | None,
    strict_resume: bool | None,
    checkpoint_every: str | None,
    grace: str | None,
    sign_key: Path | None,
    quiet: bool,
) -> None:
    """Train RECIPE, quantize it, keep what is measurably better, publish it.

    RECIPE is one that ships here (flights, mnist5k, appliances, newsgroups), a function of your own ('package.module:function'), or
    a job.toml. Without a GPU it trains on the CPU. A run that was interrupted goes on where it stopped when it is asked for again
    by its run id.

    \b
    Exit codes: 0 done, 64 bad spec, 65 bad data, 66 bad model, 70 defect,
    73 budget reached, 75 try again, 143 stopped after a saved checkpoint.
    """
    options = _parameters(given, seed, epochs) | {
        "promote.to": promote,
        "limits.max_cost_usd": max_cost_usd,
        "checkpoint.strict_resume": strict_resume,
        "checkpoint.every": checkpoint_every,
        "checkpoint.grace": grace,
    }
    is_debug = bool(ctx.obj and ctx.obj.get("debug"))
    if not {"", str(Path.cwd())} & set(sys.path):  # `python -m` looks there for recipes; the console script does not
        sys.path.append(str(Path.cwd()))
    with errors_as_lines(is_debug=is_debug):
        assigned = environment.current()
        spec = assigned.spec if assigned and recipe is None else _spec(recipe, options)
        here = Here(
            store=assigned.store if assigned and store == DEFAULT_STORE else store,
            run_id=run_id or (assigned.run_id if assigned else environment.new_run_id(spec.name, datetime.now(UTC))),
            device=device,
            priced_as=priced_as,
            sign_key=sign_key,
            is_quiet=quiet,
        )
        if on != "local":
            sys.exit(commands.show(commands.launch(spec, on=on, store=store, run_id=run_id), on=on))
        sys.exit(_here(spec, here, assigned, count or max(1, spec.resources.gpu)))


def _here(spec: JobSpec, here: Here, assigned: Assignment | None, count: int) -> int:
    """Run it in this process, or in several of this machine; returns the exit code."""
    if count > 1 and not processes.is_one_of_many():
        launcher = assigned.launcher if assigned else "local"
        told = {environment.RUN_ID: here.run_id, environment.STORE: here.store}  # without them it is no assignment
        code = processes.run(count, _arguments(here), environment.written(spec, launcher=launcher) | told)
        if code == exits.STOPPED and assigned is None:
            _say_how_to_go_on(here)
        return code
    from trainers.cli import inprocess

    try:
        return inprocess.run(spec, here, assigned)
    except Preempted:
        if assigned is None:  # a launcher tries again by itself
            _say_how_to_go_on(here)
        raise


def _say_how_to_go_on(here: Here) -> None:
    click.echo(
        f"go on with: {shlex.join(['steelyard', 'runs', 'resume', here.run_id, '--store', here.store])}", err=True
    )


def _arguments(here: Here) -> list[str]:
    given = {"--store": here.store, "--run-id": here.run_id, "--device": here.device, "--priced-as": here.priced_as}
    given["--sign-key"] = None if here.sign_key is None else str(here.sign_key)
    words = [word for name, value in given.items() if value is not None for word in (name, value)]
    return words + (["--quiet"] if here.is_quiet else [])


def _spec(recipe: str | None, options: dict[str, object]) -> JobSpec:
    if recipe is None:
        raise SpecError("train what? name a recipe, such as flights, or a job.toml; see steelyard train --help")
    return commands.spec_of(recipe, options)


def _parameters(given: tuple[str, ...], seed: int | None, epochs: int | None) -> dict[str, object]:
    """Dotted options of the spec. A value is text until the recipe says what its parameter is."""
    found: dict[str, object] = {"params.seed": seed, "params.epochs": epochs}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, not '{text}'")
        found[f"params.{name}"] = value
    return found
